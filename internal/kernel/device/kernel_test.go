package device_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

const (
	eventually = testenv.Patience
	healed     = testenv.ByEvent // nothing is compared but by events, see start
)

// kernel is a namespace with an uplink eth0, 10.0.0.2/24 and fd00::2/64.
type kernel struct {
	testing.TB
	ns *testenv.Namespace
}

func newKernel(t testing.TB) kernel {
	testenv.Need(t, "ip", "bridge")
	k := kernel{t, testenv.Netns(t)}
	k.ip("link add eth0 type veth peer name eth0peer")
	k.ip("addr add 10.0.0.2/24 dev eth0")
	k.ip("-6 addr add fd00::2/64 dev eth0 nodad")
	k.ip("link set eth0peer up")
	k.ip("link set eth0 up")
	return k
}

// ip runs iproute2 inside, and gives its output.
func (k kernel) ip(args string) string { k.Helper(); return k.run("ip " + args) }

func (k kernel) run(command string) string {
	k.Helper()
	out, err := k.try(command)
	if err != nil {
		k.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

func (k kernel) try(command string) (string, error) {
	k.Helper()
	words := strings.Fields(command)
	return k.ns.Run(words[0], words[1:]...)
}

// start runs Devices inside until the test, or the returned stop, ends it. The deltas
// are applied before it has read the kernel.
func (k kernel) start(o device.Options, first ...plan.Delta) (*device.Devices, func()) {
	k.Helper()
	if o.Resync == 0 {
		o.Resync = -1 // what is healed is healed by events
	}
	var d *device.Devices
	stop := k.ns.Keep(func() (_ func(context.Context) error, err error) {
		if d, err = device.New(o); err != nil {
			return nil, err
		}
		for _, v := range first {
			d.Apply(v)
		}
		return d.Run, nil
	})
	return d, stop
}

func (k kernel) wait(d *device.Devices) {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	if err := d.WaitApplied(ctx); err != nil {
		k.Fatal(err)
	}
}

// until waits for a fact that only the kernel knows.
func (k kernel) until(limit time.Duration, what string, fact func() bool) {
	k.Helper()
	for start := time.Now(); !fact(); time.Sleep(2 * time.Millisecond) {
		if time.Since(start) > limit {
			k.Fatalf("not within %v: %s\nlinks:\n%.3000s", limit, what, k.ip("-d addr"))
		}
	}
}

// problem waits until d tells of exactly one, which contains all of the words.
func (k kernel) problem(d *device.Devices, object string, words ...string) {
	k.Helper()
	k.until(eventually, fmt.Sprintf("a problem of %s with %q; have %v", object, words, d.Problems()), func() bool {
		p := d.Problems()
		return len(p) == 1 && p[0].Object == object &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(p[0].Text, w) })
	})
}

func vxlan() plan.Device {
	return plan.Device{
		Name: plan.VXLANDevice, Kind: plan.VXLAN, Addr: netip.MustParseAddr("192.168.97.1"), MTU: 1400,
		VNI: 4096, Local: netip.MustParseAddr("10.0.0.2"), MAC: "66:01:02:03:04:05", Port: 4789,
	}
}

func vxlan6() plan.Device {
	return plan.Device{
		Name: plan.VXLAN6Device, Kind: plan.VXLAN, Addr: netip.MustParseAddr("fd97::1"), MTU: 1380,
		VNI: 4096, Local: netip.MustParseAddr("fd00::2"), MAC: "66:01:02:03:04:06", Port: 4789,
	}
}

func vtep(link, addr, mac, node string) plan.VTEP {
	return plan.VTEP{
		VTEPKey:   plan.VTEPKey{Link: link, Addr: netip.MustParseAddr(addr)},
		VTEPAttrs: plan.VTEPAttrs{MAC: mac, Node: netip.MustParseAddr(node)},
	}
}

// both is a node with both families and two others.
func both() plan.Delta {
	return plan.Delta{
		PutDevices: []plan.Device{vxlan(), vxlan6()},
		PutVTEPs: []plan.VTEP{
			vtep(plan.VXLANDevice, "192.168.98.1", "66:00:00:00:00:01", "10.0.0.3"),
			vtep(plan.VXLANDevice, "192.168.99.1", "66:00:00:00:00:02", "10.0.0.4"),
			vtep(plan.VXLAN6Device, "fd98::1", "66:00:00:00:00:03", "fd00::3"),
		},
	}
}

// entries prints the permanent neighbours and forwarding entries of all VXLANs, sorted.
func (k kernel) entries() string {
	k.Helper()
	var out []string
	for _, dev := range []string{plan.VXLANDevice, plan.VXLAN6Device} {
		if strings.Contains(k.ip("link"), dev+":") {
			for _, command := range []string{"ip neigh show nud permanent dev ", "bridge fdb show dev "} {
				lines, _ := k.try(command + dev) // it may be gone by now
				for l := range strings.Lines(lines) {
					out = append(out, strings.TrimRight(l, " \n"))
				}
			}
		}
	}
	slices.Sort(out)
	return strings.Trim(strings.Join(out, "\n"), "\n")
}

const bothEntries = `192.168.98.1 lladdr 66:00:00:00:00:01 PERMANENT
192.168.99.1 lladdr 66:00:00:00:00:02 PERMANENT
66:00:00:00:00:01 dst 10.0.0.3 self permanent
66:00:00:00:00:02 dst 10.0.0.4 self permanent
66:00:00:00:00:03 dst fd00::3 self permanent
fd98::1 lladdr 66:00:00:00:00:03 PERMANENT`
