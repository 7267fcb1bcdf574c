package policy_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
	"github.com/weft-net/weft/test/policy/world"
)

// ground is a namespace that is the node of package world: packets written into a wire
// come from whoever is behind that interface, and what can be read from one has been
// sent there. What reaches the node itself is seen by raw sockets.
type ground struct {
	ns    *testenv.Namespace
	links map[string]wire
	self  []socket // what the node receives
	from  [2]int   // descriptors by which the node sends, IPv4 and IPv6
	flush *netlink.Handle
	// What was sent, by mark less one, and whether it came out where it should.
	sent   []world.Packet
	passed []bool
	// How long a packet that is to pass may take: the kernel forwards in the system call
	// that writes, so this is for machines that are busy.
	patience time.Duration
}

// socket is a raw socket for one protocol.
type socket struct {
	fd    int
	v6    bool
	proto uint8
}

func newGround(t *testing.T) *ground {
	g := &ground{ns: testenv.Netns(t), links: map[string]wire{}, patience: testenv.Patience}
	testenv.Forward(t, g.ns)
	g.ns.MustDo(func() error {
		for _, name := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv6/conf/default/accept_dad"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte("0"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	names := []string{world.Uplink}
	for i := range world.Locals {
		names = append(names, world.Link(i))
	}
	g.wires(t, names)
	g.ns.MustDo(g.address)
	g.ns.MustDo(g.open)
	t.Cleanup(g.close)
	return g
}

// address gives the node its addresses, and routes to workloads and to the rest.
func (g *ground) address() error {
	up, err := netlink.LinkByName(world.Uplink)
	if err != nil {
		return err
	}
	for _, a := range []netip.Prefix{netip.PrefixFrom(world.NodeAddr(false, false), 24), netip.PrefixFrom(world.NodeAddr(false, true), 64)} {
		addr, err := netlink.ParseAddr(a.String())
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(up, addr); err != nil {
			return fmt.Errorf("address %v: %w", a, err)
		}
	}
	route := func(dst, link string) error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		to, err := netlink.ParseIPNet(dst)
		if err != nil {
			return err
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: to}); err != nil {
			return fmt.Errorf("route %s dev %s: %w", dst, link, err)
		}
		return nil
	}
	errs := []error{route("0.0.0.0/0", world.Uplink), route("::/0", world.Uplink)}
	for i := range world.Locals {
		errs = append(errs, route(world.Addr(i, false).String()+"/32", world.Link(i)), route(world.Addr(i, true).String()+"/128", world.Link(i)))
	}
	return errors.Join(errs...)
}

// open opens the node's own sockets.
func (g *ground) open() (err error) {
	if g.flush, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	raw := func(family int, proto uint8) (int, error) {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(proto))
		if err != nil {
			return 0, fmt.Errorf("raw socket of protocol %d: %w", proto, err)
		}
		return fd, nil
	}
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if g.from[i], err = raw(family, unix.IPPROTO_RAW); err != nil {
			return err
		}
		for _, proto := range []uint8{1, 4, 6, 17, 58, 132, 252, 253, 254} {
			fd, err := raw(family, proto)
			if err != nil {
				return err
			}
			g.self = append(g.self, socket{fd, i == 1, proto})
		}
	}
	return nil
}

func (g *ground) close() {
	for _, s := range g.self {
		_ = unix.Close(s.fd)
	}
	for _, fd := range g.from {
		_ = unix.Close(fd)
	}
	g.flush.Close()
}

// forget makes every packet the first of a flow again.
func (g *ground) forget() error { return g.flush.ConntrackTableFlush(netlink.ConntrackTable) }

// late is how long packets that are not to pass are waited for at the end of the test, and
// any packet once something was found that is wrong.
const late = 200 * time.Millisecond

// send sends packets, and says for each whether it came out where it should. Those that
// are wanted are waited for.
func (g *ground) send(ps []world.Packet, wanted []bool) ([]bool, error) {
	first := len(g.sent)
	for _, p := range ps {
		g.sent = append(g.sent, p)
		g.passed = append(g.passed, false)
		if err := g.inject(p, encode(p, uint32(len(g.sent)))); err != nil {
			return nil, fmt.Errorf("send %v: %w", p, err)
		}
	}
	missing := func() bool {
		for i, want := range wanted {
			if want && !g.passed[first+i] {
				return true
			}
		}
		return false
	}
	g.collect()
	for until := time.Now().Add(g.patience); missing() && time.Now().Before(until); time.Sleep(time.Millisecond) {
		g.collect()
	}
	return slices.Clone(g.passed[first:]), nil
}

// inject hands a packet to the kernel; one that the kernel refuses to send is no error.
func (g *ground) inject(p world.Packet, data []byte) error {
	if p.In != "" {
		return g.links[p.In].write(data)
	}
	var err error
	if p.Dst.Is4() {
		err = unix.Sendto(g.from[0], data, 0, &unix.SockaddrInet4{Addr: p.Dst.As4()})
	} else {
		err = unix.Sendto(g.from[1], data, 0, &unix.SockaddrInet6{Addr: p.Dst.As16()})
	}
	if errors.Is(err, unix.EPERM) {
		return nil // dropped at the hook output
	}
	return err
}

// collect notes what has come out so far.
func (g *ground) collect() {
	buf := make([]byte, 2048)
	for link, w := range g.links {
		for {
			n, err := unix.Read(w.fd, buf)
			if err != nil || n <= 0 {
				break
			}
			// An error about a packet quotes it; so the outer addresses count, too.
			src, dst := addrsOf(buf[:n])
			g.note(buf[:n], func(p world.Packet) bool { return p.Out == link && p.Src == src && p.Dst == dst })
		}
	}
	for _, s := range g.self {
		for {
			n, from, err := unix.Recvfrom(s.fd, buf, 0)
			if err != nil {
				break
			}
			g.note(buf[:n], func(p world.Packet) bool { return p.Out == "" && p.Protocol == s.proto && p.Src == addrOf(from) })
		}
	}
}

// note notes that a packet has come out, if it is one of those sent and is where it
// belongs.
func (g *ground) note(data []byte, belongs func(world.Packet) bool) {
	if i := int(markOf(data)) - 1; i >= 0 && i < len(g.sent) && belongs(g.sent[i]) {
		g.passed[i] = true
	}
}

func addrOf(from unix.Sockaddr) netip.Addr {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr)
	}
	return netip.Addr{}
}

func addrsOf(data []byte) (src, dst netip.Addr) {
	if data[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(data[12:16])), netip.AddrFrom4([4]byte(data[16:20]))
	}
	return netip.AddrFrom16([16]byte(data[8:24])), netip.AddrFrom16([16]byte(data[24:40]))
}

// markOf is the mark at the end of a packet; 0: it is none of ours.
func markOf(data []byte) uint32 {
	if len(data) < 8 || string(data[len(data)-8:len(data)-4]) != magic {
		return 0
	}
	return binary.BigEndian.Uint32(data[len(data)-4:])
}
