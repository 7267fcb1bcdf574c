package want

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// Host endpoints that are made carry this label, by which they are told from those of
// users, and a name with this end. Both are Calico's.
const (
	madeByLabel  = "projectcalico.org/created-by"
	madeBy       = "calico-kube-controllers"
	madeSuffix   = "-auto-hep"
	allowProfile = "projectcalico-default-allow"
)

// IsMade reports whether the host endpoint is one that controllers made.
func IsMade(h *v3.HostEndpoint) bool { return h.Labels[madeByLabel] == madeBy }

// HostEndpoints is those that the settings ask for on node n, by name.
func HostEndpoints(n *v3.Node, s model.HostEndpointMaker) []*v3.HostEndpoint {
	if !s.Enabled {
		return nil
	}
	var out []*v3.HostEndpoint
	addrs := addresses(n)
	if s.Default {
		h := made(n, n.Name+madeSuffix, "*", addrs, nil)
		h.Spec.Profiles = []string{allowProfile}
		out = append(out, h)
	}
	for i := range s.Templates {
		out = append(out, fromTemplate(n, addrs, &s.Templates[i])...)
	}
	slices.SortFunc(out, func(a, b *v3.HostEndpoint) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b *v3.HostEndpoint) bool { return a.Name == b.Name })
}

func fromTemplate(n *v3.Node, addrs []netip.Addr, t *model.HostEndpointTemplate) []*v3.HostEndpoint {
	if t.NodeSelector != nil && !t.NodeSelector.Matches(n.Labels) {
		return nil
	}
	within := func(addrs []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
			return len(t.CIDRs) > 0 && !slices.ContainsFunc(t.CIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
		})
	}
	name := n.Name
	if t.GenerateName != "" {
		name += "-" + t.GenerateName
	}
	if t.Interfaces == nil {
		own := within(addrs)
		if len(own) == 0 {
			return nil // with neither address nor interface it would be of nothing
		}
		return []*v3.HostEndpoint{made(n, name+madeSuffix, "", own, t)}
	}
	var out []*v3.HostEndpoint
	for _, i := range n.Spec.Interfaces {
		var own []netip.Addr
		for _, text := range i.Addresses {
			own = appendAddr(own, text)
		}
		own = within(own)
		if t.Interfaces.MatchString(i.Name) && (len(own) > 0 || len(t.CIDRs) == 0) {
			out = append(out, made(n, name+"-"+linkName(i.Name)+madeSuffix, i.Name, own, t))
		}
	}
	return out
}

// made is a host endpoint with what all that are made have in common. t is nil for the
// default one.
func made(n *v3.Node, name, link string, addrs []netip.Addr, t *model.HostEndpointTemplate) *v3.HostEndpoint {
	o, _ := v3.New(string(model.KindHostEndpoint))
	h := o.(*v3.HostEndpoint)
	h.Name, h.Labels = name, map[string]string{}
	maps.Copy(h.Labels, n.Labels)
	if t != nil {
		maps.Copy(h.Labels, t.Labels)
		h.Annotations = maps.Clone(t.Annotations)
	}
	h.Labels[madeByLabel] = madeBy
	h.Spec.Node, h.Spec.InterfaceName = n.Name, link
	for _, a := range addrs {
		h.Spec.ExpectedIPs = append(h.Spec.ExpectedIPs, a.String())
	}
	return h
}

// linkName is the name of an interface as names of objects can hold it.
func linkName(link string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(link)), "-.")
}

// addresses is all that the record says that the node has, each once, in its order.
func addresses(n *v3.Node) []netip.Addr {
	var texts []string
	if b := n.Spec.BGP; b != nil {
		texts = append(texts, b.IPv4Address, b.IPv6Address, b.IPv4IPIPTunnelAddr)
	}
	for _, a := range n.Spec.Addresses {
		texts = append(texts, a.Address)
	}
	texts = append(texts, n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr)
	if w := n.Spec.Wireguard; w != nil {
		texts = append(texts, w.InterfaceIPv4Address, w.InterfaceIPv6Address)
	}
	var out []netip.Addr
	for _, text := range texts {
		out = appendAddr(out, text)
	}
	return out
}

// appendAddr adds an address that is written with or without a prefix length; a name
// is passed over.
func appendAddr(to []netip.Addr, text string) []netip.Addr {
	text, _, _ = strings.Cut(text, "/")
	a, err := netip.ParseAddr(text)
	if err != nil || slices.Contains(to, a.Unmap()) {
		return to
	}
	return append(to, a.Unmap())
}
