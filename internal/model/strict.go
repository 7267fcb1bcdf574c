package model

import (
	"slices"

	v3 "github.com/weft-net/weft/api/v3"
)

// Strict makes what it can of an object that Parse refuses, so that a mistake in
// it opens no door. It counts only where no earlier version is known, and is nil
// where an object that is not there allows nothing more than this one, or where
// nobody can say whom the object is about.
//
//	IPReservation, network sets, EndpointSlice  the part that can be read
//	IPAMConfig                                  no blocks of other nodes
//	BGPConfiguration                            what it says about the mesh
//	FelixConfiguration                          whose interfaces and failsafe ports it names
//	policies in force                           deny, for whom they select, what they apply to
//	Tier                                        denies what its policies do not allow
//	Profile                                     its labels, no rules
//	HostEndpoint                                the interface, with what can be read; so
//	                                            only policy, profiles and failsafe ports
//	                                            open it
func Strict(o v3.Object) Value {
	switch o := o.(type) {
	case *v3.IPReservation:
		r := Reservation{Name: o.Name}
		for _, s := range o.Spec.ReservedCIDRs {
			// A bare address is refused as a CIDR, but what it means is clear.
			if p, err := nodeAddr("", s); err == nil && p.IsValid() {
				r.CIDRs = append(r.CIDRs, p.Masked())
			}
		}
		return r
	case *v3.IPAMConfig:
		c := parseIPAMConfig(o)
		c.StrictAffinity, c.AutoAllocateBlocks = true, true
		c.MaxBlocksPerHost, c.Cooldown = max(c.MaxBlocksPerHost, 0), max(c.Cooldown, 0)
		return c
	case *v3.BGPConfiguration:
		return BGPConfig{Name: o.Name, Mesh: o.Spec.NodeToNodeMeshEnabled, MeshPassword: secretRef(o.Spec.NodeMeshPassword)}
	case *v3.FelixConfiguration:
		return strictFelixConfig(o)
	case *v3.NetworkSet:
		set, _ := parseNetworkSet(o.Namespace, &o.ObjectMeta, o.Spec.Nets)
		return set
	case *v3.GlobalNetworkSet:
		set, _ := parseNetworkSet("", &o.ObjectMeta, o.Spec.Nets)
		return set
	case *v3.HostEndpoint:
		return strictHostEndpoint(o)
	case *v3.KubernetesEndpointSlice:
		slice, _ := parseEndpointSlice(o)
		return slice
	case *v3.Tier:
		t := parseTier(o)
		t.Default = Deny
		return t
	case *v3.Profile:
		return Profile{Name: o.Name, Labels: o.Spec.LabelsToApply}
	case *v3.NetworkPolicy, *v3.GlobalNetworkPolicy, *v3.KubernetesNetworkPolicy, *v3.KubernetesClusterNetworkPolicy:
		return strictPolicy(o)
	}
	return nil
}

// strictHostEndpoint keeps what is readable of an endpoint that names its place. Its
// profiles are kept: they are what the operator grants whatever policies say, and
// dropping them for a mistake elsewhere would cut the node off.
func strictHostEndpoint(o *v3.HostEndpoint) Value {
	h, _ := parseHostEndpoint(o)
	if h.Node == "" || h.Link == "" && len(h.Addrs) == 0 {
		return nil
	}
	return h
}

// strictPolicy denies, explicitly since the tier may pass, all that the policy
// applies to. It is nil where the endpoints that it selects can't be told.
func strictPolicy(o v3.Object) Value {
	d, _ := documentOf(o)
	if d.badSubject {
		return nil
	}
	var e first
	p := d.head(&e)
	if e.err != nil {
		return nil
	}
	known := func(t v3.PolicyType) bool { return t == v3.PolicyIngress || t == v3.PolicyEgress }
	if len(d.spec.Types) > 0 && !slices.ContainsFunc(d.spec.Types, known) {
		p.AppliesIngress, p.AppliesEgress = true, true
	}
	if p.PreDNAT {
		p.DoNotTrack, p.AppliesEgress = false, false // what it may not be
	}
	if p.AppliesIngress {
		p.Ingress = []Rule{{Action: Deny, Field: "spec"}}
	}
	if p.AppliesEgress {
		p.Egress = []Rule{{Action: Deny, Field: "spec"}}
	}
	if p.Ingress == nil && p.Egress == nil {
		return nil
	}
	return p
}
