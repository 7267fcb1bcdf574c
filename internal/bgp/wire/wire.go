// Package wire is the BGP-4 message codec: bytes to messages and back, without
// state between messages.
//
// Attributes are one table (attrs.go): code, name, flags, what a malformed one
// costs (RFC 7606), parse and append. Everything that differs between sessions
// is in Options, which the two OPEN messages decide.
//
// Parsing an UPDATE allocates for the attributes only, never per prefix:
// Prefixes keeps the received bytes, checked once, and decodes while iterated.
// It borrows the buffer it was parsed from, so it is to be used before that
// buffer is.
//
// The invariants: no input makes a parser panic or read outside of its slice,
// and parsing what was appended gives the value back.
//
// Standards: RFC 4271, 4760 (multiprotocol; IPv4 and IPv6 unicast), 6793
// (4-byte AS numbers), 5492 (capabilities), 2918 and 7313 (refresh), 4724
// (restart), 4456 (reflection), 1997, 4360 and 8092 (communities), 7606 (error
// handling), 7911 (path identifiers), 8654 is not spoken.
package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Sizes of messages in bytes, RFC 4271 §4.1.
const (
	HeaderLen = 19
	MaxLen    = 4096
)

// Type is the type of a message.
type Type uint8

// The message types.
const (
	TypeOpen         Type = 1
	TypeUpdate       Type = 2
	TypeNotification Type = 3
	TypeKeepalive    Type = 4
	TypeRefresh      Type = 5 // RFC 2918
)

// Families is a set of address families, all unicast.
type Families uint8

// Members of Families.
const (
	IPv4 Families = 1 << iota
	IPv6
)

// FamilyOf gives the family of an address; 4-in-6 counts as IPv6.
func FamilyOf(a netip.Addr) Families {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Each lists the single families of which f consists.
func (f Families) Each() []Families {
	return [][]Families{nil, {IPv4}, {IPv6}, {IPv4, IPv6}}[f&3]
}

// Has reports whether every family of g is in f.
func (f Families) Has(g Families) bool { return f&g == g }

func (f Families) String() string {
	return [...]string{"none", "ipv4", "ipv6", "ipv4,ipv6"}[f&3]
}

// afi is the address family identifier of a single family.
func (f Families) afi() uint16 { return uint16(f) } // IPv4 is 1 and IPv6 is 2 in both

// familyFor gives the family of an AFI and SAFI, or 0 if it is not one of ours.
func familyFor(afi uint16, safi uint8) Families {
	if safi == 1 && (afi == 1 || afi == 2) {
		return Families(afi)
	}
	return 0
}

// Options are what both sides of a session agreed on, as far as it changes how
// UPDATE messages read.
type Options struct {
	ASN4     bool     // AS numbers take four bytes (RFC 6793)
	IBGP     bool     // the peer is of our own AS
	Families Families // others are ignored
	AddPath  Families // received prefixes of these carry a path identifier (RFC 7911)
}

// Notification is the message that ends a session; as an error it is the
// reason why the session must be reset. Data may be nil.
type Notification struct {
	Code, Subcode uint8
	Data          []byte
}

// Codes and subcodes of NOTIFICATION messages that the package or its callers use.
const (
	CodeHeader = 1 // subcodes: 1 not synchronised, 2 bad length, 3 bad type
	CodeOpen   = 2
	CodeUpdate = 3
	CodeHold   = 4
	CodeFSM    = 5
	CodeCease  = 6

	OpenBadVersion = 1
	OpenBadAS      = 2
	OpenBadID      = 3
	OpenBadHold    = 6
	OpenBadCap     = 7

	UpdateMalformed  = 1
	UpdateOptional   = 9
	UpdateBadNetwork = 10

	// RFC 4486.
	CeaseShutdown     = 2
	CeaseDeconfigured = 3
	CeaseReset        = 4
	CeaseReject       = 5
	CeaseChange       = 6
	CeaseCollision    = 7
)

func (n *Notification) Error() string {
	code := [...]string{
		"code 0", "message header error", "OPEN message error", "UPDATE message error",
		"hold timer expired", "state machine error", "cease", "ROUTE-REFRESH message error",
	}
	text := fmt.Sprintf("code %d", n.Code)
	if int(n.Code) < len(code) {
		text = code[n.Code]
	}
	if n.Subcode == 0 {
		return text
	}
	sub, ok := subcodes[uint16(n.Code)<<8|uint16(n.Subcode)]
	if !ok {
		sub = fmt.Sprintf("subcode %d", n.Subcode)
	}
	return text + ": " + sub
}

var subcodes = map[uint16]string{
	0x101: "connection not synchronised", 0x102: "bad message length", 0x103: "bad message type",
	0x201: "unsupported version", 0x202: "bad peer AS", 0x203: "bad BGP identifier",
	0x204: "unsupported optional parameter", 0x206: "unacceptable hold time", 0x207: "unsupported capability",
	0x301: "malformed attribute list", 0x309: "optional attribute error", 0x30a: "invalid network field",
	0x501: "unexpected message in OpenSent", 0x502: "unexpected message in OpenConfirm", 0x503: "unexpected message in Established",
	0x601: "maximum number of prefixes reached", 0x602: "administrative shutdown", 0x603: "peer de-configured",
	0x604: "administrative reset", 0x605: "connection rejected", 0x606: "other configuration change",
	0x607: "connection collision resolution", 0x608: "out of resources",
}

// Frame splits the first message off b: its type, its body and the rest. A
// body of nil without error means that more bytes are needed. The error is a
// *Notification.
func Frame(b []byte) (t Type, body, rest []byte, err error) {
	if len(b) < HeaderLen {
		return 0, nil, b, nil
	}
	if binary.BigEndian.Uint64(b) != ^uint64(0) || binary.BigEndian.Uint64(b[8:]) != ^uint64(0) {
		return 0, nil, b, &Notification{Code: CodeHeader, Subcode: 1}
	}
	n, t := int(binary.BigEndian.Uint16(b[16:])), Type(b[18])
	least := map[Type]int{TypeOpen: 29, TypeUpdate: 23, TypeNotification: 21, TypeKeepalive: 19, TypeRefresh: 23}[t]
	switch {
	case least == 0:
		return t, nil, b, &Notification{Code: CodeHeader, Subcode: 3, Data: []byte{b[18]}}
	case n < least, n > MaxLen, t == TypeKeepalive && n != HeaderLen:
		return t, nil, b, &Notification{Code: CodeHeader, Subcode: 2, Data: []byte{b[16], b[17]}}
	case n > len(b):
		return t, nil, b, nil
	}
	return t, b[HeaderLen:n:n], b[n:], nil
}

// begin appends a header whose length end fills in.
func begin(dst []byte, t Type) []byte {
	dst = append(dst, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00"...)
	return append(dst, byte(t))
}

// end writes the length of the message that begins at start.
func end(dst []byte, start int) []byte {
	binary.BigEndian.PutUint16(dst[start+16:], uint16(len(dst)-start))
	return dst
}

// AppendKeepalive appends a KEEPALIVE message.
func AppendKeepalive(dst []byte) []byte { return end(begin(dst, TypeKeepalive), len(dst)) }

// AppendNotification appends n as a message.
func AppendNotification(dst []byte, n *Notification) []byte {
	start := len(dst)
	dst = append(begin(dst, TypeNotification), n.Code, n.Subcode)
	return end(append(dst, n.Data[:min(len(n.Data), MaxLen-HeaderLen-2)]...), start)
}

// ParseNotification reads the body of a NOTIFICATION, which is never wrong.
// The shutdown text of RFC 9003 stays in Data.
func ParseNotification(body []byte) *Notification {
	if len(body) < 2 {
		return &Notification{}
	}
	n := &Notification{Code: body[0], Subcode: body[1]}
	if len(body) > 2 {
		n.Data = append(n.Data, body[2:]...)
	}
	return n
}

// Refresh asks for, or brackets, a new copy of the routes of a family.
type Refresh struct {
	Family  Families // 0: a family that we do not speak
	Subtype uint8    // 0 request, 1 begins and 2 ends a refresh (RFC 7313)
}

// AppendRefresh appends a ROUTE-REFRESH message.
func AppendRefresh(dst []byte, r Refresh) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(begin(dst, TypeRefresh), r.Family.afi())
	return end(append(dst, r.Subtype, 1), start)
}

// ParseRefresh reads the body of a ROUTE-REFRESH. The error is a *Notification.
func ParseRefresh(body []byte) (Refresh, error) {
	if len(body) != 4 {
		return Refresh{}, &Notification{Code: 7, Subcode: 1, Data: body}
	}
	return Refresh{Family: familyFor(binary.BigEndian.Uint16(body), body[3]), Subtype: body[2]}, nil
}

// addr4 turns four bytes into an address.
func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }

// join prints numbers separated by blanks.
func join[T any](list []T, text func(T) string) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = text(v)
	}
	return strings.Join(parts, " ")
}
