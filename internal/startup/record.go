package startup

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// desired is the record as it should be: the stored one with the addresses
// that s asks for, its AS number and its orchestrator's name. What the user
// set besides stays.
func desired(ctx context.Context, n v3.Node, s Settings, host Host, links []Link) (v3.Node, error) {
	n.Annotations = maps.Clone(n.Annotations)
	delete(n.Annotations, ConflictAnnotation)
	if len(n.Annotations) == 0 {
		n.Annotations = nil
	}
	bgp := v3.NodeBGPSpec{}
	if n.Spec.BGP != nil {
		bgp = *n.Spec.BGP
	}
	internal := slices.Concat(s.InternalAddrs, internalAddrs(n))
	var err error
	if bgp.IPv4Address, err = address(ctx, s.IPv4, bgp.IPv4Address, internal, host, links); err != nil {
		return n, err
	}
	if bgp.IPv6Address, err = address(ctx, s.IPv6, bgp.IPv6Address, internal, host, links); err != nil {
		return n, err
	}
	if bgp.IPv4Address == "" && bgp.IPv6Address == "" {
		return n, fmt.Errorf("startup: node %s: no address: IP=%s and IP6=%s leave it with none: set IP or IP6 to autodetect or to an address", s.Node, s.IPv4.text(), s.IPv6.text())
	}
	if s.ASN != nil {
		bgp.ASNumber = s.ASN
	}
	n.Spec.BGP = &bgp
	n.Spec.Addresses = withoutType(n.Spec.Addresses, v3.AddressCalicoNodeIP)
	for _, text := range []string{bgp.IPv4Address, bgp.IPv6Address} {
		if text != "" {
			n.Spec.Addresses = append(n.Spec.Addresses, v3.NodeAddress{Address: text, Type: v3.AddressCalicoNodeIP})
		}
	}
	n.Spec.Interfaces = interfaces(links, bgp)
	if ref := (v3.OrchRef{NodeName: s.KubernetesName, Orchestrator: "k8s"}); s.KubernetesName != "" && !slices.Contains(n.Spec.OrchRefs, ref) {
		n.Spec.OrchRefs = append(slices.Clone(n.Spec.OrchRefs), ref)
	}
	return n, nil
}

// interfaces are those of the node's own network, by name: what is up and has addresses of
// the families that the node takes part in, but for those of container engines and of the
// cluster, as in Calico.
func interfaces(links []Link, bgp v3.NodeBGPSpec) []v3.NodeInterface {
	var out []v3.NodeInterface
	for _, l := range links {
		i, own := v3.NodeInterface{Name: l.Name}, false
		for _, p := range l.Addrs {
			own = own || p.String() == bgp.IPv4Address || p.String() == bgp.IPv6Address
			family := bgp.IPv4Address
			if p.Addr().Is6() {
				family = bgp.IPv6Address
			}
			if family != "" && p.Addr().IsGlobalUnicast() {
				i.Addresses = append(i.Addresses, p.Addr().String())
			}
		}
		if l.Up && len(i.Addresses) > 0 && (own || !skipped(l.Name)) {
			slices.Sort(i.Addresses)
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b v3.NodeInterface) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// address is what the record must say for one family: "" for none. An IPv4
// address is detected where nothing is set and nothing stored, as in Calico.
func address(ctx context.Context, want AddressSetting, stored string, internal []netip.Addr, host Host, links []Link) (string, error) {
	switch want.Mode {
	case KeepAddress:
		if stored != "" || want.V6 {
			return stored, nil
		}
	case NoAddress:
		return "", nil
	case GivenAddress:
		return given(want, links)
	}
	best, err := Detect(ctx, want, internal, host, links)
	if err != nil {
		return "", err
	}
	return best.String(), nil
}

// given completes an address that was set by hand with the prefix length of
// the interface that has it.
func given(want AddressSetting, links []Link) (string, error) {
	if want.HasLength {
		return want.Addr.String(), nil
	}
	for _, l := range links {
		for _, p := range l.Addrs {
			if p.Addr() == want.Addr.Addr() {
				return p.String(), nil
			}
		}
	}
	// Calico takes such an address as alone in its subnet.
	return want.Addr.String(), nil
}

func internalAddrs(n v3.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Spec.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == v3.AddressInternalIP {
			out = append(out, addr)
		}
	}
	return out
}

func withoutAddresses(b *v3.NodeBGPSpec) *v3.NodeBGPSpec {
	if b == nil {
		return nil
	}
	out := *b
	out.IPv4Address, out.IPv6Address = "", ""
	if out == (v3.NodeBGPSpec{}) {
		return nil
	}
	return &out
}

func withoutType(addrs []v3.NodeAddress, kind string) []v3.NodeAddress {
	return slices.DeleteFunc(slices.Clone(addrs), func(a v3.NodeAddress) bool { return a.Type == kind })
}

// equal reports whether two records say the same where start-up writes.
func equal(a, b v3.Node) bool {
	sameAddrs := len(a.Spec.Addresses) == len(b.Spec.Addresses) && (len(a.Spec.Addresses) == 0 || reflect.DeepEqual(a.Spec.Addresses, b.Spec.Addresses))
	sameLink := func(a, b v3.NodeInterface) bool { return a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses) }
	return sameAddrs && reflect.DeepEqual(a.Spec.BGP, b.Spec.BGP) && slices.EqualFunc(a.Spec.Interfaces, b.Spec.Interfaces, sameLink) &&
		slices.Equal(a.Spec.OrchRefs, b.Spec.OrchRefs) && maps.Equal(a.Annotations, b.Annotations)
}
