package netlink

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRoundTrip: what is appended is read back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	b := AppendHeader(nil, 17, unix.NLM_F_REQUEST, 5)
	b = AppendAttr(b, 1, []byte{1, 2, 3})
	nest := len(b)
	b = OpenNest(b, 2)
	b = AppendAttrBE32(b, 3, 7)
	b = AppendAttrString(b, 4, "weft")
	CloseNest(b, nest)
	EndMessage(b, 0)
	second := len(b)
	b = AppendHeader(b, unix.NLMSG_ERROR, 0, 6)
	errno := unix.EPERM
	b = Native.AppendUint32(b, uint32(-int32(errno)))
	EndMessage(b, second)

	var got []Message
	for m := range Messages(b) {
		got = append(got, m)
	}
	if len(got) != 2 || got[0].Type != 17 || got[0].Seq != 5 || got[1].Errno() != unix.EPERM {
		t.Fatalf("read back as %+v", got)
	}
	var types []uint16
	for typ, v := range Attributes(got[0].Body) {
		types = append(types, typ)
		switch typ {
		case 1:
			if !bytes.Equal(v, []byte{1, 2, 3}) {
				t.Errorf("bytes are %x", v)
			}
		case 2:
			for typ, v := range Attributes(v) {
				types = append(types, typ)
				if typ == 3 && BE32(v) != 7 || typ == 4 && string(v) != "weft\x00" {
					t.Errorf("attribute %d is %x", typ, v)
				}
			}
		}
	}
	if want := []uint16{1, 2, 3, 4}; len(types) != 4 || types[0] != want[0] || types[1] != want[1] || types[2] != want[2] || types[3] != want[3] {
		t.Errorf("attributes %v, want %v", types, want)
	}
}

// FuzzMessages: hostile datagrams do not panic, and end.
func FuzzMessages(f *testing.F) {
	b := AppendHeader(nil, 17, 0, 1)
	b = AppendAttr32(b, 1, 1)
	EndMessage(b, 0)
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		for m := range Messages(b) {
			_ = m.Errno()
			for _, v := range Attributes(m.Body) {
				_, _, _ = Uint32(v), BE32(v), BE64(v)
			}
		}
	})
}
