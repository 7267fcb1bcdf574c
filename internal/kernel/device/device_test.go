package device_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// TestVXLAN: the devices and entries are those that Calico makes.
func TestVXLAN(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	d, stop := k.start(device.Options{}, both())
	k.wait(d)
	for name, want := range map[string][]string{
		plan.VXLANDevice: {
			"mtu 1400", "UP", "link/ether 66:01:02:03:04:05", "alias weft", "vxlan id 4096 local 10.0.0.2", "dstport 4789",
			"nolearning", "inet 192.168.97.1/32",
		},
		plan.VXLAN6Device: {
			"mtu 1380", "UP", "link/ether 66:01:02:03:04:06", "vxlan id 4096 local fd00::2", "dstport 4789", "inet6 fd97::1/128", "nolearning",
		},
	} {
		got := k.ip("-d addr show dev " + name)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s lacks %q:\n%s", name, w, got)
			}
		}
		if !strings.Contains(k.ip("-d link show dev "+name), "addrgenmode none") || strings.Contains(got, "fe80") || strings.Contains(got, " dev ") {
			t.Errorf("%s has a link-local address or a parent device:\n%s", name, got)
		}
	}
	if got := k.entries(); got != bothEntries {
		t.Errorf("entries:\n%s\nwant:\n%s", got, bothEntries)
	}
	for _, s := range d.State() {
		if !s.Up || s.Ends == 0 || s.UserSpace || s.Kind != plan.VXLAN {
			t.Errorf("state of %s: %+v", s.Name, s)
		}
	}
	if n := len(d.State()); n != 2 {
		t.Errorf("states of %d devices, want 2", n)
	}
	d.Synced()
	k.until(eventually, "the second comparison", func() bool { return d.Stats().Dumps >= 2 })
	before := d.Stats()
	d.Apply(both())
	k.wait(d)
	if after := d.Stats(); after.Devices != before.Devices || after.Messages != before.Messages {
		t.Errorf("applied twice: %+v, then %+v", before, after)
	}
	stop()

	d, _ = k.start(device.Options{}, both())
	d.Synced()
	k.wait(d)
	k.until(eventually, "two comparisons", func() bool { return d.Stats().Dumps >= 2 })
	k.wait(d)
	if s := d.Stats(); s.Devices+s.Messages != 0 {
		t.Errorf("a restart did something: %+v", s)
	}
	d.Apply(plan.Delta{DeleteDevices: []string{plan.VXLANDevice, plan.VXLAN6Device}})
	k.wait(d)
	if got := k.ip("link"); strings.Contains(got, "vxlan") {
		t.Errorf("deleted devices are there:\n%s", got)
	}
}

func TestHealing(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"device deleted":        "ip link del vxlan.calico",
		"device deleted, v6":    "ip link del vxlan-v6.calico",
		"device down":           "ip link set vxlan.calico down",
		"device down, v6":       "ip link set vxlan-v6.calico down",
		"device renamed":        "ip link set vxlan.calico down name vx",
		"mtu":                   "ip link set vxlan.calico mtu 1000",
		"mtu below IPv6's":      "ip link set vxlan-v6.calico mtu 1000",
		"mac":                   "ip link set vxlan.calico address 02:00:00:00:00:09",
		"alias":                 "ip link set vxlan.calico alias mine",
		"learning":              "ip link set vxlan.calico type vxlan learning",
		"address deleted":       "ip addr del 192.168.97.1/32 dev vxlan.calico",
		"address deleted, v6":   "ip -6 addr del fd97::1/128 dev vxlan-v6.calico",
		"address added":         "ip addr add 192.168.97.77/32 dev vxlan.calico",
		"address added, v6":     "ip -6 addr add fd97::77/128 dev vxlan-v6.calico",
		"neighbour deleted":     "ip neigh del 192.168.98.1 dev vxlan.calico",
		"neighbour deleted, v6": "ip neigh del fd98::1 dev vxlan-v6.calico",
		"neighbour changed":     "ip neigh replace 192.168.98.1 lladdr 02:00:00:00:00:09 dev vxlan.calico",
		"neighbour not forever": "ip neigh change 192.168.98.1 lladdr 66:00:00:00:00:01 nud reachable dev vxlan.calico",
		"forwarding deleted":    "bridge fdb del 66:00:00:00:00:01 dev vxlan.calico",
		"forwarding deleted v6": "bridge fdb del 66:00:00:00:00:03 dev vxlan-v6.calico",
		"forwarding changed":    "bridge fdb replace 66:00:00:00:00:01 dst 10.0.0.99 dev vxlan.calico",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			d, _ := k.start(device.Options{}, both())
			d.Synced()
			k.wait(d)
			look := func() string {
				var out []string
				for _, what := range []string{"ip -o addr", "ip -d -o link"} {
					for l := range strings.Lines(k.run(what)) {
						_, l, _ = strings.Cut(l, ": ") // the index
						l, _, _ = strings.Cut(l, " addrgenmode")
						if strings.HasPrefix(l, "v") && !strings.Contains(l, "fe80") { // of which the kernel has its own mind
							out = append(out, strings.TrimSpace(l))
						}
					}
				}
				slices.Sort(out)
				return strings.Join(out, "\n") + "\n" + k.entries()
			}
			k.until(eventually, "a quiet start", func() bool { return d.Stats().Dumps >= 2 })
			k.wait(d)
			want := look()
			k.run(damage)
			k.until(healed, "as before:\n"+want, func() bool { return look() == want })
			k.wait(d)
		})
	}
}

// TestVTEPsMove: a MAC address, an inner address and a node address each stay with
// whom the plan says, in whatever order it comes.
func TestVTEPsMove(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	d, _ := k.start(device.Options{}, plan.Delta{PutDevices: []plan.Device{vxlan()}})
	d.Synced()
	const a, b, link = "66:00:00:00:00:01", "66:00:00:00:00:02", plan.VXLANDevice
	k.wait(d)
	for name, tt := range map[string]struct {
		delta plan.Delta
		want  string
	}{
		"1 the MAC moves to another node": {
			plan.Delta{
				PutVTEPs:    []plan.VTEP{vtep(link, "192.168.99.1", a, "10.0.0.4")},
				DeleteVTEPs: []plan.VTEPKey{vtep(link, "192.168.98.1", a, "10.0.0.3").VTEPKey},
			},
			"192.168.99.1 lladdr 66:00:00:00:00:01 PERMANENT\n66:00:00:00:00:01 dst 10.0.0.4 self permanent",
		},
		"2 the node gets another MAC": {
			plan.Delta{PutVTEPs: []plan.VTEP{vtep(link, "192.168.98.1", b, "10.0.0.3")}},
			"192.168.98.1 lladdr 66:00:00:00:00:02 PERMANENT\n66:00:00:00:00:02 dst 10.0.0.3 self permanent",
		},
		"3 the node gets another address": {
			plan.Delta{PutVTEPs: []plan.VTEP{vtep(link, "192.168.98.1", a, "10.0.0.33")}},
			"192.168.98.1 lladdr 66:00:00:00:00:01 PERMANENT\n66:00:00:00:00:01 dst 10.0.0.33 self permanent",
		},
		"4 two have one MAC": {
			plan.Delta{PutVTEPs: []plan.VTEP{vtep(link, "192.168.99.1", a, "10.0.0.4")}},
			"192.168.98.1 lladdr 66:00:00:00:00:01 PERMANENT\n192.168.99.1 lladdr 66:00:00:00:00:01 PERMANENT\n66:00:00:00:00:01 dst 10.0.0.4 self permanent",
		},
		"5 gone": {plan.Delta{DeleteVTEPs: []plan.VTEPKey{vtep(link, "192.168.98.1", a, "10.0.0.3").VTEPKey}}, ""},
	} {
		start := vtep(link, "192.168.98.1", a, "10.0.0.3")
		d.Apply(plan.Delta{PutVTEPs: []plan.VTEP{start}, DeleteVTEPs: []plan.VTEPKey{vtep(link, "192.168.99.1", a, "10.0.0.4").VTEPKey}})
		k.wait(d)
		d.Apply(tt.delta)
		k.until(healed, name+":\n"+tt.want, func() bool { return k.entries() == tt.want })
	}
	d.Apply(plan.Delta{PutVTEPs: []plan.VTEP{vtep(link, "192.168.98.1", a, "10.0.0.3"), vtep(link, "192.168.99.1", a, "10.0.0.4")}})
	d.Apply(plan.Delta{DeleteVTEPs: []plan.VTEPKey{vtep(link, "192.168.99.1", a, "10.0.0.4").VTEPKey}})
	want := "192.168.98.1 lladdr 66:00:00:00:00:01 PERMANENT\n66:00:00:00:00:01 dst 10.0.0.3 self permanent"
	k.until(healed, "the MAC is the first one's again:\n"+want, func() bool { return k.entries() == want })
}

// TestAdopt: a device like ours becomes ours, another one stays and is told of.
func TestAdopt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		there string   // of the device, after "ip link add vxlan.calico"
		setup string   // another command
		want  []string // words of the problem; none: adopted
	}{
		"as Calico makes it": {there: "address 66:01:02:03:04:05 mtu 1400 type vxlan id 4096 local 10.0.0.2 dev eth0 dstport 4789 nolearning"},
		"other MAC and MTU":  {there: "address 66:01:02:03:04:99 mtu 1300 type vxlan id 4096 local 10.0.0.2 dstport 4789 nolearning"},
		"other VNI":          {there: "type vxlan id 7 local 10.0.0.2 dstport 4789 nolearning", want: []string{"id 7, want 4096", "ip link delete vxlan.calico"}},
		"other port":         {there: "type vxlan id 4096 local 10.0.0.2 dstport 8472 nolearning", want: []string{"dstport 8472, want 4789"}},
		"other local":        {there: "type vxlan id 4096 local 10.0.0.99 dstport 4789 nolearning", want: []string{"local 10.0.0.99, want 10.0.0.2"}},
		"multicast":          {there: "type vxlan id 4096 local 10.0.0.2 dstport 4789 group 239.1.1.1 dev eth0", want: []string{"remote 239.1.1.1, want any", "learning true, want false"}},
		"other kind":         {there: "type bridge", want: []string{"it is a bridge device, want vxlan"}},
		"ours, other VNI":    {there: "type vxlan id 7 local 10.0.0.2 dstport 4789", setup: "ip link set vxlan.calico alias weft"},
		"ours, other kind":   {there: "type bridge", setup: "ip link set vxlan.calico alias weft"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			k.ip("link add vxlan.calico " + tt.there)
			if tt.setup != "" {
				k.run(tt.setup)
			}
			before := k.ip("-d link show dev vxlan.calico")
			d, _ := k.start(device.Options{}, plan.Delta{
				PutDevices: []plan.Device{vxlan(), vxlan6()},
				PutVTEPs:   both().PutVTEPs,
			})
			d.Synced()
			if tt.want == nil {
				k.wait(d)
				if got := k.entries(); got != bothEntries {
					t.Errorf("entries:\n%s\nwant:\n%s", got, bothEntries)
				}
				got := k.ip("-d link show dev vxlan.calico")
				for _, w := range []string{"alias weft", "id 4096", "66:01:02:03:04:05", "mtu 1400", "nolearning"} {
					if !strings.Contains(got, w) {
						t.Errorf("the device lacks %q:\n%s", w, got)
					}
				}
				return
			}
			k.problem(d, plan.VXLANDevice, tt.want...)
			if got := k.ip("-d link show dev vxlan.calico"); got != before {
				t.Errorf("the device was changed:\n%s\nwas:\n%s", got, before)
			}
			k.until(eventually, "the other device works", func() bool {
				got := k.entries()
				return strings.Contains(got, "66:00:00:00:00:03 dst fd00::3 self permanent") &&
					strings.Contains(got, "fd98::1 lladdr 66:00:00:00:00:03 PERMANENT")
			})
			d.Apply(plan.Delta{DeleteDevices: []string{plan.VXLANDevice}})
			k.wait(d)
			if got := k.ip("-d link show dev vxlan.calico"); got != before {
				t.Errorf("the device was changed in the end:\n%s\nwas:\n%s", got, before)
			}
			d.Apply(plan.Delta{PutDevices: []plan.Device{vxlan()}})
			k.ip("link del vxlan.calico")
			k.wait(d)
			if p := d.Problems(); len(p) != 0 {
				t.Errorf("problems after it was removed: %v", p)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	with := func(change func(*plan.Device)) plan.Device { v := vxlan(); change(&v); return v }
	for name, tt := range map[string]struct {
		setup string
		v     plan.Device
		want  []string
	}{
		"MTU too large":    {"", with(func(v *plan.Device) { v.MTU = 70000 }), []string{"set mtu 70000", "the kernel takes 68 to 655"}},
		"VNI of another":   {"ip link add flannel type vxlan id 4096 dstport 4789", vxlan(), []string{"flannel has id 4096 and dstport 4789", "vxlanVNI"}},
		"IPv6 is off":      {"sysctl -qw net.ipv6.conf.default.disable_ipv6=1", vxlan6(), []string{"fd97::1/128", "disable_ipv6"}},
		"MTU without IPv6": {"", func() plan.Device { v := vxlan6(); v.MTU = 1200; return v }(), []string{"fd97::1/128", "mtu of 1200 is less than IPv6 needs (1280)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			if tt.setup != "" {
				k.run(tt.setup)
			}
			d, _ := k.start(device.Options{}, plan.Delta{PutDevices: []plan.Device{tt.v}})
			k.problem(d, tt.v.Name, tt.want...)
			other := vxlan()
			other.Name, other.VNI, other.Addr = "vxlan.other", 5, netip.MustParseAddr("192.168.97.2")
			d.Apply(plan.Delta{PutDevices: []plan.Device{other}})
			k.until(eventually, "another device works", func() bool {
				return strings.Contains(k.ip("addr"), "192.168.97.2/32")
			})
		})
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	var taken *os.File
	k.ns.MustDo(func() (err error) { taken, err = listenUDP(4789); return err })
	defer taken.Close()
	d, _ := k.start(device.Options{}, both())
	k.until(eventually, "problems", func() bool { return len(d.Problems()) > 0 })
	k.problem(d, plan.VXLANDevice, "UDP port 4789 is taken by ", fmt.Sprintf("(process %d)", os.Getpid()), "vxlanPort")
	taken.Close()
	k.wait(d) // by a retry
	if got := k.entries(); got != bothEntries {
		t.Errorf("entries:\n%s\nwant:\n%s", got, bothEntries)
	}
}

// TestStale: what an earlier run left goes after Synced, and nothing of others ever.
func TestStale(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	d, stop := k.start(device.Options{}, both())
	k.wait(d)
	stop()
	k.ip("link add foreign type vxlan id 9 dstport 4790 local 10.0.0.2")
	k.ip("link add bridge type bridge")
	k.ip("link set bridge alias weft") // not of a kind that we make
	k.ip("addr add 192.168.97.55/32 dev vxlan.calico")
	now := both()
	now.PutDevices, now.PutVTEPs = now.PutDevices[:1], now.PutVTEPs[:1]
	d, _ = k.start(device.Options{}, now)
	k.wait(d)
	if got := k.entries(); got != bothEntries {
		t.Errorf("before Synced:\n%s\nwant:\n%s", got, bothEntries)
	}
	if got := k.ip("addr"); !strings.Contains(got, "192.168.97.55") {
		t.Error("an address was removed before Synced")
	}
	d.Synced()
	want := "192.168.98.1 lladdr 66:00:00:00:00:01 PERMANENT\n66:00:00:00:00:01 dst 10.0.0.3 self permanent"
	k.until(eventually, "only what is wanted", func() bool { return k.entries() == want })
	got := k.ip("addr")
	for _, w := range []string{"foreign", "bridge", "192.168.97.1/32"} {
		if !strings.Contains(got, w) {
			t.Errorf("%s is gone:\n%s", w, got)
		}
	}
	if strings.Contains(got, "192.168.97.55") {
		t.Error("the stale address is there")
	}
}

func TestSettingsChangeInPlace(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	d, _ := k.start(device.Options{}, both())
	d.Synced()
	k.wait(d)
	index := func() string { i, _, _ := strings.Cut(k.ip("-o link show dev vxlan.calico"), ":"); return i }
	before := index()
	v := vxlan()
	v.MTU, v.Addr, v.MAC = 1350, netip.MustParseAddr("192.168.97.9"), "66:01:02:03:04:77"
	d.Apply(plan.Delta{PutDevices: []plan.Device{v}})
	k.wait(d)
	got := k.ip("addr show dev vxlan.calico")
	for _, w := range []string{"mtu 1350", "inet 192.168.97.9/32", "66:01:02:03:04:77"} {
		if !strings.Contains(got, w) {
			t.Errorf("the device lacks %q:\n%s", w, got)
		}
	}
	if strings.Contains(got, "192.168.97.1/32") || index() != before {
		t.Errorf("the old address is there, or the device is another one:\n%s", got)
	}
	v.VNI = 4097
	d.Apply(plan.Delta{PutDevices: []plan.Device{v}})
	k.wait(d)
	if got := k.entries(); got != bothEntries || index() == before {
		t.Errorf("entries after the device was made again:\n%s\nwant:\n%s", got, bothEntries)
	}
}

func TestChecksumOffload(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ethtool")
	k := newKernel(t)
	on := func() bool { return strings.Contains(k.run("ethtool -k vxlan.calico"), "tx-checksumming: on") }
	d, _ := k.start(device.Options{}, plan.Delta{PutDevices: []plan.Device{vxlan()}})
	k.wait(d)
	if !on() {
		t.Error("offload is off although nothing is wrong")
	}
	v := vxlan()
	v.NoChecksumOffload = true
	d.Apply(plan.Delta{PutDevices: []plan.Device{v}})
	k.wait(d)
	if on() {
		t.Error("offload is on")
	}
	k.run("ethtool -K vxlan.calico tx on")
	k.until(healed, "off again", func() bool { return !on() })
	d.Apply(plan.Delta{PutDevices: []plan.Device{vxlan()}})
	k.wait(d)
	if !on() {
		t.Error("offload stayed off")
	}
}

func TestStrictVerificationIsLoosened(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ all, byDefault, want string }{
		"off":            {"0", "0", "0"},
		"strict for all": {"1", "0", "2"},
		"strict for new": {"0", "1", "2"},
		"loose for all":  {"2", "0", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			k.ns.MustDo(func() error {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte(tt.all), 0); err != nil {
					return err
				}
				return os.WriteFile("/proc/sys/net/ipv4/conf/default/rp_filter", []byte(tt.byDefault), 0)
			})
			d, _ := k.start(device.Options{}, plan.Delta{PutDevices: []plan.Device{vxlan()}})
			k.wait(d)
			var got []byte
			k.ns.MustDo(func() (err error) {
				got, err = os.ReadFile("/proc/sys/net/ipv4/conf/vxlan.calico/rp_filter")
				return err
			})
			if strings.TrimSpace(string(got)) != tt.want {
				t.Errorf("rp_filter is %s, want %s", got, tt.want)
			}
		})
	}
}

// TestNoKernelIPIP: user space is asked once for each device, and looked after.
func TestNoKernelIPIP(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	if out, err := k.try("ip link add ipiptest type ipip local 10.0.0.2 remote 10.0.0.3"); err == nil || !strings.Contains(out, "Unknown device type") {
		t.Skip("the kernel has IPIP")
	}
	tun := plan.Device{Name: plan.IPIPDevice, Kind: plan.IPIP, Addr: netip.MustParseAddr("192.168.97.1"), MTU: 1480}
	bare, stopBare := k.start(device.Options{}, plan.Delta{PutDevices: []plan.Device{tun}})
	k.problem(bare, plan.IPIPDevice, "the kernel has no ipip")
	stopBare()

	calls := make(chan struct{}, 10)
	var log strings.Builder
	o := device.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), UserIPIP: func() error {
		calls <- struct{}{}
		if !strings.Contains(k.ip("link"), "tunl0:") {
			k.ip("tuntap add tunl0 mode tun")
		}
		return nil
	}}
	d, stop := k.start(o, plan.Delta{PutDevices: []plan.Device{tun}})
	d.Synced()
	look := func() bool {
		got, _ := k.try("ip -d addr show dev tunl0")
		return strings.Contains(got, "mtu 1480") && strings.Contains(got, "inet 192.168.97.1/32") && strings.Contains(got, "UP") &&
			strings.Contains(got, "alias weft")
	}
	k.wait(d)
	if !look() || len(calls) != 1 || len(d.Notices()) != 1 || d.Notices()[0].Object != plan.IPIPDevice {
		t.Errorf("%d calls, notices %v, device:\n%s", len(calls), d.Notices(), k.ip("addr"))
	}
	if s := d.State(); len(s) != 1 || !s[0].Up || !s[0].UserSpace || s[0].MTU != 1480 {
		t.Errorf("state: %+v", s)
	}
	k.ip("link set tunl0 down")
	k.until(healed, "up again", look)
	if len(calls) != 1 {
		t.Errorf("%d calls for one device, want one", len(calls))
	}
	k.ip("link del tunl0")
	k.until(healed, "made again", func() bool { return look() && len(calls) == 2 })
	stop()
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, want one:\n%s", n, log.String())
	}

	d, _ = k.start(o, plan.Delta{PutDevices: []plan.Device{tun}}) // the device is there
	d.Synced()
	k.wait(d)
	if len(calls) != 3 {
		t.Errorf("%d calls, want one more for the device that was there", len(calls))
	}
	d.Apply(plan.Delta{DeleteDevices: []string{plan.IPIPDevice}})
	k.wait(d)
	if got := k.ip("addr show dev tunl0"); strings.Contains(got, "inet ") || !strings.Contains(got, "UP") {
		t.Errorf("turned off, tunl0 is\n%s\nwant it up, without an address", got)
	}
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	d, _ := k.start(device.Options{}, both())
	d.Synced()
	k.wait(d)
	k.until(eventually, "a quiet start", func() bool { return d.Stats().Dumps >= 2 })
	k.wait(d)
	var flood strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&flood, "neigh add 172.%d.%d.%d lladdr 02:00:00:00:00:01 nud permanent dev eth0\n", 16+i>>16, i>>8&255, i&255)
	}
	flood.WriteString("neigh del 192.168.98.1 dev vxlan.calico\nlink del vxlan-v6.calico\n")
	file := filepath.Join(t.TempDir(), "flood")
	if err := os.WriteFile(file, []byte(flood.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	release := d.Hold()
	k.ip("-batch " + file)
	release()
	k.until(eventually, "healed", func() bool { return d.Stats().Dumps >= 3 && k.entries() == bothEntries })
}
