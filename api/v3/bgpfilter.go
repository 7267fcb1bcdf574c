package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPFilter is rules about which routes pass a session, and how they are changed on
// the way. A [BGPPeer] names the filters that apply to it.
type BGPFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec BGPFilterSpec `json:"spec"`
}

// BGPFilterSpec is the rules, by direction and family, in order: the first that
// matches decides. A route that none matches is treated as without a filter.
type BGPFilterSpec struct {
	// ExportV4 judges the IPv4 routes that the node announces.
	ExportV4 []BGPFilterRule `json:"exportV4,omitempty"`
	// ImportV4 judges the IPv4 routes that it is told of.
	ImportV4 []BGPFilterRule `json:"importV4,omitempty"`
	// ExportV6 judges the IPv6 routes that the node announces.
	ExportV6 []BGPFilterRule `json:"exportV6,omitempty"`
	// ImportV6 judges the IPv6 routes that it is told of.
	ImportV6 []BGPFilterRule `json:"importV6,omitempty"`
}

// BGPFilterRule matches routes by all the fields that are set. One in which only the
// action is set matches every route.
type BGPFilterRule struct {
	// CIDR is a masked prefix of the list's family; it stands with MatchOperator.
	CIDR string `json:"cidr,omitempty"`
	// PrefixLength narrows CIDR, which must be set, to routes of these lengths.
	PrefixLength *BGPFilterPrefixLength `json:"prefixLength,omitempty"`
	// Source RemotePeers matches what was learned by BGP; empty matches all.
	Source BGPFilterSource `json:"source,omitempty"`
	// Interface matches the interface of the route, with * for any text.
	Interface string `json:"interface,omitempty"`
	// PeerType matches sessions, eBGP or iBGP; empty matches both.
	PeerType BGPFilterPeerType `json:"peerType,omitempty"`
	// Communities matches routes that carry a community.
	Communities *BGPFilterCommunities `json:"communities,omitempty"`
	// ASPathPrefix matches routes whose AS path begins with these numbers.
	ASPathPrefix []ASNumber `json:"asPathPrefix,omitempty"`
	// Priority matches the metric of the route in the kernel.
	Priority *int `json:"priority,omitempty"`
	// MatchOperator says how the route's prefix compares with CIDR.
	MatchOperator BGPFilterOperator `json:"matchOperator,omitempty"`
	// Action is Accept or Reject.
	Action BGPFilterAction `json:"action"`
	// Operations change routes that are accepted, in order; at most 10.
	Operations []BGPFilterOperation `json:"operations,omitempty"`
}

// BGPFilterPrefixLength is a range of prefix lengths, both ends included: 0 to 32,
// or to 128 for IPv6. A nil end is the family's.
type BGPFilterPrefixLength struct {
	Min *int32 `json:"min,omitempty"`
	Max *int32 `json:"max,omitempty"`
}

// BGPFilterSource says where a route comes from.
type BGPFilterSource string

// BGPFilterRemotePeers are routes that BGP peers announced.
const BGPFilterRemotePeers BGPFilterSource = "RemotePeers"

// BGPFilterPeerType is a sort of session.
type BGPFilterPeerType string

// The sorts of sessions: with another AS, and within the own.
const (
	BGPFilterExternal BGPFilterPeerType = "eBGP"
	BGPFilterInternal BGPFilterPeerType = "iBGP"
)

// BGPFilterCommunities is the communities that a rule matches.
type BGPFilterCommunities struct {
	// Values has one entry, "aa:nn" (16 bits each) or "aa:nn:mm" (32 bits each).
	Values []string `json:"values"`
}

// BGPFilterOperator compares a route's prefix with that of a rule.
type BGPFilterOperator string

// The operators. In and NotIn are about the routes within the prefix, itself included.
const (
	BGPFilterEqual    BGPFilterOperator = "Equal"
	BGPFilterNotEqual BGPFilterOperator = "NotEqual"
	BGPFilterIn       BGPFilterOperator = "In"
	BGPFilterNotIn    BGPFilterOperator = "NotIn"
)

// BGPFilterAction is what becomes of a route.
type BGPFilterAction string

// The actions.
const (
	BGPFilterAccept BGPFilterAction = "Accept"
	BGPFilterReject BGPFilterAction = "Reject"
)

// BGPFilterOperation is one change of a route; exactly one field is set.
type BGPFilterOperation struct {
	// AddCommunity adds a community to those of the route.
	AddCommunity *BGPFilterAddCommunity `json:"addCommunity,omitempty"`
	// PrependASPath puts AS numbers before the path.
	PrependASPath *BGPFilterPrependASPath `json:"prependASPath,omitempty"`
	// SetPriority gives the route a metric in the kernel.
	SetPriority *BGPFilterSetPriority `json:"setPriority,omitempty"`
}

// BGPFilterAddCommunity is a community to add.
type BGPFilterAddCommunity struct {
	// Value is "aa:nn" (16 bits each) or "aa:nn:mm" (32 bits each).
	Value string `json:"value"`
}

// BGPFilterPrependASPath is numbers to put before an AS path.
type BGPFilterPrependASPath struct {
	// Prefix has 1 to 10 numbers, the first of which will be the first of the path.
	Prefix []ASNumber `json:"prefix"`
}

// BGPFilterSetPriority is a metric to give.
type BGPFilterSetPriority struct {
	// Value is 1 to 2147483646.
	Value *int `json:"value"`
}
