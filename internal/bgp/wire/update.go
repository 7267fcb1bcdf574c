package wire

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// Update is an UPDATE message. Parsing into the same Update again reuses its
// memory but for the attributes.
type Update struct {
	Unreach []Prefixes // withdrawn
	Reach   []Reach    // announced, all with Attrs
	Attrs   *Attrs     // nil without Reach; its NextHop is that of the classic field
	// EndOfRIB is the family whose initial exchange is over (RFC 4724), or 0.
	EndOfRIB Families
	// Problems are what was wrong but did not cost the session. With Withdraw
	// set, Reach must be handled as withdrawn (RFC 7606), and Attrs is nil.
	Problems []error
	Withdraw bool
}

// Reach is announced prefixes with their next hop.
type Reach struct {
	Prefixes
	NextHop, LinkLocal netip.Addr
}

// Prefixes is a checked list of prefixes in the message's own bytes.
type Prefixes struct {
	Family Families // exactly one
	raw    []byte
	ids    bool
}

// All yields each prefix, masked, with its path identifier, or 0 without one.
func (p Prefixes) All() iter.Seq2[uint32, netip.Prefix] {
	return func(yield func(uint32, netip.Prefix) bool) {
		for b := p.raw; len(b) > 0; {
			var id uint32
			if p.ids {
				id, b = binary.BigEndian.Uint32(b), b[4:]
			}
			bits := int(b[0])
			n := (bits + 7) / 8
			if !yield(id, prefix(p.Family, bits, b[1:1+n])) {
				return
			}
			b = b[1+n:]
		}
	}
}

func prefix(f Families, bits int, b []byte) netip.Prefix {
	var buf [16]byte
	copy(buf[:], b)
	if k := bits / 8; bits%8 != 0 { // bits beyond the length mean nothing (RFC 4271 §4.3)
		buf[k] &= 0xff << (8 - bits%8)
	}
	if f == IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(buf[:4])), bits)
	}
	return netip.PrefixFrom(netip.AddrFrom16(buf), bits)
}

// ok checks the structure once, so that All needs no checks.
func (p Prefixes) ok() bool {
	longest := 32
	if p.Family == IPv6 {
		longest = 128
	}
	for b := p.raw; len(b) > 0; {
		if p.ids {
			if len(b) < 5 {
				return false
			}
			b = b[4:]
		}
		n := 1 + (int(b[0])+7)/8
		if int(b[0]) > longest || len(b) < n {
			return false
		}
		b = b[n:]
	}
	return true
}

// attrError is a problem with one attribute.
type attrError struct {
	code Code
	what string
}

func (e *attrError) Error() string { return fmt.Sprintf("%v: %s", e.code, e.what) }

// Parse reads the body of an UPDATE into u. The error is a *Notification, and
// then the session must end; everything milder is in Problems and Withdraw.
func (u *Update) Parse(body []byte, o Options) error {
	*u = Update{Unreach: u.Unreach[:0], Reach: u.Reach[:0], Problems: u.Problems[:0]}
	malformed := &Notification{Code: CodeUpdate, Subcode: UpdateMalformed}
	withdrawn, rest, ok := sized(body)
	if !ok {
		return malformed
	}
	attrs, nlri, ok := sized(rest)
	if !ok {
		return malformed
	}
	unreach := Prefixes{IPv4, withdrawn, o.AddPath.Has(IPv4)}
	reach := Prefixes{IPv4, nlri, o.AddPath.Has(IPv4)}
	if !unreach.ok() || !reach.ok() {
		return &Notification{Code: CodeUpdate, Subcode: UpdateBadNetwork}
	}
	if o.Families.Has(IPv4) && len(withdrawn) > 0 {
		u.Unreach = append(u.Unreach, unreach)
	}
	p := attrParser{u: u, o: o, a: new(Attrs)}
	if err := p.parse(attrs); err != nil {
		return err
	}
	if len(nlri) > 0 && !p.seen.has(NextHop) {
		p.problem(NextHop, withdraw, "missing")
	}
	if o.Families.Has(IPv4) && len(nlri) > 0 {
		u.Reach = append(u.Reach, Reach{Prefixes: reach, NextHop: p.a.NextHop})
	}
	p.finish()
	if len(withdrawn)+len(attrs)+len(nlri) == 0 && o.Families.Has(IPv4) {
		u.EndOfRIB = IPv4
	}
	return nil
}

// sized splits off what a two-byte length announces.
func sized(b []byte) (head, rest []byte, ok bool) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:], true
}

// codes is a set of attribute codes.
type codes [4]uint64

func (c *codes) add(k Code)      { c[k>>6] |= 1 << (k & 63) }
func (c *codes) has(k Code) bool { return c[k>>6]&(1<<(k&63)) != 0 }

// attrParser is the work on the attributes of one message.
type attrParser struct {
	u       *Update
	o       Options
	a       *Attrs
	seen    codes
	as4Path ASPath
	as4Agg  Aggregator
}

func (p *attrParser) problem(c Code, cost penalty, what string) {
	p.u.Problems = append(p.u.Problems, &attrError{c, what})
	p.u.Withdraw = p.u.Withdraw || cost == withdraw
}

// parse walks over the attributes. Its error is a *Notification.
func (p *attrParser) parse(b []byte) error {
	total := len(b)
	for len(b) > 0 {
		flags, code, v, rest, ok := nextAttr(b)
		if !ok { // RFC 7606 §4: the list is not to be trusted, the NLRI field is
			p.problem(code, withdraw, "reaches beyond the attribute list")
			return nil
		}
		b = rest
		if p.seen.has(code) {
			if code == MPReach || code == MPUnreach {
				return &Notification{Code: CodeUpdate, Subcode: UpdateMalformed}
			}
			p.problem(code, discard, "given twice")
			continue
		}
		p.seen.add(code)
		if err := p.one(flags, code, v); err != nil {
			return err
		}
		if code == MPUnreach && len(v) == 3 && len(rest) == 0 && total <= 7 {
			p.u.EndOfRIB = familyFor(binary.BigEndian.Uint16(v), v[2]) & p.o.Families
		}
	}
	return nil
}

func nextAttr(b []byte) (flags uint8, code Code, v, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, 0, nil, nil, false
	}
	flags, code = b[0], Code(b[1])
	head, n := 3, 0
	if flags&flagExtended != 0 {
		head = 4
	}
	if len(b) < head {
		return flags, code, nil, nil, false
	}
	if n = int(b[2]); head == 4 {
		n = int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < head+n {
		return flags, code, nil, nil, false
	}
	return flags, code, b[head : head+n], b[head+n:], true
}

// one handles an attribute that was not seen before.
func (p *attrParser) one(flags uint8, code Code, v []byte) error {
	s := &table[code]
	const kind = flagOptional | flagTransitive
	switch {
	case s.name == "" && flags&flagOptional == 0:
		p.problem(code, withdraw, "unknown, but marked as well-known")
	case s.name == "":
		if flags&flagTransitive != 0 {
			p.a.Unknown = append(p.a.Unknown, Unknown{code, string(v)})
		}
	case flags&kind != s.flags:
		if s.cost == reset {
			return &Notification{Code: CodeUpdate, Subcode: 4}
		}
		p.problem(code, withdraw, fmt.Sprintf("flags %#x, want %#x", flags&kind, s.flags))
	case code == MPReach:
		return p.reach(v)
	case code == MPUnreach:
		return p.unreach(v)
	case s.ibgp && !p.o.IBGP: // RFC 7606 §7.5, 7.9, 7.10
	case s.unit != 0 && (len(v) == 0 || len(v)%s.unit != 0):
		p.problem(code, s.cost, fmt.Sprintf("length %d", len(v)))
	case code == AS4Path || code == AS4Aggregator:
		p.as4(code, v)
	case !s.parse(p.a, v, p.o):
		p.problem(code, s.cost, fmt.Sprintf("malformed value %x", v[:min(len(v), 32)]))
	}
	return nil
}

func (p *attrParser) as4(code Code, v []byte) {
	ok := true
	switch {
	case p.o.ASN4: // RFC 6793 §4.1: a 4-byte speaker must not send them
		p.problem(code, discard, "not expected from a speaker of 4-byte AS numbers")
	case code == AS4Path:
		p.as4Path, ok = parsePath(v, 4)
	default:
		ok = parseAggregator(&p.as4Agg, v, 4)
	}
	if !ok {
		p.problem(code, discard, "malformed")
	}
}

// reach reads MP_REACH_NLRI: AFI, SAFI, next hop, a reserved byte, prefixes.
func (p *attrParser) reach(v []byte) error {
	bad := &Notification{Code: CodeUpdate, Subcode: UpdateOptional, Data: slices.Clone(v)}
	if len(v) < 5 || len(v) < 5+int(v[3]) {
		return bad
	}
	f, hop := familyFor(binary.BigEndian.Uint16(v), v[2])&p.o.Families, v[4:4+int(v[3])]
	if f == 0 {
		return nil // not negotiated: ignored (RFC 4760 §7)
	}
	r := Reach{Prefixes: Prefixes{f, v[5+len(hop):], p.o.AddPath.Has(f)}}
	if !r.ok() {
		return bad
	}
	switch {
	case f == IPv4 && len(hop) == 4:
		r.NextHop = addr4(hop)
	case f == IPv6 && (len(hop) == 16 || len(hop) == 32):
		r.NextHop = netip.AddrFrom16([16]byte(hop))
		if len(hop) == 32 {
			r.LinkLocal = netip.AddrFrom16([16]byte(hop[16:]))
		}
	default:
		return bad
	}
	// BIRD and others send :: and a link-local one when they have no global address.
	if f == IPv6 && r.NextHop.IsUnspecified() && r.LinkLocal.IsValid() {
		r.NextHop = r.LinkLocal
	}
	if !r.LinkLocal.IsLinkLocalUnicast() {
		r.LinkLocal = netip.Addr{}
	}
	if !usable(r.NextHop) {
		p.problem(MPReach, withdraw, fmt.Sprintf("next hop %v cannot be one", r.NextHop))
	}
	if len(r.raw) > 0 {
		p.u.Reach = append(p.u.Reach, r)
	}
	return nil
}

// unreach reads MP_UNREACH_NLRI: AFI, SAFI, prefixes.
func (p *attrParser) unreach(v []byte) error {
	bad := &Notification{Code: CodeUpdate, Subcode: UpdateOptional, Data: slices.Clone(v)}
	if len(v) < 3 {
		return bad
	}
	f := familyFor(binary.BigEndian.Uint16(v), v[2]) & p.o.Families
	if f == 0 {
		return nil
	}
	list := Prefixes{f, v[3:], p.o.AddPath.Has(f)}
	if !list.ok() {
		return bad
	}
	if len(list.raw) > 0 {
		p.u.Unreach = append(p.u.Unreach, list)
	}
	return nil
}

// finish checks what only the whole message shows.
func (p *attrParser) finish() {
	if len(p.u.Reach) == 0 {
		p.u.Withdraw = false // nothing to withdraw
		return
	}
	for _, code := range []Code{Origin, ASPathCode} {
		if !p.seen.has(code) {
			p.problem(code, withdraw, "missing")
		}
	}
	if p.u.Withdraw {
		return
	}
	if !p.o.ASN4 {
		p.a.mergeAS4(p.as4Path, p.as4Agg)
	}
	slices.SortFunc(p.a.Unknown, func(x, y Unknown) int { return int(x.Code) - int(y.Code) })
	p.u.Attrs = p.a
}
