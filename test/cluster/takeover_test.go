package cluster_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// calico stands for Calico in this file: a cluster as it leaves one. Pods have the
// interfaces, addresses and routes that its CNI plugin makes, nodes run BIRD with the
// configuration that it writes, and the API server has its objects, in its group
// crd.projectcalico.org/v1.
type calico struct{ t *testing.T }

// blockOf is a node's address block.
func blockOf(n int) string { return fmt.Sprintf("10.244.%d.0/26", n) }

// leave ends Calico on a node as the end of its pod does: its BGP daemon dies and leaves
// the routes.
func (c calico) leave(n int) {
	c.t.Helper()
	if out, err := node(n, `kill -KILL "$(cat /run/bird.pid)"`); err != nil {
		c.t.Fatalf("node%d: end of bird: %v: %s", n, err, out)
	}
}

// install brings the plugin and the BGP daemon to each node.
func (c calico) install() {
	c.t.Helper()
	testenv.Need(c.t, "bird")
	plugin, err := os.ReadFile(filepath.Join("testdata", "calico-cni.sh"))
	if err != nil {
		c.t.Fatal(err)
	}
	bird, err := os.ReadFile(filepath.Join("testdata", "bird.conf"))
	if err != nil {
		c.t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		var peers strings.Builder
		for other := 1; other <= 3; other++ {
			if other != n {
				fmt.Fprintf(&peers, "protocol bgp node%d from mesh { neighbor 172.30.0.%d as 64512; }\n", other, 10+other)
			}
		}
		conf := strings.NewReplacer("NODE", fmt.Sprintf("172.30.0.%d", 10+n), "BLOCK", blockOf(n), "PEERS", peers.String()).Replace(string(bird))
		setup := `
set -e
printf %s "$3" >/run/bird.conf
bird -R -c /run/bird.conf -s /run/bird.ctl -P /run/bird.pid
echo "$1" >/run/calico-base
cat >/opt/cni/bin/.calico && chmod 755 /opt/cni/bin/.calico && mv /opt/cni/bin/.calico /opt/cni/bin/calico
cp "$(dirname "$(command -v kubelet)")/cni/loopback" /opt/cni/bin/
printf %s "$2" >/etc/cni/net.d/.new && mv /etc/cni/net.d/.new /etc/cni/net.d/10-calico.conflist
`
		const conflist = `{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [
  {"type": "calico", "log_level": "info", "datastore_type": "kubernetes", "nodename": "NODE", "mtu": 0,
   "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}}]}`
		out, err := nodeIn(n, string(plugin), setup, fmt.Sprintf("10.244.%d.", n),
			strings.ReplaceAll(conflist, "NODE", fmt.Sprintf("node%d", n)), conf)
		if err != nil {
			c.t.Fatalf("node%d: %v: %s", n, err, out)
		}
	}
}

// podState is what of a pod matters to Calico.
type podState struct {
	Metadata struct {
		Name, Namespace string
		UID             string
		Labels          map[string]string
	}
	Spec struct {
		NodeName           string
		ServiceAccountName string
		HostNetwork        bool
	}
	Status struct {
		PodIP string
		Phase string
	}
}

// pods are those with an address of their own.
func (c calico) pods() []podState {
	c.t.Helper()
	var all struct{ Items []podState }
	if err := get(&all, "pods", "-A"); err != nil {
		c.t.Fatal(err)
	}
	var own []podState
	for _, p := range all.Items {
		if !p.Spec.HostNetwork && p.Status.PodIP != "" {
			own = append(own, p)
		}
	}
	return own
}

// definitions are CRDs of the group, as open as Calico's own are to what they do not know.
func (c calico) definitions() string {
	var docs []string
	for _, k := range []struct{ plural, kind, scope string }{
		{"bgpconfigurations", "BGPConfiguration", "Cluster"},
		{"bgpfilters", "BGPFilter", "Cluster"},
		{"bgppeers", "BGPPeer", "Cluster"},
		{"blockaffinities", "BlockAffinity", "Cluster"},
		{"caliconodestatuses", "CalicoNodeStatus", "Cluster"},
		{"clusterinformations", "ClusterInformation", "Cluster"},
		{"felixconfigurations", "FelixConfiguration", "Cluster"},
		{"globalnetworkpolicies", "GlobalNetworkPolicy", "Cluster"},
		{"globalnetworksets", "GlobalNetworkSet", "Cluster"},
		{"hostendpoints", "HostEndpoint", "Cluster"},
		{"ipamblocks", "IPAMBlock", "Cluster"},
		{"ipamconfigs", "IPAMConfig", "Cluster"},
		{"ipamhandles", "IPAMHandle", "Cluster"},
		{"ippools", "IPPool", "Cluster"},
		{"ipreservations", "IPReservation", "Cluster"},
		{"kubecontrollersconfigurations", "KubeControllersConfiguration", "Cluster"},
		{"networkpolicies", "NetworkPolicy", "Namespaced"},
		{"networksets", "NetworkSet", "Namespaced"},
		{"stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", "Cluster"},
		{"stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy", "Namespaced"},
		{"stagednetworkpolicies", "StagedNetworkPolicy", "Namespaced"},
		{"tiers", "Tier", "Cluster"},
	} {
		docs = append(docs, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  names: {kind: %[2]s, listKind: %[2]sList, plural: %[1]s, singular: %[3]s}
  scope: %[4]s
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, k.plural, k.kind, strings.ToLower(k.kind), k.scope))
	}
	return strings.Join(docs, "---")
}

// object is one of Calico's.
func object(kind, name string, spec map[string]any) map[string]any {
	return map[string]any{
		"apiVersion": "crd.projectcalico.org/v1", "kind": kind,
		"metadata": map[string]any{"name": name}, "spec": spec,
	}
}

// settings are what Calico has stored beside nodes and addresses.
func (c calico) settings() []map[string]any {
	return []map[string]any{
		object("ClusterInformation", "default", map[string]any{
			"calicoVersion": "v3.30.0", "clusterGUID": "0123456789abcdef0123456789abcdef", "clusterType": "k8s,bgp", "datastoreReady": true,
		}),
		object("IPPool", "default-ipv4-ippool", map[string]any{
			"allowedUses": []string{"Workload", "Tunnel"}, "blockSize": 26, "cidr": "10.244.0.0/16", "ipipMode": "Never",
			"natOutgoing": true, "nodeSelector": "all()", "vxlanMode": "Never",
		}),
		object("FelixConfiguration", "default", map[string]any{"floatingIPs": "Disabled", "logSeverityScreen": "Info", "reportingInterval": "0s"}),
		object("KubeControllersConfiguration", "default", map[string]any{
			"controllers":            map[string]any{"node": map[string]any{"reconcilerPeriod": "5m", "syncLabels": "Enabled", "hostEndpoint": map[string]any{"autoCreate": "Disabled"}}},
			"etcdV3CompactionPeriod": "10m", "healthChecks": "Enabled", "logSeverityScreen": "Info", "prometheusMetricsPort": 9094,
		}),
		object("Tier", "default", map[string]any{"order": 1000000, "defaultAction": "Deny"}),
		object("Tier", "adminnetworkpolicy", map[string]any{"order": 1000, "defaultAction": "Pass"}),
		object("Tier", "baselineadminnetworkpolicy", map[string]any{"order": 10000000, "defaultAction": "Pass"}),
	}
}

// block is a node's address block, and the handles of its addresses.
func (c calico) block(n int, pods []podState) (block map[string]any, handles []string) {
	c.t.Helper()
	nodeName, cidr := fmt.Sprintf("node%d", n), blockOf(n)
	allocations, attributes := make([]any, 64), []any{}
	for _, p := range pods {
		if p.Spec.NodeName != nodeName {
			continue
		}
		var last int
		if _, err := fmt.Sscanf(p.Status.PodIP, fmt.Sprintf("10.244.%d.%%d", n), &last); err != nil {
			c.t.Fatalf("pod %s has the address %s, which is not of %s", p.Metadata.Name, p.Status.PodIP, cidr)
		}
		handle := "k8s-pod-network." + c.sandbox(p)
		allocations[last] = len(attributes)
		attributes = append(attributes, map[string]any{"handle_id": handle, "secondary": map[string]string{
			"namespace": p.Metadata.Namespace, "node": nodeName, "pod": p.Metadata.Name, "timestamp": "2026-01-01 00:00:00 +0000 UTC",
		}})
		handles = append(handles, handle)
	}
	free := []int{}
	for i, a := range allocations {
		if a == nil {
			free = append(free, i)
		}
	}
	return map[string]any{
		"affinity": "host:" + nodeName, "allocations": allocations, "attributes": attributes, "cidr": cidr, "deleted": false,
		"sequenceNumber": 1, "sequenceNumberForAllocation": map[string]int{}, "strictAffinity": false, "unallocated": free,
	}, handles
}

// objects are what Calico has stored: settings, the pool, and who has which address.
func (c calico) objects() string {
	c.t.Helper()
	list := append(c.settings(),
		object("IPAMConfig", "default", map[string]any{"autoAllocateBlocks": true, "strictAffinity": false, "maxBlocksPerHost": 0}))
	pods := c.pods()
	for n := 1; n <= 3; n++ {
		nodeName, cidr := fmt.Sprintf("node%d", n), blockOf(n)
		dashed := strings.NewReplacer(".", "-", "/", "-").Replace(cidr)
		block, handles := c.block(n, pods)
		for _, handle := range handles {
			list = append(list, object("IPAMHandle", handle, map[string]any{"handleID": handle, "block": map[string]int{cidr: 1}, "deleted": false}))
		}
		list = append(list, object("IPAMBlock", dashed, block),
			object("BlockAffinity", nodeName+"-"+dashed, map[string]any{"cidr": cidr, "deleted": "false", "node": nodeName, "state": "confirmed", "type": "host"}))
	}
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": list})
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// sandbox is the identity of a pod's sandbox, by which the runtime speaks of it to plugins.
func (c calico) sandbox(p podState) string {
	c.t.Helper()
	out, err := node(int(p.Spec.NodeName[len("node")]-'0'), `ctr -n k8s.io containers ls -q \
		"labels.\"io.kubernetes.pod.name\"==\"$1\",labels.\"io.kubernetes.pod.namespace\"==\"$2\",labels.\"io.cri-containerd.kind\"==sandbox"`, p.Metadata.Name, p.Metadata.Namespace)
	id := strings.TrimSpace(out)
	if err != nil || id == "" || strings.Contains(id, "\n") {
		c.t.Fatalf("sandbox of %s/%s: %v: %q", p.Metadata.Namespace, p.Metadata.Name, err, out)
	}
	return id
}

// annotate says on nodes and pods what Calico says there.
func (c calico) annotate() {
	c.t.Helper()
	for n := 1; n <= 3; n++ {
		kubectl(c.t, "annotate", "--overwrite", "node", fmt.Sprintf("node%d", n), fmt.Sprintf("projectcalico.org/IPv4Address=172.30.0.%d/24", 10+n))
	}
	for _, p := range c.pods() {
		kubectl(c.t, "-n", p.Metadata.Namespace, "annotate", "--overwrite", "pod", p.Metadata.Name,
			"cni.projectcalico.org/containerID="+c.sandbox(p),
			"cni.projectcalico.org/podIP="+p.Status.PodIP+"/32", "cni.projectcalico.org/podIPs="+p.Status.PodIP+"/32")
	}
}

// look lists what must stay as it is on a node: the interfaces of pods with their numbers and
// MACs, and the routes to pods and to the blocks of other nodes, by whomever they are.
func (c calico) look(n int) string {
	c.t.Helper()
	out, err := node(n, `
ip -o link show | awk '/ cali/ { split($2, name, "@"); mac = ""; for (i = 1; i < NF; i++) if ($i == "link/ether") mac = $(i + 1); print $1, name[1], mac }' | sort
ip route | sed -n -E 's/^(10\.244\.[0-9.\/]+ (dev cali[0-9a-f]+|via [0-9.]+)).*/\1/p' | sort`)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// again starts what waits longer and longer between its attempts.
func (c calico) again() {
	c.t.Helper()
	kubectl(c.t, "-n", "kube-system", "delete", "pods", "-l", "k8s-app in (weft-node, weft-controllers)", "--wait=false")
}

// run makes Calico's cluster, with pods that send to one another. It gives the train, and what
// each node has: see look.
func (c calico) run(ns string) (tr *train, before [4]string) {
	c.t.Helper()
	c.install()
	cluster(c.t, "wait")
	kubectl(c.t, "create", "namespace", ns)
	eventually(c.t, "service account", func() error {
		_, err := command("", "kubectl", "-n", ns, "get", "serviceaccount", "default")
		return err
	})
	kubectl(c.t, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=300s")
	tr = express(c.t, ns, [2]int{1, 2}, [2]int{2, 3}, [2]int{3, 1}, [2]int{1, 1})
	start(c.t, ns, pod{name: "server", node: 1, labels: "app: server"}, pod{name: "client", node: 2, labels: "app: client"})
	reaches(c.t, ns, "client", "tcp", address(c.t, ns, "server")+":80")
	for n := 1; n <= 3; n++ {
		before[n] = c.look(n)
	}
	return tr, before
}

// handOver gives the nodes to weft, one after the other, and looks whether they are as they
// were. Then it does what is new: pods, policy on old ones, and the release of what one of them had:
// held tells whether the pod server still has an address.
func (c calico) handOver(ns string, tr *train, before [4]string, held func() (bool, error)) {
	c.t.Helper()
	for n := 1; n <= 3; n++ {
		c.leave(n)
		kubectl(c.t, "label", "--overwrite", "node", fmt.Sprintf("node%d", n), "weft.net/takeover=true")
		eventually(c.t, fmt.Sprintf("agent of node%d", n), func() error {
			name, _ := agent(c.t, n)
			_, err := command("", "kubectl", "-n", "kube-system", "wait", "--for=condition=Ready", "pod/"+name, "--timeout=60s")
			return err
		})
		tr.arrived(fmt.Sprintf("take-over of node%d", n))
	}
	agentsReady(c.t)
	for n := 1; n <= 3; n++ {
		if now := c.look(n); now != before[n] {
			c.t.Errorf("node%d has\n%s\nit had\n%s", n, now, before[n])
		}
		if out, err := node(n, `ls /etc/cni/net.d/*.conflist`); err != nil || strings.TrimSpace(out) != "/etc/cni/net.d/10-weft.conflist" {
			c.t.Errorf("node%d has the CNI configurations %s, %v, want 10-weft.conflist alone", n, out, err)
		}
	}

	start(c.t, ns, pod{name: "new", node: 1, labels: "app: new"})
	reaches(c.t, ns, "client", "tcp", address(c.t, ns, "new")+":80")
	reaches(c.t, ns, "new", "tcp", address(c.t, ns, "server")+":80")
	allowTrains(c.t, ns)
	if still, err := held(); err != nil || !still {
		c.t.Errorf("the address of the pod server: held is %v, %v, want true", still, err)
	}
	kubectl(c.t, "-n", ns, "delete", "pod", "server")
	eventually(c.t, "release of an address", func() error {
		still, err := held()
		if err == nil && still {
			err = fmt.Errorf("an address is still held for the pod that is gone")
		}
		return err
	})
	tr.arrived("life after Calico")
	kubectl(c.t, "delete", "namespace", ns, "--wait=false")
}

// A cluster that Calico ran is taken over node by node: each pod keeps its address, interface
// and route, and nothing that pods send one another is lost. Before, weft finds no
// CRDs of either group, says which it misses, and touches nothing.
func TestTakeover(t *testing.T) {
	const ns = "takeover"
	script(t)
	c := calico{t}
	tr, before := c.run(ns)
	c.annotate()

	manifest, err := os.ReadFile(filepath.Join("..", "..", "deploy", "weft-takeover.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "label", "node", "node1", "weft.net/takeover=true")
	apply(t, string(manifest))
	says(t, 1, "the missing group is named", "CRD", "crd.projectcalico.org")
	all := strings.Split(c.definitions(), "---")
	var most []string
	for _, d := range all {
		if !strings.Contains(d, "name: ipamblocks.") && !strings.Contains(d, "name: ippools.") {
			most = append(most, d)
		}
	}
	apply(t, strings.Join(most, "---"))
	c.again()
	says(t, 1, "the missing CRDs are named", "ipamblocks", "ippools")
	tr.arrived("missing CRDs")
	if now := c.look(1); now != before[1] {
		t.Errorf("without CRDs node1 changed:\n%s\nit had\n%s", now, before[1])
	}

	// The agent goes until all is there: no Calico has CRDs and not yet any objects.
	kubectl(t, "label", "node", "node1", "weft.net/takeover-")
	eventually(t, "agents gone", func() error {
		out, err := command("", "kubectl", "-n", "kube-system", "get", "pods", "-l", "k8s-app=weft-node", "-o", "name")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("%s is there", out)
		}
		return err
	})
	apply(t, c.definitions())
	kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=300s")
	apply(t, c.objects())
	c.again()
	c.handOver(ns, tr, before, func() (bool, error) {
		var all blocks
		if err := get(&all, "ipamblocks.crd.projectcalico.org"); err != nil {
			return false, err
		}
		for _, b := range all.Items {
			for _, a := range b.Spec.Allocations {
				if a != nil && b.Spec.Attributes[*a].Secondary["pod"] == "server" {
					return true, nil
				}
			}
		}
		return false, nil
	})
}

// Policy behind services again, now with kube-proxy in its iptables mode.
func TestTakeoverServices(t *testing.T) {
	script(t)
	policyBehindServices(t)
}
