package cluster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// says waits until the agent of a node has said, in one line of its log, all of the words.
func says(t testing.TB, n int, what string, words ...string) {
	t.Helper()
	eventually(t, what, func() error {
		name, _ := agent(t, n)
		out, err := command("", "kubectl", "-n", "kube-system", "logs", name, "--tail=300")
		if err != nil {
			return err
		}
	lines:
		for line := range strings.Lines(out) {
			for _, word := range words {
				if !strings.Contains(line, word) {
					continue lines
				}
			}
			t.Logf("%s: %s", what, strings.TrimSpace(line))
			return nil
		}
		return fmt.Errorf("the agent does not say %q, but\n%s", words, tail(out))
	})
}

// newAgent ends the agent of a node, and waits for the pod that comes in its place.
func newAgent(t testing.TB, n int) {
	t.Helper()
	old, _ := agent(t, n)
	kubectl(t, "-n", "kube-system", "delete", "pod", old, "--wait=false")
	eventually(t, "a new agent", func() error {
		if name, _ := agent(t, n); name == old {
			return fmt.Errorf("%s is still there", old)
		}
		return nil
	})
}

// afterwards is what a hardship must not have changed: the trains lost nothing, and when it
// is over pods start again on node 2, which suffered it.
func afterwards(t testing.TB, ns string, tr *train, what string) {
	t.Helper()
	agentsReady(t)
	start(t, ns, pod{name: "later", node: 2, labels: "app: later"})
	reaches(t, ns, "echo-0", "tcp", address(t, ns, "later")+":80")
	tr.arrived(what)
}

// A directory of CNI configurations that can't be written: the agent says which, and what to
// look at; pods that run keep their network.
func TestClusterReadOnly(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2}, [2]int{2, 3})
	if out, err := node(2, `mount -t tmpfs -o ro,mode=755 none /etc/cni/net.d`); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	gone := false
	restore := func() {
		if !gone {
			if out, err := node(2, `umount /etc/cni/net.d`); err != nil {
				t.Errorf("umount: %v: %s", err, out)
			}
			gone = true
			newAgent(t, 2) // its directory is still the other one
		}
	}
	t.Cleanup(restore)
	newAgent(t, 2)
	says(t, 2, "the directory is named", "not installed as wanted", "/etc/cni/net.d", "writable")
	tr.arrived("unwritable directory of CNI configurations")
	restore()
	afterwards(t, ns, tr, "directory writable again")
}

// An agent whose rights are fewer than it needs names the verbs and kinds, and takes nothing away.
func TestClusterRights(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2}, [2]int{2, 2})
	allowTrains(t, ns)
	grant := func(verbs string) {
		t.Helper()
		// The first rule is for pods, namespaces, service accounts and services.
		kubectl(t, "patch", "clusterrole", "weft-node", "--type=json",
			"-p", `[{"op": "test", "path": "/rules/0/resources/0", "value": "pods"}, {"op": "replace", "path": "/rules/0/verbs", "value": [`+verbs+`]}]`)
	}
	t.Cleanup(func() { grant(`"get", "list", "watch"`) })
	grant(`"get"`)
	newAgent(t, 2)
	for _, kind := range []string{"pods", "namespaces", "serviceaccounts"} {
		says(t, 2, "the missing right is named", "list", kind)
	}
	tr.arrived("missing rights")
	dropped(t, ns, "outsider", "tcp", address(t, ns, "echo-0")+":"+platform)
	grant(`"get", "list", "watch"`)
	afterwards(t, ns, tr, "all rights again")
}

// CRDs of both groups, and in them different clusters: an agent that starts says so, and what to
// do; it takes neither, and nothing away.
func TestClusterGroups(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2}, [2]int{2, 2})
	for _, d := range strings.Split(calico{t}.definitions(), "---") {
		if strings.Contains(d, "name: clusterinformations.") {
			apply(t, d)
		}
	}
	remove := func() {
		kubectl(t, "delete", "crd", "clusterinformations.crd.projectcalico.org", "--ignore-not-found")
	}
	t.Cleanup(remove)
	apply(t, "apiVersion: crd.projectcalico.org/v1\nkind: ClusterInformation\nmetadata: {name: default}\nspec: {clusterGUID: another, datastoreReady: true}\n")
	newAgent(t, 2)
	says(t, 2, "both groups are named", "crd.projectcalico.org", "different clusters", "CALICO_API_GROUP")
	tr.arrived("two groups")
	remove()
	afterwards(t, ns, tr, "one group again")
}

// A lease that somebody with a clock an hour ahead has held is taken as soon as it is not
// renewed, not in an hour; and the controllers work.
func TestClusterClock(t *testing.T) {
	ns := namespace(t)
	start(t, ns, pod{name: "ends", node: 1, labels: "app: ends"})
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		at := time.Now().Add(ahead).UTC().Format("2006-01-02T15:04:05.000000Z")
		kubectl(t, "-n", "kube-system", "patch", "lease", "weft-controllers", "--type=merge",
			"-p", fmt.Sprintf(`{"spec": {"holderIdentity": "of-another-hour", "renewTime": %q, "acquireTime": %[1]q}}`, at))
		eventually(t, "lease", func() error {
			var lease struct {
				Spec struct{ HolderIdentity string }
			}
			if err := get(&lease, "-n", "kube-system", "lease", "weft-controllers"); err != nil {
				return err
			}
			if !strings.HasPrefix(lease.Spec.HolderIdentity, "weft-controllers-") {
				return fmt.Errorf("the lease is held by %q", lease.Spec.HolderIdentity)
			}
			return nil
		})
	}
	kubectl(t, "-n", ns, "delete", "pod", "ends", "--wait=false")
	eventually(t, "address released", func() error {
		n, err := holds("namespace", ns)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d addresses are held for a pod that is gone", n)
		}
		return err
	})
}
