package model

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
)

// KeyOf is the key of an object. It needs only the names in it; for the IPAM
// kinds, which have none, it needs their CIDR and owner, and an error says
// which of them can't be read.
func KeyOf(o v3.Object) (Key, error) {
	switch o := o.(type) {
	case *v3.IPAMBlock:
		cidr, err := prefix("spec.cidr", o.Spec.CIDR)
		return BlockKey(cidr), err
	case *v3.BlockAffinity:
		cidr, err := prefix("spec.cidr", o.Spec.CIDR)
		return AffinityKey(ownerOf(o), cidr), err
	case *v3.IPAMHandle:
		return HandleKey(o.Spec.HandleID), nil
	case *v3.IPAMConfig:
		return IPAMConfig{}.Key(), nil
	}
	meta := o.Meta()
	return Key{Kind: Kind(v3.KindOf(o).Name), Namespace: meta.Namespace, Name: meta.Name}, nil
}

// Parse makes a Value of an object: the only door into the model. It sets the
// object's defaults, so o may change. The error names the field, what is in it
// and what is allowed. A nil Value without an error means that weft keeps the
// object but has no use for it.
func Parse(o v3.Object) (Value, error) {
	v3.Default(o)
	if !foreign(o) {
		if err := v3.Validate(o); err != nil {
			return nil, err
		}
	}
	switch o := o.(type) {
	case *v3.IPPool:
		return parsePool(o)
	case *v3.IPReservation:
		return parseReservation(o)
	case *v3.IPAMConfig:
		return parseIPAMConfig(o), nil
	case *v3.IPAMBlock:
		return parseBlock(o)
	case *v3.BlockAffinity:
		cidr, err := prefix("spec.cidr", o.Spec.CIDR)
		return BlockAffinity{Owner: ownerOf(o), CIDR: cidr, State: AffinityState(o.Spec.State)}, err
	case *v3.IPAMHandle:
		return parseHandle(o)
	case *v3.Node:
		return parseNode(o)
	case *v3.WorkloadEndpoint:
		return parseEndpoint(o)
	case *v3.Profile:
		return parseProfile(o)
	case *v3.Tier:
		return parseTier(o), nil
	case *v3.NetworkSet:
		return parseNetworkSet(o.Namespace, &o.ObjectMeta, o.Spec.Nets)
	case *v3.GlobalNetworkSet:
		return parseNetworkSet("", &o.ObjectMeta, o.Spec.Nets)
	case *v3.HostEndpoint:
		return parseHostEndpoint(o)
	case *v3.KubernetesEndpointSlice:
		return parseEndpointSlice(o)
	case *v3.NetworkPolicy, *v3.GlobalNetworkPolicy, *v3.KubernetesNetworkPolicy, *v3.KubernetesClusterNetworkPolicy,
		*v3.StagedNetworkPolicy, *v3.StagedGlobalNetworkPolicy, *v3.StagedKubernetesNetworkPolicy:
		return parsePolicy(o)
	case *v3.BGPConfiguration:
		return parseBGPConfig(o)
	case *v3.BGPPeer:
		return parsePeer(o)
	case *v3.FelixConfiguration:
		return parseFelixConfig(o)
	case *v3.KubeControllersConfiguration:
		return parseControllers(o)
	case *v3.ClusterInformation:
		ready := o.Spec.DatastoreReady == nil || *o.Spec.DatastoreReady
		return Cluster{o.Spec.ClusterGUID, o.Spec.ClusterType, o.Spec.CalicoVersion, ready}, nil
	}
	return nil, nil
}

// foreign reports whether o is of an API of Kubernetes, whose server has judged it by
// rules that may be newer than ours: what we do not know in it is no mistake, and is
// understood in the sense that allows least.
func foreign(o v3.Object) bool {
	switch o.(type) {
	case *v3.KubernetesNetworkPolicy, *v3.KubernetesClusterNetworkPolicy, *v3.KubernetesEndpointSlice:
		return true
	}
	return false
}

func ownerOf(o *v3.BlockAffinity) Affinity {
	if o.Spec.Type == string(AffinityVirtual) {
		return Affinity{AffinityVirtual, o.Spec.Node}
	}
	return HostAffinity(o.Spec.Node)
}

func parsePool(o *v3.IPPool) (Value, error) {
	s := o.Spec
	p := Pool{
		Name: o.Name, BlockBits: s.BlockSize, IPIP: EncapMode(s.IPIPMode), VXLAN: EncapMode(s.VXLANMode),
		NATOutgoing: s.NATOutgoing, Disabled: s.Disabled, DisableBGPExport: s.DisableBGPExport,
		Manual: s.AssignmentMode == v3.AssignManual, Terminating: o.DeletionTimestamp != nil,
		Created: o.CreationTimestamp.UTC(),
	}
	for _, u := range s.AllowedUses {
		switch u {
		case v3.UseWorkload:
			p.Uses |= UseWorkload
		case v3.UseTunnel:
			p.Uses |= UseTunnel
		case v3.UseLoadBalancer:
			p.Uses |= UseLoadBalancer
		}
	}
	var e first
	p.CIDR = try(&e, prefix, "spec.cidr", s.CIDR)
	p.NodeSelector = try(&e, sel, "spec.nodeSelector", s.NodeSelector)
	p.NamespaceSelector = try(&e, sel, "spec.namespaceSelector", s.NamespaceSelector)
	return p, e.err
}

func parseReservation(o *v3.IPReservation) (Value, error) {
	r := Reservation{Name: o.Name}
	var e first
	for i, s := range o.Spec.ReservedCIDRs {
		r.CIDRs = append(r.CIDRs, try(&e, prefix, fmt.Sprintf("spec.reservedCIDRs[%d]", i), s))
	}
	return r, e.err
}

func parseIPAMConfig(o *v3.IPAMConfig) IPAMConfig {
	return IPAMConfig{
		StrictAffinity:     o.Spec.StrictAffinity,
		AutoAllocateBlocks: o.Spec.AutoAllocateBlocks,
		MaxBlocksPerHost:   o.Spec.MaxBlocksPerHost,
		Cooldown:           time.Duration(o.Spec.IPCooldownSeconds) * time.Second,
	}
}

func parseBlock(o *v3.IPAMBlock) (Value, error) {
	s := o.Spec
	cidr, err := prefix("spec.cidr", s.CIDR)
	if err != nil {
		return nil, err
	}
	b := Block{
		CIDR: cidr, Unallocated: s.Unallocated, Sequence: s.SequenceNumber, Deleted: s.Deleted,
		Allocations: make([]int, len(s.Allocations)), SequenceOf: map[int]uint64{},
	}
	if s.Affinity != nil {
		kind, name, ok := strings.Cut(*s.Affinity, ":")
		if !ok || kind != string(AffinityHost) && kind != string(AffinityVirtual) {
			return nil, fmt.Errorf("spec.affinity: %q: must be host:NODE or virtual:NAME", *s.Affinity)
		}
		b.Owner = Affinity{AffinityType(kind), name}
	}
	if s.AffinityClaimTime != nil {
		b.ClaimedAt = s.AffinityClaimTime.UTC()
	}
	for _, a := range s.Attributes {
		at := Attribute{Secondary: a.ActiveOwnerAttrs, AlternateOwner: a.AlternateOwnerAttrs}
		if a.HandleID != nil {
			at.Handle = *a.HandleID
		}
		if a.ReleasedAt != nil {
			at.ReleasedAt = a.ReleasedAt.UTC()
		}
		b.Attributes = append(b.Attributes, at)
	}
	if want := 1 << (cidr.Addr().BitLen() - cidr.Bits()); len(s.Allocations) != want {
		return nil, fmt.Errorf("spec.allocations: %d entries: must be %d for %v", len(s.Allocations), want, cidr)
	}
	for i, a := range s.Allocations {
		b.Allocations[i] = -1
		if a == nil {
			continue
		}
		if *a < 0 || *a >= len(b.Attributes) {
			return nil, fmt.Errorf("spec.allocations[%d]: %d: must be an index into the %d attributes", i, *a, len(b.Attributes))
		}
		b.Allocations[i] = *a
	}
	seen := map[int]bool{}
	for i, n := range s.Unallocated {
		if n < 0 || n >= len(b.Allocations) || b.Allocations[n] >= 0 || seen[n] {
			return nil, fmt.Errorf("spec.unallocated[%d]: %d: must be the ordinal of a free address, each once", i, n)
		}
		seen[n] = true
	}
	for k, seq := range s.SequenceNumberForAllocation {
		n, err := strconv.Atoi(k)
		if err != nil || n < 0 || n >= len(b.Allocations) {
			return nil, fmt.Errorf("spec.sequenceNumberForAllocation: %q: must be an ordinal below %d", k, len(b.Allocations))
		}
		b.SequenceOf[n] = seq
	}
	return b, nil
}

func parseHandle(o *v3.IPAMHandle) (Value, error) {
	h := Handle{ID: o.Spec.HandleID, Blocks: make(map[netip.Prefix]int, len(o.Spec.Block)), Deleted: o.Spec.Deleted}
	var e first
	for k, n := range o.Spec.Block {
		h.Blocks[try(&e, prefix, "spec.block", k)] = n
	}
	return h, e.err
}

func parseEndpoint(o *v3.WorkloadEndpoint) (Value, error) {
	s := o.Spec
	ep := Endpoint{
		Namespace: o.Namespace, Name: o.Name, Node: s.Node, Pod: s.Pod, Link: s.InterfaceName,
		MAC: strings.ToLower(s.MAC), Labels: ownLabels(o.Labels, "", ""), Profiles: s.Profiles,
	}
	var e first
	for i, n := range s.IPNetworks {
		ep.Addrs = append(ep.Addrs, try1(&e, nodeAddr, "spec.ipNetworks", i, n).Addr())
	}
	for i, p := range s.AllowSpoofedSourcePrefixes {
		if p := try1(&e, nodeAddr, "spec.allowSpoofedSourcePrefixes", i, p); p.IsValid() {
			ep.SourcePrefixes = append(ep.SourcePrefixes, p.Masked())
		}
	}
	for i, p := range s.Ports {
		if p.Name == "" {
			continue // a port of the host only
		}
		ep.Ports = appendPort(&e, ep.Ports, at("spec.ports", i), p.Name, p.Protocol, p.Port)
	}
	ep.FloatingIPs, ep.QoS = floatingIPs(&e, s.IPNATs), parseQoS(&e, s.QoSControls)
	return ep, e.err
}

func parseBGPConfig(o *v3.BGPConfiguration) (Value, error) {
	s := o.Spec
	c := BGPConfig{
		Name: o.Name, Mesh: s.NodeToNodeMeshEnabled, IgnoredInterfaces: s.IgnoredInterfaces,
		BindNodeIP:   s.BindMode != nil && *s.BindMode == "NodeIP",
		MeshPassword: secretRef(s.NodeMeshPassword),
		IPv4Priority: s.IPv4NormalRoutePriority, IPv6Priority: s.IPv6NormalRoutePriority,
		Unbuilt: unbuiltBGP(s),
	}
	if s.ASNumber != nil {
		n := uint32(*s.ASNumber)
		c.ASN = &n
	}
	if s.ListenPort != 0 {
		c.ListenPort = &s.ListenPort
	}
	if s.NodeMeshMaxRestartTime != nil {
		c.MeshRestartTime = s.NodeMeshMaxRestartTime.Duration
	}
	return c, nil
}

// unbuiltBGP names the fields that are set and have no effect yet.
func unbuiltBGP(s v3.BGPConfigurationSpec) []string {
	var out []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"communities", len(s.Communities) > 0},
		{"localWorkloadPeeringIPV4", s.LocalWorkloadPeeringIPV4 != ""},
		{"localWorkloadPeeringIPV6", s.LocalWorkloadPeeringIPV6 != ""},
		{"prefixAdvertisements", len(s.PrefixAdvertisements) > 0},
		{"programClusterRoutes", s.ProgramClusterRoutes != nil},
		{"serviceClusterIPs", len(s.ServiceClusterIPs) > 0},
		{"serviceExternalIPs", len(s.ServiceExternalIPs) > 0},
		{"serviceLoadBalancerIPs", len(s.ServiceLoadBalancerIPs) > 0},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

func secretRef(p *v3.BGPPassword) SecretRef {
	if p == nil || p.SecretKeyRef == nil {
		return SecretRef{}
	}
	return SecretRef{p.SecretKeyRef.Name, p.SecretKeyRef.Key}
}

func parsePeer(o *v3.BGPPeer) (Value, error) {
	s := o.Spec
	p := Peer{
		Name: o.Name, Node: s.Node, ASN: uint32(s.ASNumber), Password: secretRef(s.Password),
		NoSourceAddr: s.SourceAddress != nil && *s.SourceAddress == "None",
		Manual:       s.ReversePeering != nil && *s.ReversePeering == "Manual",
		Filters:      s.Filters, NextHop: NextHopAuto,
	}
	if s.LocalASNumber != nil {
		p.LocalASN = uint32(*s.LocalASNumber)
	}
	if s.KeepOriginalNextHop {
		p.NextHop = NextHopKeep
	}
	if s.NextHopMode != nil {
		p.NextHop = NextHopMode(*s.NextHopMode)
	}
	if s.MaxRestartTime != nil {
		p.RestartTime = s.MaxRestartTime.Duration
	}
	if s.KeepaliveTime != nil {
		p.Keepalive = s.KeepaliveTime.Duration
	}
	if s.NumAllowedLocalASNumbers != nil {
		p.AllowLocalAS = int(*s.NumAllowedLocalASNumbers)
	}
	if s.TTLSecurity != nil {
		p.TTLSecurity = *s.TTLSecurity
	}
	var e first
	p.Addr = try(&e, addrPort, "spec.peerIP", s.PeerIP)
	p.ReachableBy = try(&e, addr, "spec.reachableBy", s.ReachableBy)
	p.NodeSelector = try(&e, sel, "spec.nodeSelector", s.NodeSelector)
	p.PeerSelector = try(&e, sel, "spec.peerSelector", s.PeerSelector)
	return p, e.err
}
