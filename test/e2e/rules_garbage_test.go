package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/internal/testenv"
)

// fragile has a pod for each thing that goes wrong, and one that must stay as it is.
const fragile = `
racks: [{name: rack-1, subnets: [10.1.0.0/24, "fd00:1::/64"]}]
nodes: [{name: node-a}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16, CALICO_IPV4POOL_IPIP: Never, CALICO_IPV6POOL_CIDR: "fd00:168::/48", FELIX_MAXIPSETSIZE: "100"}
pods:
- {name: client, node: node-a, labels: {app: client}, addresses: [192.168.1.1, "fd00:168::1:1"]}
- {name: steady, node: node-a, labels: {app: steady}, addresses: [192.168.1.2, "fd00:168::1:2"]}
- {name: had, node: node-a, labels: {app: had}, addresses: [192.168.1.3, "fd00:168::1:3"]}
- {name: never, node: node-a, labels: {app: never}, addresses: [192.168.1.4, "fd00:168::1:4"]}
- {name: big, node: node-a, labels: {app: big}, addresses: [192.168.1.5, "fd00:168::1:5"]}
- {name: free, node: node-a, labels: {app: free}, addresses: [192.168.1.6, "fd00:168::1:6"]}
resources:
- apiVersion: projectcalico.org/v3
  kind: NetworkPolicy
  metadata: {name: steady, namespace: default}
  spec: {selector: app == "steady", ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
- apiVersion: projectcalico.org/v3
  kind: NetworkPolicy
  metadata: {name: had, namespace: default}
  spec: {selector: app == "had", ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkSet
  metadata: {name: big, labels: {set: big}}
  spec: {nets: [192.168.1.1/32, 10.1.0.0/24]}
- apiVersion: projectcalico.org/v3
  kind: NetworkPolicy
  metadata: {name: big, namespace: default}
  spec: {selector: app == "big", ingress: [{action: Allow, protocol: TCP, source: {namespaceSelector: global(), selector: set == "big"}}]}
`

const policyPath = "/calico/resources/v3/projectcalico.org/networkpolicies/default/"

// rawPolicy is the stored form of a NetworkPolicy, whatever its spec is.
func rawPolicy(name, spec string) string {
	return fmt.Sprintf(`{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":%q,"namespace":"default"},"spec":%s}`, name, spec)
}

// victims are what the fragile lab's tests need at hand.
type victims struct {
	c      *cluster
	client prober
	etcd   *clientv3.Client
}

func fragileLab(t *testing.T) victims {
	t.Helper()
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", c.file(fragile)); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	v := victims{c, c.prober("pod/default/client"), c.etcd()}
	for _, p := range c.now.Pods {
		if p.Name != "client" {
			c.listen("pod/default/"+p.Name, p.Addresses[0].String(), "tcp:80", "tcp:81")
		}
	}
	v.steady(t)
	return v
}

// steady fails unless what has nothing to do with all that is as ever.
func (v victims) steady(t *testing.T) {
	t.Helper()
	for _, addr := range []string{"192.168.1.2", "fd00:168::1:2"} {
		v.client.must("tcp "+addr+" 80", "answer")
		v.client.must("tcp "+addr+" 81", "silence")
	}
	v.client.must("tcp 192.168.1.6 81", "answer") // no policy selects it
}

func (v victims) put(t *testing.T, name, value string) {
	t.Helper()
	if _, err := v.etcd.Put(t.Context(), policyPath+name, value); err != nil {
		t.Fatal(err)
	}
}

// noted waits until a node's status has a line with all of some words.
func (v victims) noted(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, "note", func() error {
		s, err := v.c.agentStatus("node-a")
		if err != nil {
			return err
		}
		for _, n := range s.Notes {
			all := true
			for _, w := range words {
				all = all && strings.Contains(n, w)
			}
			if all {
				return nil
			}
		}
		return fmt.Errorf("no line with %q:\n%s", words, strings.Join(s.Notes, "\n"))
	})
}

// TestGarbagePolicies writes garbage over and as policies: the last good version stays,
// what never was good denies what it selects, all are named, and nothing else changes,
// also not when the agent starts again.
func TestGarbagePolicies(t *testing.T) {
	t.Parallel()
	v := fragileLab(t)
	garbage := map[string]string{
		"not-json": "{", "empty": "", "zeros": "\x00\x00", "list": "[1]", "number": "7",
		"selector":  rawPolicy("selector", `{"selector": "app == "}`),
		"unclosed":  rawPolicy("unclosed", `{"selector": "((((((((("}`),
		"odd-rule":  rawPolicy("odd-rule", `{"selector": "app == 'nobody'", "ingress": [{"action": "Perhaps"}]}`),
		"odd-ports": rawPolicy("odd-ports", `{"selector": "app == 'nobody'", "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": ["9:1", -1, {}]}}]}`),
		"odd-types": rawPolicy("odd-types", `{"selector": 5, "ingress": "all"}`),
	}
	for name, text := range garbage {
		v.put(t, name, text)
	}
	for kind, name := range map[string]string{
		"globalnetworkpolicies": "GlobalNetworkPolicy/odd", "globalnetworksets": "GlobalNetworkSet/odd", "hostendpoints": "HostEndpoint/odd",
		"networksets/default": "NetworkSet/default/odd", "profiles": "Profile/odd", "stagedglobalnetworkpolicies": "StagedGlobalNetworkPolicy/odd",
		"stagedkubernetesnetworkpolicies/default": "StagedKubernetesNetworkPolicy/default/odd", "tiers": "Tier/odd",
		"stagednetworkpolicies/default": "StagedNetworkPolicy/default/odd", "workloadendpoints/default": "WorkloadEndpoint/default/odd",
	} {
		if _, err := v.etcd.Put(t.Context(), "/calico/resources/v3/projectcalico.org/"+kind+"/odd", `{"spec": [{"selector": 1}, `); err != nil {
			t.Fatal(err)
		}
		v.noted(t, name)
	}
	v.put(t, "had", rawPolicy("had", `{"selector": "app == 'had'", "ingress": [{"action": "Allow", "source": {"nets": ["nowhere"]}}]}`))
	v.put(t, "never", rawPolicy("never", `{"selector": "app == 'never'", "ingress": [{"action": "Allow"}, {"action": "Allow", "source": {"selector": "has("}}]}`))
	for name := range garbage {
		v.noted(t, "NetworkPolicy/default/"+name)
	}
	v.noted(t, "NetworkPolicy/default/had", "nowhere")
	v.noted(t, "NetworkPolicy/default/never", "has(")
	if log := v.c.agentLog("node-a"); !strings.Contains(log, "object=NetworkPolicy/default/never") {
		t.Error("the log does not name NetworkPolicy/default/never")
	}
	for _, ip := range []string{"192.168.1", "fd00:168::1"} {
		dot := map[bool]string{true: ":", false: "."}[strings.Contains(ip, ":")]
		v.client.must("tcp "+ip+dot+"3 80", "answer") // the last good version
		v.client.must("tcp "+ip+dot+"3 81", "silence")
		v.client.becomes("tcp "+ip+dot+"4 80", "silence") // never was good
	}
	v.steady(t)

	// A new agent knows no good version of any.
	v.c.stop("node-a", true)
	v.c.start("node-a")
	v.client.becomes("tcp 192.168.1.3 80", "silence")
	v.client.must("tcp 192.168.1.4 80", "silence")
	v.noted(t, "NetworkPolicy/default/had", "nowhere")
	v.steady(t)
	// What is mended is in force, at once.
	v.put(t, "had", rawPolicy("had", `{"selector": "app == 'had'", "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [81]}}], "types": ["Ingress"]}`))
	if _, err := v.etcd.Delete(t.Context(), policyPath+"never"); err != nil {
		t.Fatal(err)
	}
	v.client.becomes("tcp 192.168.1.3 81", "answer")
	v.client.becomes("tcp 192.168.1.4 80", "answer")
	if bad := notesAbout(v.c, "node-a", "default/had") + notesAbout(v.c, "node-a", "default/never"); bad != "" {
		t.Errorf("still noted: %s", bad)
	}
}

// TestHugePolicies stores policies and sets that are too large, or nearly: an error
// about that object, while all others stay in force and follow changes.
func TestHugePolicies(t *testing.T) {
	t.Parallel()
	v := fragileLab(t)
	v.client.must("tcp 192.168.1.5 80", "answer")
	// A set beyond maxIpsetSize keeps what it had.
	var nets []string
	for i := range 150 {
		nets = append(nets, fmt.Sprintf(`"10.%d.0.0/16"`, i+20))
	}
	set := `{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"big","labels":{"set":"big"}},"spec":{"nets":[%s]}}`
	const setPath = "/calico/resources/v3/projectcalico.org/globalnetworksets/big"
	write := func(key, value string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		if _, err := v.etcd.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
	}
	write(setPath, fmt.Sprintf(set, strings.Join(nets, ",")))
	v.noted(t, "NetworkPolicy/default/big", "150 members", "100")
	if log := v.c.agentLog("node-a"); !strings.Contains(log, "object=NetworkPolicy/default/big") {
		t.Error("the log does not name NetworkPolicy/default/big")
	}
	v.steady(t)

	// Ten thousand rules, and a selector of 100 KB.
	rules := make([]string, 10_000)
	for i := range rules {
		rules[i] = fmt.Sprintf(`{"action":"Allow","protocol":"UDP","destination":{"ports":[%d]}}`, i+1)
	}
	write(policyPath+"rules", rawPolicy("rules", `{"selector": "app == 'never'", "ingress": [`+strings.Join(rules, ",")+`]}`))
	var long strings.Builder
	long.WriteString("app == 'had'")
	for i := 0; long.Len() < 100<<10; i++ {
		fmt.Fprintf(&long, " || label-%d == 'value-%d'", i, i)
	}
	write(policyPath+"long", rawPolicy("long", `{"selector": "`+long.String()+`", "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [81]}}]}`))
	// What the schema forbids is an error about the object, which then denies what it
	// selects where that can be said; and in no case a reason for anything else to stop.
	eventually(t, "the large ones", func() error {
		for _, name := range []string{"rules", "long"} {
			if notesAbout(v.c, "node-a", "NetworkPolicy/default/"+name) == "" {
				return errors.New(name + " is not noted")
			}
		}
		return nil
	})
	v.client.becomes("tcp 192.168.1.4 80", "silence")
	v.steady(t)
	if s, err := v.c.agentStatus("node-a"); err == nil {
		for _, n := range s.Notes {
			if len(n) > 1000 {
				t.Errorf("a note of %d bytes: %.200s …", len(n), n)
			}
		}
	}

	// So does an agent that starts with all that there, and changes go on beside it.
	v.c.stop("node-a", true)
	v.c.start("node-a")
	v.noted(t, "NetworkPolicy/default/big", "100")
	v.noted(t, "NetworkPolicy/default/rules")
	v.steady(t)
	v.put(t, "steady", rawPolicy("steady", `{"selector": "app == 'steady'", "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [81]}}], "types": ["Ingress"]}`))
	v.client.becomes("tcp 192.168.1.2 81", "answer")
	v.client.becomes("tcp fd00:168::1:2 80", "silence")
	// A rule that denies a set that never was small enough lets nobody in by that.
	write(strings.TrimSuffix(setPath, "big")+"new", strings.ReplaceAll(fmt.Sprintf(set, strings.Join(nets, ",")), `"big"`, `"new"`))
	v.put(t, "shut", rawPolicy("shut", `{"selector": "app == 'free'", "types": ["Ingress"], "ingress": [
		{"action": "Deny", "source": {"namespaceSelector": "global()", "selector": "set == 'new'"}}, {"action": "Allow"}]}`))
	v.noted(t, "NetworkPolicy/default/shut", "150 members")
	v.client.becomes("tcp 192.168.1.6 81", "silence")
	v.client.must("tcp 192.168.1.2 81", "answer")
	// And what was too large is right again when it is not.
	write(setPath, fmt.Sprintf(set, strings.Join(nets[:50], ",")))
	write(strings.TrimSuffix(setPath, "big")+"new", strings.ReplaceAll(fmt.Sprintf(set, strings.Join(nets[:50], ",")), `"big"`, `"new"`))
	v.client.becomes("tcp 192.168.1.6 81", "answer")
	v.client.becomes("tcp 192.168.1.5 80", "silence") // the client is in it no more
	eventually(t, "no note", func() error {
		if bad := notesAbout(v.c, "node-a", "NetworkPolicy/default/big"); bad != "" {
			return errors.New(bad)
		}
		return nil
	})
}
