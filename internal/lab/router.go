package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/lab/topology"
)

// newRouter describes a router: a BIRD with a configuration of its own.
func (h *holder) newRouter(i int, r *topology.Router) *machine {
	dir := h.Dir.router(i)
	return &machine{
		target: r.Target(), dir: dir, environ: h.Environ,
		argv: []string{"bird", "-f", "-c", filepath.Join(dir, "bird.conf"), "-s", birdSocket(dir), "-P", filepath.Join(dir, "bird.pid")},
		ready: func(ctx context.Context) error {
			return birdReady(ctx, birdSocket(dir))
		},
	}
}

// birdReady asks for BIRD's greeting: it listens before it has read its
// configuration, and answers after.
func birdReady(ctx context.Context, socket string) error {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("no greeting on %s: %w", socket, err)
	}
	return nil
}

func birdSocket(dir string) string { return filepath.Join(dir, "bird.ctl") }

// configureRouter lets the machine forward, gives it its loopback addresses, and
// writes BIRD's configuration.
func (h *holder) configureRouter(m *machine, r *topology.Router) error {
	bird, err := findProgram("bird", "bird2")
	if err != nil {
		return err
	}
	m.argv[0] = bird
	err = m.ns.open(func() error {
		if err := setting("ipv4/ip_forward", "1"); err != nil {
			return err
		}
		if err := setting("ipv6/conf/all/forwarding", "1"); err != nil && !os.IsNotExist(err) {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("link lo: %w", err)
		}
		for _, a := range r.Loopbacks {
			if err := addAddr(lo, netip.PrefixFrom(a, a.BitLen())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	config := r.BirdConfig
	if config == "" {
		config = birdConfig(h.topo, r)
	}
	return os.WriteFile(filepath.Join(m.dir, "bird.conf"), []byte(config), 0o600)
}

// findProgram finds a program where Debian keeps daemons, too.
func findProgram(name, debianPackage string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not found: the lab needs it; in Debian it is in the package %s", name, debianPackage)
}

// birdConfig is the configuration of a router that its file does not give one: it
// peers with nodes, puts what it learns into its kernel, and announces its own
// prefixes and what it learned.
func birdConfig(t *topology.Topology, r *topology.Router) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	id := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	for _, a := range r.Addresses {
		if a.Is4() {
			id = a
		}
	}
	line("# Made by weft lab for router %s.", r.Name)
	line("router id %v;", id)
	line("log stderr all;")
	line("protocol device { scan time 2; }")
	// Connected networks and the default route, by which BIRD finds the next hops of
	// iBGP and of peers in other racks.
	line("protocol direct { ipv4; ipv6; }")
	for _, f := range []string{"ipv4", "ipv6"} {
		line("protocol kernel kernel_%s { merge paths yes; learn; %s { import all; export where source ~ [RTS_STATIC, RTS_BGP]; }; }", f, f)
		line("protocol static announced_%s {\n\t%s;", f, f)
		for _, p := range r.Announce {
			if family(p.Addr()) == f {
				line("\troute %v blackhole;", p)
			}
		}
		line("}")
	}
	for _, name := range r.Peers {
		node := nodeOf(t, name)
		for _, local := range r.Addresses {
			for _, remote := range node.Addresses {
				if local.Is4() != remote.Is4() {
					continue
				}
				f := family(remote)
				line("protocol bgp %s_%s {", birdName(name), f)
				line("\tlocal %v as %d;", local, r.ASN)
				line("\tneighbor %v as %d;", remote, asnOf(t, node))
				line("\tconnect delay time 1; connect retry time 2; error wait time 1, 4; graceful restart on;")
				if _, sameRack := t.Rack(r.Rack).Subnet(remote); !sameRack {
					line("\tmultihop;")
				}
				if r.Password != "" {
					line("\tpassword %q;", r.Password)
				}
				line("\t%s { import all; export where source ~ [RTS_STATIC, RTS_BGP]; next hop self; };", f)
				line("}")
			}
		}
	}
	return b.String()
}

// birdName is a node's name as a symbol of BIRD.
func birdName(name string) string { return "node_" + strings.ReplaceAll(name, "-", "_") }

func family(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

func nodeOf(t *topology.Topology, name string) topology.Node {
	for _, n := range t.Nodes {
		if n.Name == name {
			return n
		}
	}
	return topology.Node{}
}

// asnOf is a node's AS number: its setting AS, the cluster's setting, the cluster's
// resource, or the default.
func asnOf(t *topology.Topology, n topology.Node) uint32 {
	for _, env := range []map[string]string{n.Env, t.Env} {
		if asn, err := strconv.ParseUint(env["AS"], 10, 32); err == nil {
			return uint32(asn)
		}
	}
	for _, r := range t.Resources {
		spec, _ := r["spec"].(map[string]any)
		if asn, ok := spec["asNumber"].(float64); ok && r["kind"] == "BGPConfiguration" {
			return uint32(asn)
		}
	}
	return topology.DefaultASN
}
