package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/internal/testenv"
)

// certificate writes a certificate for 127.0.0.1, which is its own authority, and
// its key.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// requireUsers makes an etcd ask for users; it has root with the password secret,
// and operator, who may use Calico's keys only.
func requireUsers(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := client.RoleAdd(ctx, "root"); return err },
		func() error { _, err := client.RoleAdd(ctx, "calico"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "calico", "/calico/", "/calico0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := client.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(ctx, "operator", "sesame"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "operator", "calico"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSecureStore: an agent works with an etcd that wants TLS, a user and a
// password, and of which one endpoint is dead.
func TestSecureStore(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	dir := c.now.Dir
	cert, key := certificate(t, dir)
	plain := "unix://" + filepath.Join(dir, "secure.sock")
	c.begin("node-a", filepath.Join(bin, "weft"), "store", "--data-dir", filepath.Join(dir, "secure"),
		"--listen", "https://127.0.0.1:4001", "--listen", plain, "--cert-file", cert, "--key-file", key)
	var client *clientv3.Client
	eventually(t, "the store", func() (err error) {
		if _, err = os.Stat(filepath.Join(dir, "secure.sock")); err == nil {
			client, err = clientv3.New(clientv3.Config{Endpoints: []string{plain}, DialTimeout: testenv.Patience})
		}
		return err
	})
	defer client.Close()
	requireUsers(t, client)

	env := []string{
		"ETCD_ENDPOINTS=https://127.0.0.1:9,https://127.0.0.1:4001", "ETCD_CA_CERT_FILE=" + cert,
		"ETCD_USERNAME=operator", "ETCD_PASSWORD=sesame",
	}
	out, code := c.runAgent(append(env, "ETCD_PASSWORD=wrong")...)
	if code != 1 || strings.Contains(out, "\n") || !strings.Contains(out, `user "operator": authentication failed`) {
		t.Errorf("wrong password: exit code %d: %s", code, out)
	}
	out, code = c.runAgent(append(env, "ETCD_CA_CERT_FILE=")...)
	if code != 1 || strings.Contains(out, "\n") || !strings.Contains(out, "certificate") {
		t.Errorf("without the authority: exit code %d: %s", code, out)
	}
	out, code = c.runAgent("ETCD_ENDPOINTS=http://127.0.0.1:4001")
	if code != 1 || strings.Contains(out, "\n") {
		t.Errorf("without TLS: exit code %d: %s", code, out)
	}

	c.stop("node-a", false)
	text, argv := c.agentCommand("node-a", env...)
	agent := c.begin("node-a", "sh", "-c", "exec env -i "+text+argv)
	eventually(t, "the agent", func() error {
		s, err := c.agentStatus("node-a")
		if err != nil || !s.Ready {
			return fmt.Errorf("%v %s: %s", err, s.Why, agent.err)
		}
		return nil
	})
	h := c.runtime("node-a")
	added := h.must("ADD", "web")[0]
	c.sh("node-a").run(ping(addressOf(t, added).String()))
	h.must("DEL", "web")
	// It is this datastore that has it all.
	r, err := client.Get(clientv3.WithRequireLeader(t.Context()), "/calico/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err == nil {
		t.Errorf("without a user, %d keys can be read", r.Count)
	}
}

// plugin runs the executable under one of its names, with IPAM plugins of others
// beside it; the calls must succeed.
func (h *host) plugin(name, command string, conf map[string]any, containers ...string) []cniAnswer {
	h.c.t.Helper()
	text, err := json.Marshal(conf)
	if err != nil {
		h.c.t.Fatal(err)
	}
	dir := filepath.Join(h.c.now.Dir, "cni")
	answers := h.call(cniCall{
		Containers: containers, Command: command, Conf: text, Program: filepath.Join(dir, name),
		Env: []string{"CNI_PATH=" + dir, "WEFT_CNI_QUEUE=" + filepath.Join(filepath.Dir(h.c.node(h.node).Socket), "queue")},
	})
	for _, a := range answers {
		if a.Code != 0 {
			h.c.t.Fatalf("%s of %s: exit code %d: %s%s", command, a.Container, a.Code, a.Stdout, a.Stderr)
		}
	}
	return answers
}

// annotated is a configuration with annotations of the pod.
func (h *host) annotated(annotations map[string]string, over map[string]any) map[string]any {
	out := h.with(map[string]any{
		"cniVersion":      "0.3.1",
		"feature_control": map[string]any{"floating_ips": true, "ip_addrs_no_ipam": true},
		"runtimeConfig":   map[string]any{"io.kubernetes.cri.pod-annotations": annotations},
	})
	maps.Copy(out, over)
	return out
}

// TestEndpoints attaches pods in every way that configuration and annotations know,
// and looks at what is stored.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	c := up(t, "../../examples/dual-stack.yaml")
	h := c.runtime("node-a")
	before := c.held()
	dual := map[string]any{"type": "calico-ipam", "assign_ipv6": "true"}
	conf := h.annotated(map[string]string{
		"cni.projectcalico.org/floatingIPs":           `["192.0.2.5","2001:db8::5"]`,
		"cni.projectcalico.org/allowedSourcePrefixes": `["203.0.113.0/24"]`,
		"cni.projectcalico.org/hwAddr":                "0a:58:0a:00:00:07",
	}, map[string]any{"ipam": dual})
	a := h.cni("ADD", conf, "both")[0]
	var result struct {
		CNIVersion string
		IPs        []struct{ Version, Address string }
	}
	if err := json.Unmarshal([]byte(a.Stdout), &result); err != nil || a.Code != 0 || result.CNIVersion != "0.3.1" || len(result.IPs) != 2 ||
		result.IPs[0].Version != "4" || result.IPs[1].Version != "6" {
		t.Fatalf("ADD of both families: exit code %d, %v: %s", a.Code, err, a.Stdout)
	}
	four, six := strings.TrimSuffix(result.IPs[0].Address, "/32"), strings.TrimSuffix(result.IPs[1].Address, "/128")
	for _, addr := range []string{four, six} {
		c.sh("node-a").run(ping(addr))
		c.reach("pod/default/other", addr)
	}
	ep := c.endpoint("both")
	if got, want := fmt.Sprint(ep.Spec.IPNATs), fmt.Sprintf("[{%s 192.0.2.5} {%s 2001:db8::5}]", four, six); got != want {
		t.Errorf("ipNATs %s, want %s", got, want)
	}
	if got := fmt.Sprint(ep.Spec.AllowSpoofedSourcePrefixes, " ", ep.Spec.MAC); got != "[203.0.113.0/24] 0a:58:0a:00:00:07" {
		t.Errorf("source prefixes and MAC: %s", got)
	}
	given := h.annotated(map[string]string{"cni.projectcalico.org/ipAddrsNoIpam": `["10.200.0.5"]`}, nil)
	if a := h.cni("ADD", given, "given")[0]; a.Code != 0 {
		t.Fatalf("ADD of an address without IPAM: %s", a.Stdout)
	}
	c.sh("node-a").run(ping("10.200.0.5"))
	if a := h.cni("DEL", given, "given")[0]; a.Code != 0 {
		t.Errorf("DEL: %s", a.Stdout)
	}
	if a := h.cni("DEL", conf, "both")[0]; a.Code != 0 {
		t.Errorf("DEL: %s", a.Stdout)
	}
	after := c.held()
	for key, value := range after {
		if _, ok := before[key]; !ok && !strings.HasPrefix(value, "0 addresses") {
			t.Errorf("left in etcd: %s: %s", key, value)
		}
	}
}

func with(conf map[string]any, key string, value any) map[string]any {
	conf[key] = value
	return conf
}

// storedEndpoint is what the tests look at in a WorkloadEndpoint.
type storedEndpoint struct {
	Spec struct {
		IPNetworks                 []string
		IPNATs                     []struct{ InternalIP, ExternalIP string }
		AllowSpoofedSourcePrefixes []string
		MAC                        string
	}
}

// endpoint reads the endpoint of a pod that a runtime added on node-a.
func (c *cluster) endpoint(pod string) storedEndpoint {
	c.t.Helper()
	all, _ := keys(c.t, c.etcd(), "/calico/resources/v3/projectcalico.org/workloadendpoints/default/")
	for key, value := range all {
		if strings.HasSuffix(key, "/node--a-k8s-"+pod+"-eth0") {
			var e storedEndpoint
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				c.t.Fatal(err)
			}
			return e
		}
	}
	c.t.Fatalf("no endpoint of %s: %v", pod, all)
	return storedEndpoint{}
}

// TestHostLocal: another IPAM plugin gives the addresses, the agent the endpoint
// and the routes; both are given back, by DEL and by GC.
func TestHostLocal(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	plugin := filepath.Join(c.now.Dir, "cni", "host-local")
	build := exec.Command("go", "build", "-trimpath", "-o", plugin, "github.com/containernetworking/plugins/plugins/ipam/host-local")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h := c.runtime("node-a")
	h.conf["cniVersion"] = "1.1.0"
	h.conf["ipam"] = map[string]any{
		"type": "host-local", "dataDir": filepath.Join(c.now.Dir, "host-local"),
		"ranges": []any{[]any{map[string]any{"subnet": "10.77.0.0/29"}}},
	}
	before := c.held()
	for _, a := range h.plugin("calico", "ADD", h.conf, "one", "two") {
		c.sh("node-a").run(ping(addressOf(t, a).String()))
		h.plugin("calico", "CHECK", with(h.with(nil), "prevResult", json.RawMessage(a.Stdout)), a.Container)
	}
	h.plugin("calico", "DEL", h.conf, "one")
	h.plugin("calico", "GC", with(h.with(nil), "cni.dev/valid-attachments", []any{}), "two")
	if after := c.held(); lines(after) != lines(before) {
		t.Errorf("left in etcd:\n%s", diff(lines(after), lines(before)))
	}
	if left, _ := filepath.Glob(filepath.Join(c.now.Dir, "host-local", "net", "10.*")); len(left) > 0 {
		t.Errorf("left by host-local: %v", left)
	}
	eventually(t, "links to go", func() error {
		if l := c.links("node-a"); len(l) > 0 {
			return fmt.Errorf("%v", l)
		}
		return nil
	})
}

// TestIPAMPlugin runs the executable as calico-ipam: addresses and nothing else.
func TestIPAMPlugin(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	h.conf["type"] = "calico-ipam"
	first := h.plugin("calico-ipam", "ADD", h.conf, "web")[0]
	if again := h.plugin("calico-ipam", "ADD", h.conf, "web")[0]; again.Stdout != first.Stdout || !strings.Contains(first.Stdout, "/26") {
		t.Errorf("a second ADD gave %s, the first %s", again.Stdout, first.Stdout)
	}
	h.plugin("calico-ipam", "CHECK", with(h.with(nil), "prevResult", json.RawMessage(first.Stdout)), "web")
	if l := c.links("node-a"); len(l) > 0 {
		t.Errorf("an IPAM plugin made links: %v", l)
	}
	h.plugin("calico-ipam", "DEL", h.conf, "web")
	for key, value := range c.held() {
		if !strings.HasPrefix(value, "0 addresses") {
			t.Errorf("left in etcd: %s: %s", key, value)
		}
	}
}

// TestAddressChanges: while it runs, an agent notices that its node's address
// changed, that its record is gone, and that its address is now another node's.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`{racks: [{name: r, subnets: [10.1.0.0/24]}], nodes: [{name: node-a}, {name: node-b}],
		env: {AUTODETECT_POLL_INTERVAL: 100ms}, pods: [{name: p, node: node-a}]}`))
	c.refresh()
	c.established("node-b", 1)
	n := c.sh("node-a")
	n.run("ip addr flush dev eth0; ip addr add 10.1.0.77/24 dev eth0")
	c.awaitRoute("node-b", `.*/26 via 10\.1\.0\.77 dev eth0 proto bird`)
	const path = "/calico/resources/v3/projectcalico.org/nodes/node-a"
	client := c.etcd()
	if _, err := client.Delete(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record", func() error {
		if all, _ := keys(t, client, path); !strings.Contains(all[path], `"ipv4Address":"10.1.0.77/24"`) {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
	c.awaitRoute("node-b", `.*/26 via 10\.1\.0\.77 dev eth0 proto bird`)
	n.run("ip addr flush dev eth0; ip addr add 10.1.0.12/24 dev eth0")
	eventually(t, "the conflict", func() error {
		if all, _ := keys(t, client, path); !strings.Contains(all[path], "10.1.0.12 is the address of node node-b") {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
}

// TestKilledDuringRequests kills the agent again and again while containers come
// and go. What a runtime was told holds: an ADD that succeeded has its address and
// its route, and after all DELs nothing is left.
func TestKilledDuringRequests(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	h.must("ADD", "first")
	h.must("DEL", "first")
	before := c.held()
	names := containerNames("pod", 12)
	// It dies after some writes of its own, a few more each time.
	ctx, over := context.WithCancel(t.Context())
	writes := c.etcd().Watch(ctx, "/calico/ipam/", clientv3.WithPrefix())
	var killer sync.WaitGroup
	kills := 0
	killer.Go(func() {
		for {
			for range 1 + kills%7 {
				if r, ok := <-writes; !ok || r.Err() != nil {
					return
				}
			}
			c.stop("node-a", true)
			c.start("node-a")
			kills++
		}
	})
	failed, added := 0, 0
	for round := 0; round < 60 && added < 60; round++ {
		holder := map[netip.Addr]string{}
		for _, a := range h.cni("ADD", h.conf, names...) {
			if a.Code != 0 {
				failed++
				continue
			}
			added++
			addr := addressOf(t, a)
			if other, ok := holder[addr]; ok {
				t.Errorf("%s and %s both have %v", a.Container, other, addr)
			}
			holder[addr] = a.Container
			if err := c.hasRoute("node-a", strings.ReplaceAll(addr.String(), ".", `\.`)+" dev cali.* scope link"); err != nil {
				t.Errorf("%s: %v", a.Container, err)
			}
		}
		for _, a := range h.cni("DEL", h.conf, names...) {
			if a.Code != 0 {
				t.Errorf("DEL of %s: %s", a.Container, a.Stdout)
			}
		}
	}
	over()
	killer.Wait()
	t.Logf("%d ADDs succeeded, %d failed, %d kills", added, failed, kills)
	eventually(t, "etcd as before", func() error {
		if got := c.held(); lines(got) != lines(before) {
			return fmt.Errorf("%s", diff(lines(got), lines(before)))
		}
		return nil
	})
	// An agent that is killed right after the answer to a DEL leaves the link, which
	// goes with the container's namespace, or when the pod is added again.
	if added == 0 || kills == 0 {
		t.Error("nothing was tried")
	}
}
