package crd

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "github.com/weft-net/weft/api/v3"
)

// A real API server takes the definitions, and says what weft says.
func TestK8sDefinitions(t *testing.T) {
	t.Parallel()
	s := start(t, "deploy/crds", "test/fixtures/crd-v1") // a cluster may have both groups
	for name, check := range map[string]func(*testing.T, server){
		"fixtures":   agreesOnFixtures,
		"random":     agreesAtRandom,
		"defaults":   fillsIn,
		"round trip": roundTrips,
		"updates":    refusesChanges,
		"messages":   tellsWhy,
		"status":     keepsStatus,
	} {
		t.Run(name, func(t *testing.T) { check(t, s) })
	}
}

// specOf is the spec of an object as it is stored.
func specOf(t *testing.T, o v3.Object) map[string]any {
	t.Helper()
	text, err := v3.Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	var tree struct{ Spec map[string]any }
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	return tree.Spec
}

// served gives a document to the server and reads what it would store.
func (s server) served(t *testing.T, d document) v3.Object {
	t.Helper()
	text, err := s.do(t.Context(), http.MethodPost, d.list()+"?dryRun=All&fieldValidation=Strict", d.tree)
	if err != nil {
		t.Fatal(err)
	}
	o, err := v3.DecodeStored(text)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// local is the same by weft.
func local(t *testing.T, d document) v3.Object {
	t.Helper()
	text, err := json.Marshal(d.tree)
	if err != nil {
		t.Fatal(err)
	}
	o, err := v3.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	v3.Default(o)
	return o
}

// fillsIn: the server fills in what v3.Default does, but for values that depend on others
// and on names; with those, which readers fill in, both are the same.
func fillsIn(t *testing.T, s server) {
	byReader := map[string][]string{
		"FelixConfiguration":        {"bpfConnectTimeLoadBalancing", "bpfHostNetworkedNATWithoutCTLB"}, // on bpfConnectTimeLoadBalancingEnabled
		"GlobalNetworkPolicy":       {"types"},                                                         // on the rules
		"IPPool":                    {"blockSize"},                                                     // on the family
		"NetworkPolicy":             {"types"},
		"StagedGlobalNetworkPolicy": {"types"},
		"StagedNetworkPolicy":       {"types"},
		"Tier":                      {"order", "defaultAction"}, // on the name
	}
	for _, k := range customKinds() {
		if k.Name == "IPAMConfiguration" {
			continue // see perServer in differences_test.go
		}
		d := document{version: v3.APIVersion, kind: k.Name, plural: k.Plural, namespace: "default", name: "default", namespaced: k.Namespaced}
		d.tree = map[string]any{
			"apiVersion": v3.APIVersion, "kind": k.Name,
			"metadata": map[string]any{"name": "default"}, "spec": fill(schemaFor(k).at("spec"), nil),
		}
		if k.Name == "HostEndpoint" {
			d.tree["spec"] = map[string]any{"node": "a", "interfaceName": "eth0"}
		}
		got, want := s.served(t, d), specOf(t, local(t, d))
		var missing []string
		for field := range want {
			if _, ok := specOf(t, got)[field]; !ok {
				missing = append(missing, field)
			}
		}
		slices.Sort(missing)
		expected := slices.Sorted(slices.Values(byReader[k.Name]))
		if !slices.Equal(missing, expected) {
			t.Errorf("%s: the server leaves out %v, want %v", k.Name, missing, expected)
		}
		v3.Default(got)
		if diff := cmp.Diff(want, specOf(t, got)); diff != "" {
			t.Errorf("%s: (-weft +server):\n%s", k.Name, diff)
		}
	}
}

// roundTrips: whatever the server takes it gives back, no field lost or changed.
func roundTrips(t *testing.T, s server) {
	text, err := os.ReadFile("../../test/fixtures/etcd/resources.yaml")
	if err != nil {
		t.Fatal(err)
	}
	inputs := strings.Split(string(text), "\n---\n")
	for _, c := range readCases(t) {
		if c.Verdict == "accept" {
			inputs = append(inputs, strings.Split(c.Input, "\n---\n")...)
		}
	}
	inputs = append(inputs, internalDocuments()...)
	kinds := map[string]int{}
	for _, input := range inputs {
		d, err := parse(input)
		if err != nil || !slices.ContainsFunc(customKinds(), func(k v3.Kind) bool { return k.Name == d.kind }) {
			continue // nodes, profiles, endpoints
		}
		kinds[d.kind]++
		if d.namespaced {
			s.namespace(t, d.namespace)
		}
		got := s.served(t, d)
		v3.Default(got)
		if diff := cmp.Diff(specOf(t, local(t, d)), specOf(t, got)); diff != "" {
			t.Errorf("%s: (-given +stored):\n%s", input, diff)
		}
	}
	for _, k := range customKinds() {
		if kinds[k.Name] == 0 {
			t.Errorf("no document of kind %s", k.Name)
		}
	}
}

// internalDocuments are of the kinds that users don't write: as full and as empty as
// address management makes them.
func internalDocuments() []string {
	head := "apiVersion: projectcalico.org/v3\nkind: "
	return []string{
		head + "ClusterInformation\nmetadata: {name: default}\nspec: {clusterGUID: 0a, clusterType: 'k8s,bgp', calicoVersion: v3, datastoreReady: true, variant: Calico}",
		head + "IPAMBlock\nmetadata: {name: 10-0-0-0-30}\nspec: {cidr: 10.0.0.0/30, affinity: 'host:a', allocations: [0, null, 1, null], unallocated: [1, 3], " +
			"attributes: [{handle_id: h, secondary: {pod: p}}, {releasedAt: '2026-01-02T03:04:05Z'}], sequenceNumber: 7, sequenceNumberForAllocation: {'0': 5}, deleted: false, strictAffinity: false}",
		head + "IPAMBlock\nmetadata: {name: fd00---126}\nspec: {cidr: 'fd00::/126', allocations: null, unallocated: null, attributes: null, sequenceNumber: 0, sequenceNumberForAllocation: null, deleted: true, strictAffinity: false}",
		head + "BlockAffinity\nmetadata: {name: a-10-0-0-0-30}\nspec: {cidr: 10.0.0.0/30, node: a, state: pendingDeletion, type: host, deleted: true}",
		head + "IPAMHandle\nmetadata: {name: h}\nspec: {handleID: h, block: {10.0.0.0/30: 2}, deleted: false}",
		head + "IPAMHandle\nmetadata: {name: h}\nspec: {handleID: h, block: null, deleted: true}",
	}
}

// refusesChanges of what can't change, and no others.
func refusesChanges(t *testing.T, s server) {
	const pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool}\nspec: "
	if err := s.applyAll(t, pool+"{cidr: 'fd00:0::/64'}"); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		"{cidr: 'fd00::/64', natOutgoing: true}": "",
		"{cidr: 'fd00::/64', blockSize: 122}":    "",
		"{cidr: 'fd00::/65'}":                    "spec.cidr: Invalid value: .*can't change",
		"{cidr: 'fd00::/64', blockSize: 120}":    "spec.blockSize: Invalid value: .*can't change",
	} {
		s.says(t, pool+spec, want)
	}
}

// says applies a document and compares the error; an empty want is no error.
func (s server) says(t *testing.T, text, want string) {
	t.Helper()
	d, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	err = s.apply(t.Context(), d)
	switch {
	case err == nil && want == "":
	case err == nil || want == "" || !regexp.MustCompile(want).MatchString(err.Error()):
		t.Errorf("%s:\n got %v\nwant %q", text, err, want)
	}
}

// tellsWhy: what is wrong, where and what is allowed stand in the server's answer.
func tellsWhy(t *testing.T, s server) {
	const head = "apiVersion: projectcalico.org/v3\nkind: "
	for text, want := range map[string]string{
		"IPPool\nmetadata: {name: a}\nspec: {cidr: 10.0.0.1/16}":                                                                                    `spec.cidr: Invalid value: "10.0.0.1/16": must have no bits beyond the prefix length`,
		"IPPool\nmetadata: {name: a}\nspec: {cidr: 'fd00::/64', ipipMode: Always}":                                                                  "spec.ipipMode: Invalid value: (.*: )?must be Never: IP in IP carries no IPv6, use vxlanMode",
		"IPPool\nmetadata: {name: a}\nspec: {cidr: 10.0.0.0/16, ipipMode: On}":                                                                      `spec.ipipMode: Unsupported value: "true": supported values: "Never", "Always", "CrossSubnet"|spec.ipipMode.*boolean`,
		"Tier\nmetadata: {name: default}\nspec: {order: 5}":                                                                                         "spec.order: Invalid value: (.*: )?of tier default must be 1000000$",
		"BGPPeer\nmetadata: {name: a}\nspec: {peerSelector: all(), peerIP: 10.0.0.1}":                                                               "spec.peerIP: Invalid value: (.*: )?must be empty with peerSelector",
		"GlobalNetworkPolicy\nmetadata: {name: a}\nspec: {ingress: [{action: Allow, source: {ports: [80]}}]}":                                       `spec.ingress\[0\].source: Invalid value: (.*: )?ports that are numbers need the rule's protocol TCP, UDP or SCTP`,
		"GlobalNetworkPolicy\nmetadata: {name: a}\nspec: {ingress: [{action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/8']}}]}":                    `spec.ingress\[0\].source.nets.*must validate at least one schema`,
		"GlobalNetworkPolicy\nmetadata: {name: a}\nspec: {ingress: [{action: Allow, source: {nets: [10.0.0.0/8], notNets: ['fd00::/8']}}]}":         `spec.ingress\[0\]: Invalid value: (.*: )?must have prefixes of one family only`,
		"FelixConfiguration\nmetadata: {name: default}\nspec: {healthPort: 65536}":                                                                  "spec.healthPort.* should be less than or equal to 65535",
		"FelixConfiguration\nmetadata: {name: default}\nspec: {reportingInterval: 5}":                                                               "spec.reportingInterval: Invalid value: .* must be of type string",
		"FelixConfiguration\nmetadata: {name: default}\nspec: {reportingInterval: -5s}":                                                             `spec.reportingInterval: Invalid value: "-5s": must be a duration with a unit`,
		"KubeControllersConfiguration\nmetadata: {name: default}\nspec: {controllers: {node: {hostEndpoint: {templates: [{a: b}]}}}}":               `unknown field "spec.controllers.node.hostEndpoint.templates\[0\].a"`,
		"CalicoNodeStatus\nmetadata: {name: a}\nspec: {node: a, classes: [BGP], updatePeriodSeconds: 86401}":                                        "spec.updatePeriodSeconds.* should be less than or equal to 86400",
		"BGPFilter\nmetadata: {name: a}\nspec: {importV4: [{action: Reject, cidr: 'fd00::/8', matchOperator: In}]}":                                 `spec.importV4\[0\].cidr: Invalid value: "fd00::/8": must be IPv4 in this list`,
		"BGPFilter\nmetadata: {name: a}\nspec: {importV4: [{action: Reject, operations: [{setPriority: {value: 1}}]}]}":                             `spec.importV4\[0\].operations: Invalid value: (.*: )?must be left out unless the action is Accept`,
		"HostEndpoint\nmetadata: {name: a}\nspec: {interfaceName: eth0}":                                                                            "spec.node: Required value",
		"NetworkPolicy\nmetadata: {name: a, namespace: default}\nspec: {egress: [{action: Allow, destination: {services: {}}}]}":                    `spec.egress\[0\].destination.services.name: Required value`,
		"StagedNetworkPolicy\nmetadata: {name: a, namespace: default}\nspec: {stagedAction: Delete, selector: all()}":                               "spec.selector: Invalid value: (.*: )?must be left out: stagedAction Delete goes with a tier only",
		"StagedKubernetesNetworkPolicy\nmetadata: {name: a, namespace: default}\nspec: {ingress: [{ports: [{port: http, endPort: 90}]}]}":           `spec.ingress\[0\].ports\[0\].endPort: Invalid value: (.*: )?needs port to be a number, and not to be less`,
		"StagedKubernetesNetworkPolicy\nmetadata: {name: a, namespace: default}\nspec: {podSelector: {matchExpressions: [{key: a, operator: In}]}}": `spec.podSelector.matchExpressions\[0\].values: Invalid value: (.*: )?must be there for In and NotIn`,
	} {
		s.says(t, head+text, want)
	}
}

// keepsStatus: a status is written apart from the spec, and nobody's version of it is
// refused.
func keepsStatus(t *testing.T, s server) {
	tier := "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: stage}\nspec: {order: 5}\nstatus: "
	if err := s.applyAll(t, tier+"{conditions: [{type: Ready, status: Odd}]}"); err != nil {
		t.Fatal(err)
	}
	d, err := parse(tier + "{conditions: [{type: Ready, status: 'True', reason: R, message: m, lastTransitionTime: '2026-01-02T03:04:05Z'}]}")
	if err != nil {
		t.Fatal(err)
	}
	get := func() *v3.Tier {
		text, err := s.do(t.Context(), http.MethodGet, d.path(), nil)
		if err != nil {
			t.Fatal(err)
		}
		o, err := v3.DecodeStored(text)
		if err != nil {
			t.Fatal(err)
		}
		return o.(*v3.Tier)
	}
	stored := get()
	if len(stored.Status.Conditions) != 0 {
		t.Errorf("a new object has the status of its document: %+v", stored.Status)
	}
	d.tree["metadata"].(map[string]any)["resourceVersion"] = stored.ResourceVersion
	if _, err := s.do(t.Context(), http.MethodPut, d.path()+"/status", d.tree); err != nil {
		t.Fatal(err)
	}
	if got := get(); len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Reason != "R" || *got.Spec.Order != 5 {
		t.Errorf("got %+v", got)
	}
}
