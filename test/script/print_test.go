package script_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// files are the plan.* files of n by name.
func (n *node) files(c *cluster) map[string]string {
	return map[string]string{
		"plan.routes":   n.routes(),
		"plan.links":    n.links(),
		"plan.tunnels":  n.tunnels(),
		"plan.peers":    n.peers(),
		"plan.networks": n.networks(),
		"plan.problems": n.allProblems(c),
		"plan.speaker":  fmt.Sprintf("as %d id %v port %d\n", n.speaker.ASN, n.speaker.RouterID, cmp.Or(n.speaker.ListenPort, bgp.DefaultPort)),
		"plan.delta":    n.delta,
		"plan.filter":   n.changed,
	}
}

func lines(l []string) string {
	if len(l) == 0 {
		return ""
	}
	return strings.Join(l, "\n") + "\n"
}

// routes prints the routes as ip route does: IPv4 first, by address.
func (n *node) routes() string {
	var all []plan.Route
	for k, a := range n.plan.Routes {
		all = append(all, plan.Route{RouteKey: k, RouteAttrs: a})
	}
	slices.SortFunc(all, func(a, b plan.Route) int {
		return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), a.Dst.Bits()-b.Dst.Bits())
	})
	var out []string
	for _, r := range all {
		out = append(out, r.IPRoute())
	}
	return lines(out)
}

// tunnels prints the devices, the ends of VXLANs on other nodes, and the MTU of pods.
func (n *node) tunnels() string {
	var out []string
	for _, l := range strings.Split(n.plan.String(), "\n") {
		if strings.HasPrefix(l, "device ") || strings.HasPrefix(l, "vtep ") {
			out = append(out, l)
		}
	}
	return lines(append(out, fmt.Sprintf("mtu of pods %d", n.graph.PodMTU())))
}

func (n *node) links() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(n.plan.Links)) {
		l := n.plan.Links[name]
		out = append(out, fmt.Sprintf("%s v4=%t v6=%t", name, l.V4, l.V6))
	}
	var neighbors []string
	for k, mac := range n.plan.Neighbors {
		neighbors = append(neighbors, fmt.Sprintf("%v dev %s lladdr %s PERMANENT", k.Addr, k.Link, mac))
	}
	slices.Sort(neighbors)
	return lines(append(out, neighbors...))
}

// peers prints the sessions with the words of Calico's node status.
func (n *node) peers() string {
	kinds := map[bgp.PeerKind]string{
		bgp.NodeMesh: "node-to-node mesh", bgp.NodePeer: "node specific", bgp.GlobalPeer: "global",
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(n.speaker.Peers)) {
		p := n.speaker.Peers[name]
		s := fmt.Sprintf("%s | %v | as %d | %s", name, p.Addr, p.ASN, kinds[p.Kind])
		for _, f := range []struct {
			set  bool
			text string
		}{
			{p.Port != 0, fmt.Sprintf("port %d", p.Port)},
			{p.LocalASN != 0, fmt.Sprintf("local as %d", p.LocalASN)},
			{p.RRClient, fmt.Sprintf("rr client of %v", p.ClusterID)},
			{p.Password != "", fmt.Sprintf("password %v", p.Password)},
			{p.NextHop == bgp.NextHopSelf, "next hop self"},
			{p.NextHop == bgp.NextHopKeep, "next hop keep"},
		} {
			if f.set {
				s += " | " + f.text
			}
		}
		out = append(out, s)
	}
	return lines(out)
}

func (n *node) networks() string {
	var out []string
	for _, w := range n.speaker.Networks {
		out = append(out, w.Prefix.String())
	}
	return lines(out)
}

// allProblems are those of the agent: objects that are invalid, addresses
// claimed twice, sessions that are not made.
func (n *node) allProblems(c *cluster) string {
	all := append(slices.Clone(n.problems), n.graph.Problems()...)
	for k, err := range c.invalid {
		all = append(all, model.Problem{Key: k, Text: err.Error()})
	}
	var out []string
	for _, p := range all {
		out = append(out, p.String())
	}
	slices.Sort(out)
	return lines(out)
}

// changes prints the lines that went (-) and came (+).
func changes(before, after string) string {
	var out []string
	for _, l := range strings.Split(before, "\n") {
		if l != "" && !slices.Contains(strings.Split(after, "\n"), l) {
			out = append(out, "-"+l)
		}
	}
	for _, l := range strings.Split(after, "\n") {
		if l != "" && !slices.Contains(strings.Split(before, "\n"), l) {
			out = append(out, "+"+l)
		}
	}
	return lines(out)
}
