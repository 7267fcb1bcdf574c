package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/path"
	"github.com/weft-net/weft/internal/testenv"
)

// TestExplainPath holds what `weft explain` says of the way of packets, between all ends of
// the examples, against the nodes' kernels; and then against packets, by a lab that
// expects what was said.
func TestExplainPath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"quickstart", "cross-subnet", "vxlan", "dual-stack-vxlan", "ipv6-vxlan", "nat"} {
		t.Run(name, func(t *testing.T) { t.Parallel(); explainPaths(t, name, true) })
	}
}

// TestVMExplainPath is the same with the kernel's own IPIP and WireGuard, between pods;
// their packets are TestVMExamples'.
func TestVMExplainPath(t *testing.T) {
	testenv.VM(t)
	for _, name := range []string{"cross-subnet", "wireguard"} {
		t.Run(name, func(t *testing.T) { explainPaths(t, name, false) })
	}
}

// explainPaths is for all ends and with packets, or for pods and without.
func explainPaths(t *testing.T, name string, all bool) {
	body, err := os.ReadFile(filepath.Join("../../examples", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	topology, _, _ := strings.Cut(string(body), "\nexpect:")
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", c.file(topology+"\n")); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	w := waysOf(c)
	if !all {
		w.ends = w.ends[:len(c.now.Pods)]
	}
	said := map[string]string{} // expectations, by the pair
	var order []string
	for _, from := range w.ends {
		for _, to := range w.ends {
			for _, p := range addressPairs(from, to) {
				var hops []path.Hop
				eventually(t, fmt.Sprintf("%s to %s is as explained", from.ref, to.ref), func() error {
					hops = w.explain(t, from, to, p)
					return w.compare(from, p, hops)
				})
				key, line := from.ref+" "+to.ref, expectationOf(from, to, hops)
				if old, ok := said[key]; ok && old != line {
					t.Errorf("%s: of one address %s, of another %s", key, old, line)
				} else if !ok && line != "" {
					order = append(order, key)
				}
				said[key] = line
			}
		}
	}
	t.Logf("%d pairs", len(order))
	if !all {
		return
	}
	c.must("lab", "down")
	var expect strings.Builder
	for _, key := range order {
		expect.WriteString(said[key])
	}
	if out, code := c.weft("lab", "run", "-f", c.file(topology+"\nexpect:\n"+expect.String())); code != 0 {
		t.Errorf("packets do not go as explained:\n%s", out)
	}
}

// end is where packets of a lab come from or go to.
type end struct {
	ref   string // in expectations
	name  string // in explanations; empty: by address
	node  string // empty: outside
	link  string // of a pod, on its node
	addrs []netip.Addr
}

// ways compares explanations with a lab.
type ways struct {
	c    *cluster
	env  []string
	ends []end
}

func waysOf(c *cluster) *ways {
	w := &ways{c: c}
	for k, v := range c.settings() {
		w.env = append(w.env, k+"="+v)
	}
	for _, p := range c.now.Pods {
		w.ends = append(w.ends, end{ref: "pod/default/" + p.Name, name: "pod/default/" + p.Name, node: p.Node, link: p.HostLink, addrs: p.Addresses})
	}
	for _, n := range c.now.Nodes {
		w.ends = append(w.ends, end{ref: n.Name, name: "host/" + n.Name, node: n.Name, addrs: n.Addresses})
	}
	for _, o := range c.now.Outside {
		w.ends = append(w.ends, end{ref: o.Name, addrs: o.Addresses})
	}
	return w
}

// addressPairs are the addresses that the two use with each other.
func addressPairs(from, to end) [][2]netip.Addr {
	var out [][2]netip.Addr
	for _, a := range from.addrs {
		for _, b := range to.addrs {
			if from.ref != to.ref && from.node != "" && a.Is6() == b.Is6() {
				out = append(out, [2]netip.Addr{a, b})
			}
		}
	}
	return out
}

func (w *ways) explain(t *testing.T, from, to end, p [2]netip.Addr) []path.Hop {
	ends := [2]string{p[0].String(), p[1].String()}
	for i, e := range []end{from, to} {
		if e.name != "" {
			ends[i] = e.name + "@" + ends[i]
		}
	}
	r := w.c.runWith(w.env, "explain", ends[0], ends[1], "--protocol", "udp", "--port", "7", "-o", "json")
	var answer struct{ Path []path.Hop }
	if err := json.Unmarshal([]byte(r.stdout), &answer); r.code != 0 || err != nil || len(answer.Path) == 0 {
		t.Fatalf("explain %s %s: exit code %d, %v: %s%s", ends[0], ends[1], r.code, err, r.stdout, r.stderr)
	}
	return answer.Path
}

// compare holds the hops of packets from p[0] to p[1] against the kernels.
func (w *ways) compare(from end, p [2]netip.Addr, hops []path.Hop) error {
	for i, h := range hops {
		source := "" // as packets of the end itself
		if from.link != "" && i == 0 {
			source = fmt.Sprintf("from %v iif %s", p[0], from.link)
		}
		if err := w.hop(h, p[1], source); err != nil {
			return fmt.Errorf("%v to %v: node %s: %+v: %w", p[0], p[1], h.Node, h, err)
		}
	}
	return nil
}

// hop holds one hop against its node's kernel.
func (w *ways) hop(h path.Hop, to netip.Addr, source string) error {
	sh, ip := w.c.sh(h.Node), "ip -4"
	if to.Is6() {
		ip = "ip -6"
	}
	if h.Note == "an address of the node itself" {
		return nil
	}
	got := oneLine(sh.run(fmt.Sprintf("%s route get %v %s", ip, to, source)))
	gateway := "" // as route get says it
	if h.NextHop != "" {
		gateway = "via " + h.NextHop + " "
	}
	if !strings.Contains(got+" ", gateway+"dev "+h.Device+" ") || h.Device == "" {
		return fmt.Errorf("the kernel says %q", got)
	}
	if h.Route != "" && !hasLine(sh.run(ip+" route show table all"), h.Route) {
		return fmt.Errorf("no such route: %s", sh.run(ip+" route show table all"))
	}
	link := oneLine(sh.run("ip -d link show dev " + h.Device))
	if !strings.Contains(link, fmt.Sprintf(" mtu %d ", h.MTU)) {
		return fmt.Errorf("another MTU: %s", link)
	}
	switch h.Encapsulation {
	case "vxlan":
		return w.vxlan(sh, h, link)
	case "ipip":
		if h.OuterTarget != h.NextHop || !strings.Contains(link, "link/ipip") {
			return fmt.Errorf("the device is %s", link)
		}
	case "wireguard":
		if !strings.Contains(link, "wireguard") {
			return fmt.Errorf("the device is %s", link)
		}
	}
	return nil
}

// vxlan holds the outer addresses against the device and its entries.
func (w *ways) vxlan(sh *shell, h path.Hop, link string) error {
	if !strings.Contains(link, "vxlan id 4096 local "+h.OuterSource+" ") {
		return fmt.Errorf("the device is %s", link)
	}
	neighbor := strings.Fields(sh.run("ip neigh show " + h.NextHop + " dev " + h.Device))
	entries := sh.run("bridge fdb show dev " + h.Device)
	for i, word := range neighbor {
		if word == "lladdr" && strings.Contains(entries, neighbor[i+1]+" dst "+h.OuterTarget+" ") {
			return nil
		}
	}
	return fmt.Errorf("neighbor %s, forwarding entries %s", neighbor, entries)
}

// hasLine reports whether lines of `ip route` have that route; of IPv6 they say more.
func hasLine(lines, route string) bool {
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		for _, more := range []string{" pref medium", " metric 1024"} {
			line = strings.ReplaceAll(line, more, "")
		}
		for i, word := range strings.Fields(line) {
			if word == "table" {
				line = strings.Replace(line, " table "+strings.Fields(line)[i+1], "", 1)
				break
			}
		}
		if line == route {
			return true
		}
	}
	return false
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// expectationOf is what a lab is to see if the hops are right; empty: nothing.
func expectationOf(from, to end, hops []path.Hop) string {
	leave := hops[0]
	switch {
	case from.node == to.node:
		return ""
	case to.node == "" && from.link != "" && leave.NAT == "":
		return fmt.Sprintf("- unreachable: {from: %s, to: %s}\n", from.ref, to.ref)
	case from.link == "" && to.link == "":
		return ""
	}
	seen := "own"
	if leave.NAT != "" {
		seen = "node"
	}
	line := fmt.Sprintf("- reachable: {from: %s, to: %s, carried: %s", from.ref, to.ref, leave.Encapsulation)
	if from.link != "" {
		line += ", source: " + seen
	}
	line += "}\n  within: 60s\n"
	if len(hops) == 2 && from.link != "" && to.link != "" {
		line += fmt.Sprintf("- mtu: {from: %s, to: %s, bytes: %d}\n  within: 60s\n", from.ref, to.ref, min(leave.MTU, hops[1].MTU))
	}
	return line
}
