package cluster_test

import (
	"context"
	"crypto/sha1" //nolint:gosec // Calico names interfaces by it
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// calicoEtcd is where the nodes of a test find Calico's etcd: in the network of the cluster.
const calicoEtcd = "http://172.30.0.1:2390"

// etcd starts the etcd that Calico has.
func (c calico) etcd() *clientv3.Client {
	c.t.Helper()
	peer := "http://127.0.0.1:2391"
	cmd := exec.Command("etcd", "--data-dir", c.t.TempDir(), "--log-level", "error", "--unsafe-no-fsync",
		"--listen-client-urls", calicoEtcd, "--advertise-client-urls", calicoEtcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{calicoEtcd}, DialTimeout: 10 * time.Second})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = client.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it is killed
	})
	return client
}

// keys are what Calico has stored in etcd: the same as objects, and what on the Kubernetes API
// is in nodes, pods and namespaces.
func (c calico) keys() map[string]any {
	c.t.Helper()
	keys := map[string]any{"/calico/ipam/v2/config": map[string]any{"auto_allocate_blocks": true}}
	put := func(plural, kind, namespace, name string, labels map[string]string, spec any) {
		metadata := map[string]any{"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "uid": "00000000-0000-0000-0000-" + hash(kind + namespace + name)[:12]}
		path := "/calico/resources/v3/projectcalico.org/" + plural + "/"
		if namespace != "" {
			metadata["namespace"] = namespace
			path += namespace + "/"
		}
		if labels != nil {
			metadata["labels"] = labels
		}
		keys[path+name] = map[string]any{"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec}
	}
	for _, o := range c.settings() {
		kind, name := o["kind"].(string), o["metadata"].(map[string]any)["name"].(string)
		put(strings.ToLower(kind)+"s", kind, "", name, nil, o["spec"])
	}
	pods := c.pods()
	for n := 1; n <= 3; n++ {
		name, cidr := fmt.Sprintf("node%d", n), blockOf(n)
		dashed := strings.ReplaceAll(cidr, "/", "-")
		put("nodes", "Node", "", name, nil, map[string]any{
			"bgp":      map[string]any{"ipv4Address": fmt.Sprintf("172.30.0.%d/24", 10+n)},
			"orchRefs": []any{map[string]any{"nodeName": name, "orchestrator": "k8s"}},
		})
		block, handles := c.block(n, pods)
		keys["/calico/ipam/v2/assignment/ipv4/block/"+dashed] = block
		keys["/calico/ipam/v2/host/"+name+"/ipv4/block/"+dashed] = map[string]any{"state": "confirmed", "deleted": false}
		for _, handle := range handles {
			keys["/calico/ipam/v2/handle/"+handle] = map[string]any{"block": map[string]int{cidr: 1}, "deleted": false}
		}
	}
	for _, p := range pods {
		ns, account := p.Metadata.Namespace, p.Spec.ServiceAccountName
		put("profiles", "Profile", "", "kns."+ns, nil, map[string]any{
			"ingress": []any{map[string]any{"action": "Allow"}}, "egress": []any{map[string]any{"action": "Allow"}},
			"labelsToApply": map[string]string{"pcns.kubernetes.io/metadata.name": ns, "pcns.projectcalico.org/name": ns},
		})
		put("profiles", "Profile", "", "ksa."+ns+"."+account, nil, map[string]any{"labelsToApply": map[string]string{"pcsa.projectcalico.org/name": account}})
		labels := map[string]string{"projectcalico.org/namespace": ns, "projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": account}
		for k, v := range p.Metadata.Labels {
			labels[k] = v
		}
		dashes := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
		put("workloadendpoints", "WorkloadEndpoint", ns, dashes(p.Spec.NodeName)+"-k8s-"+dashes(p.Metadata.Name)+"-eth0", labels, map[string]any{
			"orchestrator": "k8s", "node": p.Spec.NodeName, "containerID": c.sandbox(p), "pod": p.Metadata.Name, "endpoint": "eth0",
			"ipNetworks": []string{p.Status.PodIP + "/32"}, "profiles": []string{"kns." + ns, "ksa." + ns + "." + account},
			"interfaceName": "cali" + hash(ns + "." + p.Metadata.Name)[:11], "serviceAccountName": account,
		})
	}
	return keys
}

func hash(text string) string {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// The same take-over where Calico's datastore is an etcd: the pods that run are endpoints there,
// and weft's controllers go on where Calico's stopped.
func TestTakeoverEtcd(t *testing.T) {
	const ns = "takeover"
	script(t)
	c := calico{t}
	client := c.etcd()
	tr, before := c.run(ns)
	for key, value := range c.keys() {
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, key, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := client.Put(ctx, key, string(b))
			return err
		})
	}
	// Rendered by test/k8s/run, for this etcd.
	manifest, err := os.ReadFile(filepath.Join(os.Getenv("WEFT_LOGS"), "etcd", "weft-etcd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const selector = "kubernetes.io/os: linux\n"
	if !strings.Contains(string(manifest), calicoEtcd) || !strings.Contains(string(manifest), selector) {
		t.Fatalf("the manifest does not name %s, or has no node selector", calicoEtcd)
	}
	apply(t, strings.Replace(string(manifest), selector, selector+`        weft.net/takeover: "true"`+"\n", 1))
	c.handOver(ns, tr, before, func() (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		got, err := client.Get(ctx, "/calico/ipam/v2/assignment/ipv4/block/"+strings.ReplaceAll(blockOf(1), "/", "-"))
		if err != nil {
			return false, err
		}
		if len(got.Kvs) == 0 {
			return false, fmt.Errorf("etcd has no block %s", blockOf(1))
		}
		return strings.Contains(string(got.Kvs[0].Value), `"server"`), nil
	})
}
