package forward

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// A table of iptables-legacy is one run of bytes: entries (struct ipt_entry,
// ip6t_entry), each with its matches and its target, that name one another by their
// offsets (linux/netfilter/x_tables.h, linux/netfilter_ipv4/ip_tables.h). Numbers are
// in the machine's byte order, and aligned as in a C program of 64 bits.
const (
	hooks = 5 // NF_INET_NUMHOOKS

	partBytes    = 32 // struct xt_entry_match and xt_entry_target: size, name, revision
	partName     = 2
	nameBytes    = 29
	verdictBytes = 8 // of a standard target, with padding
	commentBytes = 256
	counterBytes = 16 // struct xt_counters

	// verdicts of standard targets; 0 and above are offsets to jump to.
	legacyDrop   = -nfDrop - 1
	legacyAccept = -nfAccept - 1
	legacyReturn = -5 // XT_RETURN
)

// layout says where things are in an entry of a family.
type layout struct {
	ipBytes  int // what is matched of the packet's header, from 0
	links    int // incoming and outgoing name, and the masks of both: 16 bytes each
	flags    int
	gotoFlag byte
	target   int // offset of the target, and behind it of the next entry
	counters int
	bytes    int // without matches and target
	level    int // of socket options
	family   int
	names    string // in /proc/thread-self/net: the tables that there are
	public   string
}

func layouts() []layout {
	return []layout{
		{84, 16, 82, 2, 88, 96, 112, unix.SOL_IP, unix.AF_INET, "ip_tables_names", "ip"},
		{133, 64, 131, 4, 140, 152, 168, unix.SOL_IPV6, unix.AF_INET6, "ip6_tables_names", "ip6"},
	}
}

// entry is one entry of a legacy table.
type entry struct {
	at    uint32 // its offset
	index int    // among the entries; -1: new
	b     []byte
}

// legacy is a table of iptables-legacy. The bytes of its entries are not modified.
type legacy struct {
	layout
	validHooks uint32
	begin, end [hooks]uint32 // of each hook: the first entry, and the one with the policy
	entries    []entry
	byOffset   map[uint32]int
	bytes      []byte
}

var errMalformed = errors.New("the table is malformed")

// parseLegacy cuts a table into its entries.
func parseLegacy(l layout, validHooks uint32, begin, end [hooks]uint32, b []byte) (*legacy, error) {
	t := &legacy{layout: l, validHooks: validHooks, begin: begin, end: end, byOffset: map[uint32]int{}, bytes: b}
	for at := 0; at < len(b); {
		rest := b[at:]
		if len(rest) < l.bytes {
			return nil, errMalformed
		}
		target, next := int(netlink.Native.Uint16(rest[l.target:])), int(netlink.Native.Uint16(rest[l.target+2:]))
		if target < l.bytes || next < target+partBytes || next > len(rest) || next%8 != 0 {
			return nil, errMalformed
		}
		t.byOffset[uint32(at)] = len(t.entries)
		t.entries = append(t.entries, entry{uint32(at), len(t.entries), rest[:next:next]})
		at += next
	}
	for h := range hooks {
		_, begins := t.byOffset[begin[h]]
		_, ends := t.byOffset[end[h]]
		if validHooks&(1<<h) != 0 && (!begins || !ends || begin[h] > end[h]) {
			return nil, errMalformed
		}
	}
	if validHooks&(1<<unix.NF_INET_FORWARD) == 0 {
		return nil, errMalformed
	}
	return t, nil
}

// forward is the rules of the FORWARD chain, and whether its policy is to drop.
func (t *legacy) forward() (rules []rule, policyDrops bool) {
	first, policy := t.byOffset[t.begin[unix.NF_INET_FORWARD]], t.byOffset[t.end[unix.NF_INET_FORWARD]]
	for _, e := range t.entries[first:policy] {
		rules = append(rules, t.rule(e))
	}
	return rules, t.rule(t.entries[policy]).action == drops
}

// chain is the rules from an offset on, to the end of the chain.
func (t *legacy) chain(offset string) (rules []rule) {
	at, err := strconv.ParseUint(offset, 10, 32)
	i, ok := t.byOffset[uint32(at)]
	if err != nil || !ok {
		return nil
	}
	for _, e := range t.entries[i:] {
		if name, _ := t.targetOf(e); name == "ERROR" {
			break // the head of the next chain
		}
		rules = append(rules, t.rule(e))
	}
	return rules
}

// targetOf is the name and the data of an entry's target.
func (t *legacy) targetOf(e entry) (name string, data []byte) {
	b := e.b[netlink.Native.Uint16(e.b[t.target:]):]
	return text(b[partName : partName+nameBytes]), b[partBytes:]
}

// rule says what an entry does.
func (t *legacy) rule(e entry) rule {
	r := rule{at: uint64(e.at)}
	note, only := t.matches(e)
	name, data := t.targetOf(e)
	code := int32(0)
	if name == "" && len(data) >= 4 {
		code = int32(netlink.Native.Uint32(data))
	}
	if name == "" && code == legacyAccept && note == comment && only {
		r.gate, r.ours = t.gate(e)
	}
	header := slices.Clone(e.b[:t.ipBytes])
	header[t.flags] &^= t.gotoFlag
	if !only || len(bytes.Trim(header, "\x00")) > 0 {
		return r // it has a condition
	}
	switch {
	case name == "REJECT":
		r.action = drops
	case name != "":
	case code == legacyDrop:
		r.action = drops
	case code == legacyAccept:
		r.action = accepts
	case code == legacyReturn:
		r.action = returns
	case code >= 0 && uint32(code) != e.at+uint32(len(e.b)): // else a rule without a target
		r.action, r.target = jumps, strconv.Itoa(int(code))
		if e.b[t.flags]&t.gotoFlag != 0 {
			r.action = goesTo
		}
	}
	return r
}

// matches is the comment of an entry, and whether it has no other matches.
func (t *legacy) matches(e entry) (note string, only bool) {
	for b := e.b[t.layout.bytes:netlink.Native.Uint16(e.b[t.target:])]; len(b) > 0; {
		if len(b) < partBytes {
			return note, false
		}
		n := int(netlink.Native.Uint16(b))
		if n < partBytes || n > len(b) || text(b[partName:partName+nameBytes]) != "comment" {
			return note, false
		}
		note = text(b[partBytes:n])
		b = b[n:]
	}
	return note, true
}

// gate is what e lets through, if nothing but the beginning of one link's name
// matters to it.
func (t *legacy) gate(e entry) (g gate, ok bool) {
	prefix := func(i int) string {
		name, mask := e.b[t.links+16*i:][:16], e.b[t.links+32+16*i:][:16]
		n := len(bytes.TrimRight(mask, "\x00"))
		return string(name[:n])
	}
	in, out := prefix(0), prefix(1)
	g = gate{in + out, out != ""}
	if in != "" == g.out || len(g.prefix) >= unix.IFNAMSIZ {
		return g, false
	}
	return g, bytes.Equal(e.b[:t.ipBytes], t.entry(g).b[:t.ipBytes])
}

// entry is the entry that lets packets of g through, as iptables-legacy would make it.
func (t *legacy) entry(g gate) entry {
	match := partBytes + commentBytes
	target := t.layout.bytes + match
	b := make([]byte, target+partBytes+verdictBytes)
	i := t.links
	if g.out {
		i += 16
	}
	name := g.prefix
	if len(name) < unix.IFNAMSIZ-1 {
		name += "+" // iptables stores it and does not compare it
	}
	copy(b[i:], name)
	copy(b[i+32:], bytes.Repeat([]byte{0xff}, len(g.prefix)))
	netlink.Native.PutUint16(b[t.target:], uint16(target))
	netlink.Native.PutUint16(b[t.target+2:], uint16(len(b)))

	m := b[t.layout.bytes:]
	netlink.Native.PutUint16(m, uint16(match))
	copy(m[partName:], "comment")
	copy(m[partBytes:], comment)

	a := b[target:]
	netlink.Native.PutUint16(a, partBytes+verdictBytes)
	verdict := int32(legacyAccept)
	netlink.Native.PutUint32(a[partBytes:], uint32(verdict))
	return entry{index: -1, b: b}
}

// edited is t with an edit made: another table, whose entries have new offsets.
func (t *legacy) edited(e edit) (*legacy, error) {
	before := uint32(e.before)
	switch {
	case e.first:
		before = t.begin[unix.NF_INET_FORWARD]
	case before == 0:
		before = t.end[unix.NF_INET_FORWARD]
	}
	out := &legacy{layout: t.layout, validHooks: t.validHooks, byOffset: map[uint32]int{}}
	size := uint32(0)
	add := func(e entry) {
		e.at = size
		out.byOffset[size] = len(out.entries)
		out.entries = append(out.entries, e)
		size += uint32(len(e.b))
	}
	// Where what led to an offset leads now: to what is inserted before it, and from
	// what is removed to what follows. An entry itself moves to its place.
	leads, place := map[uint32]uint32{}, map[uint32]uint32{}
	for _, old := range t.entries {
		leads[old.at] = size
		if old.at == before {
			for _, g := range e.insert {
				add(t.entry(g))
			}
		}
		place[old.at] = size
		if !slices.Contains(e.remove, uint64(old.at)) {
			add(old)
		}
	}
	for h := range hooks {
		out.begin[h], out.end[h] = leads[t.begin[h]], place[t.end[h]]
	}
	for _, e := range out.entries {
		b, err := t.moved(e, leads)
		if err != nil {
			return nil, err
		}
		out.bytes = append(out.bytes, b...)
	}
	return out, nil
}

// moved is the bytes of e with its jump led to where that is now.
func (t *legacy) moved(e entry, leads map[uint32]uint32) ([]byte, error) {
	name, data := t.targetOf(e)
	if name != "" || len(data) < 4 || e.index < 0 {
		return e.b, nil
	}
	code := int32(netlink.Native.Uint32(data))
	if code < 0 {
		return e.b, nil
	}
	to, ok := leads[uint32(code)]
	if !ok {
		return nil, fmt.Errorf("%w: a jump leads to offset %d, where no rule is", errMalformed, code)
	}
	b := slices.Clone(e.b)
	netlink.Native.PutUint32(b[int(netlink.Native.Uint16(b[t.target:]))+partBytes:], to)
	return b, nil
}

// counted puts the counters of the former entries in the order of t's. New entries
// begin at zero.
func (t *legacy) counted(former []byte) []byte {
	out := make([]byte, len(t.entries)*counterBytes)
	for i, e := range t.entries {
		if from := e.index * counterBytes; e.index >= 0 && from+counterBytes <= len(former) {
			copy(out[i*counterBytes:], former[from:from+counterBytes])
		}
	}
	return out
}
