package bench

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// underlayMTU is that of the link between two nodes, bytes.
const underlayMTU = 1500

// site is one of the two nodes of a fabric, the one that is number 1 or 2, with its one
// pod: pod ─ cali1 ─ node ─ eth0 ─ the other node.
type site struct {
	number    int
	node, pod *testenv.Namespace
}

func (s site) name() string     { return fmt.Sprint("node-", s.number) }
func (s site) addr() netip.Addr { return netip.AddrFrom4([4]byte{172, 16, 0, byte(s.number)}) }
func (s site) block() netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("10.65.%d.0/26", s.number))
}

func (s site) podAddr() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.65.%d.10", s.number)) }
func (s site) tunnel() netip.Addr  { return s.block().Addr() }
func (s site) mac() string         { return model.VTEPMAC(s.name(), false) }

// mode is how packets travel between the nodes.
type mode struct {
	name     string
	overhead int // bytes
	pool     model.Pool
}

func modes() []mode {
	return []mode{
		{"none", 0, model.Pool{}},
		{"vxlan", 50, model.Pool{VXLAN: model.EncapAlways}},
		{"ipip", 20, model.Pool{IPIP: model.EncapAlways}},
	}
}

// fabric is two nodes with a pod each, joined by a link that knows nothing of pods.
// Nothing leads from node to node yet.
func fabric(b *testing.B, mtu int) (*road, [2]site) {
	b.Helper()
	var s [2]site
	for i := range s {
		s[i] = site{i + 1, testenv.Netns(b), testenv.Netns(b)}
		testenv.Forward(b, s[i].node)
		testenv.Veth(b, s[i].node, "cali1", []string{"169.254.1.1/32"}, s[i].pod, "eth0", []string{s[i].podAddr().String() + "/32"})
		testenv.Route(b, s[i].pod, "169.254.1.1/32", "eth0", "")
		testenv.Route(b, s[i].pod, "0.0.0.0/0", "eth0", "169.254.1.1")
		setMTU(b, s[i].pod, "eth0", mtu)
		setMTU(b, s[i].node, "cali1", mtu)
	}
	testenv.Veth(b, s[0].node, "eth0", []string{s[0].addr().String() + "/24"}, s[1].node, "eth0", []string{s[1].addr().String() + "/24"})
	r := &road{client: s[0].pod, server: s[1].pod, to: s[1].podAddr()}
	r.serve(b)
	return r, s
}

func setMTU(b *testing.B, ns *testenv.Namespace, link string, mtu int) {
	b.Helper()
	ns.MustDo(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	})
}

// byHand leads packets from node to node as an administrator would: no packet filter and
// no connection tracking, unless track, and the tunnel's device, if any, by the kernel's defaults.
func byHand(b *testing.B, m mode, track bool) *road {
	b.Helper()
	r, sites := fabric(b, underlayMTU-m.overhead)
	for i, s := range sites {
		testenv.Route(b, s.node, s.podAddr().String()+"/32", "cali1", "")
		s.node.MustDo(func() error { return s.join(m, sites[1-i]) })
		if track {
			s.track(b)
		}
	}
	return r
}

// track gives a node the least of a firewall with connection tracking: one rule that lets
// established connections pass.
func (s site) track(b *testing.B) {
	b.Helper()
	var table *nft.NFT
	s.node.MustDo(func() (err error) {
		table, err = nft.New(nft.Options{})
		return err
	})
	go func() { _ = table.Run(b.Context()) }()
	established := plan.Rule{Match: []plan.Match{{Kind: plan.MatchState, Low: plan.StateEstablished | plan.StateRelated}}, Verdict: plan.Accept}
	table.Apply(plan.FilterDelta{V4: plan.TableDelta{PutChains: []plan.Chain{
		{Name: "forward", Base: &plan.Base{Hook: plan.Forward}, Rules: []plan.Rule{established}},
	}}})
	table.Synced()
	if err := table.WaitApplied(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// join makes the tunnel of a node and its route to the other one's pods.
func (s site) join(m mode, other site) error {
	to := netlink.Route{Dst: netlinkNet(other.block()), Gw: other.addr().AsSlice()}
	var dev netlink.Link
	attrs := netlink.NewLinkAttrs()
	attrs.MTU = underlayMTU - m.overhead
	switch m.name {
	case "none":
		return netlink.RouteAdd(&to)
	case "vxlan":
		attrs.Name = "vxlan0"
		attrs.HardwareAddr, _ = net.ParseMAC(s.mac())
		dev = &netlink.Vxlan{LinkAttrs: attrs, VxlanId: model.DefaultVNI, Port: model.DefaultVXLANPort, SrcAddr: s.addr().AsSlice()}
		to.Gw = other.tunnel().AsSlice()
	case "ipip":
		attrs.Name = "ipip0"
		dev = &netlink.Iptun{LinkAttrs: attrs, Local: s.addr().AsSlice()}
	}
	if err := netlink.LinkAdd(dev); err != nil {
		return fmt.Errorf("make %s: %w", attrs.Name, err)
	}
	dev, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: netlinkNet(netip.PrefixFrom(s.tunnel(), 32))}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(dev); err != nil {
		return err
	}
	to.LinkIndex, to.Flags = dev.Attrs().Index, int(netlink.FLAG_ONLINK)
	if err := netlink.RouteAdd(&to); err != nil {
		return fmt.Errorf("route through %s: %w", attrs.Name, err)
	}
	if m.name != "vxlan" {
		return nil
	}
	mac, err := net.ParseMAC(other.mac())
	if err != nil {
		return err
	}
	n := netlink.Neigh{LinkIndex: to.LinkIndex, State: netlink.NUD_PERMANENT, IP: other.tunnel().AsSlice(), HardwareAddr: mac}
	if err := netlink.NeighAdd(&n); err != nil {
		return err
	}
	n.Family, n.Flags, n.IP = unix.AF_BRIDGE, netlink.NTF_SELF, other.addr().AsSlice()
	return netlink.NeighAppend(&n)
}

func netlinkNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// byWeft leads packets from node to node as two agents do, in a cluster with the profiles
// that Kubernetes gives pods, no policy, and NAT for what leaves it. Not filtered: with
// routes and tunnels only.
func byWeft(b *testing.B, m mode, filtered bool) *road {
	b.Helper()
	r, sites := fabric(b, underlayMTU-m.overhead)
	batch := model.Batch{Reset: true, Synced: true, Puts: cluster(m, sites)}
	for i, s := range sites {
		c := carry(b, s.node, s.name(), filtered)
		c.wait(c.step(batch)...)
		if m.name == "none" {
			c.learn(sites[1-i].block(), sites[1-i].addr())
		}
	}
	return r
}

// cluster is what the datastore says of a fabric.
func cluster(m mode, sites [2]site) []model.Value {
	pool := m.pool
	pool.Name, pool.CIDR, pool.BlockBits, pool.NATOutgoing, pool.Uses = "pool", netip.MustParsePrefix("10.65.0.0/16"), 26, true, model.UseWorkload|model.UseTunnel
	allow := []model.Rule{{Action: model.Allow}}
	out := []model.Value{
		pool,
		model.Tier{Name: "default", Order: 1e6},
		model.Profile{Name: "kns.default", Ingress: allow, Egress: allow},
	}
	for _, s := range sites {
		node := model.Node{Name: s.name(), IPv4: netip.PrefixFrom(s.addr(), 24)}
		if m.pool.VXLAN != "" {
			node.VXLANTunnel = s.tunnel()
		}
		if m.pool.IPIP != "" {
			node.IPIPTunnel = s.tunnel()
		}
		out = append(out, node, emptyBlock(s.block(), s.name()), model.Endpoint{
			Namespace: "default", Name: s.name() + "-pod", Node: s.name(), Pod: "pod", Link: "cali1",
			Addrs: []netip.Addr{s.podAddr()}, Profiles: []string{"kns.default"},
		})
	}
	return out
}

// emptyBlock is a node's block of 64 addresses, all free.
func emptyBlock(cidr netip.Prefix, node string) model.Block {
	block := model.Block{CIDR: cidr, Owner: model.HostAffinity(node)}
	for n := range 64 {
		block.Allocations, block.Unallocated = append(block.Allocations, -1), append(block.Unallocated, n)
	}
	return block
}

// contender is a road that is compared to others.
type contender struct {
	name string
	*road
}

// race has w done on all roads in turn, forth and back, and reports what each reaches of
// the first one, as the median of the ratios of the same round: in a second of time, and in a second
// of processor time, where other work of the machine counts for less.
func race(b *testing.B, w work, roads ...contender) {
	b.Helper()
	ratios, perCPU := make([][]float64, len(roads)), make([][]float64, len(roads))
	var rates []float64
	for round := 0; b.Loop(); round++ {
		got, cpu := make([]float64, len(roads)), make([]float64, len(roads))
		for i := range roads {
			if round%2 == 1 {
				i = len(roads) - 1 - i
			}
			before := usage()
			err := roads[i].client.Do(func() (err error) {
				got[i], err = w(roads[i].road, slice)
				return err
			})
			if err != nil {
				b.Fatalf("%s: %v", roads[i].name, err)
			}
			after := usage()
			cpu[i] = got[i] * slice.Seconds() / (after.user + after.system - before.user - before.system).Seconds()
		}
		for i := range got {
			ratios[i], perCPU[i] = append(ratios[i], got[i]/got[0]), append(perCPU[i], cpu[i]/cpu[0])
		}
		rates = append(rates, got[0])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rates), roads[0].name+"/s")
	for i, r := range roads[1:] {
		b.ReportMetric(median(ratios[i+1]), r.name+"-of-"+roads[0].name)
		b.ReportMetric(median(perCPU[i+1]), r.name+"-per-cpu-of-"+roads[0].name)
	}
}

// BenchmarkFabric compares pods on two nodes that weft joins to pods on two nodes that are
// joined by hand, in the same way: routes, VXLAN, IPIP. "weft" has policy and connection
// tracking as in any cluster; "routes" has not, as what it is compared to; and "tracked" is by
// hand with connection tracking, which no policy can do without. IPIP in user space is
// compared to plain routing.
func BenchmarkFabric(b *testing.B) {
	for _, m := range modes() {
		b.Run(m.name, func(b *testing.B) {
			like, stream, answers := m, bulkUndisturbed, roundTripsUndisturbed
			if m.name == "ipip" && !hasIPIP(b) { // its threads need a processor, too
				like.name, stream, answers = "none", bulk, roundTrips
			}
			roads := []contender{{"hand", byHand(b, like, false)}, {"tracked", byHand(b, like, true)}, {"weft", byWeft(b, m, true)}, {"routes", byWeft(b, m, false)}}
			for _, r := range roads {
				r.serveUndisturbed(b)
			}
			b.Run("bulk", func(b *testing.B) { race(b, stream, roads...) })
			b.Run("round-trips", func(b *testing.B) { race(b, answers, roads...) })
			b.Run("connections", func(b *testing.B) { race(b, connections, roads...) })
		})
	}
}

// hasIPIP reports whether the kernel has IPIP.
func hasIPIP(b *testing.B) bool {
	b.Helper()
	err := testenv.Netns(b).Do(func() error {
		return netlink.LinkAdd(&netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "probe"}, Local: net.IPv4(127, 0, 0, 1)})
	})
	if err != nil && !strings.Contains(err.Error(), "not supported") {
		fmt.Fprintln(os.Stderr, "ipip:", err)
	}
	return err == nil
}
