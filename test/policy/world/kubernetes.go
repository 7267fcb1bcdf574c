package world

// labelSelector is one of Kubernetes, about labels of pods or of namespaces.
func (d dice) labelSelector(ofNamespaces bool) object {
	key, values := "app", []string{"a", "b", "ab"}
	if ofNamespaces {
		key, values = "team", []string{"red", "blue"}
	}
	switch d.IntN(4) {
	case 0:
		return object{}
	case 1:
		return object{"matchLabels": object{key: one(d, values...)}}
	case 2:
		return object{"matchExpressions": []any{object{"key": key, "operator": one(d, "In", "NotIn"), "values": []any{one(d, values...), one(d, values...)}}}}
	}
	return object{"matchExpressions": []any{object{"key": "role", "operator": one(d, "Exists", "DoesNotExist")}}}
}

// kubernetesPolicy is a NetworkPolicy of networking.k8s.io/v1.
func (d dice) kubernetesPolicy(name string) object {
	ports := func() any {
		p := object{"protocol": one(d, "TCP", "UDP", "SCTP")}
		switch d.IntN(4) {
		case 0:
		case 1:
			p["port"] = one(d, portNames...)
		case 2:
			p["port"], p["endPort"] = 400, 9000
		default:
			p["port"] = one(d, ports...)
		}
		return p
	}
	peer := func() any {
		switch d.IntN(4) {
		case 0:
			return object{"podSelector": d.labelSelector(false)}
		case 1:
			return object{"namespaceSelector": d.labelSelector(true)}
		case 2:
			return object{"namespaceSelector": d.labelSelector(true), "podSelector": d.labelSelector(false)}
		}
		if d.in(50) {
			return object{"ipBlock": object{"cidr": "fd65::/16", "except": []any{Addr(d.IntN(Locals), true).String() + "/128"}}}
		}
		return object{"ipBlock": object{"cidr": "10.65.0.0/16", "except": []any{Addr(d.IntN(Locals), false).String() + "/32"}}}
	}
	direction := func(to string) []any {
		return times(d, 2, func() any {
			r := object{}
			if peers := times(d, 2, peer); len(peers) > 0 {
				r[to] = peers
			}
			if p := times(d, 2, ports); len(p) > 0 {
				r["ports"] = p
			}
			return r
		})
	}
	spec := object{"podSelector": d.labelSelector(false)}
	switch d.IntN(3) {
	case 0:
		spec["policyTypes"], spec["ingress"] = []any{"Ingress"}, direction("from")
	case 1:
		spec["policyTypes"], spec["egress"] = []any{"Egress"}, direction("to")
	default:
		spec["policyTypes"], spec["ingress"], spec["egress"] = []any{"Ingress", "Egress"}, direction("from"), direction("to")
	}
	o := object{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": name, "namespace": one(d, namespaces...)}, "spec": spec}
	if d.in(15) {
		o["apiVersion"], o["kind"] = "projectcalico.org/v3", "StagedKubernetesNetworkPolicy"
	}
	return o
}

// clusterPolicy is a ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2.
func (d dice) clusterPolicy(name string) object {
	pods := func() object {
		if d.in(50) {
			return object{"namespaces": d.labelSelector(true)}
		}
		return object{"pods": object{"namespaceSelector": d.labelSelector(true), "podSelector": d.labelSelector(false)}}
	}
	protocols := func() []any {
		return times(d, 2, func() any {
			if d.in(20) {
				return object{"destinationNamedPort": one(d, portNames...)}
			}
			port := object{"number": one(d, ports...)}
			if d.in(30) {
				port = object{"range": object{"start": 400, "end": 9000}}
			}
			return object{one(d, "tcp", "udp", "sctp"): object{"destinationPort": port}}
		})
	}
	rule := func(to string) func() any {
		return func() any {
			peers := []any{pods()}
			if to == "to" {
				switch d.IntN(3) {
				case 0:
					peers = []any{object{"networks": []any{d.net(false, true), d.net(true, true)}}}
				case 1:
					peers = append(peers, object{"nodes": object{"matchLabels": object{"zone": "east"}}})
				}
			}
			r := object{"action": one(d, "Accept", "Deny", "Pass"), to: peers}
			if p := protocols(); len(p) > 0 {
				r["protocols"] = p
			}
			return r
		}
	}
	spec := object{"tier": one(d, "Admin", "Baseline"), "priority": d.IntN(4), "subject": pods()}
	if rules := times(d, 3, rule("from")); len(rules) > 0 {
		spec["ingress"] = rules
	}
	if rules := times(d, 3, rule("to")); len(rules) > 0 {
		spec["egress"] = rules
	}
	return object{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": object{"name": name}, "spec": spec}
}
