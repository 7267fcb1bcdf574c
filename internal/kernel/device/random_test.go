package device_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/plan"
)

// TestAnyHistoryEndsAsPlanned plays random puts, deletes, damage and restarts, and
// compares the kernel with the fold of the deltas, written into a fresh namespace.
func TestAnyHistoryEndsAsPlanned(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := history{kernel: newKernel(t), rand: rand.New(rand.NewPCG(seed, 1))}
			h.d, h.stop = h.start(device.Options{})
			for range 150 {
				h.step()
			}
			h.d.Synced()
			fresh := newKernel(t)
			d, _ := fresh.start(device.Options{}, h.all())
			d.Synced()
			fresh.wait(d)
			want := fresh.state()
			got := ""
			for end := time.Now().Add(eventually); got != want && time.Now().Before(end); got = h.state() {
				h.wait(h.d)
			}
			if got != want {
				t.Fatalf("the kernel has\n%s\nwant\n%s\nlast steps: %q", got, want, h.log[max(0, len(h.log)-20):])
			}
			h.wait(h.d)
			if p := h.d.Problems(); len(p) != 0 {
				t.Errorf("problems: %v", p)
			}
		})
	}
}

// state is what a history must end with.
func (k kernel) state() string {
	k.Helper()
	var out []string
	for l := range strings.Lines(k.run("ip -o addr")) {
		_, l, _ = strings.Cut(l, ": ")
		if strings.HasPrefix(l, "vxlan") && !strings.Contains(l, "fe80") {
			out = append(out, strings.Join(strings.Fields(l)[:3], " "))
		}
	}
	for l := range strings.Lines(k.run("ip -d -o link")) {
		_, l, _ = strings.Cut(l, ": ")
		l, _, _ = strings.Cut(l, " addrgenmode")
		if strings.HasPrefix(l, "vxlan") {
			out = append(out, strings.TrimSpace(l))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n") + "\n" + k.entries()
}

type history struct {
	kernel
	rand *rand.Rand
	d    *device.Devices
	stop func()
	want plan.Node
	log  []string
}

func (h *history) all() (d plan.Delta) {
	for _, v := range h.want.Devices {
		d.PutDevices = append(d.PutDevices, v)
	}
	for k, a := range h.want.VTEPs {
		d.PutVTEPs = append(d.PutVTEPs, plan.VTEP{VTEPKey: k, VTEPAttrs: a})
	}
	return d
}

func (h *history) step() {
	switch n := h.rand.IntN(12); {
	case n < 5:
		h.apply(h.put())
	case n < 7:
		h.apply(h.delete())
	case n < 11:
		h.damage()
	case h.rand.IntN(2) == 0:
		h.log = append(h.log, "restart")
		h.stop()
		h.d, h.stop = h.start(device.Options{}, h.all())
		if h.rand.IntN(2) == 0 {
			h.d.Synced()
		}
	}
}

func (h *history) apply(d plan.Delta) {
	h.log = append(h.log, fmt.Sprint(d))
	h.want = h.want.Apply(d)
	h.d.Apply(d)
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func (h *history) put() (d plan.Delta) {
	switch h.rand.IntN(3) {
	case 0:
		v := pick(h.rand, vxlan(), vxlan6())
		v.VNI = pick(h.rand, v.VNI, v.VNI, v.VNI, v.VNI+1)
		v.MTU = pick(h.rand, v.MTU, 1300)
		if h.rand.IntN(4) == 0 {
			v.Addr = v.Addr.Next()
		}
		return plan.Delta{PutDevices: []plan.Device{v}}
	case 1:
		i := h.rand.IntN(3)
		return plan.Delta{PutVTEPs: []plan.VTEP{vtep(plan.VXLAN6Device, fmt.Sprintf("fd98::%d", i+1),
			fmt.Sprintf("66:00:00:00:06:%02x", 10*i+h.rand.IntN(3)), pick(h.rand, "fd00::3", "fd00::4"))}}
	}
	i := h.rand.IntN(3)
	return plan.Delta{PutVTEPs: []plan.VTEP{vtep(plan.VXLANDevice, fmt.Sprintf("192.168.98.%d", i+1),
		fmt.Sprintf("66:00:00:00:04:%02x", 10*i+h.rand.IntN(3)), pick(h.rand, "10.0.0.3", "10.0.0.4"))}}
}

func (h *history) delete() (d plan.Delta) {
	for k := range h.want.VTEPs {
		if h.rand.IntN(3) == 0 {
			d.DeleteVTEPs = append(d.DeleteVTEPs, k)
		}
	}
	for name := range h.want.Devices {
		if h.rand.IntN(4) == 0 {
			d.DeleteDevices = append(d.DeleteDevices, name)
		}
	}
	return d
}

// damage does something to the kernel that must not matter in the end.
func (h *history) damage() {
	link := pick(h.rand, plan.VXLANDevice, plan.VXLAN6Device)
	cmd := pick(h.rand,
		"ip link del "+link,
		"ip link set "+link+" down",
		"ip link set "+link+" mtu 1111",
		"ip addr flush dev "+link,
		"ip neigh flush nud permanent dev "+link,
		fmt.Sprintf("ip neigh replace 192.168.98.%d lladdr 02:00:00:00:00:09 dev vxlan.calico", 1+h.rand.IntN(3)),
		fmt.Sprintf("bridge fdb del 66:00:00:00:04:%02x dev vxlan.calico", 10*h.rand.IntN(3)+h.rand.IntN(3)),
		fmt.Sprintf("bridge fdb replace 66:00:00:00:04:%02x dst 10.0.0.77 dev vxlan.calico", 10*h.rand.IntN(3)+h.rand.IntN(3)),
		"ip addr add "+netip.AddrFrom4([4]byte{192, 168, 97, byte(50 + h.rand.IntN(3))}).String()+"/32 dev vxlan.calico",
	)
	h.log = append(h.log, cmd)
	_, _ = h.try(cmd) // what is not there cannot be damaged
}
