package startup

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/testenv"
)

func TestLinks(t *testing.T) {
	t.Parallel()
	ns, other := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, ns, "eth0", []string{"10.0.0.5/24", "10.0.0.6/32", "fd00::5/64"}, other, "eth0", nil)
	var got []Link
	ns.MustDo(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "down", MTU: 1400}, PeerName: "peer"}); err != nil {
			return err
		}
		far, err := netlink.LinkByName("peer")
		if err != nil {
			return err
		}
		line, err := netlink.ParseAddr("192.0.2.1/32")
		if err != nil {
			return err
		}
		line.Peer = netlink.NewIPNet([]byte{192, 0, 2, 9})
		if err := netlink.AddrAdd(far, line); err != nil {
			return err
		}
		got, err = Links()
		return err
	})
	got = slices.DeleteFunc(got, func(l Link) bool { return l.Name != "lo" && l.Name != "eth0" && l.Name != "down" && l.Name != "peer" })
	for i := range got { // the kernel gives addresses to links by itself
		got[i].Addrs = slices.DeleteFunc(got[i].Addrs, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	}
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	want := map[string]Link{
		"lo":   {Name: "lo", Up: true, MTU: 65536, Addrs: prefixes("127.0.0.1/8", "::1/128")},
		"eth0": {Name: "eth0", Up: true, MTU: 1500, Addrs: prefixes("10.0.0.5/24", "10.0.0.6/32", "fd00::5/64")},
		"down": {Name: "down", MTU: 1400},
		"peer": {Name: "peer", MTU: 1400, Addrs: prefixes("192.0.2.1/32")},
	}
	have := map[string]Link{}
	for _, l := range got {
		if len(l.Addrs) == 0 {
			l.Addrs = nil
		}
		have[l.Name] = l
	}
	if d := cmp.Diff(want, have, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("links (-want +got):\n%s", d)
	}
}
