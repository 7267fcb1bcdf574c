package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/fib"
	weftnetlink "github.com/weft-net/weft/internal/kernel/netlink"
)

// Names of the links in the sandbox.
const (
	linkA = "weft-try0"
	linkB = "weft-try1"
)

// ability is something that the kernel may be able to do.
type ability struct {
	name, module, config string
	purpose              string
	required             bool
	remedy               string       // where the module does not say it
	try                  func() error // in the sandbox, on its thread
	chain                string       // instead of try: the chain of the packet filter that shows it
}

// abilities are those that weft uses. The first ones make what the others use.
func abilities() []ability {
	return append([]ability{
		{name: "links", module: "veth", config: "CONFIG_VETH", purpose: "the links of pods", required: true, try: tryLinks},
		{name: "routes", purpose: "routes to pods", required: true, remedy: "take a kernel with CONFIG_INET", try: tryRoute},
		{name: "settings", purpose: "forwarding, and the settings of pods' links", required: true, remedy: "mount /proc/sys/net writable, or give the container the capability SYS_ADMIN", try: trySettings},
		{name: "ipv6", module: "ipv6", config: "CONFIG_IPV6", purpose: "IPv6", try: tryIPv6},
		{name: "multipath", config: "CONFIG_IP_ROUTE_MULTIPATH", purpose: "several equally good routes of BGP", remedy: "take a kernel with CONFIG_IP_ROUTE_MULTIPATH", try: tryMultipath},
		{name: "rules", config: "CONFIG_IP_MULTIPLE_TABLES", purpose: "routing rules of WireGuard", remedy: "take a kernel with CONFIG_IP_MULTIPLE_TABLES", try: tryRule},
		{name: "conntrack", module: "nf_conntrack_netlink", config: "CONFIG_NF_CT_NETLINK", purpose: "ending connections that policy forbids", required: true, try: tryConntrack},
		{name: "vxlan", module: "vxlan", config: "CONFIG_VXLAN", purpose: "pools with vxlanMode", try: tryLink(&netlink.Vxlan{LinkAttrs: attrs("weft-try2"), VxlanId: 4096, Port: 4789, SrcAddr: net.IPv4(192, 0, 2, 1)})},
		{name: "ipip", module: "ipip", config: "CONFIG_NET_IPIP", purpose: "pools with ipipMode; without it the agent carries their packets itself, more slowly", try: tryLink(&netlink.Iptun{LinkAttrs: attrs("weft-try3"), Local: net.IPv4(192, 0, 2, 1), Remote: net.IPv4(192, 0, 2, 2)})},
		{name: "tun", module: "tun", config: "CONFIG_TUN", purpose: "pools with ipipMode where the kernel has no ipip", remedy: "give the container /dev/net/tun", try: tryTun},
		{name: "wireguard", module: "wireguard", config: "CONFIG_WIREGUARD", purpose: "encryption (wireguardEnabled)", try: tryLink(&netlink.Wireguard{LinkAttrs: attrs("weft-try4")})},
		{name: "bandwidth", module: "sch_tbf", config: "CONFIG_NET_SCH_TBF", purpose: "limits of pods' bandwidth", try: tryBandwidth},
		{name: "bandwidth from pods", module: "ifb", config: "CONFIG_IFB", purpose: "limits of what pods send", try: tryLink(&netlink.Ifb{LinkAttrs: attrs("weft-try5")})},
		{name: "tcp md5", config: "CONFIG_TCP_MD5SIG", purpose: "passwords of BGP sessions", remedy: "take a kernel with CONFIG_TCP_MD5SIG", try: tryMD5},
		{name: "socket buffers", purpose: "writing large policies at once", remedy: "give the capability NET_ADMIN, or raise net.core.wmem_max", try: tryBuffers},
	}, filterAbilities()...)
}

// tryAll tries everything in a network namespace of its own, and says by name what came of it.
// The other error says why there is no such namespace.
func tryAll(ctx context.Context, tries []ability) (map[string]error, error) {
	outcome := map[string]error{}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread, and with it the namespace, goes with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("a network namespace can't be made: %w", err)
			return
		}
		for _, a := range tries {
			if a.try != nil && ctx.Err() == nil {
				outcome[a.name] = a.try()
			}
		}
		tryFilter(ctx, tries, outcome)
		done <- nil
	}()
	err := <-done
	return outcome, err
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func tryLinks() error {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs(linkA), PeerName: linkB}); err != nil {
		return fmt.Errorf("add a veth pair: %w", err)
	}
	for _, name := range []string{"lo", linkA, linkB} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}

// tryLink makes a link, and removes it.
func tryLink(l netlink.Link) func() error {
	return func() error {
		if err := netlink.LinkAdd(l); err != nil {
			return fmt.Errorf("add a link of type %s: %w", l.Type(), err)
		}
		if err := netlink.LinkDel(l); err != nil {
			return fmt.Errorf("remove a link of type %s: %w", l.Type(), err)
		}
		return nil
	}
}

func network(text string) *net.IPNet {
	_, n, err := net.ParseCIDR(text)
	if err != nil {
		panic(err) // a constant of this file
	}
	return n
}

// onLink is the index of the first link.
func onLink() (int, error) {
	l, err := netlink.LinkByName(linkA)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", linkA, err)
	}
	return l.Attrs().Index, nil
}

func tryRoute() error {
	index, err := onLink()
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("192.0.2.0/26"), Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_BIRD}); err != nil {
		return fmt.Errorf("add a route: %w", err)
	}
	return nil
}

func tryMultipath() error {
	index, err := onLink()
	if err != nil {
		return err
	}
	hops := []*netlink.NexthopInfo{
		{LinkIndex: index, Gw: net.IPv4(192, 0, 2, 5), Flags: int(netlink.FLAG_ONLINK)},
		{LinkIndex: index, Gw: net.IPv4(192, 0, 2, 6), Flags: int(netlink.FLAG_ONLINK)},
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: network("198.51.100.0/24"), MultiPath: hops}); err != nil {
		return fmt.Errorf("add a route with two next hops: %w", err)
	}
	return nil
}

func tryRule() error {
	r := netlink.NewRule()
	r.Table, r.Priority, r.Src = 1000, 99, network("192.0.2.0/24")
	if err := netlink.RuleAdd(r); err != nil {
		return fmt.Errorf("add a routing rule: %w", err)
	}
	return nil
}

func trySettings() error { return fib.EnableForwarding(true, false) }

func tryIPv6() error {
	if err := fib.EnableForwarding(false, true); err != nil {
		return err
	}
	index, err := onLink()
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("2001:db8::/122")}); err != nil {
		return fmt.Errorf("add a route: %w", err)
	}
	return nil
}

// dumpConnections is the request for all connections (IPCTNL_MSG_CT_GET of ctnetlink).
const dumpConnections = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1

func tryConntrack() error {
	s, err := weftnetlink.Open(weftnetlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := s.Dump(dumpConnections, []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, func(uint16, []byte) {}, nil); err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	return nil
}

func tryTun() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func tryBandwidth() error {
	index, err := onLink()
	if err != nil {
		return err
	}
	err = netlink.QdiscAdd(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       125_000, Limit: 65_536, Buffer: 65_536,
	})
	if err != nil {
		return fmt.Errorf("add a token bucket: %w", err)
	}
	return nil
}

func tryMD5() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	sig := unix.TCPMD5Sig{Keylen: 1, Key: [80]uint8{'x'}}
	sig.Addr.Family = unix.AF_INET
	sig.Addr.Data[2] = 192 // of 192.0.0.0: after the port
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig); err != nil {
		return fmt.Errorf("TCP_MD5SIG: %w", err)
	}
	return nil
}

// bufferBytes is what a large transaction of the packet filter needs.
const bufferBytes = 32 << 20

func tryBuffers() error {
	s, err := weftnetlink.Open(weftnetlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	most, err := s.SendBuffer(bufferBytes)
	if err == nil && most < bufferBytes {
		err = fmt.Errorf("%d bytes can be sent at once, not %d: large sets are written in several transactions", most, bufferBytes)
	}
	return err
}

// filterPatience bounds the tries of the packet filter.
const filterPatience = 30 * time.Second

// errNoFilter is for what needs the packet filter where there is none.
var errNoFilter = errors.New("the packet filter does not work")
