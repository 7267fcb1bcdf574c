package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CalicoNodeStatus asks one node's agent to report, and holds what it reported.
type CalicoNodeStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   CalicoNodeStatusSpec   `json:"spec"`
	Status CalicoNodeStatusStatus `json:"status"`
}

// CalicoNodeStatusSpec is what is asked of whom.
type CalicoNodeStatusSpec struct {
	// Node is the name of the node; it is required.
	Node string `json:"node,omitempty"`
	// Classes are what to report: Agent, BGP and Routes; at least one.
	Classes []NodeStatusClass `json:"classes,omitempty"`
	// UpdatePeriodSeconds is how often, 0 to 86400; 0 never. It is required.
	UpdatePeriodSeconds *uint32 `json:"updatePeriodSeconds,omitempty"`
}

// NodeStatusClass is a part of the report.
type NodeStatusClass string

// The classes of a report.
const (
	NodeStatusAgent  NodeStatusClass = "Agent"
	NodeStatusBGP    NodeStatusClass = "BGP"
	NodeStatusRoutes NodeStatusClass = "Routes"
)

// CalicoNodeStatusStatus is the report. It is stored even when empty.
type CalicoNodeStatusStatus struct {
	// LastUpdated is when the agent last reported; null before it did.
	LastUpdated metav1.Time      `json:"lastUpdated"`
	Agent       NodeAgentStatus  `json:"agent"`
	BGP         NodeBGPStatus    `json:"bgp"`
	Routes      NodeRoutesStatus `json:"routes"`
}

// NodeAgentStatus is the state of the BGP speaker, by family.
type NodeAgentStatus struct {
	BIRDV4 BGPDaemonStatus `json:"birdV4"`
	BIRDV6 BGPDaemonStatus `json:"birdV6"`
}

// BGPDaemonStatus is the state of a BGP speaker.
type BGPDaemonStatus struct {
	// State is Ready or NotReady.
	State   string `json:"state,omitempty"`
	Version string `json:"version,omitempty"`
	// RouterID is in the form of an IPv4 address.
	RouterID string `json:"routerID,omitempty"`
	// LastBootTime and LastReconfigurationTime are in the speaker's own form.
	LastBootTime            string `json:"lastBootTime,omitempty"`
	LastReconfigurationTime string `json:"lastReconfigurationTime,omitempty"`
}

// NodeBGPStatus is the state of the node's sessions, by family.
type NodeBGPStatus struct {
	NumberEstablishedV4    int              `json:"numberEstablishedV4"`
	NumberNotEstablishedV4 int              `json:"numberNotEstablishedV4"`
	NumberEstablishedV6    int              `json:"numberEstablishedV6"`
	NumberNotEstablishedV6 int              `json:"numberNotEstablishedV6"`
	PeersV4                []NodePeerStatus `json:"peersV4,omitempty"`
	PeersV6                []NodePeerStatus `json:"peersV6,omitempty"`
}

// NodePeerStatus is the state of one session.
type NodePeerStatus struct {
	PeerIP string `json:"peerIP,omitempty"`
	// Type is NodeMesh, NodePeer or GlobalPeer.
	Type string `json:"type,omitempty"`
	// State is Idle, Connect, Active, OpenSent, OpenConfirm, Established or Close.
	State string `json:"state,omitempty"`
	// Since is when State was entered, as text.
	Since string `json:"since,omitempty"`
}

// NodeRoutesStatus is the node's routes, by family.
type NodeRoutesStatus struct {
	RoutesV4 []NodeRouteStatus `json:"routesV4,omitempty"`
	RoutesV6 []NodeRouteStatus `json:"routesV6,omitempty"`
}

// NodeRouteStatus is one route.
type NodeRouteStatus struct {
	// Type is FIB for a route in use, RIB for one that is known.
	Type        string `json:"type,omitempty"`
	Destination string `json:"destination,omitempty"`
	Gateway     string `json:"gateway,omitempty"`
	Interface   string `json:"interface,omitempty"`
	// LearnedFrom is whom the route is from.
	LearnedFrom NodeRouteSource `json:"learnedFrom,omitzero"`
}

// NodeRouteSource is whom a route is from.
type NodeRouteSource struct {
	// SourceType is Kernel, Static, Direct, NodeMesh or BGPPeer.
	SourceType string `json:"sourceType,omitempty"`
	// PeerIP is the peer's address, where it was a peer.
	PeerIP string `json:"peerIP,omitempty"`
}
