package edge_test

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/testenv"
)

// TestOutgoing: what leaves all pools has the node's address, and nothing else has.
func TestOutgoing(t *testing.T) {
	t.Parallel()
	both(t, func(_ *testing.T, g *ground, v6 bool) {
		pods, others := pool(v6), farPool(v6)
		yes := true
		g.wantSeen("no pool", outsideAddr.of(v6), podAddr.of(v6))
		g.set(pods, others)
		g.wantSeen("outside", outsideAddr.of(v6), nodeAddr.of(v6))
		g.wantSeen("far outside", elsewhere.of(v6), nodeAddr.of(v6))
		g.wantSeen("another pool", otherPod.of(v6), podAddr.of(v6))
		others.Disabled = true
		g.set(pods, others)
		g.wantSeen("a pool that is disabled", otherPod.of(v6), podAddr.of(v6))
		g.set(pods)
		g.wantSeen("no pool any more", otherPod.of(v6), nodeAddr.of(v6))

		peer := node("node-b", outsideAddr)
		g.set(pods, peer)
		g.wantSeen("a node", outsideAddr.of(v6), nodeAddr.of(v6))
		g.set(pods, peer, felix(model.NATConfig{ExcludeHosts: &yes}))
		g.wantSeen("a node, hosts excluded", outsideAddr.of(v6), podAddr.of(v6))
		g.wantSeen("no node, hosts excluded", elsewhere.of(v6), nodeAddr.of(v6))

		g.set(pods, felix(model.NATConfig{Link: "eth1"}))
		g.wantSeen("by another interface", elsewhere.of(v6), podAddr.of(v6))
		g.set(pods, felix(model.NATConfig{Link: "eth+"}))
		g.wantSeen("by an interface that fits", elsewhere.of(v6), nodeAddr.of(v6))

		pods.NATOutgoing = false
		g.set(pods)
		g.wantSeen("no natOutgoing", outsideAddr.of(v6), podAddr.of(v6))
	})
}

// TestOutgoingAddress: one address, and ports of one range, several connections each.
func TestOutgoingAddress(t *testing.T) {
	t.Parallel()
	both(t, func(_ *testing.T, g *ground, v6 bool) {
		for what, nat := range map[string]model.NATConfig{
			"ports":             {FirstPort: 50000, LastPort: 50004},
			"address":           {Addr: nodeOther.of(v6)},
			"address and ports": {Addr: nodeOther.of(v6), FirstPort: 50010, LastPort: 50014},
			"of another family": {Addr: nodeOther.of(!v6), FirstPort: 50020, LastPort: 50020},
		} {
			g.set(pool(v6), felix(nat))
			want := nodeAddr.of(v6)
			if nat.Addr == nodeOther.of(v6) {
				want = nat.Addr
			}
			last := max(nat.LastPort, nat.FirstPort+4)
			if nat.FirstPort == nat.LastPort {
				last = nat.FirstPort
			}
			for range last - nat.FirstPort + 1 {
				c := g.wantSeen(what, outsideAddr.of(v6), want)
				if port := c.seen.Port(); nat.FirstPort > 0 && (port < nat.FirstPort || port > nat.LastPort) {
					g.Errorf("%s: seen as %v, want a port of %d to %d", what, c.seen, nat.FirstPort, nat.LastPort)
				}
			}
		}
	})
}

// TestOutgoingChanges: connections that are there go on as they are, whatever becomes of
// natOutgoing.
func TestOutgoingChanges(t *testing.T) {
	t.Parallel()
	both(t, func(_ *testing.T, g *ground, v6 bool) {
		on, off := pool(v6), pool(v6)
		off.NATOutgoing = false
		g.set(on)
		translated := g.wantSeen("on", outsideAddr.of(v6), nodeAddr.of(v6))
		g.set(off)
		plain := g.wantSeen("off", outsideAddr.of(v6), podAddr.of(v6))
		if err := translated.says("still here"); err != nil {
			g.Errorf("turned off: the connection that was there: %v", err)
		}
		g.set(on)
		g.wantSeen("on again", outsideAddr.of(v6), nodeAddr.of(v6))
		for _, c := range []*talk{translated, plain} {
			if err := c.says("and here"); err != nil {
				g.Errorf("turned on again: the connection seen as %v: %v", c.seen, err)
			}
		}
	})
}

// TestOutgoingErrors: what ICMP says about packets that were translated comes to the pod
// that sent them.
func TestOutgoingErrors(t *testing.T) {
	t.Parallel()
	both(t, func(_ *testing.T, g *ground, v6 bool) {
		g.set(pool(v6))
		unreachable, port, exceeded := uint8(3), uint8(3), uint8(11)
		if v6 {
			unreachable, port, exceeded = 1, 4, 3
		}
		// Outside has no way back to the pod but through the translation.
		g.run(g.outside, "ip %s route del %v", []string{"-4", "-6"}[index(v6)], pool(v6).CIDR)
		got, err := g.icmp(outsideAddr.of(v6), 64)
		if want := (icmpError{unreachable, port, outsideAddr.of(v6)}); err != nil || got != want {
			g.Errorf("to a port that is closed: %+v, %v; want %+v", got, err, want)
		}
		g.run(g.outside, "ip link add far0 type veth peer name far1")
		g.run(g.outside, "ip link set far0 up")
		g.run(g.outside, "ip link set far1 up")
		beyond := elsewhere.of(v6).Next()
		testenv.Route(g, g.outside, netip.PrefixFrom(beyond, beyond.BitLen()).String(), "far0", "")
		got, err = g.icmp(beyond, 2)
		if want := (icmpError{exceeded, 0, outsideAddr.of(v6)}); err != nil || got != want {
			g.Errorf("two hops: %+v, %v; want %+v", got, err, want)
		}
	})
}

// icmpError is what a socket is told of a packet that it sent.
type icmpError struct {
	kind, code uint8
	from       netip.Addr
}

// icmp sends a datagram from the pod, and waits for the error that it causes.
func (g *ground) icmp(to netip.Addr, ttl int) (out icmpError, err error) {
	g.Helper()
	var c net.Conn
	g.pod.MustDo(func() (err error) { c, err = net.Dial("udp", netip.AddrPortFrom(to, 9).String()); return err })
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return out, err
	}
	level, hops, errs := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_RECVERR
	if to.Is6() {
		level, hops, errs = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_RECVERR
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), level, hops, ttl), unix.SetsockoptInt(int(fd), level, errs, 1))
	}); cerr != nil || err != nil {
		return out, errors.Join(cerr, err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return out, err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 9)); err == nil || os.IsTimeout(err) {
		return out, fmt.Errorf("no error came: %w", err)
	}
	oob := make([]byte, 512)
	cerr := raw.Control(func(fd uintptr) {
		var n int
		if _, n, _, _, err = unix.Recvmsg(int(fd), make([]byte, 64), oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err == nil {
			out, err = parseICMPError(oob[:n], to.Is6())
		}
	})
	return out, errors.Join(cerr, err)
}

// parseICMPError reads a struct sock_extended_err and the address behind it.
func parseICMPError(oob []byte, v6 bool) (out icmpError, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return out, err
	}
	for _, m := range messages {
		const head = 16 // of struct sock_extended_err
		if n := head + int(unsafe.Sizeof(unix.RawSockaddrInet4{})); len(m.Data) < n {
			continue
		}
		out.kind, out.code = m.Data[5], m.Data[6]
		if v6 {
			out.from = netip.AddrFrom16([16]byte(m.Data[head+8:]))
		} else {
			out.from = netip.AddrFrom4([4]byte(m.Data[head+4:]))
		}
		return out, nil
	}
	return out, fmt.Errorf("no error among %d messages", len(messages))
}

var update = flag.Bool("update", false, "rewrite what nft is expected to list")

// TestListed: what the nft program lists of a node with everything at once.
func TestListed(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	yes, external := true, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	config := felix(model.NATConfig{FirstPort: 1024, LastPort: 65535, ExcludeHosts: &yes, Link: "eth+", Addr: nodeOther.of(false)})
	config.Tunnel.ExternalNodes = external
	pods, pods6, others := pool(false), pool(true), farPool(false)
	pods6.Name = "pods6"
	pods.IPIP, pods6.VXLAN, others.VXLAN = model.EncapAlways, model.EncapCrossSubnet, model.EncapAlways
	g.set(pods, pods6, others, config, node("node-a", nodeAddr))
	for _, family := range []string{"ip", "ip6"} {
		file := filepath.Join("testdata", family+".nft")
		got := ""
		for _, name := range []string{edge.AllHosts, edge.AllPools, edge.OutgoingPools, edge.ExternalNodes} {
			if family == "ip" || name != edge.ExternalNodes { // externalNodesList is of IPv4
				got += g.run(g.node, "nft -s list set %s weft %s", family, name)
			}
		}
		for _, name := range []string{edge.TunnelsUntracked, edge.TunnelsIn, edge.TunnelsOut, edge.NATChain} {
			got += g.run(g.node, "nft -s list chain %s weft %s", family, name)
		}
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
	}
}
