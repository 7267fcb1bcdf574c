package model

import (
	"net/netip"

	"github.com/weft-net/weft/internal/selector"
)

// The kinds that policy is made of. The Kubernetes kinds are stored under their
// own names, since two APIs have a NetworkPolicy.
const (
	KindGlobalNetworkPolicy           Kind = "GlobalNetworkPolicy"
	KindGlobalNetworkSet              Kind = "GlobalNetworkSet"
	KindHostEndpoint                  Kind = "HostEndpoint"
	KindKubernetesClusterPolicy       Kind = "KubernetesClusterNetworkPolicy"
	KindKubernetesEndpointSlice       Kind = "KubernetesEndpointSlice"
	KindKubernetesNetworkPolicy       Kind = "KubernetesNetworkPolicy"
	KindNetworkPolicy                 Kind = "NetworkPolicy"
	KindNetworkSet                    Kind = "NetworkSet"
	KindStagedGlobalNetworkPolicy     Kind = "StagedGlobalNetworkPolicy"
	KindStagedKubernetesNetworkPolicy Kind = "StagedKubernetesNetworkPolicy"
	KindStagedNetworkPolicy           Kind = "StagedNetworkPolicy"
)

// Labels that the system gives to endpoints and sets.
const (
	LabelNamespace      = "projectcalico.org/namespace"
	LabelOrchestrator   = "projectcalico.org/orchestrator"
	LabelServiceAccount = "projectcalico.org/serviceaccount"
)

// Action is what a rule, or the end of a tier, does with a packet.
type Action uint8

// The actions. The zero Action is Deny: what nobody decided is not allowed.
const (
	Deny Action = iota
	Allow
	Log  // and go on with the next rule
	Pass // go on with the next tier, or with the profiles after the last
)

// String is the action as users write it.
func (a Action) String() string { return [...]string{"Deny", "Allow", "Log", "Pass"}[a] }

// MarshalText implements [encoding.TextMarshaler].
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Policy is one policy of any of the kinds, in one form. All namespaces,
// service accounts and defaults are worked into its selectors.
type Policy struct {
	Origin   Key // the object that it comes from
	Tier     string
	Order    float64 // lower first; +Inf: the last
	Selector *selector.Selector
	// Types are the directions that it applies to, whether it has rules or not.
	AppliesIngress, AppliesEgress bool
	Ingress, Egress               []Rule
	// Staged policies are counted and explained, but decide nothing. Delete says
	// that the staged change is to remove the enforced policy of that name.
	Staged, Delete bool
	// Host endpoints only: before connection tracking, before destination NAT, and
	// for what is forwarded.
	DoNotTrack, PreDNAT, ApplyOnForward bool
}

// Key implements [Value].
func (p Policy) Key() Key { return p.Origin }

// Tier is a stage of evaluation.
type Tier struct {
	Name    string
	Order   float64 // lower first; +Inf: the last
	Default Action  // Deny or Pass: when a policy selected the endpoint and no rule matched
}

// Key implements [Value].
func (t Tier) Key() Key { return Key{Kind: KindTier, Name: t.Name} }

// Rule matches packets by everything that is set; the zero Rule denies all.
type Rule struct {
	Action      Action
	Family      uint8 // 4, 6, or 0 for both; nets make a rule one of their family
	Protocol    uint8 // IP protocol number; 0: any
	NotProtocol uint8 // 0: none
	ICMP        ICMP
	NotICMP     ICMP
	Source      Entity
	Destination Entity
	// Field is where the rule stands in its object, such as spec.ingress[2], or
	// spec.ingress[0].from[1] for an object that has peers and ports instead of rules.
	Field string
	// Unbuilt names what the rule asks for and nothing here can match: http, or the
	// peer domainNames of a ClusterNetworkPolicy. Such a rule has the
	// action Allow, and allows nothing.
	Unbuilt string
}

// ICMP matches ICMP or ICMPv6 messages. The zero ICMP matches all. Values are
// one more than the number in the packet, so that zero means "any".
type ICMP struct{ TypePlus1, CodePlus1 uint16 }

// Entity matches one end of a packet by everything that is set. The zero Entity
// matches all.
type Entity struct {
	Nets, NotNets []netip.Prefix // masked
	// Selector is the effective one, of endpoints and network sets: namespaces and
	// service accounts are worked in. NotSelector is as it was written; what it is
	// confined to is in Selector. nil: not set.
	Selector, NotSelector *selector.Selector
	Service               Service // zero: not set
	// Nodes selects nodes of the cluster by their labels; the addresses of those match.
	// nil: not set.
	Nodes *selector.Selector
	// Ports and NamedPorts are alternatives of one another, and so are their negations.
	Ports, NotPorts           []PortRange
	NamedPorts, NotNamedPorts []string
}

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Service names a service of Kubernetes. As a destination it matches the
// addresses with the ports of its endpoints, as a source the addresses.
type Service struct{ Namespace, Name string }

// NamedPort is a name for a port of an endpoint.
type NamedPort struct {
	Name     string
	Protocol uint8 // IP protocol number
	Port     uint16
}

// NetworkSet is addresses with labels. Namespace is empty for a GlobalNetworkSet.
// Its labels hold what the system adds; it inherits those of its namespace's
// profile.
type NetworkSet struct {
	Namespace, Name string
	Nets            []netip.Prefix // masked; they may overlap
	Labels          map[string]string
	Profiles        []string // whose labels it inherits
}

// Key implements [Value].
func (s NetworkSet) Key() Key {
	if s.Namespace == "" {
		return Key{Kind: KindGlobalNetworkSet, Name: s.Name}
	}
	return Key{Kind: KindNetworkSet, Namespace: s.Namespace, Name: s.Name}
}

// HostEndpoint is one or all interfaces of a node.
type HostEndpoint struct {
	Name     string
	Node     string
	Link     string       // name, "*" for all, or empty: those that have one of Addrs
	Addrs    []netip.Addr // expected addresses
	Labels   map[string]string
	Profiles []string
	Ports    []NamedPort
}

// Key implements [Value].
func (h HostEndpoint) Key() Key { return Key{Kind: KindHostEndpoint, Name: h.Name} }

// EndpointSlice is a part of the backends of a service.
type EndpointSlice struct {
	Namespace, Name string
	Service         Service // zero: of none
	Addrs           []netip.Addr
	// Ports of the addresses. Port 0 means all ports of the protocol: that the slice
	// does not restrict them. (Calico matches none then, which opens what a rule denies.)
	Ports []NamedPort
}

// Key implements [Value].
func (s EndpointSlice) Key() Key {
	return Key{Kind: KindKubernetesEndpointSlice, Namespace: s.Namespace, Name: s.Name}
}
