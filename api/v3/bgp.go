package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPConfiguration holds BGP settings: named default for the cluster, named
// node.NAME for one node.
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec BGPConfigurationSpec `json:"spec"`
}

// BGPConfigurationSpec is the settings. The mesh, service and community fields
// belong on default only.
type BGPConfigurationSpec struct {
	// LogSeverityScreen is the lowest level logged: Trace, Debug, Info, Warning,
	// Error or Fatal in any case. Default Info.
	LogSeverityScreen string `json:"logSeverityScreen,omitempty"`
	// NodeToNodeMeshEnabled makes every node peer with every other; nil means true.
	NodeToNodeMeshEnabled *bool `json:"nodeToNodeMeshEnabled,omitempty"`
	// ASNumber is that of nodes without their own; nil means 64512. At most 2147483647.
	ASNumber *ASNumber `json:"asNumber,omitempty"`
	// ServiceLoadBalancerIPs, ServiceExternalIPs and ServiceClusterIPs are the ranges
	// whose service addresses are advertised.
	ServiceLoadBalancerIPs []ServiceBlock `json:"serviceLoadBalancerIPs,omitempty"`
	ServiceExternalIPs     []ServiceBlock `json:"serviceExternalIPs,omitempty"`
	ServiceClusterIPs      []ServiceBlock `json:"serviceClusterIPs,omitempty"`
	// ServiceLoadBalancerAggregation, Enabled or Disabled, advertises the range
	// instead of each address. Default Enabled.
	ServiceLoadBalancerAggregation string `json:"serviceLoadBalancerAggregation,omitempty"`
	// Communities are names for community values, at most 500.
	Communities []Community `json:"communities,omitempty"`
	// PrefixAdvertisements attach communities to prefixes, at most 500.
	PrefixAdvertisements []PrefixAdvertisement `json:"prefixAdvertisements,omitempty"`
	// ListenPort is the TCP port of sessions; 0 means 179.
	ListenPort uint16 `json:"listenPort,omitempty"`
	// NodeMeshPassword is the TCP MD5 key of mesh sessions; it needs the mesh.
	NodeMeshPassword *BGPPassword `json:"nodeMeshPassword,omitempty"`
	// NodeMeshMaxRestartTime is how long mesh peers keep routes over a restart; it
	// needs the mesh. Nil means 120 s.
	NodeMeshMaxRestartTime *metav1.Duration `json:"nodeMeshMaxRestartTime,omitempty"`
	// BindMode, None or NodeIP, says whether sessions are accepted on the node's
	// address only; nil means None.
	BindMode *string `json:"bindMode,omitempty"`
	// IgnoredInterfaces are names or patterns of interfaces whose routes are not read.
	IgnoredInterfaces []string `json:"ignoredInterfaces,omitempty"`
	// LocalWorkloadPeeringIPV4 and LocalWorkloadPeeringIPV6 are the addresses that
	// local workloads peer with.
	LocalWorkloadPeeringIPV4 string `json:"localWorkloadPeeringIPV4,omitempty"`
	LocalWorkloadPeeringIPV6 string `json:"localWorkloadPeeringIPV6,omitempty"`
	// ProgramClusterRoutes is Enabled, Disabled, EnabledIPIPOnly or
	// EnabledNoEncapOnly. weft has one writer of routes: it has no effect.
	ProgramClusterRoutes *string `json:"programClusterRoutes,omitempty"`
	// IPv4NormalRoutePriority and IPv6NormalRoutePriority are the kernel metrics of
	// learned routes.
	IPv4NormalRoutePriority *int `json:"ipv4NormalRoutePriority,omitempty"`
	IPv6NormalRoutePriority *int `json:"ipv6NormalRoutePriority,omitempty"`
}

// ServiceBlock is a range of service addresses.
type ServiceBlock struct {
	// CIDR is masked.
	CIDR string `json:"cidr,omitempty"`
}

// Community is a name for a community value.
type Community struct {
	Name string `json:"name,omitempty"`
	// Value is "aa:nn" (16 bits each) or "aa:nn:mm" (32 bits each).
	Value string `json:"value,omitempty"`
}

// PrefixAdvertisement attaches communities to what is advertised of a prefix.
type PrefixAdvertisement struct {
	CIDR string `json:"cidr,omitempty"`
	// Communities are values or names from the same configuration, at most 50.
	Communities []string `json:"communities,omitempty"`
}

// BGPPassword refers to the key of a session.
type BGPPassword struct {
	SecretKeyRef *SecretKeySelector `json:"secretKeyRef,omitempty"`
}

// SecretKeySelector names one entry of a Kubernetes secret.
type SecretKeySelector struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional,omitempty"`
}

// BGPPeer is a session that nodes keep beside the mesh.
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec BGPPeerSpec `json:"spec"`
}

// BGPPeerSpec says which nodes peer with whom, and how.
type BGPPeerSpec struct {
	// Node is the one node that peers, NodeSelector chooses several; both empty means
	// all nodes.
	Node         string `json:"node,omitempty"`
	NodeSelector string `json:"nodeSelector,omitempty"`
	// PeerIP is the peer's address, with a port as "192.0.2.1:1790" or
	// "[2001:db8::1]:1790".
	PeerIP string `json:"peerIP,omitempty"`
	// PeerSelector chooses other nodes as peers.
	PeerSelector string `json:"peerSelector,omitempty"`
	// ASNumber is the peer's; it stays out with PeerSelector and is required with
	// LocalWorkloadSelector.
	ASNumber ASNumber `json:"asNumber,omitempty"`
	// KeepOriginalNextHop is the older form of NextHopMode Keep.
	KeepOriginalNextHop bool `json:"keepOriginalNextHop,omitempty"`
	// Password is the TCP MD5 key.
	Password *BGPPassword `json:"password,omitempty"`
	// SourceAddress is UseNodeIP or None; nil means UseNodeIP.
	SourceAddress *string `json:"sourceAddress,omitempty"`
	// MaxRestartTime is how long routes are kept over the peer's restart.
	MaxRestartTime *metav1.Duration `json:"maxRestartTime,omitempty"`
	// KeepaliveTime is the interval of keepalive messages.
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`
	// NumAllowedLocalASNumbers is how often the own AS may stand in a received path.
	NumAllowedLocalASNumbers *int32 `json:"numAllowedLocalASNumbers,omitempty"`
	// TTLSecurity is the greatest distance of the peer in hops (RFC 5082).
	TTLSecurity *uint8 `json:"ttlSecurity,omitempty"`
	// ReachableBy is the gateway to the peer; it needs PeerIP, of the same family.
	ReachableBy string `json:"reachableBy,omitempty"`
	// Filters names BGPFilters, in order.
	Filters []string `json:"filters,omitempty"`
	// LocalWorkloadSelector chooses workloads on the node as peers.
	LocalWorkloadSelector string `json:"localWorkloadSelector,omitempty"`
	// ReversePeering Auto also makes the selected nodes peer back; nil means Auto.
	ReversePeering *string `json:"reversePeering,omitempty"`
	// NextHopMode is Auto, Self or Keep; nil means Auto.
	NextHopMode *string `json:"nextHopMode,omitempty"`
	// LocalASNumber is the AS number that the node shows to this peer.
	LocalASNumber *ASNumber `json:"localASNumber,omitempty"`
}
