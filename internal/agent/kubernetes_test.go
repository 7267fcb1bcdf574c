package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/cni/install"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/startup"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
)

// kubeBench is an agent's Kubernetes in memory: node-a with an address, kubeadm's
// configuration, a range of services, and the agent's own pod of a DaemonSet.
type kubeBench struct {
	*kubernetes
	t   *testing.T
	set *fake.Clientset
	log *strings.Builder
	c   Config
}

func newKubeBench(t *testing.T, objects ...runtime.Object) *kubeBench {
	t.Helper()
	yes := true
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.5"}}
	kubeadm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kubeadm-config", Namespace: "kube-system"}}
	kubeadm.Data = map[string]string{"ClusterConfiguration": "networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}"}
	services := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}
	services.Spec.CIDRs = []string{"10.96.0.0/16"}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "weft-node-x", Namespace: "kube-system"}}
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "weft-node", Controller: &yes}}
	b := &kubeBench{t: t, set: fake.NewClientset(append(objects, n, kubeadm, services, pod)...), log: &strings.Builder{}}
	s, err := startup.SettingsFrom("node-a", func(name string) string {
		return map[string]string{"IP": "autodetect", "IP_AUTODETECTION_METHOD": "kubernetes-internal-ip", "CLUSTER_TYPE": "k8s,bgp"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	b.c = Config{
		Settings: s, Kube: &kube.Client{Clientset: b.set}, KubeRequired: true, Pod: Pod{"kube-system", "weft-node-x"},
		Log: slog.New(slog.NewTextHandler(b.log, nil)),
	}
	b.kubernetes = newKubernetes(b.c)
	return b
}

// machine is a host with one interface.
func (*kubeBench) machine() startup.Host {
	return startup.Host{Links: func() ([]startup.Link, error) {
		return []startup.Link{
			{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}},
			{Name: "eth1", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}},
		}, nil
	}}
}

// writes are the names of what was written, in order, such as "patch nodes/status".
func (b *kubeBench) writes() string {
	var out []string
	for _, a := range b.set.Actions() {
		switch a.GetVerb() {
		case "get", "list", "watch":
			continue
		}
		what := a.GetVerb() + " " + a.GetResource().Resource
		if a.GetSubresource() != "" {
			what += "/" + a.GetSubresource()
		}
		out = append(out, what)
	}
	return strings.Join(out, ", ")
}

func (b *kubeBench) condition() string {
	b.t.Helper()
	n, err := b.set.CoreV1().Nodes().Get(b.t.Context(), "node-a", metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	w, has := kube.NetworkOf(n)
	if !has {
		return "none"
	}
	return fmt.Sprintf("%t %s", w.Unavailable, w.Reason)
}

// TestStartInKubernetes: addresses, pools and the cluster's type come of what Kubernetes says.
func TestStartInKubernetes(t *testing.T) {
	t.Parallel()
	b, st := newKubeBench(t), mem.New()
	n, err := b.prepare(t.Context(), &b.c, st, b.machine())
	if err != nil {
		t.Fatal(err)
	}
	if n.IPv4.String() != "10.0.0.5/24" {
		t.Errorf("address %v, want that of the node in Kubernetes, with its length", n.IPv4)
	}
	pool, err := st.Get(t.Context(), model.Pool{Name: "default-ipv4-ippool"}.Key())
	if err != nil || pool.Object.(*v3.IPPool).Spec.CIDR != "10.244.0.0/16" {
		t.Errorf("pool %+v, %v; want kubeadm's", pool, err)
	}
	info, err := st.Get(t.Context(), model.Cluster{}.Key())
	if err != nil || info.Object.(*v3.ClusterInformation).Spec.ClusterType != "k8s,bgp,kubeadm" {
		t.Errorf("cluster %+v, %v", info, err)
	}
	if got := fmt.Sprint(b.services); got != "[10.96.0.0/16]" || b.daemonSet != "weft-node" {
		t.Errorf("services %s, DaemonSet %q", got, b.daemonSet)
	}
	if got := b.writes(); got != "" {
		t.Errorf("wrote %s", got)
	}
}

// TestRefusedRights: without the rights that only make it better, an agent starts, and names
// what it lacks.
func TestRefusedRights(t *testing.T) {
	t.Parallel()
	b := newKubeBench(t)
	for _, resource := range []string{"configmaps", "servicecidrs", "pods"} {
		b.set.PrependReactor("*", resource, func(a k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "x", errors.New("not for you"))
		})
	}
	if _, err := b.prepare(t.Context(), &b.c, mem.New(), b.machine()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kubeadm-config", "DaemonSet of this agent is not known"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, b.log)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.overlap = func([]model.Problem) {}
	done := make(chan error)
	go func() { done <- b.watchServices(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestWaitsForTheServer: a server that fails, refuses for want of time or hangs is asked again,
// and the log says so once for each way; told not to wait, it is an error.
func TestWaitsForTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newKubeBench(t)
		asked := 0
		b.set.PrependReactor("get", "configmaps", func(k8stesting.Action) (bool, runtime.Object, error) {
			asked++
			switch {
			case asked <= 3:
				return true, nil, apierrors.NewInternalError(errors.New("etcd is away"))
			case asked == 4:
				return true, nil, apierrors.NewTooManyRequests("later", 1)
			case asked == 5:
				return true, nil, context.DeadlineExceeded
			}
			return false, nil, nil
		})
		if _, err := b.prepare(t.Context(), &b.c, mem.New(), b.machine()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.log.String(), "waiting for the API server"); n != 3 {
			t.Errorf("said %d times, want once for each of three ways:\n%s", n, b.log)
		}
		if got := len(b.c.Settings.InternalAddrs); got != 1 {
			t.Errorf("%d internal addresses after six attempts, want one", got)
		}
		asked, b.c.NoWait = 0, true
		if _, err := b.prepare(t.Context(), &b.c, mem.New(), b.machine()); err == nil || !strings.Contains(err.Error(), "etcd is away") {
			t.Errorf("told not to wait: %v", err)
		}
	})
}

// bareStore is a datastore whose kinds nobody has defined at first.
type bareStore struct {
	mem.Store
	undefined int // requests that are refused for that
}

func (s *bareStore) List(ctx context.Context, kind model.Kind, ns string) ([]store.Object, error) {
	if s.undefined > 0 {
		s.undefined--
		return nil, fmt.Errorf("list %s: %w", kind, store.ErrNoKind)
	}
	return s.Store.List(ctx, kind, ns)
}

// TestWaitsForDefinitions: an agent that is applied together with the custom resource
// definitions may be there first.
func TestWaitsForDefinitions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newKubeBench(t)
		st := &bareStore{Store: mem.New(), undefined: 3}
		if _, err := b.prepare(t.Context(), &b.c, st, b.machine()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.log.String(), "waiting for the custom resource definitions; what runs keeps its network"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, b.log)
		}
		st.undefined, b.c.NoWait = 1, true
		if _, err := b.prepare(t.Context(), &b.c, st, b.machine()); !errors.Is(err, store.ErrNoKind) {
			t.Errorf("told not to wait: %v", err)
		}
	})
}

// TestNodeThatIsNotThere: with the datastore in Kubernetes the node is waited for, with one
// elsewhere it is done without.
func TestNodeThatIsNotThere(t *testing.T) {
	t.Parallel()
	b := newKubeBench(t)
	b.c.Settings.Node = "node-x"
	b.kubernetes = newKubernetes(b.c)
	b.set.PrependWatchReactor("nodes", func(k8stesting.Action) (bool, watch.Interface, error) {
		w := watch.NewRaceFreeFake()
		w.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-x"}}) // whose address is not known yet
		w.Modify(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-x"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.5"}}}})
		return true, w, nil
	})
	if _, err := b.prepare(t.Context(), &b.c, mem.New(), b.machine()); err != nil || !strings.Contains(b.log.String(), "waiting for the node") {
		t.Errorf("%v; log:\n%s", err, b.log)
	}
	b = newKubeBench(t)
	b.c.Settings.Node, b.c.KubeRequired, b.c.Settings.IPv4.Method = "node-x", false, startup.Method{Name: "first-found"}
	b.kubernetes = newKubernetes(b.c)
	if _, err := b.prepare(t.Context(), &b.c, mem.New(), b.machine()); err != nil || b.node != "" || !strings.Contains(b.log.String(), "is not kept") {
		t.Errorf("etcd: %v, node %q; log:\n%s", err, b.node, b.log)
	}
	b.tellConflict(t.Context(), &startup.ConflictError{Node: "node-x", Owner: "node-b", Addr: netip.MustParseAddr("10.0.0.5")})
	b.farewell()
	if got := b.writes(); got != "" {
		t.Errorf("wrote %s about a node that is not there", got)
	}
}

// TestConflictIsTold: who looks at the node in Kubernetes sees why it does not start.
func TestConflictIsTold(t *testing.T) {
	t.Parallel()
	b, st := newKubeBench(t), mem.New()
	o, _ := v3.New("Node")
	other := o.(*v3.Node)
	other.Name, other.Spec.BGP = "node-b", &v3.NodeBGPSpec{IPv4Address: "10.0.0.5/24"}
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(other)}); err != nil {
		t.Fatal(err)
	}
	var conflict *startup.ConflictError
	if _, err := b.prepare(t.Context(), &b.c, st, b.machine()); !errors.As(err, &conflict) {
		t.Fatalf("got %v", err)
	}
	if got := b.condition(); got != "true AddressConflict" {
		t.Errorf("condition %s", got)
	}
	n, _ := b.set.CoreV1().Nodes().Get(t.Context(), "node-a", metav1.GetOptions{})
	if got := n.Annotations[startup.ConflictAnnotation]; got != "10.0.0.5 is the address of node node-b" {
		t.Errorf("annotation %q", got)
	}
	events, _ := b.set.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
	if len(events.Items) != 1 || events.Items[0].Type != "Warning" || !strings.Contains(events.Items[0].Message, "DISABLE_NODE_IP_CHECK") {
		t.Errorf("events %+v", events.Items)
	}
}

// TestCondition: the network is said to be up when routing is, once, and again for a node that
// was made anew; an agent that is told to end says so.
func TestCondition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newKubeBench(t)
		s := b.c.Settings
		if err := b.learn(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		var refused atomic.Int32
		b.set.PrependReactor("patch", "nodes", func(k8stesting.Action) (bool, runtime.Object, error) {
			return refused.Add(1) <= 2, nil, apierrors.NewInternalError(errors.New("etcd is away"))
		})
		ctx, cancel := context.WithCancel(t.Context())
		var up atomic.Bool
		down := func() string {
			if up.Load() {
				return ""
			}
			return "3 routes are being written"
		}
		done := make(chan error)
		go func() { done <- b.keepCondition(ctx, down) }()
		time.Sleep(time.Hour)
		if got := b.condition(); got != "none" {
			t.Errorf("while routing is not up: %s", got)
		}
		up.Store(true)
		time.Sleep(time.Hour)
		if got := b.condition(); got != "false WeftIsUp" || refused.Load() != 3 {
			t.Errorf("routing is up: %s after %d attempts", got, refused.Load())
		}
		for range 3 { // nobody has touched the condition
			b.madeAnew()
			time.Sleep(time.Minute)
		}
		if n := refused.Load(); n != 3 {
			t.Errorf("wrote a condition that was right: %d", n)
		}
		fresh := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
		if err := b.set.Tracker().Update(corev1.SchemeGroupVersion.WithResource("nodes"), fresh, ""); err != nil {
			t.Fatal(err)
		}
		b.madeAnew()
		time.Sleep(time.Minute)
		if got := b.condition(); got != "false WeftIsUp" {
			t.Errorf("a node made anew: %s", got)
		}
		cancel()
		<-done
		b.farewell()
		if got := b.condition(); got != "true WeftIsDown" {
			t.Errorf("told to end: %s", got)
		}
	})
}

// TestPoolsAndServices: a pool over services is told when either of the two changes.
func TestPoolsAndServices(t *testing.T) {
	t.Parallel()
	b := newKubeBench(t)
	found := make(chan []model.Problem, 10)
	b.overlap = func(p []model.Problem) { found <- p }
	watches := make(chan *watch.RaceFreeFakeWatcher, 1)
	b.set.PrependWatchReactor("servicecidrs", func(k8stesting.Action) (bool, watch.Interface, error) {
		w := watch.NewRaceFreeFake()
		watches <- w
		return true, w, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.watchServices(ctx) }()
	w := <-watches
	b.setPools([]model.Pool{{Name: "a", CIDR: netip.MustParsePrefix("10.244.0.0/16")}})
	for range 3 {
		if p := <-found; len(p) != 0 {
			t.Errorf("found %v", p)
		}
	}
	b.setPools([]model.Pool{{Name: "a", CIDR: netip.MustParsePrefix("10.96.128.0/17")}})
	if p := <-found; len(p) != 1 || !strings.Contains(p[0].String(), "10.96.128.0/17 overlaps the range 10.96.0.0/16") {
		t.Errorf("found %v", p)
	}
	more := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.200.0.0/16"}}}
	if _, err := b.set.NetworkingV1().ServiceCIDRs().Update(t.Context(), more, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Modify(more)
	if p := <-found; len(p) != 0 {
		t.Errorf("after services moved: found %v", p)
	}
	cancel()
	<-done
}

// TestFarewell: the CNI configuration goes when the node is left for good, and stays on a
// rolling update, and when nobody can be asked.
func TestFarewell(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		there, choosing, silent, unowned bool
		stays                            bool
	}{
		"rolling update":      {there: true, choosing: true, stays: true},
		"DaemonSet deleted":   {stays: false},
		"node not chosen":     {there: true, stays: false},
		"server silent":       {silent: true, stays: true},
		"not of a DaemonSet":  {unowned: true, stays: true},
		"silent and unrolled": {there: true, silent: true, stays: true},
	} {
		var objects []runtime.Object
		if tt.there {
			d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "weft-node", Namespace: "kube-system"}}
			if !tt.choosing {
				d.Spec.Template.Spec.NodeSelector = map[string]string{"net": "other"}
			}
			objects = append(objects, d)
		}
		b := newKubeBench(t, objects...)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "weft-cni"), []byte("program"), 0o755); err != nil {
			t.Fatal(err)
		}
		plugin, wanted, err := install.ConfigFromEnv("node-a", func(name string) string {
			return map[string]string{"WEFT_CNI_CONF_DIR": dir, "WEFT_CNI_BIN_DIR": dir, "WEFT_CNI_SOURCE": dir}[name]
		}, b.c.Log)
		if err != nil || !wanted {
			t.Fatal(err)
		}
		b.installer = install.New(plugin)
		if tt.unowned {
			b.pod = Pod{}
		}
		s := b.c.Settings
		if err := b.learn(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		conflist := filepath.Join(dir, "10-weft.conflist")
		if err := os.WriteFile(conflist, []byte(`{"plugins":[{"type":"weft-cni"}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if tt.silent {
			b.set.PrependReactor("*", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
				return true, nil, context.DeadlineExceeded
			})
		}
		b.farewell()
		if _, err := os.Stat(conflist); (err == nil) != tt.stays {
			t.Errorf("%s: stays %t, want %t; log:\n%s", name, err == nil, tt.stays, b.log)
		}
	}
}

// TestWithoutKubernetes: all of it does nothing.
func TestWithoutKubernetes(t *testing.T) {
	t.Parallel()
	k := newKubernetes(Config{})
	if k != nil {
		t.Fatal("there is Kubernetes")
	}
	k.begin(t.Context())()
	k.run(func(func(context.Context) error) { t.Error("something was started") }, nil)
	k.setPools(nil)
	k.madeAnew()
	k.serve(install.Families{})
	k.farewell()
	k.tellConflict(t.Context(), nil)
	if k.problem() != "" {
		t.Error("a problem")
	}
}

// TestPodRanges: with USE_POD_CIDR a node's range is its block, and blocks of the datastore are
// none.
func TestPodRanges(t *testing.T) {
	t.Parallel()
	node := func(name string, cidrs ...string) model.Node {
		n := model.Node{Name: name}
		for _, c := range cidrs {
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(c))
		}
		return n
	}
	known := map[model.Key][]netip.Prefix{}
	for _, tt := range []struct {
		name string
		in   model.Batch
		want string // puts and deletes of blocks
	}{
		{"snapshot", model.Batch{Reset: true, Synced: true, Puts: []model.Value{node("a", "10.244.0.0/24", "fd00:1::/64"), node("b", "10.244.1.0/24")}}, "+10.244.0.0/24@host:a +fd00:1::/64@host:a +10.244.1.0/24@host:b"},
		{"the same", model.Batch{Puts: []model.Value{node("a", "10.244.0.0/24", "fd00:1::/64")}}, ""},
		{"a second range", model.Batch{Puts: []model.Value{node("b", "10.244.1.0/24", "fd00:2::/64")}}, "+10.244.1.0/24@host:b +fd00:2::/64@host:b"},
		{"gone, and its range another's", model.Batch{Puts: []model.Value{node("c", "10.244.0.0/24")}, Deletes: []model.Key{node("a").Key()}}, "+10.244.0.0/24@host:c -" + fmt.Sprint(model.BlockKey(netip.MustParsePrefix("fd00:1::/64")))},
		{"a new snapshot", model.Batch{Reset: true, Puts: []model.Value{node("c", "10.244.0.0/24")}}, "+10.244.0.0/24@host:c"},
		{"without", model.Batch{Puts: []model.Value{node("c")}}, "-" + fmt.Sprint(model.BlockKey(netip.MustParsePrefix("10.244.0.0/24")))},
	} {
		var got []string
		b := withRanges(known, tt.in)
		for _, v := range b.Puts {
			if block, ok := v.(model.Block); ok {
				got = append(got, fmt.Sprintf("+%v@%v", block.CIDR, block.Owner))
			}
		}
		for _, k := range b.Deletes {
			if k.Kind == model.KindIPAMBlock {
				got = append(got, "-"+fmt.Sprint(k))
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, s, tt.want)
		}
	}
	st := mem.New()
	o, _ := v3.New("Node")
	n := o.(*v3.Node)
	n.Name, n.Status.PodCIDRs = "a", []string{"10.244.0.0/24"}
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(n)}); err != nil {
		t.Fatal(err)
	}
	for b, err := range (podRanges{st}).Watch(t.Context(), model.KindNode, model.KindIPAMBlock) {
		if err != nil {
			t.Fatal(err)
		}
		if b.Synced {
			if len(b.Puts) != 2 {
				t.Errorf("puts %v", b.Puts)
			}
			break
		}
	}
}
