package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/store"
	corev1 "k8s.io/api/core/v1"
)

// nodePrefix begins the annotations that hold fields of a node.
const nodePrefix = "projectcalico.org/"

// interfacesAnnotation holds the node's interfaces as JSON.
const interfacesAnnotation = nodePrefix + "Interfaces"

// nodeField is a field of a node that an annotation holds as text. The field's parent is
// made where it is needed.
type nodeField struct {
	annotation string
	get        func(*v3.Node) string
	set        func(*v3.Node, string) error
}

// nodeFields are all that are texts, by annotation.
func nodeFields() []nodeField {
	bgp := func(name string, at func(*v3.NodeBGPSpec) *string) nodeField {
		return nodeField{nodePrefix + name, func(n *v3.Node) string {
			if n.Spec.BGP == nil {
				return ""
			}
			return *at(n.Spec.BGP)
		}, func(n *v3.Node, text string) error {
			if n.Spec.BGP == nil {
				n.Spec.BGP = &v3.NodeBGPSpec{}
			}
			*at(n.Spec.BGP) = text
			return nil
		}}
	}
	guard := func(name string, at func(*v3.NodeWireguardSpec) *string) nodeField {
		return nodeField{nodePrefix + name, func(n *v3.Node) string {
			if n.Spec.Wireguard == nil {
				return ""
			}
			return *at(n.Spec.Wireguard)
		}, func(n *v3.Node, text string) error {
			if n.Spec.Wireguard == nil {
				n.Spec.Wireguard = &v3.NodeWireguardSpec{}
			}
			*at(n.Spec.Wireguard) = text
			return nil
		}}
	}
	plain := func(name string, at func(*v3.Node) *string) nodeField {
		return nodeField{nodePrefix + name, func(n *v3.Node) string { return *at(n) }, func(n *v3.Node, text string) error {
			*at(n) = text
			return nil
		}}
	}
	return []nodeField{
		bgp("IPv4Address", func(b *v3.NodeBGPSpec) *string { return &b.IPv4Address }),
		bgp("IPv6Address", func(b *v3.NodeBGPSpec) *string { return &b.IPv6Address }),
		bgp("IPv4IPIPTunnelAddr", func(b *v3.NodeBGPSpec) *string { return &b.IPv4IPIPTunnelAddr }),
		bgp("RouteReflectorClusterID", func(b *v3.NodeBGPSpec) *string { return &b.RouteReflectorClusterID }),
		{nodePrefix + "ASNumber", func(n *v3.Node) string {
			if n.Spec.BGP == nil || n.Spec.BGP.ASNumber == nil {
				return ""
			}
			return strconv.FormatUint(uint64(*n.Spec.BGP.ASNumber), 10)
		}, func(n *v3.Node, text string) error {
			asn, err := v3.ParseASNumber(text)
			if err != nil {
				return err
			}
			if n.Spec.BGP == nil {
				n.Spec.BGP = &v3.NodeBGPSpec{}
			}
			n.Spec.BGP.ASNumber = &asn
			return nil
		}},
		plain("IPv4VXLANTunnelAddr", func(n *v3.Node) *string { return &n.Spec.IPv4VXLANTunnelAddr }),
		plain("VXLANTunnelMACAddr", func(n *v3.Node) *string { return &n.Spec.VXLANTunnelMACAddr }),
		plain("IPv6VXLANTunnelAddr", func(n *v3.Node) *string { return &n.Spec.IPv6VXLANTunnelAddr }),
		plain("VXLANTunnelMACAddrV6", func(n *v3.Node) *string { return &n.Spec.VXLANTunnelMACAddrV6 }),
		plain("WireguardPublicKey", func(n *v3.Node) *string { return &n.Status.WireguardPublicKey }),
		plain("WireguardPublicKeyV6", func(n *v3.Node) *string { return &n.Status.WireguardPublicKeyV6 }),
		guard("IPv4WireguardInterfaceAddr", func(w *v3.NodeWireguardSpec) *string { return &w.InterfaceIPv4Address }),
		guard("IPv6WireguardInterfaceAddr", func(w *v3.NodeWireguardSpec) *string { return &w.InterfaceIPv6Address }),
	}
}

// nodeOf makes the node that a node of Kubernetes is. Its stored form is the node's labels
// and annotations. The error names the annotation that can't be read.
func nodeOf(node *corev1.Node) (store.Object, error) {
	fresh, _ := v3.New("Node")
	o := fresh.(*v3.Node)
	o.Name, o.UID, o.ResourceVersion, o.CreationTimestamp = node.Name, node.UID, node.ResourceVersion, node.CreationTimestamp
	o.Labels = maps.Clone(node.Labels)
	o.Annotations = maps.Clone(node.Annotations)
	var failed error
	for _, f := range nodeFields() {
		text, ok := node.Annotations[f.annotation]
		delete(o.Annotations, f.annotation)
		if !ok || text == "" {
			continue
		}
		if err := f.set(o, text); err != nil && failed == nil {
			failed = fmt.Errorf("annotation %s: %q: %w", f.annotation, text, oneLine(err))
		}
	}
	if text := node.Annotations[interfacesAnnotation]; text != "" {
		if err := json.Unmarshal([]byte(text), &o.Spec.Interfaces); err != nil {
			o.Spec.Interfaces = nil // it explains, and decides nothing
		}
	}
	delete(o.Annotations, interfacesAnnotation)
	if len(o.Annotations) == 0 {
		o.Annotations = nil
	}
	o.Spec.OrchRefs = []v3.OrchRef{{NodeName: node.Name, Orchestrator: v3.OrchestratorKubernetes}}
	o.Spec.Addresses = nodeAddresses(o, node)
	if o.Status.PodCIDRs = slices.Clone(node.Spec.PodCIDRs); len(o.Status.PodCIDRs) == 0 && node.Spec.PodCIDR != "" {
		o.Status.PodCIDRs = []string{node.Spec.PodCIDR}
	}
	raw, err := json.Marshal(nodeMeta{node.Labels, node.Annotations})
	if err == nil {
		err = failed
	}
	return store.Stored(o, raw), err
}

// nodeMeta is what a write of a node changes.
type nodeMeta struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// nodeAddresses are those that Kubernetes knows, and the ones of BGP, each once a type.
func nodeAddresses(o *v3.Node, node *corev1.Node) []v3.NodeAddress {
	var out []v3.NodeAddress
	for _, a := range node.Status.Addresses {
		if _, err := netip.ParseAddr(a.Address); err != nil {
			continue
		}
		switch a.Type {
		case corev1.NodeInternalIP:
			out = append(out, v3.NodeAddress{Address: a.Address, Type: v3.AddressInternalIP})
		case corev1.NodeExternalIP:
			out = append(out, v3.NodeAddress{Address: a.Address, Type: v3.AddressExternalIP})
		}
	}
	if b := o.Spec.BGP; b != nil {
		for _, text := range []string{b.IPv4Address, b.IPv6Address} {
			if text != "" {
				out = append(out, v3.NodeAddress{Address: text, Type: v3.AddressCalicoNodeIP})
			}
		}
	}
	return out
}

// metaFor is the labels and annotations of a node that is to be o. What was is what it
// has: annotations that hold fields are replaced, all others are as o says. Addresses,
// pod ranges and orchestrators are Kubernetes' own and not written.
func metaFor(o *v3.Node) (nodeMeta, error) {
	out := nodeMeta{Labels: maps.Clone(o.Labels), Annotations: map[string]string{}}
	maps.Copy(out.Annotations, o.Annotations)
	for _, f := range nodeFields() {
		delete(out.Annotations, f.annotation)
		if text := f.get(o); text != "" {
			out.Annotations[f.annotation] = text
		}
	}
	delete(out.Annotations, interfacesAnnotation)
	if len(o.Spec.Interfaces) > 0 {
		text, err := json.Marshal(o.Spec.Interfaces)
		if err != nil {
			return nodeMeta{}, err
		}
		out.Annotations[interfacesAnnotation] = string(text)
	}
	return out, nil
}

// patchOf is what makes was to want: a null for what is to go. nil: nothing.
func patchOf(was, want map[string]string) map[string]any {
	out := map[string]any{}
	for k := range was {
		if _, ok := want[k]; !ok {
			out[k] = nil
		}
	}
	for k, v := range want {
		if old, ok := was[k]; !ok || old != v {
			out[k] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// stays reports whether nothing in patch has another value in now than it had in was.
func stays(patch map[string]any, was, now map[string]string) bool {
	for k := range patch {
		a, okA := was[k]
		b, okB := now[k]
		if okA != okB || a != b {
			return false
		}
	}
	return true
}

// isOwnLabel reports whether a label is Kubernetes', which the API server refuses to have
// changed by nodes.
func isOwnLabel(label string) bool {
	return strings.Contains(label, "kubernetes.io/") || strings.Contains(label, "k8s.io/")
}
