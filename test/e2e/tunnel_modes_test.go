package e2e_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/testenv"
)

// mode is how a pool's packets travel: one of plain, ipip and vxlan, and whether
// only between subnets.
type mode struct {
	tunnel string // "", "ipip" or "vxlan"
	cross  bool
}

// String names m as the fields of a pool do.
func (m mode) String() string {
	when := "Always"
	if m.cross {
		when = "CrossSubnet"
	}
	switch m.tunnel {
	case "ipip":
		return "IPIP " + when
	case "vxlan":
		return "VXLAN " + when
	}
	return "Never"
}

// pool is the object of a pool in that mode.
func (m mode) pool(name, cidr string) string {
	fields := map[string]string{"ipip": "Never", "vxlan": "Never"}
	if _, when, ok := strings.Cut(m.String(), " "); ok {
		fields[m.tunnel] = when
	}
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: %s}, spec: {cidr: %q, ipipMode: %s, vxlanMode: %s}}",
		name, cidr, fields["ipip"], fields["vxlan"])
}

// device is the tunnel's device; empty: none.
func (m mode) device(v6 bool) string {
	switch {
	case m.tunnel == "ipip":
		return "tunl0"
	case m.tunnel == "vxlan" && v6:
		return "vxlan-v6.calico"
	case m.tunnel == "vxlan":
		return "vxlan.calico"
	}
	return ""
}

// station is a node of a lab with two racks.
type station struct {
	name string
	addr [2]string // its addresses, IPv4 and IPv6
	rack int
}

func stations() []station {
	return []station{
		{"a", [2]string{"10.1.0.11", "fd00:1::b"}, 1},
		{"b", [2]string{"10.1.0.12", "fd00:1::c"}, 1},
		{"c", [2]string{"10.2.0.11", "fd00:2::b"}, 2},
	}
}

// racks is the topology of stations, to which pods and pools come.
const racks = `
racks: [{name: one, subnets: [10.1.0.0/24, "fd00:1::/64"]}, {name: two, subnets: [10.2.0.0/24, "fd00:2::/64"]}]
nodes: [{name: a, rack: one}, {name: b, rack: one}, {name: c, rack: two}]
pods: [{name: p, node: a}, {name: q, node: b}, {name: r, node: c}]
`

// blocks are the blocks of a node of one family, as its blackhole routes tell.
func (c *cluster) blocks(node string, v6 bool) []string {
	c.t.Helper()
	var out []string
	for _, line := range c.routes(node) {
		if f := strings.Fields(line); f[0] == "blackhole" && strings.Contains(f[1], ":") == v6 {
			out = append(out, f[1])
		}
	}
	return out
}

// way is how `ip route` on a node must show blocks of another one.
func (m mode) way(block string, from, to station, vtep string) string {
	v6 := strings.Contains(block, ":")
	family, metric, tail := 0, "", ""
	if v6 {
		family, metric, tail = 1, " metric 1024", " pref medium"
	}
	switch via := to.addr[family]; {
	case m.tunnel != "" && !(m.cross && from.rack == to.rack):
		if m.tunnel == "vxlan" {
			via = vtep
		}
		return fmt.Sprintf("%s via %s dev %s proto bird%s onlink%s", block, via, m.device(v6), metric, tail)
	case from.rack == to.rack:
		return fmt.Sprintf("%s via %s dev eth0 proto bird%s%s", block, via, metric, tail)
	case v6:
		return fmt.Sprintf("%s via fd00:%d::1 dev eth0 proto bird%s%s", block, from.rack, metric, tail)
	}
	return fmt.Sprintf("%s via 10.%d.0.1 dev eth0 proto bird", block, from.rack)
}

// ways fails unless the routes of all nodes to blocks of the others are those of the
// mode of each family, to the letter, and no other route of the cluster is there.
func (c *cluster) ways(modes [2]mode) error {
	c.t.Helper()
	for i, m := range modes {
		if err := c.waysOf(m, i == 1); err != nil {
			return err
		}
	}
	return nil
}

// waysOf is ways of one family.
func (c *cluster) waysOf(m mode, v6 bool) error {
	c.t.Helper()
	for _, from := range stations() {
		var want []string
		for _, to := range stations() {
			if to == from {
				continue
			}
			vtep := ""
			if m.tunnel == "vxlan" {
				vtep = c.tunnelAddr(to.name, m.device(v6))
			}
			for _, block := range c.blocks(to.name, v6) {
				want = append(want, m.way(block, from, to, vtep))
			}
		}
		var got []string
		for _, line := range c.routes(from.name) {
			if f := strings.Fields(line); f[0] != "blackhole" && strings.Contains(line, " proto bird") && strings.Contains(f[0], ":") == v6 {
				got = append(got, line)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if len(want) < 2 || !slices.Equal(got, want) {
			return fmt.Errorf("%v: node %s has\n  %s\nwant\n  %s", m, from.name, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
	}
	return nil
}

// tunnelAddr is the one address of a tunnel's device; empty: it has none, or is not there.
func (c *cluster) tunnelAddr(node, device string) string {
	c.t.Helper()
	out, _ := c.sh(node).try("ip -br addr show dev " + device + " scope global")
	if f := strings.Fields(out); len(f) == 3 {
		addr, _, _ := strings.Cut(f[2], "/")
		return addr
	}
	return ""
}

// traces fails if a node has a tunnel's device, address or entry that a mode does not
// ask for, or lacks one that it does. tunl0 itself stays, once it is there.
func (c *cluster) traces(modes [2]mode) error {
	c.t.Helper()
	for _, n := range stations() {
		if has := c.tunnelAddr(n.name, "tunl0") != ""; has != (modes[0].tunnel == "ipip") {
			return fmt.Errorf("node %s: tunl0 has an address: %v, want it to be otherwise", n.name, has)
		}
		for i, m := range modes {
			device := mode{tunnel: "vxlan"}.device(i == 1)
			out, code := c.sh(n.name).try("ip link show " + device + " >/dev/null && bridge fdb show dev " + device + " && ip neigh show dev " + device)
			if m.tunnel != "vxlan" {
				if code == 0 {
					return fmt.Errorf("node %s has %s still", n.name, device)
				}
				continue
			}
			var want []string
			for _, to := range stations() {
				if to != n {
					mac := c.mac(to.name, device)
					want = append(want, fmt.Sprintf("%s dst %s self permanent", mac, to.addr[i]), fmt.Sprintf("%s lladdr %s PERMANENT", c.tunnelAddr(to.name, device), mac))
				}
			}
			got := entries(out)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				return fmt.Errorf("node %s: %s has\n  %s\nwant\n  %s", n.name, device, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		}
	}
	return c.tunnelHandles(modes)
}

// entries are the lines of a listing of forwarding entries and neighbours, sorted,
// without those of multicast.
func entries(out string) []string {
	var got []string
	for line := range strings.Lines(out) {
		line = strings.Join(strings.Fields(line), " ")
		if line != "" && !strings.Contains(line, "NOARP") && !strings.HasPrefix(line, "33:33:") && !strings.HasPrefix(line, "01:00:5e:") {
			got = append(got, line)
		}
	}
	slices.Sort(got)
	return got
}

// mac is the hardware address of an interface.
func (c *cluster) mac(target, link string) string {
	c.t.Helper()
	out, _ := c.sh(target).try("cat /sys/class/net/" + link + "/address")
	return out
}

// tunnelHandles fails unless IPAM has a handle of each node for each tunnel of the
// modes, and of no other one.
func (c *cluster) tunnelHandles(modes [2]mode) error {
	c.t.Helper()
	const prefix = "/calico/ipam/v2/handle/"
	all, _ := keys(c.t, c.etcdOnce(), prefix)
	var got, want []string
	for key := range all {
		if name := strings.TrimPrefix(key, prefix); strings.Contains(name, "-tunnel-addr-") {
			got = append(got, name)
		}
	}
	for i, m := range modes {
		for _, n := range stations() {
			if kind := m.tunnel; kind != "" {
				want = append(want, kind+map[bool]string{true: "-v6"}[i == 1]+"-tunnel-addr-"+n.name)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("handles of tunnels in IPAM: %v, want %v", got, want)
	}
	return nil
}

// walk is a way through all changes from one mode to another: a closed one that takes
// each edge of the complete directed graph once (Hierholzer's algorithm).
func walk(states []mode) []mode {
	left := map[mode][]mode{}
	for _, s := range states {
		for _, to := range states {
			if to != s {
				left[s] = append(left[s], to)
			}
		}
	}
	stack, out := []mode{states[0]}, []mode(nil)
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		if next := left[at]; len(next) > 0 {
			left[at] = next[1:]
			stack = append(stack, next[0])
			continue
		}
		stack = stack[:len(stack)-1]
		out = append(out, at)
	}
	slices.Reverse(out)
	return out
}

// mostOutage is how long pods may not reach each other while their pool changes: what
// changes it are events, which take a fraction of a second where nothing else runs.
const mostOutage = testenv.ByEvent

// TestPoolModes changes the mode of the pools of a running network, of both families at a
// time, in all ways that there are, while pods send each other a packet every
// millisecond: within a rack always, and between racks where the mode before and that
// after carry them. Afterwards every node has the routes, devices, addresses and entries
// of the new mode, and nothing of the old one.
func TestPoolModes(t *testing.T) {
	t.Parallel()
	vxlans := []mode{{"vxlan", false}, {"vxlan", true}}
	way4 := walk(append([]mode{{}, {"ipip", false}, {"ipip", true}}, vxlans...))
	way6 := walk(append([]mode{{}}, vxlans...)) // gone again and again
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(racks+`
env: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none}
resources:
- `+way4[0].pool("four", "192.168.0.0/16")+`
- `+way6[0].pool("six", "fd00:168::/48")))
	c.refresh()
	st := c.store()
	now := [2]mode{way4[0], way6[0]}
	eventually(t, "routes", func() error { return c.ways(now) })
	var watches [2]map[string]watcher
	for i := range watches {
		watches[i] = map[string]watcher{}
		for _, pod := range []string{"q", "r"} {
			watches[i][pod] = c.watch("p", c.pod(pod).Addresses[i].String())
		}
	}
	for i := range len(way4) - 1 {
		next := [2]mode{way4[i+1], way6[(i+1)%(len(way6)-1)]}
		c.changeModes(st, watches, now, next)
		now = next
	}
}

// changeModes changes the modes of both pools under way, and looks at what there is then.
func (c *cluster) changeModes(st store.Store, watches [2]map[string]watcher, from, to [2]mode) {
	c.t.Helper()
	each := func(do func(w watcher, from, to mode, across bool)) {
		for i := range watches {
			for pod, w := range watches[i] {
				do(w, from[i], to[i], pod == "r")
			}
		}
	}
	each(func(w watcher, _, _ mode, _ bool) { w.mark() })
	each(func(w watcher, _, _ mode, _ bool) { w.read() })
	put(c.t, st, to[0].pool("four", "192.168.0.0/16"))
	put(c.t, st, to[1].pool("six", "fd00:168::/48"))
	what := fmt.Sprintf("%v to %v", from, to)
	took := eventually(c.t, what, func() error { return errors.Join(c.ways(to), c.traces(to)) })
	each(func(w watcher, _, _ mode, _ bool) { w.mark() })
	each(func(w watcher, from, to mode, across bool) {
		r := w.read()
		if across && (from.tunnel == "" || to.tunnel == "") {
			return // the racks know nothing of pods
		}
		c.t.Logf("%v to %v, to %s: %d of %d lost, %v without an answer; all done in %v",
			from, to, w.to, r.Lost, r.Sent, r.Outage.Round(time.Millisecond), took.Round(time.Millisecond))
		if r.Outage > mostOutage || r.Sent == 0 {
			c.t.Errorf("%v to %v: %d packets, %v without an answer, want at most %v", from, to, r.Sent, r.Outage, mostOutage)
		}
	})
}
