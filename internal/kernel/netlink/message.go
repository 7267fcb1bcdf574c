package netlink

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

const (
	// HeaderBytes is the length of struct nlmsghdr.
	HeaderBytes = 16
	// TypeMask is NLA_TYPE_MASK: the type of an attribute without its flags.
	TypeMask = 0x3fff
)

// Native is the byte order of headers, and of attributes but those that say
// otherwise (nf_tables and conntrack have theirs in network order).
var Native = binary.NativeEndian

// Message is one netlink message.
type Message struct {
	Type, Flags uint16
	Seq, Port   uint32
	Body        []byte // without the header; it belongs to the datagram
}

// Errno is the result in an NLMSG_ERROR or NLMSG_DONE message; 0 is success.
func (m Message) Errno() unix.Errno {
	if len(m.Body) < 4 {
		return 0
	}
	return unix.Errno(-int32(Native.Uint32(m.Body)))
}

// Messages cuts a datagram. It stops at the first malformed one.
func Messages(b []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for len(b) >= HeaderBytes {
			n := int(Native.Uint32(b))
			if n < HeaderBytes || n > len(b) {
				return
			}
			m := Message{Native.Uint16(b[4:]), Native.Uint16(b[6:]), Native.Uint32(b[8:]), Native.Uint32(b[12:]), b[HeaderBytes:n]}
			if !yield(m) {
				return
			}
			b = b[min(Align(n), len(b)):]
		}
	}
}

// Attributes cuts a sequence of attributes: types without flags, and values. It
// stops at the first malformed one.
func Attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(Native.Uint16(b))
			if n < 4 || n > len(b) || !yield(Native.Uint16(b[2:])&TypeMask, b[4:n]) {
				return
			}
			b = b[min(Align(n), len(b)):]
		}
	}
}

// Align rounds up to the four bytes to which everything is padded.
func Align(n int) int { return (n + 3) &^ 3 }

// AppendHeader begins a message, whose length is written by [EndMessage] when it
// is complete.
func AppendHeader(b []byte, typ, flags uint16, seq uint32) []byte {
	b = append(b, 0, 0, 0, 0)
	b = Native.AppendUint16(b, typ)
	b = Native.AppendUint16(b, flags)
	b = Native.AppendUint32(b, seq)
	return append(b, 0, 0, 0, 0)
}

// EndMessage completes the message that begins at start and ends where b ends.
func EndMessage(b []byte, start int) { Native.PutUint32(b[start:], uint32(len(b)-start)) }

// AppendAttr adds an attribute and its padding.
func AppendAttr(b []byte, typ uint16, value []byte) []byte {
	b = Native.AppendUint16(b, uint16(4+len(value)))
	b = Native.AppendUint16(b, typ)
	b = append(b, value...)
	return pad(b, len(value))
}

// AppendAttrString is AppendAttr with a terminated string.
func AppendAttrString(b []byte, typ uint16, value string) []byte {
	b = Native.AppendUint16(b, uint16(5+len(value)))
	b = Native.AppendUint16(b, typ)
	b = append(b, value...)
	return pad(append(b, 0), len(value)+1)
}

// AppendAttr32 adds an attribute in the byte order of the machine.
func AppendAttr32(b []byte, typ uint16, v uint32) []byte {
	b = Native.AppendUint16(b, 8)
	b = Native.AppendUint16(b, typ)
	return Native.AppendUint32(b, v)
}

// AppendAttrBE32 adds an attribute in network byte order.
func AppendAttrBE32(b []byte, typ uint16, v uint32) []byte {
	b = Native.AppendUint16(b, 8)
	b = Native.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint32(b, v)
}

// OpenNest begins an attribute of attributes (NLA_F_NESTED). [CloseNest] with the
// length of b before it completes it.
func OpenNest(b []byte, typ uint16) []byte {
	b = append(b, 0, 0)
	return Native.AppendUint16(b, typ|unix.NLA_F_NESTED)
}

// CloseNest completes the attribute that begins at start.
func CloseNest(b []byte, start int) { Native.PutUint16(b[start:], uint16(len(b)-start)) }

func pad(b []byte, n int) []byte {
	for ; n%4 != 0; n++ {
		b = append(b, 0)
	}
	return b
}

// Uint32 reads an attribute in the byte order of the machine; 0 if it is too short.
func Uint32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return Native.Uint32(v)
}

// BE32 reads an attribute in network byte order; 0 if it is too short.
func BE32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

// BE64 reads an attribute in network byte order; 0 if it is too short.
func BE64(v []byte) uint64 {
	if len(v) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// Family is the kernel's number of IPv4 or IPv6.
func Family(v6 bool) uint8 {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
