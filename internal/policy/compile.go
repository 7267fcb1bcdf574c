package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Link is an interface of the node, with the addresses that the kernel gives it.
// Host endpoints are found by them.
type Link struct {
	Name  string
	Addrs []netip.Addr
}

// Compile is the packet filter of a node, from scratch: the slow and obvious
// reference of [Graph].
func Compile(node string, world model.World, links []Link, settings Settings) plan.Filter {
	v := NewView(world)
	out := plan.Filter{V4: compile(node, v, links, settings, false)}
	if settings.IPv6 {
		out.V6 = compile(node, v, links, settings, true)
	}
	return out
}

// compiler writes one table.
type compiler struct {
	Emitter
	view  *View
	node  string
	table plan.Table
	parts map[SetRef]Parts
}

func compile(node string, v *View, links []Link, settings Settings, v6 bool) plan.Table {
	c := &compiler{view: v, node: node, parts: map[SetRef]Parts{}}
	c.Emitter = Emitter{Settings: settings, V6: v6, Parts: func(r SetRef) Parts { return c.parts[r] }}
	hosts := c.hostEndpoints(links)
	used := c.used()
	c.table = c.Base(used)
	for link, s := range c.workloads() {
		for _, p := range [...]Point{FromWorkload, ToWorkload} {
			c.dispatch(p, link, c.list(s, p))
		}
		c.sources(s)
	}
	for _, p := range HostPoints() {
		if !used.Has(p) {
			continue
		}
		for link, s := range hosts {
			if link != "*" {
				c.dispatch(p, link, c.list(s, p))
				continue
			}
			l := c.list(s, p)
			c.chains(l)
			any := p.AnyChain(l.Name())
			c.table.Chains[any.Name] = any
		}
	}
	if used.hosts() {
		c.nodes()
	}
	return c.table
}

// workloads are the node's workload endpoints that have an address of the family, by
// interface. Of two with one interface the first by key counts.
func (c *compiler) workloads() map[string]Subject {
	out := map[string]Subject{}
	for _, s := range c.view.Subjects() {
		if _, taken := out[s.Link]; !s.Host && s.Node == c.node && s.Link != "" && !taken && len(c.addrs(s)) > 0 {
			out[s.Link] = s
		}
	}
	return out
}

func (c *compiler) addrs(s Subject) []netip.Addr {
	e, _ := c.view.World()[s.Key].(model.Endpoint)
	return slices.DeleteFunc(slices.Clone(e.Addrs), func(a netip.Addr) bool { return a.Is4() == c.V6 })
}

// hostEndpoints are the node's, by interface: those there are, and those that have a
// name without being there. "*" is all others.
func (c *compiler) hostEndpoints(links []Link) map[string]Subject {
	out := map[string]Subject{}
	for _, s := range c.view.Subjects() {
		if s.Host && s.Node == c.node && s.Link != "" {
			links = append(slices.Clip(links), Link{Name: s.Link})
		}
	}
	// The ones with addresses stand first, since an interface is found by them, too.
	for _, l := range links {
		if _, found := out[l.Name]; found || WorkloadLink(c.Settings.Prefixes, l.Name) {
			continue
		}
		s, ok := c.view.HostEndpointOf(c.node, l.Name, l.Addrs)
		if ok && (s.Link == "*") == (l.Name == "*") {
			out[l.Name] = s
		}
	}
	return out
}

// WorkloadLink reports whether an interface has a name that workloads' have.
func WorkloadLink(prefixes []string, link string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(link, p) })
}

// used are the points at which the node's host endpoints have something to say.
func (c *compiler) used() Points {
	var hosts []Subject
	for _, s := range c.view.Subjects() {
		if s.Host && s.Node == c.node {
			hosts = append(hosts, s)
		}
	}
	return PointsFor(len(hosts) > 0, func(st Stage, d Direction) bool {
		return slices.ContainsFunc(hosts, func(s Subject) bool { return len(c.view.Tiers(s, d, st)) > 0 })
	})
}

func (c *compiler) list(s Subject, p Point) List {
	st, d := p.When()
	l := List{Host: s.Host, Stage: st, Direction: d, Tiers: c.view.Tiers(s, d, st)}
	n, through := reach(l.Tiers, st, d)
	if l.Tiers = l.Tiers[:n]; st == Normal && through {
		l.Profiles = s.Profiles
	}
	return l
}

// dispatch sends an interface's packets to a list.
func (c *compiler) dispatch(p Point, link string, l List) {
	c.chains(l)
	c.table.Sets[p.Classes()].Elements[plan.Element{Link: link, Value: l.Class()}] = struct{}{}
	c.table.Sets[p.Chains()].Elements[plan.Element{Link: l.Class(), Value: l.Name()}] = struct{}{}
}

// chains writes a list's chain and all that it leads to.
func (c *compiler) chains(l List) {
	put := func(ch plan.Chain) { c.table.Chains[ch.Name] = ch }
	for _, t := range l.Tiers {
		for _, p := range t.Policies {
			c.sets(Rules(p, l.Direction))
			if !Inlined(p, l.Direction) {
				put(c.PolicyChain(p, l.Direction))
			}
		}
		for _, b := range c.Blocks(t, l.Direction) {
			put(b)
		}
		if t.Chained(l.Direction) {
			put(c.TierChain(t, l.Stage, l.Direction))
		}
	}
	for _, p := range l.Profiles {
		c.sets(profileRules(p, l.Direction))
		if !InlinedProfile(p, l.Direction) {
			put(c.ProfileChain(p, l.Direction))
		}
	}
	put(c.ListChain(l))
}

// sets fills the sets that rules need.
func (c *compiler) sets(rules []model.Rule) {
	for _, n := range Needs(rules, c.V6) {
		if _, done := c.parts[n.SetRef]; done {
			continue
		}
		members, nets := c.members(n)
		c.parts[n.SetRef] = n.PartsFor(len(members), len(nets))
		for _, set := range n.Sets(c.parts[n.SetRef]) {
			s := plan.NewSetContent(set)
			if set == n.Set() {
				s.Apply(plan.SetChange{Put: members})
			} else {
				s.Apply(plan.SetChange{Put: nets})
			}
			c.table.Sets[s.Name] = s
		}
	}
}

// members are what is in a set, and in that of the prefixes of a selector.
func (c *compiler) members(n Need) (out, nets []plan.Member) {
	switch n.Kind {
	case SetSelected:
		var wide []netip.Prefix
		for _, h := range c.view.Holders() {
			if !n.Of.Matches(h.Labels) {
				continue
			}
			for _, p := range h.Nets {
				if !p.IsSingleIP() {
					wide = append(wide, p)
				} else if p.Addr().Is4() != c.V6 {
					out = append(out, plan.NetMember(p))
				}
			}
		}
		for _, p := range MaximalNets(wide, c.V6) {
			nets = append(nets, plan.NetMember(p))
		}
	case SetNamedPort:
		for _, h := range c.view.Holders() {
			if n.Of.Matches(h.Labels) {
				out = append(out, c.namedPorts(h, n)...)
			}
		}
	case SetServicePorts, SetServiceAddrs, SetServiceAnyPort:
		for _, v := range c.view.World() {
			if s, ok := v.(model.EndpointSlice); ok && s.Service == n.Service {
				out = append(out, c.backends(s, n)...)
			}
		}
	case SetNodes:
		seen := map[netip.Addr]bool{}
		for _, v := range c.view.World() {
			node, ok := v.(model.Node)
			if !ok || !n.Of.Matches(node.Labels) {
				continue
			}
			for _, a := range node.Addrs {
				if a.Is4() != c.V6 && !seen[a] {
					seen[a] = true
					out = append(out, plan.AddrMember(a))
				}
			}
		}
	default:
		out = n.Members()
	}
	return out, nets
}

func (c *compiler) namedPorts(h Holder, n Need) []plan.Member {
	var out []plan.Member
	for _, p := range h.Ports {
		if p.Name != n.Port || n.Protocol != 0 && n.Protocol != p.Protocol {
			continue
		}
		for _, net := range h.Nets {
			if net.Addr().Is4() != c.V6 {
				out = append(out, plan.AddrPortMember(net.Addr(), p.Protocol, p.Port))
			}
		}
	}
	return out
}

func (c *compiler) backends(s model.EndpointSlice, n Need) []plan.Member {
	var out []plan.Member
	for _, a := range s.Addrs {
		if a.Is4() == c.V6 {
			continue
		}
		if n.Kind == SetServiceAddrs {
			out = append(out, plan.AddrMember(a))
			continue
		}
		for _, p := range s.Ports {
			switch {
			case n.Kind == SetServicePorts && p.Port != 0:
				out = append(out, plan.AddrPortMember(a, p.Protocol, p.Port))
			case n.Kind == SetServiceAnyPort && p.Port == 0 && p.Protocol == n.Protocol:
				out = append(out, plan.AddrMember(a))
			}
		}
	}
	return out
}

// sources are the addresses that a workload may send from.
func (c *compiler) sources(s Subject) {
	put := func(set string, p netip.Prefix) {
		c.table.Sets[set].Elements[plan.Element{Link: s.Link, Net: p}] = struct{}{}
	}
	for _, a := range c.addrs(s) {
		put(SourceAddrs, netip.PrefixFrom(a, a.BitLen()))
	}
	if e, _ := c.view.World()[s.Key].(model.Endpoint); c.Settings.SpoofAny {
		for _, p := range MaximalNets(e.SourcePrefixes, c.V6) {
			put(SourceNets, p)
		}
	}
}

// nodes are the ends of the tunnels between nodes.
func (c *compiler) nodes() {
	for _, v := range c.view.World() {
		if n, ok := v.(model.Node); ok && n.Addr(c.V6).IsValid() {
			c.table.Sets[NodeAddrs].Members[plan.AddrMember(n.Addr(c.V6).Addr())] = struct{}{}
		}
	}
}
