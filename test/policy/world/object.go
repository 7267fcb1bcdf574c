package world

import (
	"fmt"
	"strconv"
)

var (
	namespaces = []string{"ns-0", "ns-1", "ns-2"}
	accounts   = []string{"sa-0", "sa-1"}
	portNames  = []string{"http", "dns", "sig"}
)

func (d dice) felix() object {
	spec := object{}
	if d.in(60) {
		spec["defaultEndpointToHostAction"] = one(d, "Accept", "Drop", "Return")
	}
	if d.in(20) {
		spec["workloadSourceSpoofing"] = "Any"
	}
	if d.in(20) {
		spec["allowVXLANPacketsFromWorkloads"] = true
	}
	if d.in(20) {
		spec["allowIPIPPacketsFromWorkloads"] = true
	}
	if d.in(20) {
		spec["nftablesFilterDenyAction"] = "Reject"
	}
	if d.in(20) {
		spec["disableConntrackInvalidCheck"] = true
	}
	if d.in(40) {
		spec["failsafeInboundHostPorts"] = []any{object{"protocol": "TCP", "port": 443}, object{"protocol": "UDP", "port": 53, "net": "10.65.0.0/16"}}
		spec["failsafeOutboundHostPorts"] = []any{object{"protocol": "SCTP", "port": 80}, object{"protocol": "TCP", "port": 53}}
	}
	if d.in(30) {
		spec["wireguardEnabled"], spec["wireguardEnabledV6"] = d.in(80), d.in(50)
		spec["wireguardListeningPort"] = one(d, ports...)
	}
	if d.in(30) {
		spec["externalNodesList"] = []any{"198.51.100.9", one(d, "10.0.0.2", "192.0.2.0/24")}
	}
	return object{"kind": "FelixConfiguration", "metadata": object{"name": "default"}, "spec": spec}
}

// profiles are those of namespaces and service accounts, as the controllers make them,
// but for some that decide something.
func (d dice) profiles() []object {
	var out []object
	allow := []any{object{"action": "Allow"}}
	for i, ns := range namespaces {
		spec := object{"ingress": allow, "egress": allow, "labelsToApply": object{
			"pcns.projectcalico.org/name": ns, "pcns.team": one(d, "red", "blue"), "role": "inherited",
		}}
		if d.in(15) {
			spec["ingress"], spec["egress"] = d.profileRules(i), d.profileRules(i)
		}
		out = append(out, object{"kind": "Profile", "metadata": object{"name": "kns." + ns}, "spec": spec})
		for _, sa := range accounts {
			labels := object{"pcsa.projectcalico.org/name": sa}
			if d.in(50) {
				labels["pcsa.kind"] = one(d, "robot", "person")
			}
			out = append(out, object{"kind": "Profile", "metadata": object{"name": "ksa." + ns + "." + sa}, "spec": object{"labelsToApply": labels}})
		}
	}
	return out
}

func (d dice) profileRules(int) []any {
	return times(d, 3, func() any {
		r := d.rule(rules{global: true})
		if r["action"] == "Pass" {
			r["action"] = "Deny"
		}
		return r
	})
}

func (d dice) labels() object {
	l := object{}
	if d.in(85) {
		l["app"] = one(d, "a", "b", "ab")
	}
	if d.in(40) {
		l["role"] = one(d, "x", "y")
	}
	return l
}

func (d dice) endpoint(i int) object {
	ns, sa := one(d, namespaces...), one(d, accounts...)
	node := Node
	if i >= Locals {
		node = Other
	}
	labels := d.labels()
	labels["projectcalico.org/namespace"], labels["projectcalico.org/serviceaccount"], labels["projectcalico.org/orchestrator"] = ns, sa, "k8s"
	addrs := []any{Addr(i, false).String() + "/32", Addr(i, true).String() + "/128"}
	switch d.IntN(8) {
	case 0:
		addrs = addrs[:1]
	case 1:
		addrs = addrs[1:]
	}
	if i >= Locals && d.in(10) { // as while a workload moves
		j := d.IntN(Locals)
		addrs = append(addrs, Addr(j, false).String()+"/32", Addr(j, true).String()+"/128")
	}
	spec := object{
		"node": node, "orchestrator": "k8s", "pod": "pod" + strconv.Itoa(i), "endpoint": "eth0", "containerID": "c" + strconv.Itoa(i),
		"interfaceName": Link(i), "ipNetworks": addrs, "serviceAccountName": sa,
	}
	if profiles := d.IntN(20); profiles > 0 {
		spec["profiles"] = []any{"kns." + ns, "ksa." + ns + "." + sa}
	}
	if ports := d.ports(); len(ports) > 0 {
		spec["ports"] = ports
	}
	if d.in(30) {
		spec["allowSpoofedSourcePrefixes"] = []any{one(d, "198.51.100.0/24", "10.65.1.0/24"), "2001:db8:1::/64"}
	}
	letter := "a"
	if node == Other {
		letter = "b"
	}
	return object{"kind": "WorkloadEndpoint", "metadata": object{"name": fmt.Sprintf("node--%s-k8s-pod%d-eth0", letter, i), "namespace": ns, "labels": labels}, "spec": spec}
}

// ports are names for ports, the same name for different ones now and then.
func (d dice) ports() []any {
	return times(d, 3, func() any {
		return object{"name": one(d, portNames...), "protocol": one(d, "TCP", "UDP", "SCTP"), "port": one(d, ports...)}
	})
}

func (d dice) hostEndpoint(i int) object {
	spec := object{"node": Node, "expectedIPs": []any{NodeAddr(false, false).String(), NodeAddr(false, true).String()}}
	switch d.IntN(3) {
	case 0:
		spec["interfaceName"] = "*"
	case 1:
		spec["interfaceName"] = Uplink
	}
	if d.in(40) {
		spec["profiles"] = []any{one(d, "kns.ns-0", "projectcalico-default-allow")}
	}
	if ports := d.ports(); len(ports) > 0 {
		spec["ports"] = ports
	}
	labels := d.labels()
	labels["host"] = ""
	return object{"kind": "HostEndpoint", "metadata": object{"name": "host-" + strconv.Itoa(i), "labels": labels}, "spec": spec}
}

func (d dice) networkSet() object {
	o := object{"kind": "GlobalNetworkSet", "metadata": object{"name": "set-" + strconv.Itoa(d.IntN(3)), "labels": d.labels()}}
	if d.in(50) {
		o["kind"] = "NetworkSet"
		o["metadata"].(object)["namespace"] = one(d, namespaces...)
	}
	o["spec"] = object{"nets": times(d, 4, func() any { return d.net(d.in(50), true) })}
	return o
}

func (d dice) endpointSlice() object {
	name, v6 := one(d, "svc-0", "svc-1"), d.in(50)
	o := object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata":    object{"name": name + "-" + strconv.Itoa(d.IntN(9)), "namespace": one(d, namespaces...), "labels": object{"kubernetes.io/service-name": name}},
		"addressType": map[bool]string{false: "IPv4", true: "IPv6"}[v6],
		"endpoints":   times(d, 3, func() any { return object{"addresses": []any{Addr(d.IntN(Locals+Remotes), v6).String()}} }),
	}
	o["ports"] = times(d, 2, func() any {
		p := object{"protocol": one(d, "TCP", "UDP", "SCTP")}
		if d.in(90) {
			p["port"] = one(d, ports...)
		}
		return p
	})
	return o
}

func (d dice) tiers() []object {
	var out []object
	if d.in(90) {
		out = append(out, object{"kind": "Tier", "metadata": object{"name": "default"}, "spec": object{"order": 1000000, "defaultAction": "Deny"}})
	}
	for _, name := range []string{"early", "late"} { // "lost" never is
		if d.in(80) {
			spec := object{"defaultAction": one(d, "Deny", "Pass")}
			if d.in(80) {
				spec["order"] = one(d, 1, 5, 2000000)
			}
			out = append(out, object{"kind": "Tier", "metadata": object{"name": name}, "spec": spec})
		}
	}
	return out
}
