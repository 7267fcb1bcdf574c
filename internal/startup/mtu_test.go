package startup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/testenv"
)

// ours are links that say nothing of the underlay.
func ours(name string) bool {
	return strings.HasPrefix(name, "cali") || name == "tunl0" || name == "vxlan.calico"
}

func TestUnderlayMTU(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		links, pattern string
		want           int
	}{
		"one":                        {"lo:65536 eth0:1500", "", 1500},
		"smallest":                   {"eth0:9000 eth1:1500 ens3:4000", "", 1500},
		"down":                       {"eth0:9000 -eth1:1500", "", 9000},
		"no network card":            {"eth0:1500 docker0:1400 cali12:1300 wlan0:1450", "", 1450},
		"pattern":                    {"eth0:9000 bond0:1400", "^bond", 1400},
		"workloads, tunnels never":   {"eth0:9000 cali1:1000 tunl0:1100 vxlan.calico:1200", ".*", 9000},
		"none matches":               {"bond7:8000=10.0.0.5/24 bond8:1500=10.1.0.5/24", "", 8000},
		"none matches, both address": {"bond7:8000=10.0.0.5/24 bond8:1500=fd00::5/64", "", 1500},
		"none at all":                {"lo:65536 bond8:1500", "", 0},
		"only ours":                  {"cali1:1500=10.0.0.5/32", "", 0},
		"matching one is down":       {"-eth0:1500 bond7:8000=10.0.0.5/24", "", 8000},
	} {
		var list []Link
		for _, text := range strings.Fields(tt.links) {
			var l Link
			text, addr, ok := strings.Cut(text, "=")
			if ok {
				l.Addrs = append(l.Addrs, netip.MustParsePrefix(addr))
			}
			linkName, mtu, _ := strings.Cut(text, ":")
			l.Name, l.Up = strings.TrimPrefix(linkName, "-"), linkName[0] != '-'
			if _, err := fmt.Sscan(mtu, &l.MTU); err != nil {
				t.Fatal(err)
			}
			list = append(list, l)
		}
		pattern := tt.pattern
		if pattern == "" {
			pattern = model.DefaultMTUPattern
		}
		got := UnderlayMTU(list, regexp.MustCompile(pattern), ours, netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5"))
		if got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}

// TestDefaultMTUPattern: which interfaces count where nothing is set.
func TestDefaultMTUPattern(t *testing.T) {
	t.Parallel()
	re := regexp.MustCompile(model.DefaultMTUPattern)
	for _, name := range strings.Fields("eth0 eth1.100 enp3s0 ens5 eno1 enx00 wlan0 wlp2s0 wwan0 ibs1 slc0 enP1p1") {
		if !re.MatchString(name) {
			t.Errorf("%s must count", name)
		}
	}
	for _, name := range strings.Fields("lo docker0 br-1 bond0 cali1 tunl0 vxlan.calico veth1 kube-ipvs0 ena0 myeth0") {
		if re.MatchString(name) {
			t.Errorf("%s must not count", name)
		}
	}
}

// TestWatchLinks: what happens to links is told at once, and what happens to ours is not.
func TestWatchLinks(t *testing.T) {
	t.Parallel()
	ns, other := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, ns, "eth0", []string{"10.0.0.5/24"}, other, "eth0", nil)
	told := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- ns.Do(func() error {
			return WatchLinks(ctx, ours, func(links []Link) {
				var out []string
				for _, l := range links {
					if l.Name == "eth0" || l.Name == "eth1" || ours(l.Name) {
						out = append(out, fmt.Sprintf("%s %d %t %d", l.Name, l.MTU, l.Up, len(v4(l.Addrs))))
					}
				}
				told <- strings.Join(out, ", ")
			})
		})
	}()
	last := ""
	wait := func(want string) {
		t.Helper()
		for deadline := time.After(testenv.Patience); last != want; {
			select {
			case last = <-told:
			case <-deadline:
				t.Fatalf("told %q last, want %q", last, want)
			}
		}
	}
	do := func(f func(l netlink.Link) error) {
		t.Helper()
		ns.MustDo(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return f(l)
		})
	}
	wait("eth0 1500 true 1")
	do(func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1400) })
	wait("eth0 1400 true 1")
	addr, err := netlink.ParseAddr("10.0.0.6/32")
	if err != nil {
		t.Fatal(err)
	}
	do(func(l netlink.Link) error { return netlink.AddrAdd(l, addr) })
	wait("eth0 1400 true 2")
	do(func(l netlink.Link) error { return netlink.AddrDel(l, addr) })
	wait("eth0 1400 true 1")
	ns.MustDo(func() error {
		return errors.Join(
			netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cali1", MTU: 1300}, PeerName: "cali2"}),
			netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1", MTU: 1350}, PeerName: "cali3"}))
	})
	wait("eth0 1400 true 1, eth1 1350 false 0")
	ns.MustDo(func() error {
		l, err := netlink.LinkByName("eth1")
		return errors.Join(err, netlink.LinkDel(l))
	})
	wait("eth0 1400 true 1")
	do(netlink.LinkSetDown)
	wait("eth0 1400 false 1")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func v4(list []netip.Prefix) (out []netip.Prefix) {
	for _, p := range list {
		if p.Addr().Is4() {
			out = append(out, p)
		}
	}
	return out
}
