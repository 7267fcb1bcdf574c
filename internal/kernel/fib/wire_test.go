package fib

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// wire is a route as we send it, and with the attributes resolved.
func wire(prefix string, a attrs) ([]byte, key, *attrs) {
	k := makeKey(plan.RouteKey{Dst: netip.MustParsePrefix(prefix), Table: 1000, Priority: 7})
	b := netlink.AppendHeader(nil, unix.RTM_NEWROUTE, 0, 1)
	b = appendWanted(b, k, &a)
	netlink.Native.PutUint32(b, uint32(len(b)))
	return b, k, &a
}

func gateway(addr string, index int32) hop {
	h := hop{index: index}
	a := netip.MustParseAddr(addr)
	h.setGateway(netlink.Family(a.Is6()), a.AsSlice())
	return h
}

func onLink(h hop) hop {
	h.onLink = true
	return h
}

func TestWireRoundTrip(t *testing.T) {
	t.Parallel()
	bird := plan.RouteAttrs{Proto: plan.ProtoBird, Via: plan.MakeHops(netip.MustParseAddr("10.0.0.1"))}
	onlink := bird
	onlink.OnLink = true
	src := bird
	src.Src = netip.MustParseAddr("10.0.0.2")
	for name, tt := range map[string]struct {
		prefix string
		a      attrs
	}{
		"device":       {"10.1.0.1/32", attrs{RouteAttrs: plan.RouteAttrs{Proto: 3, Link: "cali1"}, hops: []hop{{index: 5}}}},
		"blackhole v6": {"fd01::/122", attrs{RouteAttrs: plan.RouteAttrs{Proto: 12, Type: plan.Blackhole}}},
		"gateway":      {"10.1.0.0/26", attrs{RouteAttrs: bird, hops: []hop{gateway("10.0.0.1", 5)}}},
		"onlink":       {"10.1.0.0/26", attrs{RouteAttrs: onlink, hops: []hop{onLink(gateway("10.0.0.1", 5))}}},
		"source":       {"10.1.0.0/26", attrs{RouteAttrs: src, hops: []hop{gateway("10.0.0.1", 5)}}},
		"via v6":       {"10.1.0.0/26", attrs{RouteAttrs: bird, hops: []hop{gateway("fd00::1", 5)}}},
		"ECMP v6":      {"fd01::/64", attrs{RouteAttrs: bird, hops: []hop{gateway("fd00::1", 5), gateway("fd00::2", 6)}}},
		"ECMP onlink":  {"10.1.0.0/26", attrs{RouteAttrs: onlink, hops: []hop{onLink(gateway("10.0.0.1", 5)), onLink(gateway("fd00::2", 6))}}},
		"some onlink":  {"10.1.0.0/26", attrs{RouteAttrs: bird, hops: []hop{gateway("10.0.0.1", 5), onLink(gateway("10.0.0.2", 6))}}},
	} {
		b, k, a := wire(tt.prefix, tt.a)
		n := 0
		for m := range netlink.Messages(b) {
			n++
			var r route
			if !r.parse(m.Body) || r.key != k || !r.matches(a) {
				t.Errorf("%s: read back as %+v", name, r)
			}
			other := *a
			other.Proto++
			if r.matches(&other) {
				t.Errorf("%s: matches another protocol", name)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d messages, want 1", name, n)
		}
	}
}

// TestEncapsulationIsADeadEnd: who reaches a network only with an encapsulation
// does not reach a gateway there without.
func TestEncapsulationIsADeadEnd(t *testing.T) {
	t.Parallel()
	f := blank(Options{})
	f.linkIs("eth0", 5, true)
	k := makeKey(plan.RouteKey{Dst: netip.MustParsePrefix("10.9.0.0/16"), Table: plan.TableMain})
	b := appendRoute(nil, k, unix.RT_SCOPE_UNIVERSE, unix.RTPROT_STATIC, unix.RTN_UNICAST, 0)
	b = netlink.AppendAttr(b, unix.RTA_GATEWAY, []byte{10, 0, 0, 1})
	b = netlink.AppendAttr32(b, unix.RTA_OIF, 5)
	for want, b := range map[int][]byte{1: b, 0: netlink.AppendAttr(b, unix.RTA_ENCAP, make([]byte, 8))} {
		var r route
		if !r.parse(b) {
			t.Fatal("not a route")
		}
		if w, ok := f.wayOf(&r); !ok || len(w.hops) != want {
			t.Errorf("%d hops, %t; want %d, true", len(w.hops), ok, want)
		}
	}
}

// FuzzRead feeds hostile datagrams to the readers, which must not panic.
func FuzzRead(f *testing.F) {
	for _, prefix := range []string{"10.1.0.0/26", "fd01::/64"} {
		b, _, _ := wire(prefix, attrs{
			RouteAttrs: plan.RouteAttrs{Proto: 12, OnLink: true},
			hops:       []hop{onLink(gateway("10.0.0.1", 5)), gateway("fd00::2", 6)},
		})
		f.Add(b)
	}
	n := netlink.AppendHeader(nil, unix.RTM_NEWNEIGH, 0, 1)
	n = appendNeighbor(n, 3, netip.MustParseAddr("10.0.0.1"))
	netlink.Native.PutUint32(n, uint32(len(n)))
	f.Add(n)
	f.Fuzz(func(t *testing.T, b []byte) {
		x := blank(Options{RemoveExternalRoutes: true})
		x.localSynced, x.clusterSynced = true, true
		x.linkIs("cali1", 5, true)
		x.linkIs("eth0", 6, true)
		var r route
		for range 2 { // the second time, the keys are known
			for m := range netlink.Messages(b) {
				if m.Type != unix.RTM_DELADDR { // wants a loop
					x.event(m, &r)
				}
				if r.parse(m.Body) {
					x.compare(&r)
				}
			}
			x.refresh()
			x.sweep()
		}
	})
}
