package model_test

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// FuzzParse: whatever a document says, Parse and Strict do not panic, errors are of
// one line, keys agree, and the strict form of a policy only denies.
func FuzzParse(f *testing.F) {
	file, err := os.Open("../../test/fixtures/validation/cases.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	scan := bufio.NewScanner(file)
	scan.Buffer(nil, 1<<22)
	seeds := 0
	for scan.Scan() {
		var c struct{ Input string }
		if err := json.Unmarshal(scan.Bytes(), &c); err != nil {
			f.Fatal(err)
		}
		f.Add(c.Input)
		seeds++
	}
	if scan.Err() != nil || seeds < 300 {
		f.Fatalf("%d seeds, %v", seeds, scan.Err())
	}
	for _, text := range []string{
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x, namespace: a}, spec: {podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 1, endPort: 65535}]}]}}",
		"{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: x}, spec: {tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {}}}, egress: [{action: Pass, to: [{nodes: {}}, {networks: [10.0.0.0/8, '::/0']}], protocols: [{destinationNamedPort: web}]}]}}",
		"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: x, namespace: a}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}], ports: [{port: 80}]}",
	} {
		objects, err := v3.DecodeAll([]byte(text))
		if err != nil {
			f.Fatal(err)
		}
		if v, err := model.Parse(objects[0]); v == nil || err != nil {
			f.Fatalf("%s: %v, %v", text, v, err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		objects, err := v3.DecodeAll([]byte(text))
		if err != nil {
			return
		}
		for _, o := range objects {
			v, err := model.Parse(o)
			if err == nil && v != nil {
				if k, err := model.KeyOf(o); err != nil || k != v.Key() {
					t.Errorf("key %v of the object, %v of the value, %v", k, v.Key(), err)
				}
			}
			checkStrict(t, o)
		}
	})
}

func checkStrict(t *testing.T, o v3.Object) {
	t.Helper()
	v := model.Strict(o)
	if v == nil {
		return
	}
	if k, err := model.KeyOf(o); err != nil || k != v.Key() {
		t.Errorf("strict: key %v of the object, %v of the value, %v", k, v.Key(), err)
	}
	p, ok := v.(model.Policy)
	if !ok {
		return
	}
	if p.Staged || len(p.Ingress)+len(p.Egress) == 0 || p.AppliesIngress != (len(p.Ingress) > 0) || p.AppliesEgress != (len(p.Egress) > 0) {
		t.Errorf("strict: %s", policyText(p))
	}
	for _, r := range append(p.Ingress, p.Egress...) {
		if ruleText(r) != "Deny" {
			t.Errorf("strict: %s", ruleText(r))
		}
	}
}
