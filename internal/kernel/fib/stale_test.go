package fib

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// TestStaleLink: a link that comes up while links are read stays up, although the
// kernel wrote the answer before; and one that goes does not come back.
func TestStaleLink(t *testing.T) {
	t.Parallel()
	body := func(index int32, flags uint32) []byte {
		b := make([]byte, linkBytes)
		netlink.Native.PutUint32(b[4:], uint32(index))
		netlink.Native.PutUint32(b[8:], flags)
		return netlink.AppendAttrString(b, unix.IFLA_IFNAME, map[int32]string{5: "vxlan.calico", 6: "cali1"}[index])
	}
	f := blank(Options{})
	f.linksHeard = map[int32]bool{} // a dump is under way
	for _, m := range []netlink.Message{
		{Type: unix.RTM_NEWLINK, Body: body(5, unix.IFF_UP)},
		{Type: unix.RTM_NEWLINK, Body: body(6, unix.IFF_UP)},
		{Type: unix.RTM_DELLINK, Body: body(6, 0)},
	} {
		f.event(m, new(route))
	}
	f.linkDumped(body(5, 0))
	f.linkDumped(body(6, unix.IFF_UP))
	if l := f.links["vxlan.calico"]; l == nil || !l.up || f.byIndex[6] != nil {
		t.Errorf("link 5 is %+v, link 6 %+v; want one that is up, and none", l, f.byIndex[6])
	}
}
