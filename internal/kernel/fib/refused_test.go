package fib_test

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
)

// TestARefusedRouteDoesNotRemoveItsPredecessor: a route that moves to another
// metric while the kernel refuses it (its source is no address of this machine)
// leaves the old one in place, until it can be written.
func TestARefusedRouteDoesNotRemoveItsPredecessor(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.workload("cali1")
	f, _ := k.start(fib.Options{}, pod("cali1"))
	k.wait(f, "cali1")
	f.Synced()
	for _, tt := range []struct{ dst, source, show, cure string }{
		{"192.168.97.2/32", "10.0.0.77", "route show 192.168.97.2", "addr add 10.0.0.77/24 dev eth0"},
		{"fd97::2/128", "fd00::77", "-6 route show fd97::2", "-6 addr add fd00::77/64 dev eth0 nodad"},
	} {
		before := device(tt.dst, "cali1")
		after := before
		after.Priority = 512
		after.Src = netip.MustParseAddr(tt.source)
		f.Apply(plan.Delta{PutRoutes: []plan.Route{after}, DeleteRoutes: []plan.RouteKey{before.RouteKey}})
		k.until(eventually, "the new route to be refused", func() bool { return f.State().Refused == 1 })
		if k.ip(tt.show) == "" {
			t.Errorf("%s: no route at all", tt.dst)
		}
		k.ip(tt.cure)
		f.Resync()
		k.wait(f, "", after)
		k.until(eventually, "the old route to go", func() bool { return f.State().Stale == 0 })
	}
}
