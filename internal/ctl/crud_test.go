package ctl

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/testenv"
)

// specimen is an object of a kind, and a change of it.
type specimen struct {
	kind, name, spec string
	patch            string // a merge patch of the spec
	changed          string // the field that it changes
}

// specimens are one of each kind that users write, but for nodes, endpoints and profiles,
// which are Kubernetes' own there.
func specimens() []specimen {
	return []specimen{
		{"Tier", "gold", "order: 5", "order: 6", "spec.order"},
		{"BGPFilter", "f", "exportV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In}]", "exportV4: [{action: Reject}]", "spec.exportV4[0].action"},
		{"IPPool", "p", "cidr: 10.0.0.0/16", "natOutgoing: true", "spec.natOutgoing"},
		{"IPReservation", "r", "reservedCIDRs: [10.0.0.0/31]", "reservedCIDRs: [10.0.0.0/30]", "spec.reservedCIDRs[0]"},
		{"IPAMConfiguration", "default", "{strictAffinity: true, autoAllocateBlocks: true}", "maxBlocksPerHost: 4", "spec.maxBlocksPerHost"},
		{"BGPConfiguration", "default", "asNumber: 64513", "nodeToNodeMeshEnabled: false", "spec.nodeToNodeMeshEnabled"},
		{"BGPPeer", "peer", "{peerIP: 192.0.2.1, asNumber: 64514, filters: [f]}", "asNumber: 64515", "spec.asNumber"},
		{"HostEndpoint", "h", "{node: a, interfaceName: eth0}", "expectedIPs: [192.0.2.3]", "spec.expectedIPs"},
		{"NetworkPolicy", "prod/np", "{tier: gold, selector: all()}", "order: 7", "spec.order"},
		{"GlobalNetworkPolicy", "gnp", "{tier: gold, selector: all()}", "types: [Ingress, Egress]", "spec.types"},
		{"StagedNetworkPolicy", "prod/snp", "selector: all()", "order: 7", "spec.order"},
		{"StagedGlobalNetworkPolicy", "sgnp", "selector: all()", "order: 7", "spec.order"},
		{"StagedKubernetesNetworkPolicy", "prod/sknp", "podSelector: {}", "policyTypes: [Ingress]", "spec.policyTypes"},
		{"NetworkSet", "prod/ns", "nets: [10.1.0.0/16]", "nets: [10.2.0.0/16]", "spec.nets[0]"},
		{"GlobalNetworkSet", "gns", "nets: [10.1.0.0/16]", "nets: [10.2.0.0/16]", "spec.nets[0]"},
		{"FelixConfiguration", "default", "logSeverityScreen: Info", "logSeverityScreen: Debug", "spec.logSeverityScreen"},
		{"KubeControllersConfiguration", "default", "logSeverityScreen: Info", "logSeverityScreen: Debug", "spec.logSeverityScreen"},
		{"CalicoNodeStatus", "s", "{node: a, classes: [BGP], updatePeriodSeconds: 10}", "updatePeriodSeconds: 20", "spec.updatePeriodSeconds"},
	}
}

// etcdSpecimens are those that only etcd keeps as objects of their own.
func etcdSpecimens() []specimen {
	return []specimen{
		{"Node", "a", "bgp: {ipv4Address: 192.0.2.1/24}", "bgp: {ipv4Address: 192.0.2.2/24}", "spec.bgp.ipv4Address"},
		{"WorkloadEndpoint", "prod/a-k8s-web-eth0", "{node: a, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.0.0.1/32]}", "interfaceName: cali2", "spec.interfaceName"},
		{"Profile", "pro", "labelsToApply: {a: b}", "labelsToApply: {a: c}", "spec.labelsToApply.a"},
	}
}

// document is the specimen as a user writes it.
func (s specimen) document(meta string) string {
	name, ns := s.name, ""
	if namespace, n, ok := strings.Cut(s.name, "/"); ok {
		name, ns = n, ", namespace: "+namespace
	}
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s%s%s}\nspec: %s\n", s.kind, name, ns, meta, braced(s.spec))
}

// braced is fields as a YAML object on one line.
func braced(fields string) string {
	if strings.HasPrefix(fields, "{") {
		return fields
	}
	return "{" + fields + "}"
}

// user is a person at a terminal.
type user struct {
	t       *testing.T
	environ []string
}

// does runs weft and expects an exit code and a text in what it prints.
func (u user) does(exit int, want, stdin string, args ...string) string {
	u.t.Helper()
	stdout, stderr, code := executeAs(u.t, "weft", u.environ, stdin, args...)
	if code != exit || !strings.Contains(stdout+stderr, want) {
		u.t.Errorf("weft %s: exit %d, want %d and %q:\n%s%s", strings.Join(args, " "), code, exit, want, stdout, stderr)
	}
	return stdout
}

// lives takes an object through its life.
func (u user) lives(s specimen) {
	u.t.Helper()
	kind := strings.ToLower(s.kind)
	name, ns := s.name, []string(nil)
	if namespace, n, ok := strings.Cut(s.name, "/"); ok {
		name, ns = n, []string{"-n", namespace}
	}
	handle := kind + "/" + s.name
	named := func(args ...string) []string { return append(args, ns...) }
	// A file that is created again is refused, one that is applied again changes nothing.
	u.does(0, handle+" created", s.document(""), "create", "-f", "-")
	u.does(1, handle+": already exists", s.document(""), "create", "-f", "-")
	u.does(0, handle+" unchanged", s.document(""), "apply", "-f", "-")
	old := u.does(0, "resourceVersion: ", "", named("get", kind, name, "-o", "yaml")...)
	u.does(1, "+++ applied/"+s.kind+"/"+s.name, s.patched().document(""), "diff", "-f", "-")
	u.does(0, "", s.document(""), "diff", "-f", "-")
	u.does(0, handle+" configured: "+s.changed, "", named("patch", kind, name, "-t", "merge", "-p", "{spec: {"+s.patch+"}}", "--dry-run=server")...)
	u.does(0, handle+" configured: "+s.changed, "", named("patch", kind, name, "-t", "merge", "-p", "{spec: {"+s.patch+"}}")...)
	u.does(1, handle+": changed meanwhile", old, "apply", "-f", "-")
	u.does(1, handle+": changed meanwhile", old, "replace", "-f", "-")
	u.does(0, handle+" configured", s.document(""), "replace", "-f", "-")
	u.does(0, handle+" configured: metadata.labels", "", named("label", kind, name, "colour=red")...)
	u.does(1, handle+": label colour is", "", named("label", kind, name, "colour=blue")...)
	u.does(0, "colour: red", "", named("get", kind, name, "-o", "yaml")...)
	u.does(1, ": metadata.name: \"A_B\"", strings.Replace(s.document(""), "name: "+name, "name: A_B", 1), "apply", "-f", "-", "--dry-run=server")
}

// patched is the specimen with the field of its patch added or replaced.
func (s specimen) patched() specimen {
	var spec, patch map[string]any
	for text, into := range map[string]*map[string]any{braced(s.spec): &spec, braced(s.patch): &patch} {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			panic(err)
		}
	}
	maps.Copy(spec, patch)
	text, err := json.Marshal(spec)
	if err != nil {
		panic(err)
	}
	s.spec = string(text)
	return s
}

// dies deletes what lived.
func (u user) dies(s specimen) {
	u.t.Helper()
	kind := strings.ToLower(s.kind)
	handle := kind + "/" + s.name
	name, ns := s.name, []string(nil)
	if namespace, n, ok := strings.Cut(s.name, "/"); ok {
		name, ns = n, []string{"-n", namespace}
	}
	named := func(args ...string) []string { return append(args, ns...) }
	u.does(1, handle+": changed meanwhile", s.document(", resourceVersion: '1'"), "delete", "-f", "-")
	u.does(0, handle+" deleted (dry run)", "", named("delete", kind, name, "--dry-run=server")...)
	u.does(0, handle+" deleted", "", named("delete", kind, name)...)
	u.does(1, "not found", "", named("delete", kind, name)...)
	u.does(0, handle+" skipped", "", named("delete", kind, name, "-s")...)
	u.does(1, "", "", named("get", kind, name)...)
}

// Every kind can be created, read, changed and deleted by command, on etcd.
func TestCRUDEtcd(t *testing.T) {
	t.Parallel()
	u := user{t, startEtcd(t)}
	all := append(specimens(), etcdSpecimens()...)
	for _, s := range all {
		u.lives(s)
	}
	u.systems()
	slices.Reverse(all)
	for _, s := range all {
		u.dies(s)
	}
}

// systems tries what is the system's.
func (u user) systems() {
	u.t.Helper()
	u.does(1, "tier/gold: in use: delete or move its policies first: networkpolicy prod/np, globalnetworkpolicy gnp", "", "delete", "tier", "gold")
	u.does(1, "tier/default: built in", "", "delete", "tier", "default")
	u.does(1, "clusterinformation/default: read-only", "", "delete", "clusterinfo", "default")
	u.does(1, "profile/projectcalico-default-allow: read-only", "", "delete", "profile", "projectcalico-default-allow")
}

// The same on the Kubernetes API, in both groups that Calico's kinds may be in, where nodes,
// endpoints and profiles are Kubernetes' own.
func TestK8sCRUD(t *testing.T) {
	t.Parallel()
	api := testenv.APIServer(t)
	kubeconfig := api.Kubeconfig("admin")
	client, err := kube.Connect(kube.Config{Kubeconfig: kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	applyCRDs(t, client)
	ctx := t.Context()
	if _, err := client.Clientset.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "prod"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Clientset.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	u := user{t, []string{"DATASTORE_TYPE=kubernetes", "KUBECONFIG=" + kubeconfig}}
	all := specimens()
	for _, s := range all {
		u.lives(s)
	}
	node := etcdSpecimens()[0]
	u.does(0, "node/a configured: spec.bgp", node.document(""), "apply", "-f", "-")
	u.does(0, "node/a configured: metadata.labels", "", "label", "node", "a", "rack=r")
	u.does(1, "node/b: refused: there is no such node in Kubernetes", strings.Replace(node.document(""), "name: a", "name: b", 1), "apply", "-f", "-")
	u.does(1, "node/a: refused: nodes are deleted in Kubernetes", "", "delete", "node", "a")
	u.does(1, "profile/pro: refused: in Kubernetes profiles are the namespaces and service accounts", etcdSpecimens()[2].document(""), "apply", "-f", "-")
	u.does(1, "workloadendpoint/prod/a-k8s-web-eth0: ", etcdSpecimens()[1].document(""), "apply", "-f", "-")
	slices.Reverse(all)
	for _, s := range all {
		u.dies(s)
	}
}
