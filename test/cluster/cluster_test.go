// Package cluster_test tests weft on a real Kubernetes cluster: what upstream's suites do
// not ask, because it is about what goes on while something breaks or changes.
//
// The tests need three nodes that test/k8s/run makes: that script compiles this package,
// runs it inside the network of the cluster and says with WEFT_CLUSTER where the script is
// that acts on it. Without it they are skipped, and `make test` does not know them:
//
//	make test-k8s                          all
//	test/k8s/run build beside              TestBeside, which upstream's suites run beside
//	test/k8s/run build cluster             TestCluster…, on a cluster with deploy/weft.yaml
//	test/k8s/run build dual                TestDual…, with IPv6 and VXLAN
//	test/k8s/run build takeover            TestTakeover…, where a Calico was
//	test/k8s/run build speed               TestSpeed, which measures and asserts nothing
//
// A test speaks to the cluster as an operator does, with kubectl, and to a node with a shell
// in it. It makes a namespace of its own, and leaves the cluster as it found it. Those that
// break something that all share run one after the other, the rest beside one another.
//
// Traffic that must not stop is a train: a pod (test/k8s/train) that sends 200 numbered
// messages a second by UDP and by TCP, 1,000 in a take-over, and says what came back. Nothing here expects a
// machine to be fast: what must come is waited for for minutes, and a train
// that is late is not lost.
package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// patience is how long something that must come is waited for.
	patience = 8 * time.Minute
	// pause lies between two looks.
	pause = 250 * time.Millisecond

	agnhost = "localhost/agnhost:testbed"
)

// script skips the test where there is no cluster, and gives the path of the script that
// acts on it.
func script(t testing.TB) string {
	t.Helper()
	path := os.Getenv("WEFT_CLUSTER")
	if path == "" {
		t.Skip("needs the cluster that test/k8s/run makes: make test-k8s")
	}
	return path
}

// command runs a program and gives what it printed, in an error too.
func command(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err,
			tail(out.String()), strings.TrimSpace(tail(errs.String())))
	}
	return out.String(), nil
}

// tail shortens what a message need not have in full.
func tail(s string) string {
	if len(s) > 2000 {
		return "…" + s[len(s)-2000:]
	}
	return s
}

// cluster does what the script's command says: stop-node 3, node 2 ip route, …
func cluster(t testing.TB, args ...string) string {
	t.Helper()
	out, err := command("", script(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// node runs a shell command in node n.
func node(n int, shell string, args ...string) (string, error) {
	return nodeIn(n, "", shell, args...)
}

// nodeIn is node with something on the command's input.
func nodeIn(n int, stdin, shell string, args ...string) (string, error) {
	return command(stdin, os.Getenv("WEFT_CLUSTER"),
		append([]string{"node", strconv.Itoa(n), "sh", "-c", shell, "sh"}, args...)...)
}

// kubectl fails the test when the command fails.
func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	script(t)
	out, err := command("", "kubectl", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply puts objects in, as an operator does, whatever an API server that is busy says first.
func apply(t testing.TB, yaml string) {
	t.Helper()
	eventually(t, "apply", func() error {
		_, err := command(yaml, "kubectl", "apply", "-f", "-")
		return err
	})
}

// get reads objects as JSON into what to points to.
func get(to any, args ...string) error {
	out, err := command("", "kubectl", append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), to)
}

// eventually waits until what gives no error.
func eventually(t testing.TB, what string, look func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(pause)
	}
}

// namespace makes a namespace for the test, gone after it.
func namespace(t testing.TB) string {
	t.Helper()
	script(t)
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + "-" +
		strconv.FormatInt(time.Now().UnixMilli()%1e6, 36)
	name = name[max(0, len(name)-60):]
	name = strings.Trim(name, "-")
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := command("", "kubectl", "-n", name, "get", "pods,events", "-o", "wide")
			t.Logf("%s:\n%s", name, tail(out))
		}
		if _, err := command("", "kubectl", "delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "service account", func() error {
		_, err := command("", "kubectl", "-n", name, "get", "serviceaccount", "default")
		return err
	})
	return name
}

// pod is one to be made.
type pod struct {
	name    string
	node    int // 0: any
	labels  string
	command string // a YAML list; empty: an agnhost that listens at 80 and 81, TCP and UDP
	host    bool   // hostNetwork; then it listens at 8080 and 8081
	extra   string // more of the spec, YAML at two spaces
}

// yaml is its manifest in a namespace.
func (p pod) yaml(namespace string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: %s\n  labels: {%s}\nspec:\n", p.name, namespace, p.labels)
	b.WriteString("  terminationGracePeriodSeconds: 0\n  tolerations: [{operator: Exists}]\n")
	if p.node != 0 {
		fmt.Fprintf(&b, "  nodeName: node%d\n", p.node)
	}
	if p.host {
		b.WriteString("  hostNetwork: true\n")
	}
	b.WriteString(p.extra)
	b.WriteString("  containers:\n  - name: main\n    image: " + agnhost + "\n    imagePullPolicy: Never\n")
	if p.command != "" {
		fmt.Fprintf(&b, "    command: %s\n", p.command)
		return b.String()
	}
	first, second := 80, 81
	if p.host {
		first, second = 8080, 8081
	}
	b.WriteString("    command: [/agnhost, porter]\n    env:\n")
	for _, port := range []int{first, second} {
		fmt.Fprintf(&b, "    - {name: SERVE_PORT_%d, value: %s}\n    - {name: SERVE_UDP_PORT_%d, value: %s}\n", port, p.name, port, p.name)
	}
	fmt.Fprintf(&b, "    ports:\n    - {name: web, containerPort: %d}\n    - {name: web-udp, containerPort: %d, protocol: UDP}\n", first, first)
	return b.String()
}

// start makes pods and waits until they are ready.
func start(t testing.TB, namespace string, pods ...pod) {
	t.Helper()
	var docs []string
	for _, p := range pods {
		docs = append(docs, p.yaml(namespace))
	}
	apply(t, strings.Join(docs, "---\n"))
	for _, p := range pods {
		ready(t, namespace, p.name)
	}
}

// ready waits for a pod.
func ready(t testing.TB, namespace, name string) {
	t.Helper()
	eventually(t, "pod "+name, func() error {
		_, err := command("", "kubectl", "-n", namespace, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=60s")
		return err
	})
}

// address is a pod's.
func address(t testing.TB, namespace, name string) string {
	t.Helper()
	return strings.TrimSpace(kubectl(t, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.podIP}"))
}

// probe tries a connection from a pod: nil, it was let through.
func probe(namespace, from, protocol, to string) error {
	_, err := command("", "kubectl", "-n", namespace, "exec", from, "--",
		"/agnhost", "connect", "--timeout=3s", "--protocol="+protocol, to)
	return err
}

// reaches waits until a connection is let through.
func reaches(t testing.TB, namespace, from, protocol, to string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s to %s by %s: must get through", from, to, protocol), func() error {
		return probe(namespace, from, protocol, to)
	})
}

// dropped waits until a connection is dropped, which is not the same as refused, twice in a row.
func dropped(t testing.TB, namespace, from, protocol, to string) {
	t.Helper()
	times := 0
	eventually(t, fmt.Sprintf("%s to %s by %s: must be dropped", from, to, protocol), func() error {
		switch err := probe(namespace, from, protocol, to); {
		case err == nil:
			times = 0
			return fmt.Errorf("it got through")
		case !strings.Contains(err.Error(), "TIMEOUT"):
			times = 0
			return err
		}
		if times++; times < 2 {
			return fmt.Errorf("dropped once")
		}
		return nil
	})
}
