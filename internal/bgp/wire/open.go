package wire

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// ASTrans stands for a 4-byte AS number where only two bytes fit (RFC 6793).
const ASTrans = 23456

// Open is the first message of a connection.
type Open struct {
	ASN      uint32        // the 4-byte number if the capability has one
	HoldTime time.Duration // whole seconds; 0 means no hold timer
	ID       netip.Addr    // BGP identifier
	Capabilities
}

// Capabilities are what a speaker can do (RFC 5492). Unknown ones are dropped.
type Capabilities struct {
	Families   Families // multiprotocol; 0 means that none was listed, so IPv4 alone
	ASN4       bool     // 4-byte AS numbers
	Refresh    bool     // RFC 2918
	Enhanced   bool     // RFC 7313
	Restart    Restart
	AddPathIn  Families // it can receive several paths for a prefix
	AddPathOut Families // it wants to send several
}

// Restart is the graceful restart capability (RFC 4724); the zero Restart
// stands for a speaker that does not have it.
type Restart struct {
	Known      bool
	Restarting bool          // R: it has just restarted
	Time       time.Duration // how long its routes shall be kept; whole seconds up to 4095
	Families   Families      // that it can restore
	Forwarding Families      // F: whose forwarding state it kept; part of Families
}

// Capability codes.
const (
	capMultiprotocol = 1
	capRefresh       = 2
	capRestart       = 64
	capASN4          = 65
	capAddPath       = 69
	capEnhanced      = 70
)

// AppendOpen appends o as a message.
func AppendOpen(dst []byte, o Open) []byte {
	start := len(dst)
	asn := uint16(ASTrans)
	if o.ASN <= 0xffff {
		asn = uint16(o.ASN)
	}
	dst = append(begin(dst, TypeOpen), 4)
	dst = binary.BigEndian.AppendUint16(dst, asn)
	dst = binary.BigEndian.AppendUint16(dst, uint16(o.HoldTime/time.Second))
	id := o.ID.As4()
	dst = append(dst, id[:]...)
	// One optional parameter, "capabilities" (2), with all of them: at most 60 bytes.
	dst = append(dst, 0, 2, 0)
	caps := len(dst)
	dst = o.append(dst, o.ASN)
	dst[caps-1] = byte(len(dst) - caps)
	dst[caps-3] = byte(len(dst) - caps + 2)
	if len(dst) == caps { // no capability: no parameter at all
		dst = dst[:caps-2]
		dst[caps-3] = 0
	}
	return end(dst, start)
}

func (c Capabilities) append(dst []byte, asn uint32) []byte {
	for _, f := range c.Families.Each() {
		dst = append(dst, capMultiprotocol, 4, 0, byte(f.afi()), 0, 1)
	}
	if c.Refresh {
		dst = append(dst, capRefresh, 0)
	}
	if c.Restart.Known {
		dst = c.Restart.append(dst)
	}
	if c.ASN4 {
		dst = binary.BigEndian.AppendUint32(append(dst, capASN4, 4), asn)
	}
	if both := c.AddPathIn | c.AddPathOut; both != 0 {
		dst = append(dst, capAddPath, byte(4*len(both.Each())))
		for _, f := range both.Each() {
			mode := byte(0)
			if c.AddPathIn.Has(f) {
				mode |= 1
			}
			if c.AddPathOut.Has(f) {
				mode |= 2
			}
			dst = append(dst, 0, byte(f.afi()), 1, mode)
		}
	}
	if c.Enhanced {
		dst = append(dst, capEnhanced, 0)
	}
	return dst
}

func (r Restart) append(dst []byte) []byte {
	head := uint16(r.Time/time.Second) & 0xfff
	if r.Restarting {
		head |= 0x8000
	}
	dst = append(dst, capRestart, byte(2+4*len(r.Families.Each())))
	dst = binary.BigEndian.AppendUint16(dst, head)
	for _, f := range r.Families.Each() {
		flags := byte(0)
		if r.Forwarding.Has(f) {
			flags = 0x80
		}
		dst = append(dst, 0, byte(f.afi()), 1, flags)
	}
	return dst
}

// ParseOpen reads the body of an OPEN. The error is a *Notification.
func ParseOpen(body []byte) (Open, error) {
	bad := func(sub uint8, data ...byte) (Open, error) {
		return Open{}, &Notification{Code: CodeOpen, Subcode: sub, Data: data}
	}
	if len(body) < 10 {
		return Open{}, &Notification{Code: CodeHeader, Subcode: 2}
	}
	if body[0] != 4 {
		return bad(OpenBadVersion, 0, 4)
	}
	o := Open{
		ASN:      uint32(binary.BigEndian.Uint16(body[1:])),
		HoldTime: time.Duration(binary.BigEndian.Uint16(body[3:])) * time.Second,
		ID:       addr4(body[5:9]),
	}
	if o.HoldTime == time.Second || o.HoldTime == 2*time.Second {
		return bad(OpenBadHold)
	}
	if o.ID.IsUnspecified() {
		return bad(OpenBadID)
	}
	if sub, ok := o.parameters(body[9], body[10:]); !ok {
		return bad(sub)
	}
	if o.ASN == 0 {
		return bad(OpenBadAS)
	}
	return o, nil
}

// parameters reads the optional parameters, of which capabilities are the only
// kind; n is the length that the message gives. It returns the subcode if not ok.
func (o *Open) parameters(n byte, params []byte) (sub uint8, ok bool) {
	long := n == 255 && len(params) >= 3 && params[0] == 255 // RFC 9072
	if long {
		if int(binary.BigEndian.Uint16(params[1:])) != len(params)-3 {
			return 0, false
		}
		params = params[3:]
	} else if int(n) != len(params) {
		return 0, false
	}
	for len(params) > 0 {
		kind, value, rest, ok := tlv(params, long)
		if !ok {
			return 0, false
		}
		if kind != 2 {
			return 4, false
		}
		if !o.parse(value, &o.ASN) {
			return 0, false
		}
		params = rest
	}
	return 0, true
}

// tlv splits one type, length (one byte, or two if long) and value off b.
func tlv(b []byte, long bool) (kind byte, value, rest []byte, ok bool) {
	head := 2
	if long {
		head = 3
	}
	if len(b) < head {
		return 0, nil, nil, false
	}
	n := int(b[1])
	if long {
		n = int(binary.BigEndian.Uint16(b[1:]))
	}
	if len(b) < head+n {
		return 0, nil, nil, false
	}
	return b[0], b[head : head+n], b[head+n:], true
}

// parse reads a list of capabilities. One that is malformed in itself is as
// good as absent; false means that the list has no structure.
func (c *Capabilities) parse(b []byte, asn *uint32) bool {
	for len(b) > 0 {
		kind, v, rest, ok := tlv(b, false)
		if !ok {
			return false
		}
		b = rest
		switch {
		case kind == capMultiprotocol && len(v) == 4:
			c.Families |= familyFor(binary.BigEndian.Uint16(v), v[3])
		case kind == capRefresh:
			c.Refresh = true
		case kind == capEnhanced:
			c.Enhanced = true
		case kind == capASN4 && len(v) == 4:
			c.ASN4, *asn = true, binary.BigEndian.Uint32(v)
		case kind == capRestart && len(v) >= 2:
			c.Restart = parseRestart(v)
		case kind == capAddPath && len(v)%4 == 0:
			for ; len(v) > 0; v = v[4:] {
				f := familyFor(binary.BigEndian.Uint16(v), v[2])
				if v[3]&1 != 0 {
					c.AddPathIn |= f
				}
				if v[3]&2 != 0 {
					c.AddPathOut |= f
				}
			}
		}
	}
	return true
}

func parseRestart(v []byte) Restart {
	head := binary.BigEndian.Uint16(v)
	r := Restart{Known: true, Restarting: head&0x8000 != 0, Time: time.Duration(head&0xfff) * time.Second}
	for v = v[2:]; len(v) >= 4; v = v[4:] {
		f := familyFor(binary.BigEndian.Uint16(v), v[2])
		r.Families |= f
		if v[3]&0x80 != 0 {
			r.Forwarding |= f
		}
	}
	return r
}
