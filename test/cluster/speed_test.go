package cluster_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// atRest is how long requests of a node at rest are counted.
const atRest = 10 * time.Minute

// What docs/performance.md says of Kubernetes: it measures and prints, and asserts nothing,
// as the machine's share in all of it is large.
func TestSpeed(t *testing.T) {
	ns := namespace(t)
	say := func(what, format string, args ...any) {
		t.Helper()
		t.Logf("| %s | %s |", what, fmt.Sprintf(format, args...))
	}
	start(t, ns, pod{name: "platform", node: 1, labels: "train: echo", command: fmt.Sprintf("[/train, echo, %q]", platform)})
	to := address(t, ns, "platform") + ":" + platform

	before := cniTimes(t)
	var firsts []float64
	for i := range 10 {
		name := "first-" + strconv.Itoa(i)
		start(t, ns, pod{name: name, node: 2 + i%2, command: fmt.Sprintf("[/train, first, %q]", to)})
		firsts = append(firsts, firstOf(t, ns, name))
	}
	one := cniTimes(t).since(before)
	say("network set-up of a pod, as containerd sees it, one after the other", "mean %.0f ms, median ≤ %s (%.0f pods)", one.mean(), one.quantile(0.5), one.count)
	slices.Sort(firsts)
	say("from the start of a pod's process to an answer from another node", "median %.0f ms, at most %.0f ms (%d pods)", firsts[len(firsts)/2], firsts[len(firsts)-1], len(firsts))

	before = cniTimes(t)
	crowd(t, ns, 30)
	many := cniTimes(t).since(before)
	say("the same, 30 pods at once on three nodes", "mean %.0f ms, median ≤ %s, all ≤ %s", many.mean(), many.quantile(0.5), many.quantile(1))

	crowd(t, ns, 200)
	say("NetworkPolicy applied with kubectl to enforced on three nodes, 200 pods", "%s", enforcement(t, ns))
	for n := 1; n <= 3; n++ {
		say(fmt.Sprintf("resident memory of the node role, node%d", n), "%s", resident(t, n, "weft node run"))
	}
	for n := 1; n <= 3; n++ {
		if at := resident(t, n, "weft controllers"); at != "" {
			say("resident memory of the controllers", "%s", at)
		}
	}
	kubectl(t, "-n", ns, "delete", "pods", "--all", "--wait=true", "--timeout=600s")
	if log := filepath.Join(os.Getenv("WEFT_LOGS"), "audit.log"); exists(log) {
		for who, count := range requests(t, log) {
			say("requests of "+who+" at rest in 10 minutes, watches aside", "%s", count)
		}
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// firstOf is what a pod with `train first` found.
func firstOf(t testing.TB, ns, name string) (ms float64) {
	t.Helper()
	eventually(t, name, func() error {
		out, err := command("", "kubectl", "-n", ns, "logs", name)
		if err == nil {
			ms, err = strconv.ParseFloat(strings.TrimSpace(out), 64)
		}
		return err
	})
	return ms
}

// crowd makes the pods of the test up to so many, at once.
func crowd(t testing.TB, ns string, count int) {
	t.Helper()
	var docs []string
	for i := range count {
		docs = append(docs, pod{name: fmt.Sprintf("crowd-%d-%d", count, i), node: i%3 + 1, labels: "app: crowd", command: "[/agnhost, pause]"}.yaml(ns))
	}
	apply(t, strings.Join(docs, "---\n"))
	eventually(t, "crowd", func() error {
		_, err := command("", "kubectl", "-n", ns, "wait", "--for=condition=Ready", "pods", "-l", "app=crowd", "--timeout=300s")
		return err
	})
}

// enforcement is how long after `kubectl apply` began the last message came through a
// policy, at three pods on three nodes.
func enforcement(t testing.TB, ns string) string {
	t.Helper()
	// New connections all the time: those that are there already stay.
	tr := trains(t, ns, "knock", [][2]int{{1, 1}, {1, 2}, {1, 3}})
	tr.ride(20)
	var took []int64
	policy := fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: %s}\n"+
		"spec: {podSelector: {matchExpressions: [{key: train, operator: In, values: [echo]}]}, policyTypes: [Ingress],"+
		" ingress: [{from: [{podSelector: {matchLabels: {app: crowd}}}]}]}\n", ns)
	for range 5 {
		began := time.Now().UnixMilli()
		if _, err := command(policy, "kubectl", "apply", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		var last int64
		eventually(t, "silence", func() error {
			all, err := tr.flows()
			if err != nil {
				return err
			}
			last = 0
			for _, flows := range all {
				for _, f := range flows {
					last = max(last, f.Last)
				}
			}
			if quiet := time.Now().UnixMilli() - last; quiet < 5000 {
				return fmt.Errorf("something came through %d ms ago", quiet)
			}
			return nil
		})
		took = append(took, last-began)
		kubectl(t, "-n", ns, "delete", "networkpolicy", "shut")
		tr.ride(20)
	}
	slices.Sort(took)
	return fmt.Sprintf("median %d ms, at most %d ms (%d times)", took[len(took)/2], took[len(took)-1], len(took))
}

// resident is the memory of a process on a node, found by its command line; empty: there is none.
func resident(t testing.TB, n int, commandLine string) string {
	t.Helper()
	out, _ := node(n, `for p in $(pgrep -f "$1"); do awk '/^VmRSS/ { printf "%.0f MiB", $2 / 1024 }' /proc/$p/status; break; done`, "^[^ ]*"+commandLine)
	return strings.TrimSpace(out)
}

// times is containerd's histogram of how long network plugins took to set a pod up.
type times struct {
	count, sum float64
	buckets    map[float64]float64 // by upper bound, seconds
}

func cniTimes(t testing.TB) times {
	t.Helper()
	all := times{buckets: map[float64]float64{}}
	for n := 1; n <= 3; n++ {
		out, err := node(n, `curl -s http://127.0.0.1:1338/v1/metrics`)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "containerd_cri_network_plugin_operations_duration_seconds") || !strings.Contains(line, `"set_up_pod"`) {
				continue
			}
			fields := strings.Fields(line)
			value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case strings.Contains(line, "_sum{"):
				all.sum += value
			case strings.Contains(line, "_count{"):
				all.count += value
			default:
				_, rest, _ := strings.Cut(line, `le="`)
				bound, _, _ := strings.Cut(rest, `"`)
				if le, err := strconv.ParseFloat(bound, 64); err == nil {
					all.buckets[le] += value
				}
			}
		}
	}
	return all
}

func (a times) since(b times) times {
	d := times{count: a.count - b.count, sum: a.sum - b.sum, buckets: map[float64]float64{}}
	for le, n := range a.buckets {
		d.buckets[le] = n - b.buckets[le]
	}
	return d
}

// mean is in milliseconds.
func (a times) mean() float64 { return a.sum / max(a.count, 1) * 1000 }

// quantile is the upper bound of the bucket in which it lies.
func (a times) quantile(q float64) string {
	var bounds []float64
	for le := range a.buckets {
		bounds = append(bounds, le)
	}
	slices.Sort(bounds)
	for _, le := range bounds {
		if a.buckets[le] >= q*a.count {
			return fmt.Sprintf("%.0f ms", le*1000)
		}
	}
	return "more"
}

// requests counts, of a while in which nothing happens, what the audit log of the API server
// says of ours, by account and node.
func requests(t testing.TB, log string) map[string]string {
	t.Helper()
	began := time.Now()
	for time.Since(began) < atRest { // a length that is measured, not a wait for something
		time.Sleep(pause)
	}
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	counts, kinds := map[string]int{}, map[string]map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e struct {
			Verb                     string
			RequestReceivedTimestamp time.Time
			SourceIPs                []string
			User                     struct{ Username string }
			ObjectRef                struct{ Resource string }
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.RequestReceivedTimestamp.Before(began) || e.Verb == "watch" {
			continue
		}
		who := strings.TrimPrefix(e.User.Username, "system:serviceaccount:kube-system:") + " from " + strings.Join(e.SourceIPs, ",")
		counts[who]++
		if kinds[who] == nil {
			kinds[who] = map[string]int{}
		}
		kinds[who][e.Verb+" "+e.ObjectRef.Resource]++
	}
	said := map[string]string{}
	for who, n := range counts {
		said[who] = fmt.Sprintf("%d: %v", n, kinds[who])
	}
	return said
}
