package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const shop = "../../examples/policy/shop.yaml"

// more is what the shop has beside its pods in these tests.
const more = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: app == "db"
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: app == "web"}, destination: {ports: [5432]}}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: quiet, namespace: shop}
spec: {selector: app == "web", types: [Egress]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: partners}
spec: {nets: [198.51.100.0/24]}
`

func TestExplain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "more.yaml")
	if err := os.WriteFile(file, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, tt := range map[string]struct {
		out, err string // that the answer and the message have
		code     int
	}{
		"pod/shop/web pod/shop/db --port 5432":                                 {out: "ALLOWED by NetworkPolicy/shop/db spec.ingress[0]"},
		"pod/monitoring/probe pod/shop/db --port 5432":                         {out: "DENIED by the default action of Tier/default"},
		"pod/monitoring/probe pod/shop/db --port 5432 -v":                      {out: "does not match: source.selector"},
		"pod/shop/web pod/shop/db --port 5432 --protocol udp":                  {out: "DENIED by the default action"},
		"pod/shop/web pod/shop/db --port 5432 --expect allow":                  {out: "ALLOWED"},
		"pod/shop/web pod/shop/db --port 5433 --expect allow":                  {out: "DENIED", code: 1, err: "explain: pod/shop/web to pod/shop/db: expected allow"},
		"pod/shop/web 192.168.2.1 --port 5432":                                 {out: "if StagedNetworkPolicy/shop/quiet were enforced: it would be DENIED, by the default action of Tier/default"},
		"globalnetworkset/partners pod/shop/web --protocol icmp":               {out: "ICMP type 8 code 0"},
		"198.51.100.7 pod/shop/web":                                            {out: "198.51.100.7, in GlobalNetworkSet/partners"},
		"host/node-a pod/shop/web":                                             {out: "ALLOWED: nothing polices it"},
		"pod/shop/web@10.9.9.9 pod/shop/db --port 1":                           {out: "10.9.9.9 is not an address of the workload"},
		"pod/shop/web pod/shop/db --at node-a --port 1":                        {out: "ALLOWED by Profile/kns.shop spec.egress[0]"},
		"pod/shop/wep pod/shop/db":                                             {code: 1, err: "explain: pod/shop/wep: there is no endpoint of such a pod: of 3 the nearest are pod/shop/web, pod/shop/db,"},
		"host/node-c pod/shop/db":                                              {code: 1, err: "explain: Node/node-c: there is no such object: of 2 the nearest are node-a, node-b"},
		"networkset/shop/x pod/shop/db":                                        {code: 1, err: "NetworkSet/shop/x: there is no such object: the datastore has no NetworkSet at all"},
		"pod/shop/web pod/shop/db --protocol icmpv6":                           {code: 1, err: "ICMPv6: the two ends must both have an IPv6 address"},
		"shop/web pod/shop/db":                                                 {code: 2, err: "shop/web: must be pod/NAMESPACE/NAME, host/NODE"},
		"pod/shop/web pod/shop/db --protocol gre":                              {code: 2, err: "--protocol gre: must be"},
		"pod/shop/web pod/shop/db --port 1 --protocol icmp":                    {code: 2, err: "--port 1: ICMP has no ports"},
		"pod/shop/web pod/shop/db --protocol icmp --icmp-type 256":             {code: 2, err: "--icmp-type 256 --icmp-code 0: must be 0 to 255"},
		"pod/shop/web pod/shop/db --expect maybe":                              {code: 2, err: "--expect maybe: must be allow or deny"},
		"pod/shop/web@x pod/shop/db":                                           {code: 2, err: `"x" must be an address`},
		"pod/shop/web":                                                         {code: 2, err: "accepts 2 arg(s), received 1"},
		"pod/shop/web pod/shop/db --with nowhere.yaml":                         {code: 1, err: "explain: open nowhere.yaml: no such file"},
		"hostendpoint/x pod/shop/db --protocol tcp --port 80 --interface eth0": {code: 1, err: "HostEndpoint/x: there is no such object"},
	} {
		out, code, err := weft(t.Context(), nil, append([]string{"explain", "-f", shop, "--with", file}, strings.Fields(args)...)...)
		if code != tt.code || !strings.Contains(out, tt.out) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: exit %d, %v, want %d, %q in\n%s", args, code, err, tt.code, tt.out, out)
		}
	}
}

func TestExplainAsData(t *testing.T) {
	t.Parallel()
	out, _, err := weft(t.Context(), nil, "explain", "-f", shop, "pod/shop/web", "pod/shop/db", "--port", "5432", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Allowed bool
		Parts   []struct {
			Endpoint, Direction, Verdict string
			Steps                        []struct{ Object, Field, Action string }
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Allowed || len(got.Parts) != 2 || got.Parts[1].Direction != "Ingress" || got.Parts[1].Verdict != "Allow" ||
		got.Parts[1].Steps[0].Object != "Profile/kns.shop" || got.Parts[1].Steps[0].Action != "Allow" {
		t.Errorf("%+v", got)
	}
	yaml, _, err := weft(t.Context(), nil, "explain", "-f", shop, "pod/shop/web", "pod/shop/db", "-o", "yaml")
	if err != nil || !strings.HasPrefix(yaml, "allowed: true\n") {
		t.Errorf("%v\n%s", err, yaml)
	}
}

// Without files the cluster is that of the datastore.
func TestExplainNeedsADatastore(t *testing.T) {
	t.Parallel()
	_, code, err := weft(t.Context(), []string{"DATASTORE_TYPE=zookeeper"}, "explain", "10.0.0.1", "10.0.0.2")
	if code != 1 || err == nil || !strings.Contains(err.Error(), "DATASTORE_TYPE") {
		t.Errorf("exit %d, %v", code, err)
	}
}
