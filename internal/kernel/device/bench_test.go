package device_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
)

// fabric is a VXLAN with n other nodes, and a route to a block of each.
func fabric(n int) (d plan.Delta) {
	v := vxlan()
	v.Addr = netip.MustParseAddr("10.100.0.1")
	d.PutDevices = []plan.Device{v}
	for i := range n {
		e, r := member(i)
		d.PutVTEPs, d.PutRoutes = append(d.PutVTEPs, e), append(d.PutRoutes, r)
	}
	return d
}

// member is the i-th other node.
func member(i int) (plan.VTEP, plan.Route) {
	block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(101 + i>>10), byte(i >> 2), byte(i << 6)}), 26)
	inner := block.Addr().Next()
	e := plan.VTEP{
		VTEPKey:   plan.VTEPKey{Link: plan.VXLANDevice, Addr: inner},
		VTEPAttrs: plan.VTEPAttrs{MAC: fmt.Sprintf("66:00:00:00:%02x:%02x", i>>8, i&255), Node: netip.AddrFrom4([4]byte{10, 0, byte(1 + i>>8), byte(i)})},
	}
	r := plan.Route{
		RouteKey:   plan.RouteKey{Dst: block, Table: plan.TableMain},
		RouteAttrs: plan.RouteAttrs{Proto: plan.ProtoBird, OnLink: true, Link: plan.VXLANDevice, Via: plan.MakeHops(inner)},
	}
	return e, r
}

// doors are both that a node's fabric takes.
type doors struct {
	kernel
	d *device.Devices
	f *fib.FIB
}

func newDoors(b testing.TB) (doors, func()) {
	k := newKernel(b)
	d, stopDevices := k.start(device.Options{})
	var f *fib.FIB
	k.ns.MustDo(func() (err error) {
		f, err = fib.New(fib.Options{Resync: -1})
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.ns.Do(func() error { return f.Run(ctx) })
	}()
	stop := func() { cancel(); <-done; stopDevices() }
	b.Cleanup(stop)
	d.Synced()
	f.Synced()
	return doors{k, d, f}, stop
}

func (k doors) apply(delta plan.Delta) {
	k.Helper()
	k.d.Apply(delta)
	k.f.Apply(delta)
	k.wait(k.d)
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	var keys []plan.RouteKey
	for _, r := range delta.PutRoutes {
		keys = append(keys, r.RouteKey)
	}
	if err := k.f.WaitApplied(ctx, "", keys...); err != nil {
		k.Fatal(err)
	}
}

const nodes = 5000

// BenchmarkFabric: the VXLAN, the ends and the routes of 5,000 nodes, from an empty kernel.
func BenchmarkFabric(b *testing.B) {
	d := fabric(nodes)
	for b.Loop() {
		b.StopTimer()
		k, stop := newDoors(b)
		b.StartTimer()
		k.apply(d)
		b.StopTimer()
		stop()
		b.StartTimer()
	}
}

// BenchmarkNode: one node more, and gone, among 5,000.
func BenchmarkNode(b *testing.B) {
	k, _ := newDoors(b)
	k.apply(fabric(nodes))
	e, r := member(nodes)
	b.ReportAllocs()
	for b.Loop() {
		k.apply(plan.Delta{PutVTEPs: []plan.VTEP{e}, PutRoutes: []plan.Route{r}})
		b.StopTimer()
		k.apply(plan.Delta{DeleteVTEPs: []plan.VTEPKey{e.VTEPKey}, DeleteRoutes: []plan.RouteKey{r.RouteKey}})
		b.StartTimer()
	}
}

// BenchmarkRestart: what 5,000 nodes cost an agent that finds all as it left it.
func BenchmarkRestart(b *testing.B) {
	k, stop := newDoors(b)
	d := fabric(nodes)
	k.apply(d)
	stop()
	for b.Loop() {
		again, stop := k.start(device.Options{}, d)
		k.wait(again)
		if s := again.Stats(); s.Devices+s.Messages != 0 {
			b.Fatalf("a restart did something: %+v", s)
		}
		b.StopTimer()
		stop()
		b.StartTimer()
	}
}
