package crd

// columns are those that `kubectl get` shows of a kind beside its name.
func columns(kind string) []Column {
	policy := []Column{
		{Name: "Tier", Type: "string", JSONPath: ".spec.tier"},
		{Name: "Order", Type: "number", JSONPath: ".spec.order"},
		{Name: "Selector", Type: "string", JSONPath: ".spec.selector", Priority: 1},
	}
	staged := append([]Column{{Name: "Action", Type: "string", JSONPath: ".spec.stagedAction"}}, policy...)
	own := map[string][]Column{
		"BGPConfiguration": {
			{Name: "AS", Type: "string", JSONPath: ".spec.asNumber"},
			{Name: "Mesh", Type: "boolean", JSONPath: ".spec.nodeToNodeMeshEnabled"},
		},
		"BGPPeer": {
			{Name: "Peer", Type: "string", JSONPath: ".spec.peerIP"},
			{Name: "AS", Type: "string", JSONPath: ".spec.asNumber"},
			{Name: "Node", Type: "string", JSONPath: ".spec.node"},
			{Name: "Peer-Selector", Type: "string", JSONPath: ".spec.peerSelector", Priority: 1},
			{Name: "Node-Selector", Type: "string", JSONPath: ".spec.nodeSelector", Priority: 1},
		},
		"BlockAffinity": {
			{Name: "CIDR", Type: "string", JSONPath: ".spec.cidr"},
			{Name: "Node", Type: "string", JSONPath: ".spec.node"},
			{Name: "State", Type: "string", JSONPath: ".spec.state"},
		},
		"CalicoNodeStatus": {
			{Name: "Node", Type: "string", JSONPath: ".spec.node"},
			{Name: "Updated", Type: "date", JSONPath: ".status.lastUpdated"},
		},
		"ClusterInformation": {
			{Name: "Version", Type: "string", JSONPath: ".spec.calicoVersion"},
			{Name: "Type", Type: "string", JSONPath: ".spec.clusterType"},
			{Name: "Ready", Type: "boolean", JSONPath: ".spec.datastoreReady"},
		},
		"FelixConfiguration":  {{Name: "Nodes", Type: "string", JSONPath: ".spec.nodeSelector", Priority: 1}},
		"GlobalNetworkPolicy": policy,
		"NetworkPolicy":       policy,
		"HostEndpoint": {
			{Name: "Node", Type: "string", JSONPath: ".spec.node"},
			{Name: "Interface", Type: "string", JSONPath: ".spec.interfaceName"},
			{Name: "IPs", Type: "string", JSONPath: ".spec.expectedIPs", Priority: 1},
		},
		"IPAMBlock": {
			{Name: "CIDR", Type: "string", JSONPath: ".spec.cidr"},
			{Name: "Affinity", Type: "string", JSONPath: ".spec.affinity"},
		},
		"IPAMConfiguration": {
			{Name: "Strict", Type: "boolean", JSONPath: ".spec.strictAffinity"},
			{Name: "Auto-Blocks", Type: "boolean", JSONPath: ".spec.autoAllocateBlocks"},
		},
		"IPPool": {
			{Name: "CIDR", Type: "string", JSONPath: ".spec.cidr"},
			{Name: "IPIP", Type: "string", JSONPath: ".spec.ipipMode"},
			{Name: "VXLAN", Type: "string", JSONPath: ".spec.vxlanMode"},
			{Name: "NAT", Type: "boolean", JSONPath: ".spec.natOutgoing"},
			{Name: "Disabled", Type: "boolean", JSONPath: ".spec.disabled", Priority: 1},
			{Name: "Nodes", Type: "string", JSONPath: ".spec.nodeSelector", Priority: 1},
		},
		"IPReservation":                 {{Name: "CIDRs", Type: "string", JSONPath: ".spec.reservedCIDRs"}},
		"StagedGlobalNetworkPolicy":     staged,
		"StagedNetworkPolicy":           staged,
		"StagedKubernetesNetworkPolicy": staged[:1],
		"Tier": {
			{Name: "Order", Type: "number", JSONPath: ".spec.order"},
			{Name: "Action", Type: "string", JSONPath: ".spec.defaultAction"},
		},
	}
	age := Column{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"}
	return append(own[kind][:len(own[kind]):len(own[kind])], age)
}
