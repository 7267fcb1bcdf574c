package route

import (
	"fmt"
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Options is what a decider is told once.
type Options struct {
	Node string // name of the node
	// NoBGP says that no routes are learned (CALICO_NETWORKING_BACKEND=vxlan): those to all
	// blocks come from the datastore.
	NoBGP bool
	// Env wins over every FelixConfiguration, first over later: the environment variables
	// and the configuration file of the agent.
	Env []model.FelixConfig
}

// Underlay is the network between the nodes as this node sees it.
type Underlay struct {
	MTU int // bytes, the smallest of its egress interfaces; 0: not known
}

// Tunnels says which tunnels a node takes part in, so that it needs an address of each.
type Tunnels struct{ IPIP, VXLAN, VXLAN6, WireGuard, WireGuard6 bool }

// Smallest MTUs.
const (
	minMTU  = 576  // of pods and devices, whatever the underlay has (RFC 791)
	minMTU6 = 1280 // below it Linux speaks no IPv6 on an interface (RFC 8200)
)

// site is how this node stands in the fabric. It is comparable.
type site struct {
	addr    [2]netip.Prefix // the node's, unmasked; zero: none
	noBGP   bool
	form    Form
	devices [tunnels]plan.Device // without a name: none
	wg      [2]bool              // WireGuard, by family
	v6      bool                 // pods may have IPv6: there is a pool of it
	explain siteMTU
}

// siteMTU is what the MTU of pods is worked out of.
type siteMTU struct {
	underlay int
	short    bool // there would be a VXLAN over IPv6, were its MTU not too small
	wg       [2]int
}

func siteFor(o Options, s Settings, self model.Node, list []model.Pool, u Underlay) site {
	out := site{
		addr: [2]netip.Prefix{self.IPv4, self.IPv6}, noBGP: o.NoBGP, form: s.Form,
		wg: [2]bool{s.Tunnel.WireGuard && self.IPv4.IsValid(), s.Tunnel.WireGuard6 && self.IPv6.IsValid()},
		explain: siteMTU{underlay: u.MTU, wg: [2]int{
			tunnelMTU(s.Tunnel.WireGuardMTU, u.MTU, wireGuardOverhead),
			tunnelMTU(s.Tunnel.WireGuardMTU6, u.MTU, wireGuardOverhead6),
		}},
	}
	wanted := [tunnels]bool{ipip: s.Tunnel.IPIP == On, vxlan: s.Tunnel.VXLAN == On}
	for _, p := range list {
		e, _ := encapOf(p, s.Tunnel)
		wanted[e.tunnel] = true
		out.v6 = out.v6 || p.CIDR.Addr().Is6()
	}
	for t := ipip; int(t) < tunnels; t++ {
		if !wanted[t] || !out.addr[family(t.v6())].IsValid() {
			continue
		}
		d := deviceFor(t, s.Tunnel, self, u)
		if t.v6() && d.MTU != 0 && d.MTU < minMTU6 {
			out.explain.short = true
			continue
		}
		out.devices[t] = d
	}
	return out
}

// deviceFor is the device of t on this node.
func deviceFor(t tunnel, s Tunnel, self model.Node, u Underlay) plan.Device {
	d := plan.Device{Name: t.device()}
	switch t {
	case ipip:
		d.Kind, d.Addr, d.MTU = plan.IPIP, self.IPIPTunnel, tunnelMTU(s.IPIPMTU, u.MTU, t.overhead())
		return d
	case vxlan6:
		d.Addr, d.MTU = self.VXLANTunnelV6, tunnelMTU(s.VXLANMTU6, u.MTU, t.overhead())
		d.Local, d.MAC = self.IPv6.Addr(), macOf(self.Name, self.VXLANMACV6, true)
	default:
		d.Addr, d.MTU = self.VXLANTunnel, tunnelMTU(s.VXLANMTU, u.MTU, t.overhead())
		d.Local, d.MAC = self.IPv4.Addr(), macOf(self.Name, self.VXLANMAC, false)
	}
	d.Kind, d.VNI, d.Port, d.NoChecksumOffload = plan.VXLAN, s.VNI, s.VXLANPort, s.ChecksumBroken
	return d
}

// tunnelMTU is set, if it is, else what a tunnel leaves of the underlay's MTU; 0: not known.
func tunnelMTU(set, underlay, overhead int) int {
	switch {
	case set > 0:
		return set
	case underlay == 0:
		return 0
	}
	return max(underlay-overhead, minMTU)
}

// has reports whether this node has the device of t.
func (s *site) has(t tunnel) bool { return s.devices[t].Name != "" }

// reach is what routes to other nodes depend on, beside their form. It is comparable.
type reach struct {
	addr  [2]netip.Prefix
	noBGP bool
	has   [tunnels]bool
	vtep  [2]netip.Addr
}

func (s *site) reach() reach {
	r := reach{addr: s.addr, noBGP: s.noBGP, vtep: [2]netip.Addr{s.devices[vxlan].Addr, s.devices[vxlan6].Addr}}
	for t := range r.has {
		r.has[t] = s.has(tunnel(t))
	}
	return r
}

// own reports whether p is the kernel's: a subnet or an address of the node itself.
func (s *site) own(p netip.Prefix) bool {
	for _, a := range s.addr {
		if a.IsValid() && (p == a.Masked() || p == host(a.Addr())) {
			return true
		}
	}
	return false
}

// near reports whether to is in the node's own subnet.
func (s *site) near(to netip.Addr) bool {
	own := s.addr[family(to.Is6())]
	return own.IsValid() && own.Contains(to)
}

// towards is the route to p, whose addresses are on m, if there is a way.
func (s *site) towards(p netip.Prefix, e encap, m member) maybe[plan.Route] {
	v6 := family(p.Addr().Is6())
	to, own := m.addr[v6], s.addr[v6]
	if !to.IsValid() || !own.IsValid() || to == own.Addr() {
		return maybe[plan.Route]{}
	}
	if near := s.near(to); near && (e.cross || e.tunnel == plain) {
		return maybe[plan.Route]{s.form.remote(p, plan.MakeHops(to)), true}
	}
	if e.tunnel == plain || !s.has(e.tunnel) {
		return maybe[plan.Route]{}
	}
	if e.tunnel != ipip {
		// A node that has our own address: one of the two records is wrong.
		if to = m.vtep[v6]; !to.IsValid() || to == s.devices[e.tunnel].Addr {
			return maybe[plan.Route]{}
		}
	}
	r := s.form.remote(p, plan.MakeHops(to))
	r.Link, r.OnLink = e.tunnel.device(), true
	return maybe[plan.Route]{r, true}
}

// vtep reports whether this node wants v.
func (s *site) vtep(v plan.VTEP) bool {
	for _, t := range []tunnel{vxlan, vxlan6} {
		if d := s.devices[t]; d.Name == v.Link {
			return d.Addr != v.Addr && d.Local != v.Node
		}
	}
	return false
}

func (s *site) tunnels() Tunnels {
	return Tunnels{IPIP: s.has(ipip), VXLAN: s.has(vxlan), VXLAN6: s.has(vxlan6), WireGuard: s.wg[0], WireGuard6: s.wg[1]}
}

// podMTU is the MTU of workloads: the smallest of the tunnels that the node takes part in,
// or that of the underlay; 0: not known. By says what bounds it; empty: the underlay.
func (s *site) podMTU() (mtu int, by string) {
	if mtu = s.explain.underlay; mtu == 0 {
		return 0, ""
	}
	bound, tunneled := 0, false
	least := func(n int, name string) {
		if !tunneled || n < bound {
			bound, by, tunneled = n, name, true
		}
	}
	for _, d := range s.devices {
		if d.Name != "" {
			least(d.MTU, d.Name)
		}
	}
	for i, name := range []string{"WireGuard", "WireGuard over IPv6"} {
		if s.wg[i] {
			least(s.explain.wg[i], name)
		}
	}
	if tunneled {
		mtu = bound
	}
	return max(mtu, minMTU), by
}

// problems are what keeps this node from doing as the pools ask.
func (s *site) problems(self string, list []model.Pool, t Tunnel) []model.Problem {
	var out []model.Problem
	for _, p := range list {
		e, why := encapOf(p, t)
		if e.tunnel == vxlan6 && s.explain.short {
			why = fmt.Sprintf("vxlanMode %s: no device %s: the underlay's MTU of %d less %d, or vxlanMTUV6, is below the %d that IPv6 needs (RFC 8200): "+
				"no encapsulated route to its addresses on other nodes; other pools keep working; raise the MTU of the underlay",
				p.VXLAN, e.tunnel.device(), s.explain.underlay, e.tunnel.overhead(), minMTU6)
		}
		if v6 := family(e.tunnel.v6()); e.tunnel != plain && !s.addr[v6].IsValid() && s.addr[1-v6].IsValid() {
			why = fmt.Sprintf("%s: node %s has no IPv%d address: no encapsulated route to the pool's addresses on other nodes; give the node an address, or keep the pool's pods off it",
				e.tunnel.device(), self, [2]int{4, 6}[v6])
		}
		if why != "" {
			out = append(out, model.Problem{Key: p.Key(), Text: why})
		}
	}
	if mtu, by := s.podMTU(); s.v6 && mtu != 0 && mtu < minMTU6 {
		left := fmt.Sprintf("the underlay's MTU of %d", s.explain.underlay)
		if by != "" {
			left += " less what " + by + " adds, or what is set for it,"
		}
		out = append(out, model.Problem{Key: model.Node{Name: self}.Key(), Text: fmt.Sprintf(
			"MTU of pods: %s leaves %d, IPv6 needs at least %d (RFC 8200): IPv6 of this node's pods does not work; IPv4 pools keep working; raise the MTU of the underlay",
			left, mtu, minMTU6)})
	}
	return out
}
