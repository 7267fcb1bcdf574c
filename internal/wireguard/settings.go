package wireguard

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// setting is what holds for one family on one node. It is comparable.
type setting struct {
	on        bool
	hosts     bool // traffic of the node itself, too
	strict    bool // what cannot be encrypted is dropped
	threaded  bool
	link      string
	port      uint16
	mtu       int // bytes; 0: found
	keepalive time.Duration
	table     uint32
	priority  uint32 // of the rule
	prefixes  string // of the names of workloads' links, with commas
}

// settingsFor lays configurations over each other for one node, by family; of values it
// reads the FelixConfigs.
func settingsFor(node model.Node, values iter.Seq[model.Value], env []model.FelixConfig) [2]setting {
	var t model.TunnelConfig
	prefixes := ""
	for _, c := range append(slices.Clip(env), model.FelixConfigsFor(node, values)...) {
		t = t.Over(c.Tunnel)
		if prefixes == "" {
			prefixes = strings.Join(c.InterfacePrefixes, ",")
		}
	}
	if prefixes == "" {
		prefixes = "cali"
	}
	common := setting{
		hosts: or(t.WireGuardHosts, false), strict: or(t.WireGuardStrict, false), threaded: or(t.WireGuardThreaded, false),
		keepalive: or(t.WireGuardKeepalive, 0).Round(time.Second), table: firstTable(t.Tables),
		prefixes: prefixes,
		priority: uint32(or(t.WireGuardPriority, model.DefaultWireGuardPriority)),
	}
	v4, v6 := common, common
	v4.on, v4.port = or(t.WireGuard, false), or(t.WireGuardPort, model.DefaultWireGuardPort)
	v6.on, v6.port = or(t.WireGuardV6, false), or(t.WireGuardPortV6, model.DefaultWireGuardPortV6)
	v4.mtu, v6.mtu = or(t.WireGuardMTU, 0), or(t.WireGuardMTUV6, 0)
	v4.link, v6.link = model.DefaultWireGuardLink, model.DefaultWireGuardLinkV6
	if t.WireGuardLink != "" {
		v4.link = t.WireGuardLink
	}
	if t.WireGuardLinkV6 != "" {
		v6.link = t.WireGuardLinkV6
	}
	return [2]setting{v4, v6}
}

func or[T any](v *T, otherwise T) T {
	if v != nil {
		return *v
	}
	return otherwise
}

// firstTable is the first kernel table of ranges that is nobody's: not 0 (unspecified)
// nor 253 to 255 (default, main, local). Both families use the same number: the kernel has
// tables of each.
func firstTable(ranges []model.TableRange) uint32 {
	if len(ranges) == 0 {
		ranges = model.DefaultTables()
	}
	for _, r := range ranges {
		for t := r.First; t <= r.Last; t++ {
			if t == 253 {
				t = 256
			}
			if t != 0 && t <= r.Last {
				return t
			}
		}
	}
	return 1
}

// side is all of this node that counts for one family. It is comparable.
type side struct {
	setting
	addr      netip.Addr // the node's; zero: it has none of the family
	inner     netip.Addr // the device's; zero: none yet
	underlay  int
	published bool // the record has the key of the device
	twin      bool // the other family has a device of this name
}

// sidesOf gives both sides of a node; keys are those of its devices, by link.
func sidesOf(n model.Node, s [2]setting, underlay int, keys map[string]plan.PublicKey) [2]side {
	var out [2]side
	for f := range out {
		key := keys[s[f].link]
		out[f] = side{
			setting: s[f], addr: n.Addr(f == 1).Addr(), inner: n.WireGuardAddr, underlay: underlay,
			published: key != plan.PublicKey{} && key == keyOf(n, f),
		}
	}
	out[1].inner = n.WireGuardAddrV6
	out[1].twin = s[0].on && s[0].link == s[1].link
	return out
}

// usable reports whether the side has a device.
func (s side) usable() bool { return s.on && s.addr.IsValid() && !s.twin && !s.narrow() }

// narrow reports whether the device would be too small for IPv6 (RFC 8200 section 5).
func (s side) narrow() bool {
	mtu := s.mtuBytes()
	return s.addr.Is6() && mtu != 0 && mtu < 1280
}

// device is the side's device, if it has one.
func (s side) device() (plan.Device, bool) {
	d := plan.Device{
		Name: s.link, Kind: plan.WireGuard, Addr: s.inner, MTU: s.mtuBytes(),
		Port: s.port, Mark: Mark, Threaded: s.threaded, Hosts: s.hosts,
	}
	return d, s.usable()
}

// mtuBytes is the MTU of the device; 0: as the kernel makes it.
func (s side) mtuBytes() int {
	overhead := overhead4
	if s.addr.Is6() {
		overhead = overhead6
	}
	if s.mtu == 0 && s.underlay > overhead {
		return s.underlay - overhead
	}
	return s.mtu
}

// rule leads into the side's table.
func (s side) rule(f int) (plan.RoutingRule, bool) {
	return plan.RoutingRule{V6: f == 1, Priority: s.priority, Mark: Mark, Mask: Mark, Not: true, Table: s.table}, s.on
}

// peer is another node as a peer of the side's device, if it can be one: key is its own
// alone, and allowed what is its own.
func (s side) peer(n model.Node, f int, theirs setting, sole bool, allowed plan.Prefixes) (end, bool) {
	key, at := keyOf(n, f), n.Addr(f == 1).Addr()
	e := end{hosts: s.hosts && theirs.hosts && s.published}
	e.peer.Link, e.peer.Key = s.link, key
	e.peer.Endpoint = netip.AddrPortFrom(at, theirs.port)
	e.peer.Allowed, e.peer.Keepalive = allowed, s.keepalive
	return e, s.usable() && key != plan.PublicKey{} && at.IsValid() && sole
}

// route is what the side's table has for a prefix: c is the claim to it that counts and
// e its node as a peer, if it is one; pool says that it is a pool's whole range, and pooled
// that it is inside of one.
func (s side) route(p netip.Prefix, self string, c claim, e end, isPeer, pool, pooled bool) (plan.Route, bool) {
	r := plan.Route{
		RouteKey:   plan.RouteKey{Dst: p, Table: s.table},
		RouteAttrs: plan.RouteAttrs{Type: plan.Throw, Proto: plan.ProtoBird},
	}
	switch {
	case !s.on:
		return r, false
	case c.node == self && c.rank <= home:
		return r, true // our workloads are found in the main table
	case c.node == self:
		// The kernel looks up this node's own addresses before any table of ours.
	case c.node != "" && c.rank == address:
		if isPeer && e.hosts {
			r.Type, r.Link, r.Src = plan.Unicast, s.link, s.addr
			return r, true
		}
		// No pod has it; only a pool around it would catch it.
		return r, s.strict && pooled
	case isPeer:
		r.Type, r.Link = plan.Unicast, s.link
		return r, true
	case c.node != "" && !s.strict:
		return r, true
	}
	if c.node != "" && c.node != self || pool {
		r.Type = plan.Blackhole
		return r, s.strict
	}
	return r, false
}

// forPods reports whether addresses of p are those of pods, rather than of services: who
// sends to a service from this node is looked up before its packet is translated.
func forPods(p model.Pool) bool { return p.Uses != model.UseLoadBalancer }
