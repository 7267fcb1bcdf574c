// Package world makes large clusters for benchmarks, as the keys and values that
// Calico itself would have written into etcd: nodes, address blocks, namespaces
// and service accounts as profiles, pods as workload endpoints, and policies.
//
// The text of the values is written here and not by package v3, so that the form
// is Calico's whatever weft's own encoder does (fields, their order, uid and
// creation time; see test/fixtures/etcd).
//
// What is realistic in it, because costs depend on it:
//
//   - Pods of one deployment have equal labels: about 8,000 distinct label sets
//     for 51,000 pods.
//   - Policies select by a label that many namespaces share, within their own
//     namespace; their peers are pods of the namespace, whole other namespaces,
//     and now and then a CIDR.
//   - The pods of the measured node are of all namespaces.
//
// A World is a value; everything in it follows from its numbers, so that two runs
// measure the same cluster.
package world

import (
	"fmt"
	"iter"
	"net/netip"
	"strings"
)

// Names of what is measured.
const (
	// Node is the node whose agent is measured.
	Node = "node-0000"

	root       = "/calico/resources/v3/projectcalico.org/"
	birth      = `"uid":"7599c5d7-e258-4b7e-a0df-%012x","creationTimestamp":"2026-11-20T06:08:38Z"`
	perBlock   = 64
	perNode    = 100 // pods of each other node
	apps       = 100 // names of apps, shared by all namespaces
	appsInEach = 20  // apps of one namespace
)

// World is the size of a cluster.
type World struct {
	Local, Remote int // pods of Node and of all other nodes
	Namespaces    int
	Policies      int
}

// Large is the large world of docs/performance.md.
func Large() World { return World{Local: 1000, Remote: 50_000, Namespaces: 200, Policies: 1000} }

// Entry is one key of etcd and its value.
type Entry struct{ Key, Value string }

// Entries yields everything that the cluster has.
func (w World) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, part := range []struct {
			count int
			make  func(int) Entry
		}{
			{1, func(int) Entry { return clusterInformation() }},
			{1, func(int) Entry { return pool() }},
			{w.nodes(), w.node},
			{w.nodes(), w.block},
			{1, func(int) Entry { return tier() }},
			{w.Namespaces, w.namespace},
			{w.Namespaces * appsInEach, w.account},
			{w.Policies, func(i int) Entry { return w.Policy(i, 8080) }},
			{w.Local + w.Remote, func(i int) Entry { return w.Endpoint(i, "") }},
		} {
			for i := range part.count {
				if !yield(part.make(i)) {
					return
				}
			}
		}
	}
}

// nodes is the number of nodes, Node included.
func (w World) nodes() int { return 1 + (w.Remote+perNode-1)/perNode }

// node is the i-th node, which Endpoint i is on for i ≥ Local.
func nodeName(i int) string { return fmt.Sprintf("node-%04d", i) }

func resource(i int, kind, plural, namespace, name, labels, rest string) Entry {
	key, inNamespace := root+plural+"/", ""
	if namespace != "" {
		key += namespace + "/"
		inNamespace = fmt.Sprintf(`"namespace":%q,`, namespace)
	}
	if labels != "" {
		labels = `,"labels":{` + labels + `}`
	}
	return Entry{key + name, fmt.Sprintf(`{"kind":%q,"apiVersion":"projectcalico.org/v3","metadata":{"name":%q,%s`+birth+`%s},%s}`,
		kind, name, inNamespace, i, labels, rest)}
}

func clusterInformation() Entry {
	return resource(0, "ClusterInformation", "clusterinformations", "", "default", "",
		`"spec":{"clusterGUID":"0123456789abcdef0123456789abcdef","datastoreReady":true}`)
}

func pool() Entry {
	return resource(0, "IPPool", "ippools", "", "pool", "",
		`"spec":{"cidr":"10.64.0.0/12","ipipMode":"Never","vxlanMode":"Never","blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}`)
}

func tier() Entry {
	return resource(0, "Tier", "tiers", "", "default", "", `"spec":{"order":1000000,"defaultAction":"Deny"}`)
}

func (w World) node(i int) Entry {
	name := nodeName(i)
	return resource(i, "Node", "nodes", "", name, fmt.Sprintf(`"kubernetes.io/hostname":%q,"kubernetes.io/os":"linux"`, name),
		fmt.Sprintf(`"spec":{"bgp":{"ipv4Address":"172.16.%d.%d/16"}},"status":{}`, 1+i/250, 1+i%250))
}

// block is a full block of addresses of the i-th node.
func (w World) block(i int) Entry {
	cidr := netip.PrefixFrom(address(1<<19-(i+1)*perBlock), 26)
	var allocations, attributes []string
	for n := range perBlock {
		allocations = append(allocations, fmt.Sprint(n))
		attributes = append(attributes, fmt.Sprintf(`{"handle_id":"k8s-pod-network.%064x","secondary":{"namespace":%q,"node":%q,"pod":"app-%02d-%d","timestamp":"2026-11-20 06:08:51.718970091 +0000 UTC"}}`,
			i*perBlock+n, namespaceName(n), nodeName(i), n, i))
	}
	return Entry{
		"/calico/ipam/v2/assignment/ipv4/block/" + strings.Replace(cidr.String(), "/", "-", 1),
		fmt.Sprintf(`{"cidr":%q,"affinity":"host:%s","allocations":[%s],"unallocated":[],"attributes":[%s],"deleted":false,"sequenceNumber":64,"sequenceNumberForAllocation":{}}`,
			cidr, nodeName(i), strings.Join(allocations, ","), strings.Join(attributes, ",")),
	}
}

func namespaceName(i int) string { return fmt.Sprintf("ns-%03d", i) }

func (w World) namespace(i int) Entry {
	name := namespaceName(i)
	return resource(i, "Profile", "profiles", "", "kns."+name, "", fmt.Sprintf(
		`"spec":{"ingress":[{"action":"Allow","source":{},"destination":{}}],"egress":[{"action":"Allow","source":{},"destination":{}}],`+
			`"labelsToApply":{"pcns.kubernetes.io/metadata.name":%q,"pcns.projectcalico.org/name":%q,"pcns.team":"team-%d"}}`, name, name, i%10))
}

func (w World) account(i int) Entry {
	ns, app := i/appsInEach, i%appsInEach
	name := fmt.Sprintf("ksa.%s.%s", namespaceName(ns), appName(ns, app))
	return resource(i, "Profile", "profiles", "", name, "", fmt.Sprintf(
		`"spec":{"labelsToApply":{"pcsa.projectcalico.org/name":%q,"pcsa.team":"team-%d"}}`, appName(ns, app), ns%10))
}

// appName is the name of the n-th app of a namespace.
func appName(ns, n int) string { return fmt.Sprintf("app-%02d", (ns*7+n*5)%apps) }

// address is the n-th address of the pool.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 64 + byte(n>>16), byte(n >> 8), byte(n)})
}

// Address is the address of the i-th pod.
func (w World) Address(i int) netip.Addr { return address(i + 1) }

// Link is the host side interface of the i-th pod.
func (w World) Link(i int) string { return fmt.Sprintf("cali%07x", i) }

// Endpoint is the i-th pod: those below Local are of Node. It may be beyond the
// world's own. extra are further labels, as JSON: `,"canary":"yes"`.
func (w World) Endpoint(i int, extra string) Entry {
	if i < w.Local {
		return w.On(0, i, extra)
	}
	return w.On(1+(i-w.Local)/perNode, i, extra)
}

// On is the i-th pod on the given node; the one that is measured is 0.
func (w World) On(node, i int, extra string) Entry {
	ns := i % w.Namespaces
	nth := i / w.Namespaces // within its namespace
	app, version := appName(ns, nth%appsInEach), 1+nth/appsInEach%2
	tiers := [...]string{"frontend", "backend", "db"}
	pod := fmt.Sprintf("%s-v%d-%08x-%05x", app, version, ns*1000+version, i)
	name := strings.ReplaceAll(nodeName(node), "-", "--") + "-k8s-" + strings.ReplaceAll(pod, "-", "--") + "-eth0"
	labels := fmt.Sprintf(`"app":%q,"tier":%q,"version":"v%d","pod-template-hash":"%08x","projectcalico.org/namespace":%q,"projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":%q`+extra,
		app, tiers[(nth%appsInEach)%3], version, (ns*31+nth%appsInEach)*4+version, namespaceName(ns), app)
	return resource(i, "WorkloadEndpoint", "workloadendpoints", namespaceName(ns), name, labels, fmt.Sprintf(
		`"spec":{"orchestrator":"k8s","node":%q,"containerID":"%064x","pod":%q,"endpoint":"eth0","serviceAccountName":%q,"ipNetworks":["%v/32"],`+
			`"profiles":["kns.%s","ksa.%s.%s"],"interfaceName":%q,"mac":"ee:ee:ee:ee:ee:ee","ports":[{"name":"http","protocol":"TCP","port":8080,"hostPort":0,"hostIP":""}]}`,
		nodeName(node), i, pod, app, w.Address(i), namespaceName(ns), namespaceName(ns), app, w.Link(i)))
}

// Policy is the i-th policy. port is a number in its first rule. Each has a rule
// about pods of its namespace with the label canary, of which there are none.
func (w World) Policy(i, port int) Entry {
	ns, nth := i%w.Namespaces, i/w.Namespaces
	name := fmt.Sprintf("policy-%d", nth)
	return resource(i, "NetworkPolicy", "networkpolicies", namespaceName(ns), name, `"projectcalico.org/tier":"default"`, fmt.Sprintf(
		`"spec":{"tier":"default","order":%d,"selector":"app == '%s'","types":["Ingress","Egress"],"ingress":[`+
			`{"action":"Allow","protocol":"TCP","source":{"selector":"app == '%s'"},"destination":{"ports":[%d,"9000:9100"]}},`+
			`{"action":"Allow","protocol":"TCP","source":{"selector":"tier == 'frontend'","namespaceSelector":"team == 'team-%d'"},"destination":{"ports":["http"]}},`+
			`{"action":"Allow","protocol":"ICMP","source":{"nets":["10.%d.0.0/16"]},"destination":{}},`+
			`{"action":"Deny","source":{"selector":"canary == 'yes'"},"destination":{}}],"egress":[`+
			`{"action":"Allow","protocol":"UDP","source":{},"destination":{"namespaceSelector":"kubernetes.io/metadata.name == 'ns-000'","ports":[53]}},`+
			`{"action":"Allow","protocol":"TCP","source":{},"destination":{"selector":"tier in {'backend','db'}","notPorts":[22]}}]}`,
		100+nth, appName(ns, nth), appName(ns, nth+1), port, i%10, i%200))
}
