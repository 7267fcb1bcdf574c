package edge_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

var (
	nodeTunnel = addr{"10.65.1.0", "fd65::1:0"}
	peerTunnel = addr{"10.66.1.0", "fd66::1:0"}
)

const (
	nodeMAC = "66:00:00:00:00:01"
	peerMAC = "66:00:00:00:00:02"
)

// vxlan joins the node and outside, which is a node here, by a VXLAN.
func (g *ground) vxlan(v6 bool) {
	g.Helper()
	for _, x := range []struct {
		ns                    *testenv.Namespace
		own, far, tunnel, via addr
		mac, farMAC           string
		to                    netip.Prefix
	}{
		{g.node, nodeAddr, outsideAddr, nodeTunnel, peerTunnel, nodeMAC, peerMAC, farPool(v6).CIDR},
		{g.outside, outsideAddr, nodeAddr, peerTunnel, nodeTunnel, peerMAC, nodeMAC, pool(v6).CIDR},
	} {
		dev, via := device(v6), x.via.of(v6)
		g.run(x.ns, "ip link add %s type vxlan id 4096 local %v dstport 4789 nolearning", dev, x.own.of(v6))
		g.run(x.ns, "ip link set %s address %s mtu 1400 up", dev, x.mac)
		g.run(x.ns, "ip addr add %v dev %s nodad", netip.PrefixFrom(x.tunnel.of(v6), via.BitLen()), dev)
		g.run(x.ns, "ip neigh add %v lladdr %s dev %s nud permanent", via, x.farMAC, dev)
		g.run(x.ns, "bridge fdb add %s dev %s dst %v", x.farMAC, dev, x.far.of(v6))
		if x.ns == g.outside { // IPv6 lets no route through eth0 lead to the gateway of one that is onlink
			g.run(x.ns, "ip route del %v", x.to)
		}
		g.run(x.ns, "ip route add %v via %v dev %s onlink", x.to, via, dev)
	}
}

func device(v6 bool) string { return []string{plan.VXLANDevice, plan.VXLAN6Device}[index(v6)] }

// TestVXLAN is about the kernel's VXLAN.
func TestVXLAN(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, g *ground, v6 bool) {
		testenv.Need(t, "bridge")
		g.vxlan(v6)
		pods, others := pool(v6), farPool(v6)
		pods.VXLAN, others.VXLAN = model.EncapAlways, model.EncapAlways
		g.tunnelled(v6, "VXLAN", pods, others)
		if n := g.trackedVXLAN(v6); n > 0 {
			t.Errorf("%d connections of VXLAN are tracked", n)
		}
	})
}

// TestHostEndpoint: host endpoints that allow nothing leave alone what nodes carry for
// pods, outside and inside of the tunnel; what is for the node itself they deny in both.
func TestHostEndpoint(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, g *ground, v6 bool) {
		g.vxlan(v6)
		pods, others := pool(v6), farPool(v6)
		pods.VXLAN, others.VXLAN = model.EncapAlways, model.EncapAlways
		self, peer := node("node-a", nodeAddr), node("node-b", outsideAddr)
		g.table.Apply(g.policy.Step(model.Batch{Puts: []model.Value{self, peer, model.HostEndpoint{Name: "all", Node: "node-a", Link: "*"}}}))
		g.set(pods, others, self, peer)
		g.wantSeen("pod to pod", otherPod.of(v6), podAddr.of(v6))
		for what, to := range map[string]netip.Addr{"to outside": outsideAddr.of(v6), "through the tunnel": otherPod.of(v6)} {
			err := g.node.Do(func() error {
				c, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 7).String(), silence)
				if err == nil {
					_ = c.Close()
				}
				return err
			})
			if err == nil {
				t.Errorf("the node %s: nothing denies it", what)
			}
		}
	})
}

// TestVMIPIP is about the kernel's IPIP.
func TestVMIPIP(t *testing.T) {
	testenv.VM(t)
	g := newGround(t)
	for ns, x := range map[*testenv.Namespace][3]string{
		g.node:    {nodeTunnel[0], farPool(false).CIDR.String(), outsideAddr[0]},
		g.outside: {peerTunnel[0], pool(false).CIDR.String(), nodeAddr[0]},
	} {
		g.run(ns, "ip link set tunl0 mtu 1400 up") // the module makes it
		g.run(ns, "ip addr add %s/32 dev tunl0", x[0])
		g.run(ns, "ip route replace %s via %s dev tunl0 onlink", x[1], x[2])
	}
	pods, others := pool(false), farPool(false)
	pods.IPIP, others.IPIP = model.EncapAlways, model.EncapCrossSubnet
	g.tunnelled(false, "IP in IP", pods, others)
}

// tunnelled: pods and nodes reach each other through a tunnel, nodes always under the
// address of their device; who is no node does not get in.
func (g *ground) tunnelled(v6 bool, what string, pods, others model.Pool) {
	g.Helper()
	self, peer := node("node-a", nodeAddr), node("node-b", outsideAddr)
	g.set(pods, others, self, peer)
	between := g.wantSeen("pod to pod", otherPod.of(v6), podAddr.of(v6))
	g.ownTraffic(v6)

	g.set(pods, others, self)
	if err := between.SetDeadline(time.Now().Add(silence)); err != nil {
		g.Fatal(err)
	}
	if _, err := between.Write([]byte("x\n")); err != nil {
		g.Fatal(err)
	}
	if text, err := between.lines.ReadString('\n'); err == nil {
		g.Errorf("heard %q through a tunnel from nobody's address", text)
	}
	if n := g.dropped(what + " from an address that no node has"); n == 0 {
		g.Errorf("nothing was counted as dropped\n%s", g.run(g.node, "nft list ruleset"))
	}
	external := model.FelixConfig{Name: "default"}
	external.Tunnel.ExternalNodes = []netip.Prefix{netip.PrefixFrom(outsideAddr.of(v6), 24).Masked()}
	g.set(pods, others, self, external)
	g.wantSeen("from an external node", otherPod.of(v6), podAddr.of(v6))
}

// ownTraffic has the node itself connect to a pod elsewhere.
func (g *ground) ownTraffic(v6 bool) {
	g.Helper()
	service := addr{"10.96.0.1", "fd96::1"}.of(v6)
	family := []string{"ip", "ip6"}[index(v6)]
	g.run(g.node, "nft add table %s services", family)
	g.run(g.node, "nft add chain %s services out { type nat hook output priority -100 ; }", family)
	g.run(g.node, "nft add rule %s services out %s daddr %v dnat to %v", family, family, service, otherPod.of(v6))
	for what, x := range map[string]struct{ from, to netip.Addr }{
		"of its choice":    {netip.Addr{}, otherPod.of(v6)},
		"of eth0":          {nodeAddr.of(v6), otherPod.of(v6)},
		"before a service": {netip.Addr{}, service},
	} {
		c, err := g.connect(g.node, x.from, x.to)
		if err != nil {
			g.Errorf("from an address %s: %v", what, err)
		} else if c.seen.Addr() != nodeTunnel.of(v6) {
			g.Errorf("from an address %s: seen as %v, want %v", what, c.seen, nodeTunnel.of(v6))
		}
	}
}

// trackedVXLAN counts the node's connections of VXLAN.
func (g *ground) trackedVXLAN(v6 bool) (n int) {
	g.Helper()
	g.node.MustDo(func() error {
		family := []netlink.InetFamily{unix.AF_INET, unix.AF_INET6}[index(v6)]
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		if len(flows) == 0 && err == nil {
			err = errors.New("no connections are tracked at all")
		}
		for _, f := range flows {
			if f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.DstPort == 4789 {
				n++
			}
		}
		return err
	})
	return n
}

// dropped counts the packets of rules whose comment begins so.
func (g *ground) dropped(comment string) (n uint64) {
	g.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	counters, err := g.table.Counters(ctx)
	if err != nil {
		g.Fatal(err)
	}
	for text, c := range counters {
		if strings.HasPrefix(text, comment) {
			n += c.Packets
		}
	}
	return n
}

// TestIPIP: a packet within a packet is taken from a node's address only, to an address
// of this node only; where IPIP is not in use, it is nobody's business.
func TestIPIP(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.run(g.outside, "ip addr add 192.0.2.3/24 dev eth0")
	in := raw(t, g.node)
	self, peer := node("node-a", nodeAddr), node("node-b", outsideAddr)
	used, unused := pool(false), pool(false)
	used.IPIP = model.EncapCrossSubnet
	stranger, known, here, everybody := "192.0.2.3", outsideAddr[0], nodeAddr[0], "192.0.2.255"
	var dropped uint64
	for _, tt := range []struct {
		what     string
		pool     model.Pool
		from, to string
		want     bool
	}{
		{"from a node", used, known, here, true},
		{"from a stranger", used, stranger, here, false},
		{"from a node to everybody", used, known, everybody, false},
		{"from a stranger, IPIP is not in use", unused, stranger, here, true},
	} {
		g.set(tt.pool, self, peer)
		send(t, g.outside, tt.from, tt.to, 1)
		send(t, g.outside, known, here, 2) // comes behind it, and always through
		first, second := in.next(t), false
		if first == 1 {
			second = in.next(t) == 2
		}
		if got := first == 1 && second; got != tt.want {
			t.Errorf("%s: came through: %t, want %t\n%s", tt.what, got, tt.want, g.run(g.node, "nft list ruleset"))
		}
		if !tt.want {
			dropped++
		}
		if n := g.dropped("IP in IP "); n != dropped && tt.pool == used {
			t.Errorf("%s: %d packets were counted as dropped, want %d", tt.what, n, dropped)
		}
	}
}

// rawSocket receives packets of protocol 4.
type rawSocket int

func raw(t *testing.T, ns *testenv.Namespace) rawSocket {
	t.Helper()
	var fd int
	ns.MustDo(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IPIP)
		return err
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		t.Fatal(err)
	}
	return rawSocket(fd)
}

// next is the number of the packet that comes next.
func (s rawSocket) next(t *testing.T) uint16 {
	t.Helper()
	b := make([]byte, 256)
	n, err := unix.Read(int(s), b)
	if err != nil || n < 40 {
		t.Fatalf("read a packet: %d bytes, %v", n, err)
	}
	return binary.BigEndian.Uint16(b[20+4:])
}

// send sends a packet within a packet; its number is the inner identification.
func send(t *testing.T, ns *testenv.Namespace, from, to string, number uint16) {
	t.Helper()
	out := raw(t, ns)
	inner := make([]byte, 20)
	inner[0], inner[3], inner[8], inner[9] = 0x45, 20, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(inner[4:], number)
	copy(inner[12:], netip.MustParseAddr("10.66.0.9").AsSlice())
	copy(inner[16:], netip.MustParseAddr(podAddr[0]).AsSlice())
	err := errors.Join(
		unix.SetsockoptInt(int(out), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.Bind(int(out), &unix.SockaddrInet4{Addr: netip.MustParseAddr(from).As4()}),
		unix.Sendto(int(out), inner, 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr(to).As4()}),
	)
	if err != nil {
		t.Fatalf("send from %s to %s: %v", from, to, err)
	}
}
