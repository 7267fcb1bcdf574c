package e2e_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// sessions are the times since which the sessions of a node are in their state,
// by address.
func (c *cluster) sessions(node string, count int) map[string]time.Time {
	c.t.Helper()
	out := map[string]time.Time{}
	for _, p := range c.established(node, count).Peers {
		out[p.Addr] = p.Since
	}
	return out
}

// TestQuiet changes everything that does not concern the routes of node-a, one
// thing after the other: none of them is touched, no session of it begins anew, and
// no packet is lost.
func TestQuiet(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	c := up(t, "topologies/routers.yaml")
	sessions := c.sessions("node-a", 3)
	c.established("node-b", 2)
	block := netip.PrefixFrom(netip.MustParseAddr(c.addr("b1")), 26).Masked().String()
	c.awaitRoute("node-a", block+` via 10\.1\.0\.12 dev eth0 proto bird`)
	eventually(t, "both ways", func() error {
		if got := c.sh("node-a").run("ip route show 203.0.113.0/24"); strings.Count(got, "nexthop via") != 2 {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	end := c.startTrain("a1", c.addr("b1"))
	watch := c.watchRoutes("node-a")
	st := c.store()
	object := func(kind, name, spec string) func() {
		return func() {
			put(t, st, fmt.Sprintf(`{"apiVersion": "projectcalico.org/v3", "kind": %q, "metadata": {"name": %q}, "spec": %s}`, kind, name, spec))
		}
	}
	runtime := c.runtime("node-b")
	for i, step := range []struct {
		what string
		do   func()
	}{
		{"a pool", object("IPPool", "other", `{"cidr": "10.66.0.0/16", "disabled": true}`)},
		{"a peer of the other node", object("BGPPeer", "of-b", `{"node": "node-b", "peerIP": "10.1.0.77", "asNumber": 65077}`)},
		{"a pod in the other node's block", func() { runtime.must("ADD", "new") }},
		{"its end", func() { runtime.must("DEL", "new") }},
		{"another prefix for links", object("FelixConfiguration", "default", `{"interfacePrefix": "cali,tap"}`)},
		{"another address to listen on", object("BGPConfiguration", "default", `{"bindMode": "NodeIP"}`)},
		{"another port to listen on", object("BGPConfiguration", "default", `{"listenPort": 1790}`)},
	} {
		step.do()
		// What node-a says of this peer shows that it has decided about sessions since.
		name := fmt.Sprintf("absent-%d", i)
		object("BGPPeer", "mark", fmt.Sprintf(`{"node": "node-a", "peerIP": "10.1.0.78", "asNumber": 65078, "filters": [%q]}`, name))()
		eventually(t, step.what+" arrives", func() error {
			s, err := c.agentStatus("node-a")
			if err == nil && !strings.Contains(strings.Join(s.Notes, " "), name) {
				err = fmt.Errorf("notes: %v", s.Notes)
			}
			return err
		})
		for _, change := range watch.changes() {
			t.Errorf("%s: a route was changed: %s", step.what, change)
		}
	}
	if now := c.sessions("node-a", 3); !maps.EqualFunc(now, sessions, time.Time.Equal) {
		t.Errorf("sessions of node-a began anew: at first %v, now %v", sessions, now)
	}
	noLoss(t, "beside all that", end)

	// The loss of one peer touches the routes that it gave, and no others.
	c.stop("tor-2", false)
	eventually(t, "one way", func() error {
		return c.hasRoute("node-a", `203\.0\.113\.0/24 via 10\.1\.0\.2 dev eth0 proto bird`)
	})
	for _, change := range watch.changes() {
		if !strings.Contains(change, "203.0.113.0/24") && !strings.Contains(change, "nexthop") {
			t.Errorf("when a peer went: a route was changed: %s", change)
		}
	}
}

// TestAttributes reads in BIRD what a node tells: what BIRD under Calico would, and
// nothing besides.
func TestAttributes(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	for name, tt := range map[string]struct{ asn, path string }{
		"another AS": {"65001", "64999"},
		"same AS":    {"64999", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.must("lab", "up", "-f", c.file(`
racks: [{name: r, subnets: [10.1.0.0/24, "fd00:1::/64"]}]
nodes: [{name: a}]
env: {CALICO_IPV6POOL_CIDR: "fd00:168::/48"}
pods: [{name: p, node: a}]
routers: [{name: tor, asn: `+tt.asn+`}]
resources:
- {apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {asNumber: 64999}}
- {apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: 10.1.0.2, asNumber: `+tt.asn+`}}
- {apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor-6}, spec: {peerIP: "fd00:1::2", asNumber: `+tt.asn+`}}
`))
			c.refresh()
			c.established("a", 2)
			for family, hop := range map[string]string{"4": "10.1.0.11", "6": "fd00:1::b"} {
				want := []string{"BGP.origin: IGP", strings.TrimSpace("BGP.as_path: " + tt.path), "BGP.next_hop: " + hop, "BGP.local_pref: 100"}
				eventually(t, "route in IPv"+family, func() error {
					var got []string
					text := c.sh("tor").run("birdc -s $BIRD_SOCKET 'show route all protocol node_a_ipv" + family + "'")
					for line := range strings.Lines(text) {
						if line = strings.TrimSpace(line); strings.HasPrefix(line, "BGP.") {
							got = append(got, line)
						}
					}
					if !slices.Equal(got, want) {
						return fmt.Errorf("got %q, want %q:\n%s", got, want, text)
					}
					return nil
				})
			}
		})
	}
}
