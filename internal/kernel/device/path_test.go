package device_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// side is one of two nodes, a and b, on one segment.
type side struct {
	kernel
	name string
	addr [2]string // of the node: IPv4, IPv6
}

// twoNodes joins two nodes by a link; each has blocks 192.168.X.0/26 and fdX::/122.
func twoNodes(t *testing.T) (a, b side) {
	testenv.Need(t, "ip", "ping", "tcpdump")
	a = side{kernel{t, testenv.Netns(t)}, "97", [2]string{"10.0.0.2", "fd00::2"}}
	b = side{kernel{t, testenv.Netns(t)}, "98", [2]string{"10.0.0.3", "fd00::3"}}
	testenv.Veth(t, a.ns, "eth0", []string{a.addr[0] + "/24", a.addr[1] + "/64"}, b.ns, "eth0", []string{b.addr[0] + "/24", b.addr[1] + "/64"})
	return a, b
}

func (s side) mac(v6 bool) string {
	if v6 {
		return "66:00:00:00:06:" + s.name
	}
	return "66:00:00:00:04:" + s.name
}

// inner is the address of its device.
func (s side) inner(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("fd" + s.name + "::1")
	}
	return netip.MustParseAddr("192.168." + s.name + ".1")
}

// towards is what s wants, so that packets to the blocks of o go through tunnels.
func (s side) towards(o side, kind plan.DeviceKind) (d plan.Delta) {
	for i, v6 := range []bool{false, true} {
		v := plan.Device{Name: plan.VXLANDevice, Kind: kind, Addr: s.inner(v6), MTU: 1400}
		gateway := o.inner(v6)
		switch kind {
		case plan.VXLAN:
			if v6 {
				v.Name = plan.VXLAN6Device
			}
			v.VNI, v.Port, v.Local, v.MAC = 4096, 4789, netip.MustParseAddr(s.addr[i]), s.mac(v6)
			d.PutVTEPs = append(d.PutVTEPs, plan.VTEP{
				VTEPKey:   plan.VTEPKey{Link: v.Name, Addr: gateway},
				VTEPAttrs: plan.VTEPAttrs{MAC: o.mac(v6), Node: netip.MustParseAddr(o.addr[i])},
			})
		default:
			if v6 {
				continue // there is no such thing
			}
			v.Name, gateway = plan.IPIPDevice, netip.MustParseAddr(o.addr[i])
		}
		d.PutDevices = append(d.PutDevices, v)
		bits := 26
		if v6 {
			bits = 122
		}
		block, _ := o.inner(v6).Prefix(bits)
		d.PutRoutes = append(d.PutRoutes, plan.Route{
			RouteKey:   plan.RouteKey{Dst: block, Table: plan.TableMain},
			RouteAttrs: plan.RouteAttrs{Proto: plan.ProtoBird, OnLink: true, Link: v.Name, Via: plan.MakeHops(gateway)},
		})
	}
	return d
}

func (s side) doors() doors {
	d, _ := s.start(device.Options{})
	var f *fib.FIB
	s.ns.MustDo(func() (err error) {
		f, err = fib.New(fib.Options{Resync: -1})
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ns.Do(func() error { return f.Run(ctx) })
	}()
	s.Cleanup(func() { cancel(); <-done })
	d.Synced()
	f.Synced()
	return doors{s.kernel, d, f}
}

// reach pings from the device's address of s to that of o.
func (s side) reach(o side, v6 bool) {
	s.Helper()
	out, err := s.try("ping -n -c 1 -W 60 -I " + s.inner(v6).String() + " " + o.inner(v6).String())
	if err != nil || !strings.Contains(out, "1 received") {
		s.Errorf("%v does not reach %v:\n%s", s.inner(v6), o.inner(v6), out)
	}
}

// TestVXLANCarries: packets of both families pass between two nodes, also after the device
// was deleted by hand.
func TestVXLANCarries(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t)
	k, l := a.doors(), b.doors()
	k.apply(a.towards(b, plan.VXLAN))
	l.apply(b.towards(a, plan.VXLAN))
	for _, v6 := range []bool{false, true} {
		a.reach(b, v6)
	}
	a.ip("link del " + plan.VXLANDevice)
	a.until(healed, "the route is back", func() bool {
		return strings.Contains(a.ip("route"), "dev vxlan.calico") && len(k.d.Problems()) == 0
	})
	k.wait(k.d)
	a.reach(b, false)
	a.ip("addr del 192.168.97.1/32 dev " + plan.VXLANDevice) // with it, the kernel drops the routes in silence
	a.until(healed, "address and route are back", func() bool {
		return strings.Contains(a.ip("addr"), "192.168.97.1/32") && strings.Contains(a.ip("route"), "dev vxlan.calico")
	})
	a.reach(b, false)
	a.ip("link set vxlan.calico down")
	_, _ = a.try("ip addr del 192.168.97.1/32 dev vxlan.calico")
	a.until(healed, "all is back", func() bool {
		return strings.Contains(a.ip("addr"), "192.168.97.1/32") && strings.Contains(a.ip("route"), "dev vxlan.calico") &&
			strings.Contains(a.ip("neigh"), "192.168.98.1 dev vxlan.calico lladdr")
	})
	a.reach(b, false)
}

// In the virtual machine a second is short: it is 10 to 30 times slower.

// TestVMIPIP: the kernel's tunl0 is taken over, and carries.
func TestVMIPIP(t *testing.T) {
	testenv.VM(t)
	a, b := twoNodes(t)
	k, l := a.doors(), b.doors()
	k.apply(a.towards(b, plan.IPIP))
	l.apply(b.towards(a, plan.IPIP))
	a.reach(b, false)
	got := a.ip("-d addr show dev tunl0")
	for _, w := range []string{"mtu 1400", "inet 192.168.97.1/32", "alias weft", "ipip any remote any local any", ",UP"} {
		if !strings.Contains(got, w) {
			t.Errorf("tunl0 lacks %q:\n%s", w, got)
		}
	}
	if want := "192.168.98.0/26 via 10.0.0.3 dev tunl0 proto bird onlink"; !strings.Contains(a.ip("route"), want) {
		t.Errorf("routes:\n%s\nwant:\n%s", a.ip("route"), want)
	}
	a.ip("link set tunl0 down")
	_, _ = a.try("ip addr del 192.168.97.1/32 dev tunl0")
	a.until(eventually, "the route is back", func() bool {
		return strings.Contains(a.ip("route"), "dev tunl0") && strings.Contains(a.ip("addr"), "192.168.97.1/32")
	})
	a.reach(b, false)
	k.apply(plan.Delta{DeleteDevices: []string{plan.IPIPDevice}, DeleteRoutes: []plan.RouteKey{a.towards(b, plan.IPIP).PutRoutes[0].RouteKey}})
	if got := a.ip("addr show dev tunl0"); strings.Contains(got, "inet ") || !strings.Contains(got, ",UP") {
		t.Errorf("turned off, tunl0 is\n%s\nwant it up, without an address", got)
	}
	if n := k.d.Notices(); len(n) != 0 {
		t.Errorf("notices: %v", n)
	}
}

// TestVMIPIPMade: where the kernel makes no tunl0 by itself it is made, and made again.
func TestVMIPIPMade(t *testing.T) {
	testenv.VM(t)
	const fallback = "/proc/sys/net/core/fb_tunnels_only_for_init_net"
	if err := os.WriteFile(fallback, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(fallback, []byte("0"), 0)
	k := newKernel(t)
	if got := k.ip("link"); strings.Contains(got, "tunl0") {
		t.Fatalf("there is a tunl0:\n%s", got)
	}
	d, _ := k.start(device.Options{}, plan.Delta{PutDevices: []plan.Device{
		{Name: plan.IPIPDevice, Kind: plan.IPIP, Addr: netip.MustParseAddr("192.168.97.1"), MTU: 1480},
	}})
	d.Synced()
	k.wait(d)
	look := func() bool {
		got, _ := k.try("ip -d addr show dev tunl0")
		return strings.Contains(got, "ipip") && strings.Contains(got, "mtu 1480") && strings.Contains(got, "192.168.97.1/32") &&
			strings.Contains(got, "alias weft")
	}
	if !look() {
		t.Errorf("devices:\n%s", k.ip("-d addr"))
	}
	k.ip("link del tunl0")
	k.until(eventually, "made again", look)
	d.Apply(plan.Delta{DeleteDevices: []string{plan.IPIPDevice}})
	k.wait(d)
	if got := k.ip("addr show dev tunl0"); strings.Contains(got, "inet ") {
		t.Errorf("turned off, tunl0 is\n%s\nwant it without an address", got)
	}
}

// TestVMIPIPRestart: what an earlier run left is not touched, and goes after Synced.
func TestVMIPIPRestart(t *testing.T) {
	testenv.VM(t)
	k := newKernel(t)
	v := plan.Delta{PutDevices: []plan.Device{{Name: plan.IPIPDevice, Kind: plan.IPIP, Addr: netip.MustParseAddr("192.168.97.1"), MTU: 1480}}}
	d, stop := k.start(device.Options{}, v)
	k.wait(d)
	stop()
	d, stop = k.start(device.Options{}, v)
	d.Synced()
	k.wait(d)
	if s := d.Stats(); s.Devices != 0 {
		t.Errorf("a restart did something: %+v", s)
	}
	stop()
	d, _ = k.start(device.Options{}) // and now nobody wants it
	d.Synced()
	k.until(eventually, "no address", func() bool { return !strings.Contains(k.ip("addr"), "192.168.97.1") })
}

// TestVMIPIPOfSomebodyElse: a tunl0 with a remote is not ours to change.
func TestVMIPIPOfSomebodyElse(t *testing.T) {
	testenv.VM(t)
	k := newKernel(t)
	k.ip("link add first type ipip local 10.0.0.2 remote 10.0.0.9") // brings the kernel's own tunl0 here
	if _, err := k.try("ip link set tunl0 name spare"); err != nil {
		k.ip("link add tunl0 type ipip local 10.0.0.2 remote 10.0.0.8")
	} else {
		k.ip("link add tunl0 type ipip local 10.0.0.2 remote 10.0.0.8")
	}
	before := k.ip("-d link show dev tunl0")
	d, _ := k.start(device.Options{}, plan.Delta{PutDevices: []plan.Device{
		{Name: plan.IPIPDevice, Kind: plan.IPIP, Addr: netip.MustParseAddr("192.168.97.1"), MTU: 1480}, vxlan(),
	}})
	k.problem(d, plan.IPIPDevice, "remote 10.0.0.8, want any", "local 10.0.0.2, want any", "ip link delete tunl0")
	if got := k.ip("-d link show dev tunl0"); got != before {
		t.Errorf("tunl0 was changed:\n%s\nwas:\n%s", got, before)
	}
	k.until(eventually, "the other device works", func() bool { return strings.Contains(k.ip("addr"), "192.168.97.1/32 scope global vxlan.calico") })
}

// TestVMWireGuard: the device is made, looked after, and removed.
func TestVMWireGuard(t *testing.T) {
	testenv.VM(t)
	k := newKernel(t)
	v := plan.Device{Name: "wireguard.cali", Kind: plan.WireGuard, Addr: netip.MustParseAddr("192.168.97.1"), MTU: 1440, Port: 51820}
	v6 := plan.Device{Name: "wg-v6.cali", Kind: plan.WireGuard, Addr: netip.MustParseAddr("fd97::1"), MTU: 1420, Port: 51821}
	all := plan.Delta{PutDevices: []plan.Device{v, v6}}
	d, stop := k.start(device.Options{}, all)
	d.Synced()
	k.wait(d)
	look := func() bool {
		got := k.ip("-d addr")
		for _, w := range []string{"wireguard.cali:", "mtu 1440", "inet 192.168.97.1/32", "wg-v6.cali:", "mtu 1420", "inet6 fd97::1/128"} {
			if !strings.Contains(got, w) {
				return false
			}
		}
		return strings.Count(got, "alias weft") == 2 && strings.Count(got, "POINTOPOINT,NOARP,UP") == 2
	}
	if !look() {
		t.Errorf("devices:\n%s", k.ip("-d addr"))
	}
	k.ip("link del wireguard.cali")
	k.until(eventually, "made again", look)
	k.ip("link set wg-v6.cali down")
	k.until(eventually, "up again", look)
	stop()
	d, _ = k.start(device.Options{}, all)
	d.Synced()
	k.wait(d)
	if s := d.Stats(); s.Devices != 0 {
		t.Errorf("a restart did something: %+v", s)
	}
	d.Apply(plan.Delta{DeleteDevices: []string{v.Name, v6.Name}})
	k.wait(d)
	if got := k.ip("link"); strings.Contains(got, "wireguard") || strings.Contains(got, "wg-v6") {
		t.Errorf("deleted devices are there:\n%s", got)
	}
}
