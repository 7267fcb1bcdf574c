package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// ForKubernetes is d as a cluster in Kubernetes takes it: nodes, and what refers to them, have
// the names that Kubernetes gives them, and what it keeps itself is left out. notes tells of
// what has no place there at all. d is not changed.
func (d Dump) ForKubernetes() (out Dump, notes []string) {
	names := d.nodeNames()
	out.Cluster = d.Cluster
	for _, o := range d.Objects {
		k := keyOf(o.Object)
		switch {
		case isConverted(k), k.Kind == model.KindIPAMConfiguration:
			continue
		case k.Kind == model.KindProfile:
			if !strings.HasPrefix(k.Name, "kns.") && !strings.HasPrefix(k.Name, "ksa.") {
				notes = append(notes, fmt.Sprintf("%v is left out: profiles in Kubernetes are its namespaces and service accounts", k))
			}
			continue
		case k.Kind == model.KindWorkloadEndpoint:
			if o.Object.(*v3.WorkloadEndpoint).Spec.Orchestrator != v3.OrchestratorKubernetes {
				notes = append(notes, fmt.Sprintf("%v is left out: endpoints in Kubernetes are its pods", k))
			}
			continue
		}
		out.Objects = append(out.Objects, renamed(o, names))
	}
	return out, notes
}

// Renamed is d with the names that Kubernetes gives nodes, and nothing left out. d is not
// changed.
func (d Dump) Renamed() Dump {
	names, out := d.nodeNames(), Dump{Cluster: d.Cluster}
	for _, o := range d.Objects {
		out.Objects = append(out.Objects, renamed(o, names))
	}
	return out
}

// nodeNames gives the names that Kubernetes has for nodes that are called otherwise here.
func (d Dump) nodeNames() map[string]string {
	names := map[string]string{}
	for _, o := range d.Objects {
		n, ok := o.Object.(*v3.Node)
		if !ok {
			continue
		}
		for _, ref := range n.Spec.OrchRefs {
			if ref.Orchestrator == v3.OrchestratorKubernetes && ref.NodeName != "" && ref.NodeName != n.Name {
				names[n.Name] = ref.NodeName
			}
		}
	}
	return names
}

// renamed is o with the names of nodes replaced. An object that names none is returned as it
// is.
func renamed(o store.Object, names map[string]string) store.Object {
	if len(names) == 0 {
		return o
	}
	fresh := copyOf(o.Object)
	name := func(at *string) {
		if to, ok := names[*at]; ok {
			*at = to
		}
	}
	prefixed := func(at *string, prefix string) {
		if node, ok := strings.CutPrefix(*at, prefix); ok && names[node] != "" {
			*at = prefix + names[node]
		}
	}
	switch o := fresh.(type) {
	case *v3.Node:
		name(&o.Name)
	case *v3.FelixConfiguration:
		prefixed(&o.Name, "node.")
	case *v3.BGPConfiguration:
		prefixed(&o.Name, "node.")
	case *v3.BGPPeer:
		name(&o.Spec.Node)
	case *v3.HostEndpoint:
		name(&o.Spec.Node)
	case *v3.CalicoNodeStatus:
		name(&o.Spec.Node)
	case *v3.BlockAffinity:
		name(&o.Spec.Node)
	case *v3.IPAMHandle:
		for _, prefix := range tunnels() {
			prefixed(&o.Spec.HandleID, prefix)
		}
	case *v3.IPAMBlock:
		renameInBlock(&o.Spec, names, prefixed)
	}
	if text(canonical(fresh)) == text(canonical(o.Object)) && fresh.Meta().Name == o.Meta().Name {
		return o
	}
	return rewritten(o, fresh)
}

// renameInBlock renames the owner of a block, and of each of its addresses.
func renameInBlock(b *v3.IPAMBlockSpec, names map[string]string, prefixed func(at *string, prefix string)) {
	if b.Affinity != nil {
		prefixed(b.Affinity, "host:")
	}
	for i := range b.Attributes {
		a := &b.Attributes[i]
		for _, attrs := range []map[string]string{a.ActiveOwnerAttrs, a.AlternateOwnerAttrs} {
			if to, ok := names[attrs["node"]]; ok {
				attrs["node"] = to
			}
		}
		for _, prefix := range tunnels() {
			if a.HandleID != nil {
				prefixed(a.HandleID, prefix)
			}
		}
	}
}

// tunnels are what the handles of addresses of nodes begin with.
func tunnels() []string {
	return []string{"ipip-tunnel-addr-", "vxlan-tunnel-addr-", "vxlan-v6-tunnel-addr-", "wireguard-tunnel-addr-", "wireguard-v6-tunnel-addr-"}
}

// rewritten is o with another value, and the stored form that goes with it.
func rewritten(o store.Object, fresh v3.Object) store.Object {
	if isAddressing(fresh) || o.Raw() == nil {
		return o.With(fresh)
	}
	whole, err := v3.Merge(o.Raw(), fresh)
	if err == nil {
		whole, err = asDocument(whole)
	}
	if err != nil {
		return store.New(fresh)
	}
	return store.Stored(fresh, whole)
}

// nodeFor is what a node of Kubernetes must be: itself, with what want says of its network.
func nodeFor(have, want *v3.Node) *v3.Node {
	n := copyOf(have).(*v3.Node)
	n.ObjectMeta = *have.ObjectMeta.DeepCopy()
	given := copyOf(want).(*v3.Node)
	if given.Spec.BGP != nil {
		n.Spec.BGP = given.Spec.BGP
	}
	if given.Spec.Wireguard != nil {
		n.Spec.Wireguard = given.Spec.Wireguard
	}
	for _, field := range []struct{ to, from *string }{
		{&n.Spec.IPv4VXLANTunnelAddr, &given.Spec.IPv4VXLANTunnelAddr},
		{&n.Spec.VXLANTunnelMACAddr, &given.Spec.VXLANTunnelMACAddr},
		{&n.Spec.IPv6VXLANTunnelAddr, &given.Spec.IPv6VXLANTunnelAddr},
		{&n.Spec.VXLANTunnelMACAddrV6, &given.Spec.VXLANTunnelMACAddrV6},
		{&n.Status.WireguardPublicKey, &given.Status.WireguardPublicKey},
		{&n.Status.WireguardPublicKeyV6, &given.Status.WireguardPublicKeyV6},
	} {
		if *field.from != "" {
			*field.to = *field.from
		}
	}
	if len(given.Spec.Interfaces) > 0 {
		n.Spec.Interfaces = given.Spec.Interfaces
	}
	n.Labels = added(n.Labels, given.Labels)
	n.Annotations = added(n.Annotations, given.Annotations)
	return n
}

// added is to with what from has besides; of one key Kubernetes knows better, and what is its
// own is not ours to write.
func added(to, from map[string]string) map[string]string {
	for _, key := range slices.Sorted(maps.Keys(from)) {
		domain, _, _ := strings.Cut(key, "/")
		_, there := to[key]
		if there || domain != key && (strings.HasSuffix(domain, "kubernetes.io") || strings.HasSuffix(domain, "k8s.io")) {
			continue
		}
		if to == nil {
			to = map[string]string{}
		}
		to[key] = from[key]
	}
	return to
}
