package edge

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Translation is what becomes of the source of a connection that leaves a node.
type Translation struct {
	Verdict plan.Verdict // Masquerade or SNAT; Continue: the source stays
	NAT     plan.NAT
	Origin  model.Key // object that says so; zero: none does
	Field   string    // of Origin, where one field of it decides: spec.natOutgoing
	Text    string    // one line, for people
}

// Translate says what becomes of the source of the connection that p opens, as it leaves
// the node by p.OutLink, and why. p has the addresses that it has behind destination NAT;
// where OutLink is not known (empty) it is taken for one that fits.
func Translate(o Options, world model.World, p plan.Packet) Translation {
	families := familiesOf(o, world)
	f := families[0]
	if p.Src.Is6() {
		f = families[1]
	}
	if f.v6 && !f.ipv6 {
		return Translation{Text: "the node has no packet filter for IPv6 (ipv6Support): the source stays"}
	}
	for _, n := range f.floatingIPs() {
		if n.Internal == p.Src && n.Internal == p.Dst {
			return Translation{
				Verdict: plan.SNAT, NAT: plan.NAT{Addr: n.External},
				Text: fmt.Sprintf("%v connects to itself by its floating address %v, and gets it as source, or it would not know the answers", p.Src, n.External),
			}
		}
	}
	out := Translation{Verdict: plan.Masquerade, NAT: plan.NAT{Random: true}}
	if stays := f.stays(world, p); stays != (Translation{}) {
		if slices.Contains(f.tunnelLinks(), p.OutLink) && p.SrcLocal && !p.SrcLink {
			out.Text = fmt.Sprintf("%v becomes the address of %s, by which it leaves: answers come back through the tunnel", p.Src, p.OutLink)
			return out
		}
		return stays
	}
	out.Verdict, out.NAT = f.translation()
	if !slices.Contains(rangedProtocols(), p.Protocol) {
		out.NAT.FirstPort, out.NAT.LastPort = 0, 0
	}
	pool := poolOf(world, p.Src, true)
	out.Origin, out.Field = pool.Key(), "spec.natOutgoing"
	to := "an address of the interface that it leaves by"
	if p.OutLink != "" {
		to = "an address of " + p.OutLink
	}
	if out.Verdict == plan.SNAT {
		to = out.NAT.Addr.String() + " (natOutgoingAddress)"
	}
	if out.NAT.LastPort > 0 {
		to += fmt.Sprintf(", port %d to %d (natPortRange)", out.NAT.FirstPort, out.NAT.LastPort)
	}
	out.Text = fmt.Sprintf("%v becomes %s: pool %s has natOutgoing, and %v is in no pool", p.Src, to, pool.Name, p.Dst)
	if link := f.outLink(); link != "" && p.OutLink == "" {
		out.Text += fmt.Sprintf("; only if it leaves by %s (iptablesNATOutgoingInterfaceFilter)", f.nat.Link)
	}
	return out
}

// stays says why natOutgoing does not bear upon p; zero: it does.
func (f *family) stays(world model.World, p plan.Packet) Translation {
	if !in(f.outgoing, p.Src) {
		pool := poolOf(world, p.Src, false)
		if pool.Name == "" {
			return Translation{Text: fmt.Sprintf("%v is in no pool: the source stays", p.Src)}
		}
		return Translation{Origin: pool.Key(), Field: "spec.natOutgoing", Text: fmt.Sprintf("pool %s has no natOutgoing: the source stays", pool.Name)}
	}
	if in(f.all, p.Dst) {
		pool := poolOf(world, p.Dst, false)
		return Translation{Origin: pool.Key(), Field: "spec.cidr", Text: fmt.Sprintf("%v is in pool %s, within the cluster: the source stays", p.Dst, pool.Name)}
	}
	if f.excludesHosts() {
		for _, v := range world {
			if a := hostAddr(v, f.v6); a.IsValid() && a == p.Dst {
				return Translation{Origin: v.Key(), Text: fmt.Sprintf("%v is an address of a node (natOutgoingExclusions: IPPoolsAndHostIPs): the source stays", p.Dst)}
			}
		}
	}
	if link := f.outLink(); link != "" && p.OutLink != "" && !linkFits(link, p.OutLink) {
		return Translation{Text: fmt.Sprintf("%s is not %s (iptablesNATOutgoingInterfaceFilter): the source stays", p.OutLink, f.nat.Link)}
	}
	return Translation{}
}

// poolOf is the smallest pool that has a, of those with natOutgoing if only they count;
// of two with one CIDR the first by name. Zero: there is none.
func poolOf(world model.World, a netip.Addr, outgoing bool) model.Pool {
	var best model.Pool
	for v := range maps.Values(world) {
		p, ok := v.(model.Pool)
		if !ok || !p.CIDR.Contains(a) || outgoing && !p.NATOutgoing {
			continue
		}
		if bits := p.CIDR.Bits(); best.Name == "" || bits > best.CIDR.Bits() || bits == best.CIDR.Bits() && p.Name < best.Name {
			best = p
		}
	}
	return best
}

func linkFits(pattern, link string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == link || open && strings.HasPrefix(link, prefix)
}
