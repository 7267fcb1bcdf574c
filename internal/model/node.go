package model

import (
	"crypto/sha1"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/selector"
)

// Node is a member of the cluster.
type Node struct {
	Name   string
	Labels map[string]string
	// IPv4 and IPv6 are the node's addresses with the prefix length of their
	// subnet, unmasked; the zero Prefix means that the node has none.
	IPv4, IPv6     netip.Prefix
	ASN            uint32     // 0: the cluster's
	RouteReflector netip.Addr // cluster ID, an IPv4 address; zero: no reflector
	IPIPTunnel     netip.Addr // zero: none

	VXLANTunnel, VXLANTunnelV6 netip.Addr // zero: none
	VXLANMAC, VXLANMACV6       string     // of the devices, lower case; empty: as VTEPMAC says

	WireGuardKey, WireGuardKeyV6   [32]byte   // public; zero: none
	WireGuardAddr, WireGuardAddrV6 netip.Addr // zero: none

	// Links are the interfaces of its own network and their addresses, as its agent found them
	// when it started: what explains a route names its device by.
	Links []NodeLink

	// Addrs are all addresses by which policy knows the node: its own above and those that
	// Kubernetes knows (spec.addresses), sorted, each once.
	Addrs []netip.Addr

	// MTU is the smallest of its egress interfaces, bytes, as its agent says (the
	// annotation MTUAnnotation); 0: not known.
	MTU int

	// PodCIDRs are the ranges that Kubernetes gave the node for its pods, masked; nil: none.
	PodCIDRs []netip.Prefix
}

// NodeLink is an interface of a node.
type NodeLink struct {
	Name  string
	Addrs []netip.Addr
}

// LinkOf is the interface that has the node's address of that family; empty: it is not
// known.
func (n Node) LinkOf(v6 bool) string {
	own := n.Addr(v6).Addr()
	for _, l := range n.Links {
		if own.IsValid() && slices.Contains(l.Addrs, own) {
			return l.Name
		}
	}
	return ""
}

// MTUAnnotation is where a node's agent says the MTU of the underlay.
const MTUAnnotation = "weft.net/mtu"

// VTEPMAC is the hardware address of the VXLAN device of a node whose record has none, of
// that family: stable over restarts, and what Calico gives it. It is 66 and the first
// five bytes of the SHA-1 of the node's name, with "-v6" behind it for IPv6.
func VTEPMAC(node string, v6 bool) string {
	if v6 {
		node += "-v6"
	}
	sum := sha1.Sum([]byte(node))
	return fmt.Sprintf("66:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}

// Key implements [Value].
func (n Node) Key() Key { return Key{Kind: KindNode, Name: n.Name} }

// Addr is the node's address of that family, unmasked; zero when it has none.
func (n Node) Addr(v6 bool) netip.Prefix {
	if v6 {
		return n.IPv6
	}
	return n.IPv4
}

// Endpoint is a workload's network interface: one of a pod, container or VM.
type Endpoint struct {
	Namespace string
	Name      string // of the WorkloadEndpoint: node-k8s-pod-eth0 with doubled dashes
	Node      string
	Pod       string // empty where the orchestrator has no pods
	Link      string // host side interface
	MAC       string // of the workload's side, lower case; empty: unknown
	Addrs     []netip.Addr
	Labels    map[string]string
	Profiles  []string
	Ports     []NamedPort
	// SourcePrefixes are what it may send from beside Addrs; masked.
	SourcePrefixes []netip.Prefix
	FloatingIPs    []FloatingIP
	QoS            QoS
}

// Key implements [Value].
func (e Endpoint) Key() Key {
	return Key{Kind: KindWorkloadEndpoint, Namespace: e.Namespace, Name: e.Name}
}

// Profile gives labels, and rules after those of all tiers, to the endpoints that
// name it.
type Profile struct {
	Name            string
	Labels          map[string]string
	Ingress, Egress []Rule
}

// Key implements [Value].
func (p Profile) Key() Key { return Key{Kind: KindProfile, Name: p.Name} }

// BGPConfig is the BGP setting of the cluster (Name "default") or of one node
// (Name "node.NAME"). Pointers are nil where the object says nothing.
type BGPConfig struct {
	Name              string
	Mesh              *bool
	ASN               *uint32
	ListenPort        *uint16
	BindNodeIP        bool          // listen on the node's address only
	MeshRestartTime   time.Duration // 0: default
	MeshPassword      SecretRef     // TCP MD5 key of mesh sessions; zero: none
	IgnoredInterfaces []string
	IPv4Priority      *int // kernel metric of learned routes; nil: FelixConfig's
	IPv6Priority      *int
	Unbuilt           []string // fields that are set and have no effect in this version; sorted
}

// Key implements [Value].
func (c BGPConfig) Key() Key { return Key{Kind: KindBGPConfiguration, Name: c.Name} }

// SecretRef names a secret that is kept outside the datastore: one key of a
// Kubernetes secret, or the file NAME/KEY in the agent's directory of secrets.
// The zero SecretRef names none. The secret itself is never part of the model.
type SecretRef struct{ Name, Key string }

// NextHopMode says which next hop a speaker announces to a peer.
type NextHopMode string

// The next hop modes; the zero value is NextHopAuto.
const (
	NextHopAuto NextHopMode = "Auto"
	NextHopSelf NextHopMode = "Self"
	NextHopKeep NextHopMode = "Keep"
)

// Peer is a BGPPeer: a rule that makes nodes peer with somebody.
type Peer struct {
	Name         string
	Node         string             // one node; empty with a nil NodeSelector: every node
	NodeSelector *selector.Selector // nodes that this peer is for; nil: see Node
	Addr         netip.AddrPort     // remote address; port 0: the default; zero Addr: see PeerSelector
	PeerSelector *selector.Selector // remote nodes; nil: see Addr
	ASN          uint32             // of the remote side; 0: the remote node's, or the cluster's
	LocalASN     uint32             // 0: the node's own
	Password     SecretRef          // TCP MD5 key (RFC 2385); zero: none
	NoSourceAddr bool               // let the kernel choose the source address
	NextHop      NextHopMode
	RestartTime  time.Duration // graceful restart; 0: default 120 s
	Keepalive    time.Duration // 0: default
	AllowLocalAS int           // occurrences of the own AS to accept in AS_PATH
	TTLSecurity  uint8         // hops; 0: off
	ReachableBy  netip.Addr    // gateway to the peer; zero: none
	Filters      []string
	Manual       bool // no reverse session is made from PeerSelector
}

// Key implements [Value].
func (p Peer) Key() Key { return Key{Kind: KindBGPPeer, Name: p.Name} }

// FelixConfig is the node agent's setting for the cluster (Name "default"), a
// node ("node.NAME") or a set of nodes. Fields are nil where the object says
// nothing. Unbuilt names the fields that are set and that this version of weft
// does not act upon yet.
type FelixConfig struct {
	Name                string
	NodeSelector        *selector.Selector
	InterfacePrefixes   []string // nil: "cali"
	DeviceRouteProtocol *int     // nil: 3 (boot)
	DeviceRouteSource   netip.Addr
	DeviceRouteSourceV6 netip.Addr
	RemoveExternal      *bool // nil: true
	IPv4Priority        *int  // nil: 0, the classic form; see docs/routes.md
	IPv6Priority        *int
	RouteRefresh        *time.Duration // nil: 90 s; 0: never
	GCThreshold         *int           // percent of heap growth before a collection; nil: 40
	MaxProcs            *int           // nil or -1: all
	MemoryLimitMB       *int           // nil or -1: none
	LogSeverity         string         // Debug, Info, Warning, Error, Fatal or None; empty: not set
	Pages               PageConfig
	Filter              FilterConfig
	Tunnel              TunnelConfig
	NAT                 NATConfig
	Unbuilt             []string
}

// Key implements [Value].
func (c FelixConfig) Key() Key { return Key{Kind: KindFelixConfiguration, Name: c.Name} }

// PageConfig is what a FelixConfig says about the pages on which an agent tells how it is.
// Pointers are nil where it says nothing.
type PageConfig struct {
	Health, Metrics         *bool  // served at all; nil: false
	HealthHost, MetricsHost string // empty: localhost, and every address
	HealthPort, MetricsPort *int   // nil: 9099 and 9091
	GoMetrics               *bool  // metrics of the Go runtime are among them; nil: true
	ProcessMetrics          *bool  // metrics of the process are among them; nil: true
	WireGuardMetrics        *bool  // metrics of WireGuard are among them; nil: true
	// Watchdog is how long a loop may be at one thing before the agent counts as dead.
	Watchdog *time.Duration // nil: 90 s
}

// FilterConfig is what a FelixConfig says about the packet filter. Pointers and
// lists are nil where it says nothing; an empty list is a list.
type FilterConfig struct {
	// ToHost is what becomes of packets from a workload to its own host, after its
	// egress policy: Deny, Allow, or Pass: what others' rules and host endpoints say.
	ToHost                  *Action        // nil: Deny
	FailsafeIn, FailsafeOut []Failsafe     // nil: DefaultFailsafeIn, DefaultFailsafeOut
	KeepInvalid             *bool          // packets that connection tracking calls invalid go on; nil: false
	AllowVXLAN, AllowIPIP   *bool          // workloads may encapsulate packets themselves; nil: false
	VXLANPort               *uint16        // nil: DefaultVXLANPort
	Append                  *bool          // our chains are asked after, not before, those of others; nil: false
	FilterReturn            *bool          // what is allowed is left to others' rules, not accepted; nil: false
	MangleReturn            *bool          // the same for policy before destination NAT; nil: false
	Reject                  *bool          // what is denied is answered, not dropped; nil: false
	SpoofAny                *bool          // workloads may ask for other source prefixes; nil: false
	LogPrefix               *string        // nil: DefaultLogPrefix
	LogRate                 *LogRate       // of Log rules; nil: no limit
	LogBurst                *uint32        // packets beyond LogRate at once; nil: DefaultLogBurst
	Refresh                 *time.Duration // between readings of the tables; nil: DefaultFilterRefresh; 0: never
	IPv6                    *bool          // nil: true
	MaxSetSize              *int           // members of a set; nil: DefaultMaxSetSize
	KeepDenied              *bool          // connections that a new rule forbids live on; nil: false
	LogDenied               *bool          // what is denied by default is logged; nil: false
}

// What holds where no FelixConfig says anything.
const (
	DefaultVXLANPort     = 4789
	DefaultLogPrefix     = "calico-packet"
	DefaultLogBurst      = 5 // packets
	DefaultFilterRefresh = 90 * time.Second
	DefaultMaxSetSize    = 1 << 20
)

// LogRate is the most packets that are logged in a time.
type LogRate struct {
	Packets uint32
	Per     time.Duration // a second, a minute, an hour or a day
}

// Failsafe is traffic of the host itself that no policy closes.
type Failsafe struct {
	Protocol uint8        // IP protocol number
	Port     uint16       // local where packets come in, remote where they go out
	Net      netip.Prefix // of the other end; the zero Prefix: any
}

// DefaultFailsafeIn is what may always come in: SSH, DHCP, BGP, etcd, Typha and the
// API server.
func DefaultFailsafeIn() []Failsafe {
	return append([]Failsafe{{Protocol: protocolTCP, Port: 22}, {Protocol: protocolUDP, Port: 68}}, failsafeTCP()...)
}

// DefaultFailsafeOut is what may always go out: DNS, DHCP, BGP, etcd, Typha and the
// API server.
func DefaultFailsafeOut() []Failsafe {
	return append([]Failsafe{{Protocol: protocolUDP, Port: 53}, {Protocol: protocolUDP, Port: 67}}, failsafeTCP()...)
}

func failsafeTCP() []Failsafe {
	var out []Failsafe
	for _, port := range []uint16{179, 2379, 2380, 5473, 6443, 6666, 6667} {
		out = append(out, Failsafe{Protocol: protocolTCP, Port: port})
	}
	return out
}

// Cluster is the ClusterInformation named default.
type Cluster struct {
	GUID    string
	Type    string
	Version string
	Ready   bool // false: the datastore is locked; nothing is to be changed
}

// Key implements [Value].
func (Cluster) Key() Key { return Key{Kind: KindClusterInformation, Name: "default"} }

// TunnelConfig is what a FelixConfig says about encapsulation and encryption between
// nodes. Pointers are nil, and other values zero, where it says nothing. The port of
// VXLAN is FilterConfig's.
type TunnelConfig struct {
	IPIP, VXLAN          *bool          // nil: where a pool asks for it
	IPIPMTU              *int           // bytes; nil or 0: found from the underlay
	VXLANMTU, VXLANMTUV6 *int           // likewise
	VNI                  *uint32        // nil: DefaultVNI
	MTUPattern           string         // regular expression of egress interfaces' names; empty: DefaultMTUPattern
	RequireMTUFile       *bool          // the node is not ready until the pods' MTU is in its file; nil: false
	ChecksumBroken       *bool          // checksum offload of VXLAN; nil: found
	ExternalNodes        []netip.Prefix // may send encapsulated packets, beside the nodes; masked
	Tables               []TableRange   // kernel tables to use; nil: DefaultTables

	WireGuard, WireGuardV6         *bool          // nil: false
	WireGuardHosts                 *bool          // traffic of the nodes themselves, too; nil: false
	WireGuardPort, WireGuardPortV6 *uint16        // nil: DefaultWireGuardPort, DefaultWireGuardPortV6
	WireGuardLink, WireGuardLinkV6 string         // empty: DefaultWireGuardLink, DefaultWireGuardLinkV6
	WireGuardMTU, WireGuardMTUV6   *int           // bytes; nil or 0: found
	WireGuardPriority              *int           // of the routing rule; nil: DefaultWireGuardPriority
	WireGuardKeepalive             *time.Duration // nil or 0: none
	WireGuardThreaded              *bool          // nil: false
	// WireGuardStrict drops what would go to another node's pods in clear (our own field
	// wireguardCleartext: Drop); nil: false.
	WireGuardStrict *bool
}

// What holds where no FelixConfig says anything about tunnels.
const (
	DefaultVNI               = 4096
	DefaultMTUPattern        = `^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)`
	DefaultWireGuardPort     = 51820
	DefaultWireGuardPortV6   = 51821
	DefaultWireGuardLink     = "wireguard.cali"
	DefaultWireGuardLinkV6   = "wg-v6.cali"
	DefaultWireGuardPriority = 99
)

// TableRange is kernel routing tables from First to Last.
type TableRange struct{ First, Last uint32 }

// NATConfig is what a FelixConfig says about packets that leave the cluster. Pointers
// are nil, and other values zero, where it says nothing.
type NATConfig struct {
	FirstPort, LastPort uint16     // natPortRange; 0: any
	Addr                netip.Addr // natOutgoingAddress; zero: masquerade
	ExcludeHosts        *bool      // natOutgoingExclusions IPPoolsAndHostIPs; nil: false
	Link                string     // iptablesNATOutgoingInterfaceFilter: only out of this interface ("eth+": those that begin so); empty: any
	// FloatingIPs: those of endpoints lead to them. Any configuration of a node can say
	// so: every stored one has the default, Disabled, and so can't mean it.
	FloatingIPs bool
}
