package nft

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// List writes what the kernel has in our tables, of the network namespace of the calling
// thread: chains with their rules and counters, sets with their elements. It is for who looks
// for a fault, and needs no NFT. Expressions are written as the kernel has them, one behind the
// other, by name and attributes; the comment of a rule says where it comes from.
func List(w io.Writer) error {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return fmt.Errorf("nft: list: %w", err)
	}
	defer func() { _ = s.Close() }()
	var errs []error
	for _, t := range []*table{newTable(false), newTable(true)} {
		text, err := listTable(s, t)
		if err != nil {
			errs = append(errs, fmt.Errorf("nft: list %s: %w", t, err))
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// listing is what is known of a table.
type listing struct {
	v6     bool
	chains []string
	heads  map[string]string
	rules  map[string][]string
	sets   []listedSet
}

type listedSet struct{ name, head string }

func listTable(s *netlink.Socket, t *table) (string, error) {
	l := listing{v6: t.v6}
	var errs []error
	dump := func(typ uint16, attrs []byte, start func(), each func(b []byte)) {
		if err := dumpOf(s, t.family, typ, attrs, start, each); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	dump(unix.NFT_MSG_GETCHAIN, nil, func() { l.chains, l.heads = nil, map[string]string{} }, l.chain)
	dump(unix.NFT_MSG_GETRULE, nameAttrs(unix.NFTA_RULE_TABLE, tableName), func() { l.rules = map[string][]string{} }, l.rule)
	dump(unix.NFT_MSG_GETSET, nameAttrs(unix.NFTA_SET_TABLE, tableName), func() { l.sets = nil }, l.set)
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", t)
	for _, set := range l.sets {
		var elements []string
		dump(unix.NFT_MSG_GETSETELEM, nameAttrs(unix.NFTA_SET_ELEM_LIST_TABLE, tableName, set.name), func() { elements = nil }, func(b []byte) {
			elements = l.elements(elements, b)
		})
		fmt.Fprintf(&b, "\tset %s { %s; elements %d\n", set.name, set.head, len(elements))
		for _, e := range elements {
			fmt.Fprintf(&b, "\t\t%s\n", e)
		}
		b.WriteString("\t}\n")
	}
	for _, name := range l.chains {
		fmt.Fprintf(&b, "\tchain %s {%s\n", name, l.heads[name])
		for _, r := range l.rules[name] {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String(), errors.Join(errs...)
}

// chain takes in the message of a chain, of whatever table.
func (l *listing) chain(b []byte) {
	var table, name, kind string
	var hook, priority uint32
	based := false
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_CHAIN_TABLE:
			table = string(cString(v))
		case unix.NFTA_CHAIN_NAME:
			name = string(cString(v))
		case unix.NFTA_CHAIN_TYPE:
			kind = string(cString(v))
		case unix.NFTA_CHAIN_HOOK:
			based = true
			for a, v := range netlink.Attributes(v) {
				switch a {
				case unix.NFTA_HOOK_HOOKNUM:
					hook = netlink.BE32(v)
				case unix.NFTA_HOOK_PRIORITY:
					priority = netlink.BE32(v)
				}
			}
		}
	}
	if table != tableName {
		return
	}
	l.chains = append(l.chains, name)
	if based {
		names := [...]string{"prerouting", "input", "forward", "output", "postrouting"}
		l.heads[name] = fmt.Sprintf(" type %s hook %s priority %d;", kind, names[min(int(hook), len(names)-1)], int32(priority))
	}
}

// rule takes in the message of a rule.
func (l *listing) rule(b []byte) {
	var chain, comment string
	var handle uint64
	var exprs []string
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_RULE_CHAIN:
			chain = string(cString(v))
		case unix.NFTA_RULE_HANDLE:
			handle = netlink.BE64(v)
		case unix.NFTA_RULE_USERDATA:
			if len(v) > 2 && v[0] == udataComment {
				comment = string(cString(v[2:]))
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, expr := range netlink.Attributes(v) {
				exprs = append(exprs, exprText(expr))
			}
		}
	}
	text := strings.Join(exprs, " ")
	if comment != "" {
		text += fmt.Sprintf(" comment %q", comment)
	}
	l.rules[chain] = append(l.rules[chain], fmt.Sprintf("%s # handle %d", text, handle))
}

// exprText is an expression: its name, and its attributes as number=value.
func exprText(expr []byte) string {
	name, data := "", []byte(nil)
	for a, v := range netlink.Attributes(expr) {
		switch a {
		case unix.NFTA_EXPR_NAME:
			name = string(cString(v))
		case unix.NFTA_EXPR_DATA:
			data = v
		}
	}
	if name == "counter" {
		var n [2]uint64 // bytes, packets
		for a, v := range netlink.Attributes(data) {
			if (a == unix.NFTA_COUNTER_BYTES || a == unix.NFTA_COUNTER_PACKETS) && len(v) == 8 {
				n[a-unix.NFTA_COUNTER_BYTES] = netlink.BE64(v)
			}
		}
		return fmt.Sprintf("counter packets %d bytes %d", n[1], n[0])
	}
	return name + "(" + attrsText(data, 0) + ")"
}

// attrsText is attributes as number=value; the value is text where it is a name, else a number
// or bytes in hexadecimal, or attributes again.
func attrsText(b []byte, depth int) string {
	var out []string
	rest := b
	for a, v := range netlink.Attributes(b) {
		nested := len(rest) >= 4 && netlink.Native.Uint16(rest[2:])&unix.NLA_F_NESTED != 0
		rest = rest[min(netlink.Align(4+len(v)), len(rest)):]
		value := fmt.Sprintf("%#x", v)
		switch text := string(cString(v)); {
		case nested && depth < 4:
			value = "{" + attrsText(v, depth+1) + "}"
		case len(v) == 4:
			value = fmt.Sprint(netlink.BE32(v))
		case len(text) == len(v)-1 && text != "" && printable(text):
			value = text
		}
		out = append(out, fmt.Sprintf("%d=%s", a, value))
	}
	return strings.Join(out, " ")
}

func printable(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// set takes in the message of a set.
func (l *listing) set(b []byte) {
	var s listedSet
	var flags, key uint32
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_SET_NAME:
			s.name = string(cString(v))
		case unix.NFTA_SET_FLAGS:
			flags = netlink.BE32(v)
		case unix.NFTA_SET_KEY_TYPE:
			key = netlink.BE32(v)
		}
	}
	if flags&unix.NFT_SET_ANONYMOUS != 0 {
		return
	}
	s.head = "type " + keyTypes(key)
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.NFT_SET_INTERVAL, "interval"}, {unix.NFT_SET_MAP, "map"}, {unix.NFT_SET_TIMEOUT, "timeout"}} {
		if flags&f.bit != 0 {
			s.head += ", " + f.name
		}
	}
	l.sets = append(l.sets, s)
}

// keyTypes names the types of a concatenation.
func keyTypes(n uint32) string {
	names := map[uint32]string{typeIPv4: "ipv4_addr", typeIPv6: "ipv6_addr", typeProto: "inet_proto", typePort: "inet_service", typeMark: "mark", typeLink: "ifname"}
	var out []string
	for ; n != 0; n >>= typeBits {
		name := names[n&(1<<typeBits-1)]
		if name == "" {
			name = fmt.Sprint(n & (1<<typeBits - 1))
		}
		out = append([]string{name}, out...)
	}
	return strings.Join(out, " . ")
}

// elements appends those of a message.
func (l *listing) elements(out []string, b []byte) []string {
	for a, list := range netlink.Attributes(b) {
		if a != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, e := range netlink.Attributes(list) {
			text := ""
			for a, v := range netlink.Attributes(e) {
				switch a {
				case unix.NFTA_SET_ELEM_KEY:
					text = l.value(v) + text
				case nftaSetElemKeyEnd:
					text += " to " + l.value(v)
				case unix.NFTA_SET_ELEM_DATA:
					text += " : " + l.value(v)
				case unix.NFTA_SET_ELEM_FLAGS:
					if netlink.BE32(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0 {
						text = "end before " + text
					}
				}
			}
			out = append(out, text)
		}
	}
	return out
}

// value is the data of an element: a verdict, or bytes.
func (l *listing) value(b []byte) string {
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_DATA_VALUE:
			return l.keyText(v)
		case unix.NFTA_DATA_VERDICT:
			for a, v := range netlink.Attributes(v) {
				if a == unix.NFTA_VERDICT_CHAIN {
					return "goto " + string(cString(v))
				}
			}
			return "verdict"
		}
	}
	return ""
}

// keyText writes a key by what it looks like: names of links fill 16 bytes, addresses 4 or 16.
func (l *listing) keyText(v []byte) string {
	if pad := make([]byte, classPad); len(v) == classPad+linkBytes && bytes.HasPrefix(v, pad) {
		v = v[classPad:] // a class
	}
	if len(v) >= linkBytes {
		if name := string(cString(v[:linkBytes])); name != "" && printable(name) && strings.Trim(string(v[len(name):linkBytes]), "\x00") == "" {
			if len(v) == linkBytes {
				return fmt.Sprintf("%q", name)
			}
			return fmt.Sprintf("%q . %s", name, l.keyText(v[linkBytes:]))
		}
	}
	n := 4
	if l.v6 {
		n = 16
	}
	addr, ok := netip.AddrFromSlice(v[:min(n, len(v))])
	switch {
	case ok && len(v) == n:
		return addr.String()
	case ok && len(v) > n:
		return fmt.Sprintf("%v . %#x", addr, v[n:])
	}
	return fmt.Sprintf("%#x", v)
}
