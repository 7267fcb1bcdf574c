package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
)

// setLock locks or unlocks the datastore.
func (w *ipamWorld) setLock(on bool) {
	w.t.Helper()
	o, err := w.st.Get(w.t.Context(), model.Cluster{}.Key())
	verb := store.Update
	if errors.Is(err, store.ErrNotFound) {
		info, _ := v3.New("ClusterInformation")
		info.Meta().Name = "default"
		info.(*v3.ClusterInformation).Spec.ClusterGUID = "guid"
		o, verb, err = store.New(info), store.Create, nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	ready := !on
	o.Object.(*v3.ClusterInformation).Spec.DatastoreReady = &ready
	if _, err := w.st.Commit(w.t.Context(), store.Op{Verb: verb, Object: o}); err != nil {
		w.t.Fatal(err)
	}
}

// TestIPAMRelease: what a report calls leaked is released, but nothing that came into use
// after it was written.
func TestIPAMRelease(t *testing.T) {
	t.Parallel()
	environ := startEtcd(t)
	w := newIPAMWorld(t, openTest(t, environ), "a", "b")
	for i := range 8 {
		w.add([]string{"a", "b"}[i%2], fmt.Sprintf("p%d", i))
	}
	w.setLock(false)
	addrs := map[string][]string{}
	for _, pod := range []string{"p1", "p2", "p3", "p4"} {
		addrs[pod] = w.addrsOf(pod)
		w.drop(w.endpointKey(pod)) // its addresses are leaked
	}
	faults()["orphan a handle"](w, newRand())
	report := filepath.Join(t.TempDir(), "report.json")
	out, stderr, code := weftOn(t, "weft", environ, "ipam", "check", "-o", "report="+report)
	if code != 0 || stderr != "" || !strings.Contains(out, "9 problems: 8 leaked, 1 orphaned-handle\n") {
		t.Fatalf("check: exit %d\n%s%s", code, out, stderr)
	}
	second := filepath.Join(t.TempDir(), "second.json")
	if _, stderr, code := weftOn(t, "calicoctl", append(environ, "KUBECONFIG="+emptyCluster(t)), "ipam", "check", "-o", second); code != 0 {
		t.Fatalf("check as calicoctl: exit %d: %s", code, stderr)
	}

	// p1's endpoint comes back; p2 is gone for good, and its addresses are given out
	// anew; p3's handle has got another allocation of the same address.
	ep := w.endpointOf("b", "p1", netip.MustParseAddr(addrs["p1"][0]), netip.MustParseAddr(addrs["p1"][1]))
	w.commit(store.Create, ep)
	for _, pod := range []string{"p2", "p3"} {
		if _, err := w.nodes[w.onNode[pod]].Release(t.Context(), "net."+pod); err != nil {
			t.Fatal(err)
		}
	}
	w.again("b", "p2", "net.other", addrs["p2"])
	w.again("b", "p3", "net.p3", addrs["p3"])

	_, stderr, code = weftOn(t, "weft", environ, "ipam", "release", "--from-report", report)
	if code != 1 || stderr != "data store is not locked. Either lock the data store, or re-run with --force\n" {
		t.Fatalf("not locked: exit %d, %q", code, stderr)
	}
	w.setLock(true)
	out, stderr, code = weftOn(t, "weft", environ, "ipam", "release", "--from-report", report, "--from-report", second)
	if code != 0 || stderr != "" || !strings.HasSuffix(out, "2 addresses and 1 handle released, 6 left alone\n") {
		t.Fatalf("release: exit %d\n%s%s", code, out, stderr)
	}
	held := map[string]string{}
	for _, b := range w.blocks() {
		for ord, at := range b.Allocations {
			if at >= 0 {
				held[ipam.AddrAt(b.CIDR, ord).String()] = b.Attributes[at].Handle
			}
		}
	}
	for pod, want := range map[string]string{"p1": "net.p1", "p2": "net.other", "p3": "net.p3", "p4": ""} {
		for _, a := range addrs[pod] {
			if held[a] != want {
				t.Errorf("%s of %s: held by %q, want %q", a, pod, held[a], want)
			}
		}
	}
	w.setLock(false)
	out, _, _ = weftOn(t, "weft", environ, "ipam", "release", "--force", "--from-report", report)
	if !strings.HasSuffix(out, "0 addresses and 0 handles released, 9 left alone\n") {
		t.Errorf("a second time:\n%s", out)
	}
}

// again gives out addresses anew, which nobody uses.
func (w *ipamWorld) again(node, pod, handle string, addrs []string) {
	w.t.Helper()
	r := ipam.Request{Holder: ipam.PodHolder(handle, node, "default", pod, time.Unix(2, 0)), Use: model.UseWorkload}
	for _, a := range addrs {
		r.Addrs = append(r.Addrs, netip.MustParseAddr(a))
	}
	if _, err := w.nodes[node].Assign(w.t.Context(), allocator.Request{Request: r}); err != nil {
		w.t.Fatal(err)
	}
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

// emptyCluster is the kubeconfig of an API server that has nothing.
func emptyCluster(t *testing.T) string {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		kind := map[string]string{"/api/v1/pods": "PodList", "/api/v1/services": "ServiceList"}[r.URL.Path]
		_, _ = fmt.Fprintf(w, `{"kind":%q,"apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`, kind)
	}))
	t.Cleanup(api.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: '" + api.URL + "'}}]\n" +
		"contexts: [{name: a, context: {cluster: a, user: a}}]\ncurrent-context: a\nusers: [{name: a, user: {}}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A release is a compare-and-swap: an allocation that changes between the second look and
// the write is left alone.
func TestIPAMReleaseSwaps(t *testing.T) {
	t.Parallel()
	w := newIPAMWorld(t, mem.New(), "a")
	w.add("a", "p1")
	addrs := w.addrsOf("p1")
	w.drop(w.endpointKey("p1"))
	r := &ipamReader{store: w.st, progress: func(string) {}}
	_, now, err := r.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	todo := audit.Releases{Addrs: now.Of(audit.Leaked)}
	if len(todo.Addrs) != 2 {
		t.Fatalf("leaked: %v", todo.Addrs)
	}
	if _, err := w.nodes["a"].Release(t.Context(), "net.p1"); err != nil {
		t.Fatal(err)
	}
	w.again("a", "p1", "net.p1", addrs)
	c := &client{Process: Process{Stderr: os.Stderr}}
	done, err := c.release(t.Context(), r, todo)
	if err != nil || done.addrs != 0 || len(done.skipped) != 2 {
		t.Errorf("released %d, left alone %v, %v; want none, and both left alone", done.addrs, done.skipped, err)
	}
}

func TestIPAMReleaseRefuses(t *testing.T) {
	t.Parallel()
	environ := startEtcd(t)
	w := newIPAMWorld(t, openTest(t, environ), "a")
	w.add("a", "p1")
	w.setLock(true)
	a := w.addrsOf("p1")[0]
	dir := t.TempDir()
	files := map[string]string{"text": "hello", "empty.json": "{}", "other.json": `{"clusterGUID":"another","allocations":{}}`, "line.json": `{"clusterGUID":"guid","allocations":{"10.0.0.1":[{"ip":"10.0.0.1"}]}}`}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing":      {nil, 2, "--ip or --from-report must be given"},
		"both":         {[]string{"--ip=10.0.0.1", "--from-report=x"}, 2, "only one may be given"},
		"no address":   {[]string{"--ip=nonsense"}, 2, `--ip: "nonsense": must be an IP address`},
		"not assigned": {[]string{"--ip=10.99.0.1"}, 1, "IP address 10.99.0.1 is not assigned"},
		"in use":       {[]string{"--ip=" + a}, 1, "in use by Workload(default/a-k8s-p1-eth0): --force releases it nevertheless"},
		"no file":      {[]string{"--from-report=" + dir + "/none"}, 1, "no such file"},
		"no report":    {[]string{"--from-report=" + dir + "/text"}, 1, "is no report of ipam check"},
		"empty report": {[]string{"--from-report=" + dir + "/empty.json"}, 1, "neither clusterGUID nor allocations"},
		"another's":    {[]string{"--from-report=" + dir + "/other.json"}, 1, `the report is of cluster "another": must be of this one, "guid"`},
		"bad line":     {[]string{"--from-report=" + dir + "/line.json"}, 1, "sequenceNumber is missing"},
	} {
		_, stderr, code := weftOn(t, "weft", environ, append([]string{"ipam", "release"}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want %d and one line with %q", name, code, stderr, tt.code, tt.want)
		}
	}
	if out, stderr, code := weftOn(t, "weft", environ, "ipam", "release", "--force", "--ip="+a); code != 0 || out != a+" released: it was of pod default/p1\n" {
		t.Errorf("forced: exit %d, %q %q", code, out, stderr)
	}
}

// faulty refuses one commit.
type faulty struct {
	store.Store
	commits, fail int // the commit with the number fail, from 1
}

func (f *faulty) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if f.commits++; f.commits == f.fail {
		return nil, errors.New("power cut")
	}
	return f.Store.Commit(ctx, ops...)
}

// TestIPAMSplit: wherever a split breaks off, a second run finishes it, and at no time is an
// address in no pool.
func TestIPAMSplit(t *testing.T) {
	t.Parallel()
	const parts = 256 // three transactions of new pools
	for fail := range 6 {
		t.Run(fmt.Sprint(fail), func(t *testing.T) {
			t.Parallel()
			st := mem.New()
			o, _ := v3.New("IPPool")
			p := o.(*v3.IPPool)
			p.Name, p.Spec.CIDR, p.Spec.BlockSize, p.Spec.NATOutgoing = "big", "10.0.0.0/16", 26, true
			v3.Default(p)
			w := &ipamWorld{t: t, st: st}
			w.commit(store.Create, p)
			w.setLock(true)
			f := &faulty{Store: st, fail: fail}
			var out strings.Builder
			s := ipamSplit{client: &client{Process: Process{Stdout: &out}}, store: f, name: "big", n: parts}
			err := s.run(t.Context())
			if broke := fail > 0 && fail <= 4; broke != (err != nil) {
				t.Fatalf("commit %d fails: %v", fail, err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "the same command again finishes it") {
					t.Errorf("does not say what to do: %v", err)
				}
				if _, err := st.Get(t.Context(), model.Key{Kind: model.KindIPPool, Name: "big"}); err != nil {
					t.Errorf("the old pool is gone before the new ones are there: %v", err)
				}
				if err := s.run(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			pools, _, err := listed[model.Pool](t.Context(), st, model.KindIPPool)
			if err != nil || len(pools) != parts {
				t.Fatalf("%d pools, %v", len(pools), err)
			}
			covered := map[netip.Prefix]bool{}
			for _, p := range pools {
				covered[p.CIDR] = p.CIDR.Bits() == 24 && p.BlockBits == 26 && p.NATOutgoing
			}
			for i := range parts {
				if cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24); !covered[cidr] {
					t.Errorf("no pool, or not as the old one: %v", cidr)
				}
			}
		})
	}
}

func TestIPAMSplitRefuses(t *testing.T) {
	t.Parallel()
	environ := startEtcd(t)
	w := newIPAMWorld(t, openTest(t, environ), "a")
	w.add("a", "p1")
	line := func(args ...string) string {
		_, stderr, code := weftOn(t, "weft", environ, append([]string{"ipam", "split"}, args...)...)
		return fmt.Sprintf("%d %s", code, stderr)
	}
	if got := line("2", "--name=pool-a"); !strings.Contains(got, "1 ipam: split: the datastore is not locked") {
		t.Errorf("not locked: %s", got)
	}
	w.setLock(true)
	for args, want := range map[string]string{
		"2":                                   "2 which pool is to be split? One of --name and --cidr must be given",
		"x --name=pool-a":                     `2 "x": must be a number of pools`,
		"3 --name=pool-a":                     "1 ipam: split 10.0.0.0/22 into 3: must be a power of two, 2 or more",
		"128 --name=pool-a":                   "1 ipam: split 10.0.0.0/22 into 128: /29 of blocks of /28: the parts would be smaller than a block",
		"2 --name=nosuch":                     `1 ipam: split nosuch: no such pool: there are ["pool-a 10.0.0.0/22" "pool-six fd00::/112"]`,
		"2 --cidr=10.0.0.0":                   `2 --cidr: "10.0.0.0": must be the range of a pool`,
		"4611686018427387904 --name=pool-six": "the parts would be smaller than a block",
	} {
		if got := line(strings.Fields(args)...); !strings.Contains(got, want) {
			t.Errorf("%s: %s; want %s", args, got, want)
		}
	}
	if got := line("4", "--cidr=fd00::/112"); got != "0 " {
		t.Errorf("split: %s", got)
	}
	if got := line("4", "--name=pool-six"); !strings.Contains(got, "it was split before, as split-pool-six-0 exists") {
		t.Errorf("again: %s", got)
	}
	if got := w.found(); len(got) > 0 {
		t.Errorf("after the split: found %q", got)
	}
}

// TestIPAMConfigure: what test/fixtures/ipam has of calicoctl, and weft's own words.
func TestIPAMConfigure(t *testing.T) {
	t.Parallel()
	environ := startEtcd(t)
	for _, tt := range []struct {
		program, args string
		code          int
		want          string
	}{
		{"calicoctl", "--max-blocks-per-host=1", 1, "error: MaxBlocksPerHost requires StrictAffinity to be enabled\n"},
		{"calicoctl", "--strictaffinity=true", 0, "Successfully set StrictAffinity to: true\n"},
		{"calicoctl", "--max-blocks-per-host=2", 0, "Successfully set MaxBlocksPerHost to: 2\n"},
		{"calicoctl", "--strictaffinity=false", 1, "error: MaxBlocksPerHost requires StrictAffinity to be enabled\n"},
		{"calicoctl", "--max-blocks-per-host=x", 1, "invalid value for maxblockhost. Use a valid number\n"},
		{"calicoctl", "--max-blocks-per-host=-1", 0, "Successfully set MaxBlocksPerHost to: -1\n"},
		{"calicoctl", "--strictaffinity=maybe", 1, "invalid value. Use true or false to set strictaffinity\n"},
		{"calicoctl", "", 1, "at least one configuration option must be specified\n"},
		{"calicoctl", "--ip-cooldown-seconds=1201", 0, "Successfully set IPCooldownSeconds to: 1201\n"},
		{"weft", "", 2, "nothing to change: at least one of the settings must be given: see --help\n"},
		{"weft", "--max-blocks-per-host=-1 --ip-cooldown-seconds=1201 --kubevirt-ip-persistence=on", 2, "--max-blocks-per-host: \"-1\": must be a number, 0 or more; 0 means 20\n" +
			"--kubevirt-ip-persistence: \"on\": must be Enabled or Disabled\n--ip-cooldown-seconds: \"1201\": must be a number of seconds, 0 to 1200\n"},
		{"weft", "--max-blocks-per-host=4 --ip-cooldown-seconds=30 --kubevirt-ip-persistence=Disabled", 0, "MaxBlocksPerHost is 4\nKubeVirtVMAddressPersistence is Disabled\nIPCooldownSeconds is 30\n"},
		{"weft", "--strictaffinity=false", 1, "ipam: configure: max-blocks-per-host 4 needs strict affinity: --strictaffinity=true, or --max-blocks-per-host=0\n"},
	} {
		out, stderr, code := weftOn(t, tt.program, environ, append([]string{"ipam", "configure"}, strings.Fields(tt.args)...)...)
		if code != tt.code || out+stderr != tt.want {
			t.Errorf("%s %s: exit %d, %q; want %d, %q", tt.program, tt.args, code, out+stderr, tt.code, tt.want)
		}
	}
	out, _, _ := weftOn(t, "weft", environ, "ipam", "show", "--show-configuration", "-o", "json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 4.0, "kubeVirtVMAddressPersistence": "Disabled", "ipCooldownSeconds": 30.0}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestIPAMShow: numbers that no machine integer holds, and blocks whose pool is gone.
func TestIPAMShow(t *testing.T) {
	t.Parallel()
	environ := startEtcd(t)
	w := newIPAMWorld(t, openTest(t, environ), "a")
	w.add("a", "p1")
	w.drop(model.Key{Kind: model.KindIPPool, Name: "pool-a"})
	o, _ := v3.New("IPPool")
	p := o.(*v3.IPPool)
	p.Name, p.Spec.CIDR, p.Spec.BlockSize = "vast", "fd01::/48", 122
	v3.Default(p)
	w.commit(store.Create, p)
	block := w.blocks()[0].CIDR.String()
	out, _, code := weftOn(t, "weft", environ, "ipam", "show", "--show-blocks")
	for _, want := range []string{
		"vast", "1208925819614629174706176", "1208925819614629174706176 (100%)", "(no pool) " + block + " 16 1 (6%) 0 (0%) 15 (94%) host:a",
	} {
		if code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("exit %d: no %q in\n%s", code, want, out)
		}
	}
	for _, line := range strings.Split(out, "\n") {
		if strings.HasSuffix(line, " ") {
			t.Errorf("blanks at the end of %q", line)
		}
	}
	out, _, _ = weftOn(t, "calicoctl", environ, "ipam", "show")
	if want := "| IP Pool  | fd01::/48   | 1.2089e+24 |   0 (0%) |       0 (0%) | 1.2089e+24 (100%) |"; !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")) {
		t.Errorf("no %q in\n%s", want, out)
	}
	out, _, _ = weftOn(t, "weft", environ, "ipam", "show", "--ip", w.addrsOf("p1")[1], "-o", "json")
	var who struct {
		Assigned bool
		Handle   string
		Owner    map[string]string
	}
	if err := json.Unmarshal([]byte(out), &who); err != nil || !who.Assigned || who.Handle != "net.p1" || who.Owner["pod"] != "p1" {
		t.Errorf("%v: %s", err, out)
	}
}
