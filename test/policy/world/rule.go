package world

import (
	"fmt"
	"strconv"
)

var ports = []int{80, 443, 53, 8080, 1500}

// net is a prefix that has something to do with the ground. all says that it may be
// everything.
func (d dice) net(v6, all bool) string {
	if v6 {
		nets := []string{
			Addr(d.IntN(Locals), true).String() + "/128", "fd65::/126", "fd65::/16", "fd65:1::/64", "2001:db8:1::/64", "2001:db8::/32",
			"2001:db8:1::8/125", "fd00::/64", "fd00::1/128",
		}
		if all {
			nets = append(nets, "::/0")
		}
		return one(d, nets...)
	}
	nets := []string{
		Addr(d.IntN(Locals), false).String() + "/32", "10.65.0.0/30", "10.65.0.0/16", "10.65.1.0/24", "198.51.100.0/25", "198.51.100.0/24",
		"203.0.113.0/24", "10.0.0.0/24", "10.0.0.1/32",
	}
	if all {
		nets = append(nets, "0.0.0.0/0")
	}
	return one(d, nets...)
}

func (d dice) nets(v6, all bool) []any {
	var out []any
	for range 1 + d.IntN(3) {
		out = append(out, d.net(v6, all))
	}
	return out
}

// selector is one about the labels of endpoints and sets.
func (d dice) selector(depth int) string {
	if depth > 0 && d.in(25) {
		return "(" + d.selector(depth-1) + one(d, " && ", " || ") + d.selector(depth-1) + ")"
	}
	if depth > 0 && d.in(10) {
		return "!(" + d.selector(depth-1) + ")"
	}
	return one(d, `app == "a"`, `app == "b"`, `app != "a"`, `app in {"a", "ab"}`, `app not in {"b"}`, `has(role)`, `!has(role)`, `role == "inherited"`,
		`app starts with "a"`, `app ends with "b"`, `app contains "b"`, `all()`, `has(host)`, `pcns.team == "red"`)
}

// rules says where rules are to stand.
type rules struct {
	egress, global bool
	host           bool // before tracking or NAT: no Pass, no named ports of what is behind
}

// rule is a rule that Calico takes.
func (d dice) rule(in rules) object {
	r := object{"action": one(d, "Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log")}
	family := 0 // any
	switch d.IntN(8) {
	case 0, 1:
		family = 4
	case 2, 3:
		family = 6
	}
	proto := one(d, "", "", "", "", "TCP", "TCP", "UDP", "UDP", "SCTP", "ICMP", "ICMPv6", "UDPLite", "253")
	switch proto {
	case "":
		if d.in(10) {
			r["notProtocol"] = one(d, "TCP", "UDP", "SCTP", "UDPLite")
		}
	case "253":
		r["protocol"] = 253
	case "ICMP", "ICMPv6":
		family = map[string]int{"ICMP": 4, "ICMPv6": 6}[proto]
		r["protocol"] = proto
		if d.in(60) {
			r["icmp"] = d.icmp(family)
		}
		if d.in(25) {
			r["notICMP"] = d.icmp(family)
		}
	default:
		r["protocol"] = proto
	}
	if family != 0 && d.in(30) {
		r["ipVersion"] = family
	}
	hasPorts := proto == "TCP" || proto == "UDP" || proto == "SCTP"
	if hasPorts && r["action"] == "Allow" && proto == "TCP" && !in.egress && d.in(4) {
		r["http"] = object{"methods": []any{"GET"}}
	}
	src, dst := d.entity(in, family, hasPorts, false), d.entity(in, family, hasPorts, true)
	if len(src) > 0 {
		r["source"] = src
	}
	if len(dst) > 0 {
		r["destination"] = dst
	}
	return r
}

func (d dice) icmp(family int) object {
	o := object{"type": one(d, 8, 13)}
	if family == 6 {
		o["type"] = one(d, 128, 139)
	}
	if d.in(40) {
		o["code"] = d.IntN(2)
	}
	return o
}

// entity is one end of a rule; family 0 has no nets.
func (d dice) entity(in rules, family int, hasPorts, dst bool) object {
	e := object{}
	if in.egress == dst && d.in(6) && !in.host {
		e["services"] = object{"name": one(d, "svc-0", "svc-1"), "namespace": one(d, namespaces...)}
		return e
	}
	if family != 0 && d.in(30) {
		e["nets"] = d.nets(family == 6, true)
	}
	if family != 0 && d.in(12) {
		e["notNets"] = d.nets(family == 6, false)
	}
	if d.in(15) {
		e["selector"] = d.selector(2)
	}
	if d.in(8) {
		e["notSelector"] = d.selector(1)
	}
	if d.in(7) {
		e["namespaceSelector"] = one(d, `team == "red"`, `team != "red"`, "all()", "global()", `projectcalico.org/name in {"ns-0", "ns-2"}`)
	}
	if d.in(3) {
		e["serviceAccounts"] = object{"names": []any{one(d, accounts...)}}
	} else if d.in(2) {
		e["serviceAccounts"] = object{"selector": `kind == "robot"`}
	}
	if hasPorts && d.in(map[bool]int{true: 40, false: 8}[dst]) {
		e["ports"] = d.portList(dst)
	}
	if hasPorts && d.in(10) {
		e["notPorts"] = d.portList(dst)
	}
	return e
}

func (d dice) portList(dst bool) []any {
	var out []any
	for range 1 + d.IntN(3) {
		switch {
		case !dst:
			low := 20000 + 5000*d.IntN(8)
			out = append(out, fmt.Sprintf("%d:%d", low, min(low+5000*d.IntN(4)+4999, 65535)))
		case d.in(20):
			out = append(out, one(d, portNames...))
		case d.in(20):
			out = append(out, one(d, "50:100", "1000:2000", "400:9000"))
		default:
			out = append(out, one(d, ports...))
		}
	}
	return out
}

func (d dice) rules(n int, in rules) []any {
	return times(d, n, func() any { return d.rule(in) })
}

// policy is a policy of any kind. host says that there are host endpoints.
func (d dice) policy(i int, host bool) object {
	name := "p" + strconv.Itoa(d.IntN(5)) // a name twice, of two kinds, is wanted
	_ = i
	switch d.IntN(10) {
	case 0, 1, 2:
		return d.networkPolicy(one(d, "NetworkPolicy", "NetworkPolicy", "NetworkPolicy", "StagedNetworkPolicy"), name)
	case 3:
		return d.kubernetesPolicy(name)
	case 4:
		return d.clusterPolicy(name)
	}
	return d.globalPolicy(one(d, "GlobalNetworkPolicy", "GlobalNetworkPolicy", "GlobalNetworkPolicy", "StagedGlobalNetworkPolicy"), name, host)
}

// common is what all of Calico's policies have.
func (d dice) common(kind, name string, global bool) (object, object) {
	spec := object{"selector": d.selector(1)}
	tier := one(d, "default", "default", "default", "early", "late", "lost")
	spec["tier"] = tier
	if tier != "default" {
		name = tier + "." + name
	}
	if d.in(60) {
		spec["order"] = one(d, -1.5, 10, 20)
	}
	if kind[0] == 'S' && d.in(20) {
		spec = object{"stagedAction": "Delete", "tier": tier}
	}
	_ = global
	return spec, object{"name": name}
}

func (d dice) directions(spec object, in rules, types []string) {
	if spec["stagedAction"] == "Delete" {
		return
	}
	var list []any
	for _, t := range types {
		if t == "Ingress" {
			spec["ingress"] = d.rules(6, in)
		} else {
			out := in
			out.egress = true
			spec["egress"] = d.rules(6, out)
		}
		list = append(list, t)
	}
	spec["types"] = list
}

func (d dice) networkPolicy(kind, name string) object {
	spec, meta := d.common(kind, name, false)
	meta["namespace"] = one(d, namespaces...)
	d.directions(spec, rules{}, one(d, []string{"Ingress"}, []string{"Egress"}, []string{"Ingress", "Egress"}))
	if d.in(10) && spec["selector"] != nil {
		spec["serviceAccountSelector"] = `kind == "robot"`
	}
	return object{"kind": kind, "metadata": meta, "spec": spec}
}

func (d dice) globalPolicy(kind, name string, host bool) object {
	spec, meta := d.common(kind, name, true)
	in := rules{global: true}
	types := one(d, []string{"Ingress"}, []string{"Egress"}, []string{"Ingress", "Egress"})
	if host && spec["selector"] != nil && d.in(60) {
		spec["selector"] = one(d, "has(host)", "has(host)", "all()")
		switch d.IntN(5) {
		case 0:
			spec["preDNAT"], spec["applyOnForward"], types = true, true, []string{"Ingress"}
			in.host = true
		case 1:
			spec["doNotTrack"], spec["applyOnForward"] = true, true
			in.host = true
		case 2, 3:
			spec["applyOnForward"] = true
		}
	} else if spec["selector"] != nil && d.in(20) {
		spec["namespaceSelector"] = one(d, `team == "red"`, "has(team)")
	}
	d.directions(spec, in, types)
	return object{"kind": kind, "metadata": meta, "spec": spec}
}

// run is many policies in a row that are about few ports, as the kernel's rules treat
// as one.
func (d dice) run() []object {
	var out []object
	sel := one(d, "all()", `app == "a"`, "has(role)")
	few := []int{one(d, ports...), one(d, ports...)}
	for i := range 4 + d.IntN(10) {
		narrow := func() any {
			r := object{"action": one(d, "Allow", "Allow", "Deny", "Log"), "protocol": one(d, "TCP", "TCP", "TCP", "UDP")}
			if d.in(95) {
				r["destination"] = object{"ports": []any{one(d, few...)}}
			}
			if d.in(70) {
				r["source"] = object{"selector": d.selector(0)}
			}
			return r
		}
		spec := object{"tier": "default", "order": 12, "selector": sel, "types": []any{"Ingress", "Egress"}}
		spec["ingress"], spec["egress"] = times(d, 2, narrow), times(d, 2, narrow)
		kind := "GlobalNetworkPolicy"
		if d.in(5) {
			kind = "StagedGlobalNetworkPolicy"
		}
		out = append(out, object{"kind": kind, "metadata": object{"name": "run" + strconv.Itoa(i)}, "spec": spec})
	}
	return out
}
