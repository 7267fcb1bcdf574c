package cluster_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// agent finds the node agent's pod on a node.
func agent(t testing.TB, n int) (name string, restarts int) {
	t.Helper()
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				ContainerStatuses []struct{ RestartCount int }
			}
		}
	}
	eventually(t, fmt.Sprintf("agent of node%d", n), func() error {
		pods.Items = nil
		if err := get(&pods, "-n", "kube-system", "pods", "-l", "k8s-app=weft-node", "--field-selector", fmt.Sprintf("spec.nodeName=node%d", n)); err != nil {
			return err
		}
		if len(pods.Items) != 1 || len(pods.Items[0].Status.ContainerStatuses) != 1 {
			return fmt.Errorf("%d pods, want one with one container", len(pods.Items))
		}
		return nil
	})
	return pods.Items[0].Metadata.Name, pods.Items[0].Status.ContainerStatuses[0].RestartCount
}

// agentsReady waits until the agents and the controllers are what they should be.
func agentsReady(t testing.TB) {
	t.Helper()
	for _, what := range []string{"daemonset/weft-node", "deployment/weft-controllers"} {
		eventually(t, what, func() error {
			_, err := command("", "kubectl", "-n", "kube-system", "rollout", "status", what, "--timeout=120s")
			return err
		})
	}
}

// A rolling update of the node role: what runs on the nodes notices nothing.
func TestClusterRollingUpdate(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2}, [2]int{2, 2}, [2]int{3, 1})
	allowTrains(t, ns)
	kubectl(t, "-n", "kube-system", "rollout", "restart", "daemonset/weft-node", "deployment/weft-controllers")
	agentsReady(t)
	tr.arrived("rolling update")
}

// allowTrains puts a policy in that trains pass, and others do not: what protects the
// pods is there all the time, and not because of it messages come through.
func allowTrains(t testing.TB, ns string) {
	t.Helper()
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: trains, namespace: %[1]s}
spec:
  podSelector: {matchLabels: {train: echo}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {train: send}}}]
`, ns))
	start(t, ns, pod{name: "outsider", node: 1, labels: "app: outsider"})
	dropped(t, ns, "outsider", "tcp", address(t, ns, "echo-0")+":"+platform)
}

// An agent that is killed comes back; meanwhile pods keep their network and their
// policy, and a pod that starts then gets its own.
func TestClusterAgentKilled(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2}, [2]int{2, 2}, [2]int{2, 1})
	allowTrains(t, ns)
	_, before := agent(t, 2)
	if out, err := node(2, `kill -KILL $(pgrep -f '[w]eft node run')`); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	start(t, ns, pod{name: "newcomer", node: 2, labels: "app: newcomer"})
	dropped(t, ns, "outsider", "tcp", address(t, ns, "echo-0")+":"+platform)
	reaches(t, ns, "outsider", "tcp", address(t, ns, "newcomer")+":80")
	eventually(t, "restart", func() error {
		if _, now := agent(t, 2); now <= before {
			return fmt.Errorf("the agent has restarted %d times, want more than %d", now, before)
		}
		return nil
	})
	agentsReady(t)
	tr.arrived("agent killed")
}

// An API server that hangs, one that answers each request with 500, as its etcd is away, then
// one that is gone for 60 seconds: pods keep their network and their policy, no agent dies of
// it, and what is said afterwards is done.
func TestClusterOutage(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2}, [2]int{3, 3})
	allowTrains(t, ns)
	restarts := map[int]int{}
	for n := 1; n <= 3; n++ {
		_, restarts[n] = agent(t, n)
	}
	// Without an API server there is no kubectl exec: into the pod by way of its runtime.
	id := strings.TrimPrefix(strings.TrimSpace(kubectl(t, "-n", ns, "get", "pod", "outsider", "-o",
		"jsonpath={.status.containerStatuses[0].containerID}")), "containerd://")
	knock := func(when, to, want string) {
		t.Helper()
		_, err := node(1, `ctr -n k8s.io task exec --exec-id knock-$$ "$1" /agnhost connect --timeout=3s --protocol=tcp "$2"`, id, to)
		if said := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(said, want) {
			t.Errorf("%s: connection to %s: %v, want %q", when, to, err, want)
		}
	}
	start(t, ns, pod{name: "open", node: 2, labels: "app: open"})
	open, shut := address(t, ns, "open")+":80", address(t, ns, "echo-0")+":"+platform
	for _, outage := range []struct {
		what, begin, end string
		length           time.Duration
	}{
		{"hanging API server", "freeze-api", "thaw-api", 25 * time.Second},
		{"failing API server", "stop-etcd", "start-etcd", 25 * time.Second},
		{"no API server", "stop-api", "start-api", 60 * time.Second},
	} {
		cluster(t, outage.begin)
		if outage.begin == "stop-etcd" {
			failing(t)
		}
		// A length, not a wait for something: nothing is to happen.
		for began := time.Now(); time.Since(began) < outage.length; {
			knock(outage.what, open, "")
			knock(outage.what, shut, "TIMEOUT")
		}
		cluster(t, outage.end)
		tr.arrived(outage.what)
	}
	// New state: a policy, and a pod.
	apply(t, fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: later, namespace: %s}\n"+
		"spec: {podSelector: {matchLabels: {app: open}}, policyTypes: [Ingress]}\n", ns))
	dropped(t, ns, "outsider", "tcp", open)
	start(t, ns, pod{name: "later", node: 3, labels: "app: later"})
	reaches(t, ns, "outsider", "tcp", address(t, ns, "later")+":80")
	for n := 1; n <= 3; n++ {
		if _, now := agent(t, n); now != restarts[n] {
			t.Errorf("the agent of node%d restarted %d times during the outages", n, now-restarts[n])
		}
	}
	agentsReady(t)
}

// failing waits until the API server answers 500.
func failing(t testing.TB) {
	t.Helper()
	eventually(t, "500", func() error {
		_, err := command("", "kubectl", "get", "--raw", "/readyz")
		if err == nil {
			return fmt.Errorf("the API server is well")
		}
		if !strings.Contains(err.Error(), "InternalError") && !strings.Contains(err.Error(), "etcd failed") {
			return err
		}
		return nil
	})
}

// An API server that refuses every request of ours because it has too much to do (429):
// as an outage, but that others can go on.
func TestClusterTooManyRequests(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2})
	allowTrains(t, ns)
	const objects = `
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: weft-nothing}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: weft-nothing}
spec:
  priorityLevelConfiguration: {name: weft-nothing}
  matchingPrecedence: 2
  rules:
  - subjects:
    - {kind: ServiceAccount, serviceAccount: {name: weft-node, namespace: kube-system}}
    - {kind: ServiceAccount, serviceAccount: {name: weft-controllers, namespace: kube-system}}
    resourceRules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"], namespaces: ["*"], clusterScope: true}]
    nonResourceRules: [{nonResourceURLs: ["*"], verbs: ["*"]}]
`
	apply(t, objects)
	free := func() { _, _ = command(objects, "kubectl", "delete", "--ignore-not-found", "-f", "-") }
	t.Cleanup(free)
	// An agent that begins while it is refused waits, and takes nothing down.
	name, _ := agent(t, 2)
	kubectl(t, "-n", "kube-system", "delete", "pod", name, "--wait=false")
	eventually(t, "refusals", func() error {
		out, err := command("", "kubectl", "get", "--raw", "/metrics")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "apiserver_flowcontrol_rejected_requests_total") && strings.Contains(line, `flow_schema="weft-nothing"`) {
				return nil
			}
		}
		return fmt.Errorf("the API server has refused nothing yet")
	})
	tr.ride(20 * tr.rate)
	free()
	agentsReady(t)
	start(t, ns, pod{name: "later", node: 2, labels: "app: later"})
	reaches(t, ns, "outsider", "tcp", address(t, ns, "later")+":80")
	tr.arrived("too many requests")
}

// blocks are the address blocks, and whose they are.
type blocks struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct {
			CIDR        string
			Affinity    *string
			Allocations []*int
			Attributes  []struct {
				HandleID  *string `json:"handle_id"`
				Secondary map[string]string
			}
		}
	}
}

// holds counts the addresses that belong to an attribute's value: node=node3, namespace=x.
func holds(key, value string) (int, error) {
	var all blocks
	if err := get(&all, "ipamblocks.projectcalico.org"); err != nil {
		return 0, err
	}
	count := 0
	for _, b := range all.Items {
		for _, a := range b.Spec.Allocations {
			if a != nil && *a < len(b.Spec.Attributes) && b.Spec.Attributes[*a].Secondary[key] == value {
				count++
			}
		}
	}
	return count, nil
}

// A namespace deleted while its pods start leaves no address behind.
func TestClusterNamespaceGone(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	var pods []string
	for i := range 24 {
		pods = append(pods, pod{name: "short-" + strconv.Itoa(i), node: i%3 + 1, labels: "app: short"}.yaml(ns))
	}
	apply(t, strings.Join(pods, "---\n"))
	eventually(t, "first address", func() error {
		n, err := holds("namespace", ns)
		if err == nil && n == 0 {
			err = fmt.Errorf("no pod has one yet")
		}
		return err
	})
	kubectl(t, "delete", "namespace", ns, "--wait=false")
	eventually(t, "namespace gone", func() error {
		out, err := command("", "kubectl", "get", "namespace", ns, "--ignore-not-found", "-o", "name")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("it is still there")
		}
		return err
	})
	eventually(t, "addresses released", func() error {
		n, err := holds("namespace", ns)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d addresses are held for pods of the namespace that is gone", n)
		}
		return err
	})
	kubectl(t, "create", "namespace", ns) // for who cleans up
}

// pluginConf is what the runtime gives our plugin on its input: its part of the list, with
// the list's name and version.
func pluginConf(t testing.TB, n int) string {
	t.Helper()
	out, err := node(n, `cat "$(ls /etc/cni/net.d/*.conflist | head -n 1)"`)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Name       string
		CNIVersion string
		Plugins    []map[string]any
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Plugins) == 0 {
		t.Fatalf("conflist %s: %v", out, err)
	}
	list.Plugins[0]["name"], list.Plugins[0]["cniVersion"] = list.Name, list.CNIVersion
	one, err := json.Marshal(list.Plugins[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(one)
}

// A kubelet that asks ADD twice gets the same answer twice. One that asks DEL for a container
// that never was, or late for one that had the pod's name before, is told that all is well.
// Neither changes anything for the pod that runs.
func TestClusterCNITwice(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	start(t, ns, pod{name: "server", node: 1, labels: "app: server"}, pod{name: "client", node: 2, labels: "app: client"})
	at := address(t, ns, "server")
	reaches(t, ns, "client", "tcp", at+":80")
	conf := pluginConf(t, 1)
	const call = `
sandbox=$(ctr -n k8s.io containers ls -q "labels.\"io.kubernetes.pod.name\"==\"$1\",labels.\"io.kubernetes.pod.namespace\"==\"$2\",labels.\"io.cri-containerd.kind\"==sandbox")
pid=$(ctr -n k8s.io tasks ls | awk -v id="$sandbox" '$1 == id { print $2 }')
for f in /run/netns/cni-*; do [ ! "$f" -ef "/proc/$pid/ns/net" ] || CNI_NETNS=$f; done
CNI_CONTAINERID=$sandbox
[ -z "$4" ] || CNI_CONTAINERID=$4 CNI_NETNS= # one that was there before, and its namespace is gone
export CNI_CONTAINERID CNI_NETNS CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin CNI_COMMAND=$3
export CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=$2;K8S_POD_NAME=$1;K8S_POD_INFRA_CONTAINER_ID=$CNI_CONTAINERID"
exec /opt/cni/bin/weft-cni
`
	out, err := nodeIn(1, conf, call, "server", ns, "ADD")
	if err != nil {
		t.Fatalf("ADD again: %v: %s", err, out)
	}
	if !strings.Contains(out, `"`+at+"/") {
		t.Errorf("ADD again gave %s, want the address %s", out, at)
	}
	if out, err := nodeIn(1, conf, call, "server", ns, "DEL", "0123456789abcdef"); err != nil {
		t.Errorf("DEL of a container that never was: %v: %s", err, out)
	}
	reaches(t, ns, "client", "tcp", at+":80")
}

// A node that is deleted gives back its addresses and blocks; when it comes again it is a
// new node, and works.
func TestClusterNodeDeletion(t *testing.T) {
	ns := namespace(t)
	start(t, ns, pod{name: "goes", node: 3, labels: "app: goes"}, pod{name: "stays", node: 1, labels: "app: stays"})
	reaches(t, ns, "stays", "tcp", address(t, ns, "goes")+":80")
	if n, err := holds("node", "node3"); err != nil || n == 0 {
		t.Fatalf("node3 holds %d addresses, %v, want some", n, err)
	}
	cluster(t, "stop-node", "3")
	up := false
	boot := func() {
		if !up {
			cluster(t, "start-node", "3")
			up = true
			cluster(t, "wait")
		}
	}
	t.Cleanup(boot)
	kubectl(t, "delete", "node", "node3")
	eventually(t, "addresses released", func() error {
		n, err := holds("node", "node3")
		if err == nil && n > 0 {
			err = fmt.Errorf("node3 still holds %d addresses", n)
		}
		return err
	})
	eventually(t, "blocks released", func() error {
		var affinities struct {
			Items []struct{ Spec struct{ Node, CIDR string } }
		}
		if err := get(&affinities, "blockaffinities.projectcalico.org"); err != nil {
			return err
		}
		for _, a := range affinities.Items {
			if a.Spec.Node == "node3" {
				return fmt.Errorf("block %s is still node3's", a.Spec.CIDR)
			}
		}
		return nil
	})
	reaches(t, ns, "stays", "tcp", "172.30.0.1:6443") // the others have lost nothing
	boot()
	agentsReady(t)
	start(t, ns, pod{name: "again", node: 3, labels: "app: again"})
	reaches(t, ns, "stays", "tcp", address(t, ns, "again")+":80")
	reaches(t, ns, "again", "tcp", address(t, ns, "stays")+":80")
}
