// Package policy decides which packets a node lets through: from endpoints,
// policies, tiers, profiles and network sets to the rules and sets of the kernel's
// packet filter, and to an explanation of every verdict.
//
//	model.Batch ── Graph.Step ──► plan.FilterDelta ──► kernel/nft
//	model.World ── Compile ─────► plan.Filter      (slow and obvious: the reference)
//	model.World ── View.Verdict ► Explanation      (what a packet meets, and why)
//
// All three walk the same parsed policies in the same order ([View.Tiers]): tiers by
// order, policies by order, rules from the first, then the tier's default action, at
// last the profiles. The kernel's tables hold that order as chains:
//
//	base chain ── interface ─► class ─► list chain: one for each distinct list of
//	                                    policies, however many endpoints have it
//	   list chain ── jump ─► policy chain: the rules of a policy, shared by all lists
//	   list chain ── jump ─► block: many policies in a row that are about few ports
//	   list chain ── jump ─► tier chain: where a tier has a policy with a Pass rule
//	      tier chain ── jump ─► policy chain
//
// Allow accepts, Deny drops, and neither needs a mark: egress and ingress are judged
// by two base chains of the hook. Pass returns from the tier chain, which is why a
// policy that has a Pass rule stands in the tier chain itself, not behind a jump.
//
// The kernel checks all rules that a base chain leads to, once for each list, whenever
// a rule with a verdict changes. So a list is kept short: without what nothing reaches,
// and without chains that only one line would lead to; but so that a change of a rule
// changes one chain, unless it is the first Pass of a policy, or a profile's, or opens
// another door of a block.
//
// The package is larger than others because its three ways are held together by what
// they share: the order of policies, the rules as chains, and how a rule matches.
//
// Invariant: what Graph has emitted after any batches, folded, equals Compile of the
// world that those batches fold to.
package policy

import "github.com/weft-net/weft/internal/model"

// Kinds are the kinds of objects that verdicts depend on.
func Kinds() []model.Kind {
	return []model.Kind{
		model.KindFelixConfiguration, model.KindGlobalNetworkPolicy, model.KindGlobalNetworkSet, model.KindHostEndpoint,
		model.KindKubernetesClusterPolicy, model.KindKubernetesEndpointSlice, model.KindKubernetesNetworkPolicy,
		model.KindNetworkPolicy, model.KindNetworkSet, model.KindNode, model.KindProfile, model.KindStagedGlobalNetworkPolicy,
		model.KindStagedKubernetesNetworkPolicy, model.KindStagedNetworkPolicy, model.KindTier, model.KindWorkloadEndpoint,
	}
}

// Direction is a direction of traffic, seen from the endpoint.
type Direction uint8

// The directions.
const (
	Ingress Direction = iota
	Egress
)

// String is the direction as users write it.
func (d Direction) String() string { return [...]string{"Ingress", "Egress"}[d] }

// Stage is when on a packet's way policies are asked. Workload endpoints know
// Normal only.
type Stage uint8

// The stages.
const (
	Normal    Stage = iota // to and from the endpoint itself
	Forwarded              // applyOnForward: through a host endpoint
	PreDNAT                // into a host endpoint, before destination NAT
	Untracked              // doNotTrack: before connection tracking
)

// TierList is the policies of one tier that select an endpoint, in order of
// evaluation: by order, then by name; staged ones among them. Empty tiers are left
// out of lists.
type TierList struct {
	Tier     model.Tier
	Policies []*model.Policy
}

// Enforced reports whether any policy of l decides: else the tier's default action
// does not count, and packets pass on.
func (l TierList) Enforced() bool {
	for _, p := range l.Policies {
		if !p.Staged {
			return true
		}
	}
	return false
}

// Subject is what policy applies to: a workload endpoint or a host endpoint.
type Subject struct {
	Key      model.Key
	Host     bool
	Node     string
	Link     string            // host side interface; of a host endpoint a name, "*" or empty
	Labels   map[string]string // own and inherited; own ones win
	Profiles []*model.Profile  // in order; those that exist
}
