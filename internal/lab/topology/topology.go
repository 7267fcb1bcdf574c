// Package topology reads what a lab is to look like: racks, nodes, pods, routers,
// resources, and what is expected of them.
//
//	file ── Parse ──► Topology: valid, every address given, every default filled in
//
// A topology is a YAML document. Decoding is strict: a field that is not known, a
// reference to nothing and an address outside of its rack are errors of one line
// that name the file, the path in it, and what is allowed. docs/lab.md describes
// every field.
//
// A rack is one segment of layer 2. Racks are joined by the fabric, a router that
// has the first address of every rack's subnets and knows no route to pods: what
// crosses racks must be understood by it, or be encapsulated. Beyond the fabric is
// the outside: hosts that are in no rack and know nothing of pods.
//
// The package is a description only: it makes no namespace and starts nothing.
//
// Invariant: a Topology that left Parse refers to nothing that it does not hold,
// and no address in it is given twice.
package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Topology is a whole lab. Values that left Parse are complete and must not be
// changed.
type Topology struct {
	// Racks are the segments; a file without any gets one named rack-1.
	Racks []Rack `yaml:"racks"`
	// Strict has the fabric drop what does not come from, and go to, an address of a
	// rack's subnets or of the outside, as clouds do.
	Strict bool `yaml:"strict"`
	// Outside are hosts beyond the fabric.
	Outside []Outside `yaml:"outside"`
	Nodes   []Node    `yaml:"nodes"`
	// Namespaces are those of pods; what pods name and is not here is added.
	Namespaces []Namespace `yaml:"namespaces"`
	Pods       []Pod       `yaml:"pods"`
	// Routers are BGP routers beside the nodes, each a real BIRD.
	Routers []Router `yaml:"routers"`
	// Env are settings of every node agent, by environment variable.
	Env map[string]string `yaml:"env"`
	// Secrets are BGP passwords, which resources refer to by name and key.
	Secrets map[string]map[string]string `yaml:"secrets"`
	// Resources are stored before the first node starts, in this order.
	Resources []map[string]any `yaml:"resources"`
	// Expect is what `lab run` checks, in this order.
	Expect []Expectation `yaml:"expect"`
}

// Rack is one segment of layer 2.
type Rack struct {
	Name string `yaml:"name"`
	// Subnets are masked, at most one of each family; 10.99.N.0/24 for the N-th rack
	// that has none. The first address of each is the fabric's.
	Subnets []netip.Prefix `yaml:"subnets"`
	// MTU is that of the segment and of every interface in it, in bytes; 1500 when it
	// stays out.
	MTU uint16 `yaml:"mtu"`
	// Loss is how many of 100 packets get lost on their way into the segment, from a
	// machine in it or from the fabric; to two decimal places.
	Loss float64 `yaml:"loss"`
	// Strict has the segment drop what its machines send from or to other addresses
	// than [Topology].Strict allows: also what goes to a machine of the same rack.
	Strict bool `yaml:"strict"`
}

// Outside is a host beyond the fabric, a namespace in which nothing runs: what an
// address of the internet is to a cluster.
type Outside struct {
	Name string `yaml:"name"`
	// Addresses are outside of all racks, at most one of each family. For the N-th host
	// without any: 198.51.100.(10+N) and 2001:db8:51::(10+N), of the families of the racks.
	Addresses []netip.Addr `yaml:"addresses"`
}

// Link is a further interface of a node, in a rack; the first one is eth1.
type Link struct {
	Rack      string       `yaml:"rack"`
	Addresses []netip.Addr `yaml:"addresses"` // as a node's
}

// Node is a machine of the cluster: a network namespace with a node agent in it.
type Node struct {
	Name string `yaml:"name"`
	// Rack may stay out where there is only one.
	Rack string `yaml:"rack"`
	// Addresses are in the rack's subnets, one of each; those that stay out are
	// given from the 11th on.
	Addresses []netip.Addr `yaml:"addresses"`
	// Links are interfaces beside the one in Rack. Their subnets are all they lead to:
	// the default route is by Rack.
	Links []Link `yaml:"links"`
	// NoDefaultRoute leaves the node without a route to the other racks.
	NoDefaultRoute bool              `yaml:"noDefaultRoute"`
	Labels         map[string]string `yaml:"labels"` // of the Node resource
	Env            map[string]string `yaml:"env"`    // wins over the topology's
	CNI            map[string]any    `yaml:"cni"`    // merged into the CNI configuration
}

// Namespace is a namespace of pods. What Kubernetes' controllers would make of it is
// stored with the resources: the profiles kns.NAME, which allows everything that no
// policy forbids, and ksa.NAME.default.
type Namespace struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
}

// Pod is a workload: a network namespace attached by the CNI executable.
type Pod struct {
	Namespace string            `yaml:"namespace"` // "default" when it stays out
	Name      string            `yaml:"name"`
	Node      string            `yaml:"node"`
	Labels    map[string]string `yaml:"labels"`
	Addresses []netip.Addr      `yaml:"addresses"` // asked for by value
	IPv4Pools []string          `yaml:"ipv4Pools"` // names or CIDRs to take addresses from
	IPv6Pools []string          `yaml:"ipv6Pools"`
	CNI       map[string]any    `yaml:"cni"` // merged after the node's
}

// Router is a BIRD beside the nodes, such as a top-of-rack router.
type Router struct {
	Name      string       `yaml:"name"`
	Rack      string       `yaml:"rack"`
	Addresses []netip.Addr `yaml:"addresses"` // as a node's; given from the 2nd on
	ASN       uint32       `yaml:"asn"`       // 64512 when it stays out
	// Peers are names of nodes; all of them when it stays out. It has no effect on
	// the nodes' side: a BGPPeer among the resources makes them peer back.
	Peers    []string `yaml:"peers"`
	Password string   `yaml:"password"` // TCP MD5; empty: none
	// Announce are prefixes that the router offers; Loopbacks are addresses that it
	// answers on.
	Announce  []netip.Prefix `yaml:"announce"`
	Loopbacks []netip.Addr   `yaml:"loopbacks"`
	// BirdConfig replaces the configuration that is made from the fields above.
	BirdConfig string `yaml:"birdConfig"`
}

// DefaultASN is the AS number of nodes and routers without their own.
const DefaultASN uint32 = 64512

// DefaultWithin is how long an expectation may take to come true.
const DefaultWithin = 10 * time.Second

// Expectation is one thing that must come true within a time; exactly one of the
// pointers is set.
type Expectation struct {
	Reachable   *Pair      `yaml:"reachable"`   // each gets an answer of the other
	Unreachable *Pair      `yaml:"unreachable"` // none does
	Route       *RouteLine `yaml:"route"`
	NoRoute     *RouteLine `yaml:"noRoute"`
	MTU         *Largest   `yaml:"mtu"`
	// By is what must decide about packets of a Pair, as `weft explain` names it:
	// NetworkPolicy/NAMESPACE/NAME, Profile/NAME, or Tier/NAME for its default action.
	By     string        `yaml:"by"`
	Within time.Duration `yaml:"within"` // 10 s when it stays out
}

// Pair is every way from one set of targets to another. A target is "pods",
// "nodes", "outside", "pod/NAMESPACE/NAME", the name of a node, router or host
// outside, or, in To, an address.
//
// Without a port the question is an ICMP echo. With one it is a TCP connection or a
// UDP datagram to that port, where the lab listens unless the target does so itself.
type Pair struct {
	From     []string `yaml:"from"`
	To       []string `yaml:"to"`
	Protocol string   `yaml:"protocol"` // tcp, udp or icmp; tcp when there is a port
	Port     uint16   `yaml:"port"`
	// Carried is how the packets of both directions, and no others of the probe, cross
	// the underlay between the nodes; empty: not asked.
	Carried string `yaml:"carried"`
	// Source is from whom the target sees the packets come: an address, a target, or
	// SourceOwn or SourceNode; empty: not asked.
	Source string `yaml:"source"`
}

// The values of [Pair].Carried.
const (
	CarriedPlain     = "none"
	CarriedIPIP      = "ipip"
	CarriedVXLAN     = "vxlan"
	CarriedWireGuard = "wireguard"
)

// Values of [Pair].Source.
const (
	SourceOwn  = "own"  // the address of who sends
	SourceNode = "node" // that of the node it is on
)

// Largest is the size of the largest packet that may not be fragmented which arrives:
// one byte more gets an error that says so.
type Largest struct {
	From  []string `yaml:"from"`
	To    []string `yaml:"to"`
	Bytes uint16   `yaml:"bytes"` // of the IP packet with its header
}

// RouteLine is a line of `ip route` at each of some targets. In Line a * stands
// for any characters but a space, ** for any at all; text between slashes is a
// regular expression.
type RouteLine struct {
	At   []string `yaml:"at"`
	Line string   `yaml:"line"`
}

// Fabric is the name of the router between the racks.
const Fabric = "fabric"

// TargetKind says what a target is.
type TargetKind uint8

// The sorts of targets.
const (
	ToPod TargetKind = iota + 1
	ToNode
	ToRouter
	ToFabric
	ToAddress
	ToOutside
)

// Target is something that commands are run in or packets are sent to. It is
// comparable. The zero Target is not valid.
type Target struct {
	Kind            TargetKind
	Namespace, Name string     // Namespace of pods only
	Addr            netip.Addr // of ToAddress only
}

// String prints t in the form that users write: pod/NAMESPACE/NAME, a name, or an
// address.
func (t Target) String() string {
	switch t.Kind {
	case ToPod:
		return "pod/" + t.Namespace + "/" + t.Name
	case ToAddress:
		return t.Addr.String()
	default:
		return t.Name
	}
}

// Target is the pod as a target.
func (p Pod) Target() Target { return Target{Kind: ToPod, Namespace: p.Namespace, Name: p.Name} }

// Target is the node as a target.
func (n Node) Target() Target { return Target{Kind: ToNode, Name: n.Name} }

// Target is the router as a target.
func (r Router) Target() Target { return Target{Kind: ToRouter, Name: r.Name} }

// Target is the host as a target.
func (o Outside) Target() Target { return Target{Kind: ToOutside, Name: o.Name} }

// Has reports whether r has a subnet of that family.
func (r Rack) Has(v6 bool) bool {
	return slices.ContainsFunc(r.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 })
}

// Interface is one of a node's: eth0, eth1 …
type Interface struct {
	Name      string
	Rack      string
	Addresses []netip.Addr
}

// Interfaces are those of n, eth0 first.
func (n Node) Interfaces() []Interface {
	out := []Interface{{"eth0", n.Rack, n.Addresses}}
	for i, l := range n.Links {
		out = append(out, Interface{fmt.Sprintf("eth%d", i+1), l.Rack, l.Addresses})
	}
	return out
}

// Rack returns the rack of that name, which must exist.
func (t *Topology) Rack(name string) Rack {
	i := slices.IndexFunc(t.Racks, func(r Rack) bool { return r.Name == name })
	return t.Racks[i]
}

// Gateway is the fabric's address in a subnet of a rack.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// Subnet is the subnet of r that a is in; false when there is none.
func (r Rack) Subnet(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range r.Subnets {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
