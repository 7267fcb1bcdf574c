package cni_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// The agent reads annotations that the executable does not see: then its word counts, on
// an interface that was made meanwhile.
func TestTheAgentKnowsThePodBetter(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.agent.pod = func(r *rpc.AddRequest) {
		r.Address = rpc.AddressWish{Exact: []netip.Addr{netip.MustParseAddr("fd00::77")}}
		if r.Endpoint != nil {
			r.Endpoint.MAC = "02:00:00:00:00:77"
		}
	}
	p := n.pod("web-0")
	first := n.mustRun("calico", "ADD", plainConf, p)
	if !contains(first, `"fd00::77/128"`) || !contains(first, "02:00:00:00:00:77") {
		t.Errorf("got %s", first)
	}
	before := ip(t, n.ns, "-o", "link", "show", "cali0d7763386da")
	if again := n.mustRun("calico", "ADD", plainConf, p); again != first {
		t.Errorf("the second ADD gave\n%s\nthe first\n%s", again, first)
	}
	if after := ip(t, n.ns, "-o", "link", "show", "cali0d7763386da"); after != before {
		t.Errorf("the interface was made anew:\n%s\nwas\n%s", after, before)
	}
	for args, want := range map[string]string{
		"-4 route show":               "",
		"-4 neigh show nud permanent": "",
		"-6 route show default":       "default via fe80::ecee:eeff:feee:eeee dev eth0 metric 1024 pref medium",
	} {
		if got := ip(t, p.ns, strings.Fields(args)...); sortLines(got) != want {
			t.Errorf("ip %s: got %q, want %q", args, got, want)
		}
	}
	if neighbours := ip(t, p.ns, "-6", "neigh", "show", "nud", "permanent"); !contains(neighbours, "fe80::ecee:eeff:feee:eeee dev eth0 lladdr ee:ee:ee:ee:ee:ee") {
		t.Errorf("neighbours: %s", neighbours)
	}
	if link := ip(t, p.ns, "link", "show", "eth0"); !contains(link, "02:00:00:00:00:77") {
		t.Errorf("link: %s", link)
	}
	n.mustRun("calico", "CHECK", with(plainConf, "prevResult="+first), p)
	// The annotation goes, and the pod gets what the configuration says.
	n.mustRun("calico", "DEL", plainConf, p)
	n.agent.pod = nil
	if out := n.mustRun("calico", "ADD", plainConf, p); !contains(out, `"10.65.0.`) || contains(out, "02:00:00:00:00:77") {
		t.Errorf("got %s", out)
	}
}

// The ranges of the node's pods, which the agent knows, come to host-local; for a DEL
// nobody is asked.
func TestUsePodCIDR(t *testing.T) {
	t.Parallel()
	both := []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24"), netip.MustParsePrefix("fd77:1::/64")}
	for name, tt := range map[string]struct {
		ipam   string
		ranges []netip.Prefix
		want   []string
	}{
		"both families":    {`"subnet":"usePodCidr"`, both, []string{"10.77.1.", "fd77:1::"}},
		"IPv4 alone":       {`"subnet":"usePodCidr"`, both[:1], []string{"10.77.1."}},
		"IPv6 alone":       {`"subnet":"usePodCidr"`, both[1:], []string{"fd77:1::"}},
		"ranges":           {`"ranges":[[{"subnet":"usePodCidr"}],[{"subnet":"usePodCidrIPv6"}]]`, both, []string{"10.77.1.", "fd77:1::"}},
		"beside an own":    {`"ranges":[[{"subnet":"usePodCidr"}],[{"subnet":"fd99::/64"}]]`, both, []string{"10.77.1.", "fd99::"}},
		"a family missing": {`"ranges":[[{"subnet":"usePodCidr"}],[{"subnet":"usePodCidrIPv6"}]]`, both[:1], nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.agent.cidrs = tt.ranges
			p := n.pod("web-0")
			conf := with(plainConf, `ipam={"type":"host-local","dataDir":"`+t.TempDir()+`",`+tt.ipam+`}`)
			if tt.want == nil {
				n.refused("calico", "ADD", conf, p, 7, "usePodCidrIPv6: the node has no such range")
				n.mustRun("calico", "DEL", conf, p)
				return
			}
			first := n.mustRun("calico", "ADD", conf, p)
			if strings.Count(first, `"address"`) != len(tt.want) {
				t.Errorf("got %s, want %d addresses", first, len(tt.want))
			}
			for _, want := range tt.want {
				if !contains(first, want) {
					t.Errorf("got %s, want an address %s…", first, want)
				}
			}
			if again := n.mustRun("calico", "ADD", conf, p); again != first {
				t.Errorf("the second ADD gave\n%s\nthe first\n%s", again, first)
			}
			if asked := n.agent.asked(p.container); !asked.Delegated || len(asked.Endpoint.Given) != len(tt.want) {
				t.Errorf("the agent was asked %+v", asked)
			}
			n.mustRun("calico", "CHECK", with(conf, "prevResult="+first), p)
			n.stop()
			n.mustRun("calico", "DEL", conf, p)
			n.mustRun("calico", "DEL", conf, p)
			n.agent.serve(t, n.socket)
			// host-local takes the next address, unless it has the one before no more.
			other := n.pod("web-1")
			if out := n.mustRun("calico", "ADD", conf, other); !contains(out, tt.want[0]) {
				t.Errorf("after DEL: %s", out)
			}
		})
	}
}

// A pod that brings its addresses asks no IPAM plugin, also where only the agent knows.
func TestAddressesThatTheAgentReadsInThePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.agent.pod = func(r *rpc.AddRequest) {
		if r.Endpoint != nil {
			r.Endpoint.Given = []netip.Prefix{netip.MustParsePrefix("10.8.0.9/32")}
		}
	}
	conf := with(plainConf, `ipam={"type":"no-such-plugin"}`)
	p := n.pod("web-0")
	out := n.mustRun("calico", "ADD", conf, p)
	if !contains(out, `"10.8.0.9/32"`) {
		t.Errorf("got %s", out)
	}
	n.mustRun("calico", "CHECK", with(conf, "prevResult="+out), p)
	if asked := n.agent.asked(p.container); asked.Delegated {
		t.Errorf("the agent was asked %+v", asked)
	}
}
