package control_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/secret"
	"github.com/weft-net/weft/internal/store/etcd"
	kubestore "github.com/weft-net/weft/internal/store/kube"
	"github.com/weft-net/weft/internal/testenv"
)

// cluster is a real API server, seen by its administrator.
type cluster struct {
	t   *testing.T
	api *testenv.API
	set kubernetes.Interface
}

func newCluster(t *testing.T) *cluster {
	api := testenv.APIServer(t)
	c := &cluster{t: t, api: api}
	c.set = c.connect(kube.Config{Kubeconfig: api.Kubeconfig("admin")}).Clientset
	c.create(namespace("d"))
	return c
}

func (c *cluster) connect(config kube.Config) *kube.Client {
	c.t.Helper()
	client, err := kube.Connect(config)
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// create creates objects of Kubernetes, with their status.
func (c *cluster) create(objects ...any) {
	c.t.Helper()
	ctx, o := c.t.Context(), metav1.CreateOptions{}
	for _, object := range objects {
		var err error
		switch x := object.(type) {
		case *corev1.Namespace:
			_, err = c.set.CoreV1().Namespaces().Create(ctx, x, o)
		case *corev1.Node:
			_, err = c.set.CoreV1().Nodes().Create(ctx, x, o)
		case *corev1.ServiceAccount:
			_, err = c.set.CoreV1().ServiceAccounts(x.Namespace).Create(ctx, x, o)
		case *corev1.Service:
			x.Spec.Ports = []corev1.ServicePort{{Port: 80}}
			_, err = c.set.CoreV1().Services(x.Namespace).Create(ctx, x, o)
		case *corev1.Pod:
			status := x.Status
			x.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
			var made *corev1.Pod
			if made, err = c.set.CoreV1().Pods(x.Namespace).Create(ctx, x, o); err == nil {
				made.Status = status
				_, err = c.set.CoreV1().Pods(x.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{})
			}
		default:
			err = fmt.Errorf("no such kind: %T", object)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// as is the configuration of a service account.
func (c *cluster) as(namespace, account string) kube.Config {
	c.t.Helper()
	token, err := c.set.CoreV1().ServiceAccounts(namespace).CreateToken(c.t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return kube.Config{Server: c.api.URL, Token: secret.Text(token.Status.Token), Insecure: true}
}

// account makes a service account of the namespace d that may do these things in the
// whole cluster: "get,list,watch nodes", "update services/status".
func (c *cluster) account(name string, rights ...string) kube.Config {
	c.t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, r := range rights {
		verbs, what, _ := strings.Cut(r, " ")
		resource, group, _ := strings.Cut(what, ".")
		role.Rules = append(role.Rules, rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), Resources: []string{resource}, APIGroups: []string{group}})
	}
	ctx, o := c.t.Context(), metav1.CreateOptions{}
	c.create(account("d/" + name))
	_, err := c.set.RbacV1().ClusterRoles().Create(ctx, role, o)
	if err == nil {
		_, err = c.set.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "d", Name: name}},
		}, o)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return c.as("d", name)
}

// leaseRights is what leading takes, wherever the Lease is.
const leaseRights = "get,create,update leases.coordination.k8s.io"

// TestK8sRights: each controller does its work with the rights that its statement names,
// and nothing else (facts S-10 to S-14); without one verb it says which.
func TestK8sRights(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for name, tt := range map[string]struct {
		rights []string
		give   func(w *world)
		done   func(w *world) bool
	}{
		control.Policy: {
			rights: []string{"get,list,watch networkpolicies.networking.k8s.io"},
			give: func(w *world) {
				if _, err := c.set.NetworkingV1().NetworkPolicies("d").Create(t.Context(), networkPolicy("d/deny"), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			},
			done: func(w *world) bool { return w.has(model.KindNetworkPolicy, "d", "knp.default.deny") },
		},
		control.Namespace: {
			rights: []string{"get,list,watch namespaces"},
			done:   func(w *world) bool { return w.has(model.KindProfile, "", "kns.d") },
		},
		control.ServiceAccount: {
			rights: []string{"get,list,watch serviceaccounts"},
			give:   func(w *world) { c.create(account("d/default")) },
			done:   func(w *world) bool { return w.has(model.KindProfile, "", "ksa.d.default") },
		},
		control.WorkloadEndpoint: {
			rights: []string{"get,list,watch pods"},
			give: func(w *world) {
				c.create(pod("node-x", "labelled", addrs("10.10.0.1"), "app", "web"))
				w.apply("kind: WorkloadEndpoint\nmetadata: {name: node--x-k8s-labelled-eth0, namespace: d}\n" +
					"spec: {orchestrator: k8s, node: node-x, pod: labelled, endpoint: eth0, containerID: c, interfaceName: cali1, ipNetworks: [10.10.0.1/32]}")
			},
			done: func(w *world) bool {
				o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "d", Name: "node--x-k8s-labelled-eth0"})
				return err == nil && o.Object.Meta().Labels["app"] == "web"
			},
		},
		control.Node: {
			rights: []string{"get,list,watch nodes", "get,list,watch pods"},
			give: func(w *world) {
				c.create(node("node-1"), node("node-2"))
				w.apply(record("node-1", "192.168.0.1"), record("node-9", "192.168.0.9"))
				w.assign("node-9", "lost")
			},
			done: func(w *world) bool {
				return slices.Equal(w.names(model.KindNode), []string{"node-1"}) && len(w.held("")) == 0
			},
		},
		control.LoadBalancer: {
			rights: []string{"get,list,watch services", "update services/status"},
			give:   func(w *world) { c.create(service("balanced", "")) },
			done: func(w *world) bool {
				s, err := c.set.CoreV1().Services("d").Get(t.Context(), "balanced", metav1.GetOptions{})
				return err == nil && len(s.Status.LoadBalancer.Ingress) == 1
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.env["ENABLED_CONTROLLERS"] = name
			w.set = c.connect(c.account("full-"+name, append(tt.rights, leaseRights)...)).Clientset
			w.tune = func(c *control.Config) { c.Namespace, c.Lease.Name = "d", "lease-"+name }
			if tt.give != nil {
				tt.give(w)
			}
			w.start()
			w.until("work", func() bool { return tt.done(w) })
			w.until("no complaint", func() bool { return w.state(name).Working })

			verbs, what, _ := strings.Cut(tt.rights[0], " ")
			for verb := range strings.SplitSeq(verbs, ",") {
				less := strings.Trim(strings.ReplaceAll(","+verbs+",", ","+verb+",", ","), ",")
				bad := newWorld(t)
				bad.env["ENABLED_CONTROLLERS"] = name
				bad.set = c.connect(c.account("without-"+verb+"-"+name, append(tt.rights[1:], less+" "+what, leaseRights)...)).Clientset
				bad.tune = func(c *control.Config) { c.Namespace, c.Lease.Name = "d", "lease-"+verb+"-"+name }
				stop := bad.start()
				bad.until("word about "+verb, func() bool {
					return strings.Contains(bad.logged(), "not allowed are "+verb+" "+what+": apply the ClusterRole")
				})
				stop()
			}
		})
	}
}

// TestK8sManifest: with Kubernetes as the datastore, and just the rights that the
// manifest gives, everything works: nodes, addresses, host endpoints, services, settings.
func TestK8sManifest(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	kubectl := func(args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(testenv.NeedKubernetes(t), "kubectl"), append([]string{"--kubeconfig", c.api.Kubeconfig("admin")}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	kubectl("apply", "-f", filepath.Join("..", "..", "deploy", "weft.yaml"))
	kubectl("wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all")
	open := func(config kube.Config) *kubestore.Store {
		st, err := kubestore.Open(t.Context(), config, kubestore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	admin := open(kube.Config{Kubeconfig: c.api.Kubeconfig("admin")})
	w := newWorldOn(t, admin)
	c.create(node("node-1"), node("node-2"))
	for i, name := range []string{"node-1", "node-2"} {
		w.update(&v3.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, func(o v3.Object) {
			o.(*v3.Node).Spec.BGP = &v3.NodeBGPSpec{IPv4Address: fmt.Sprintf("192.168.0.%d/24", i+1)}
		})
	}
	w.apply("kind: KubeControllersConfiguration\nmetadata: {name: default}\nspec: {prometheusMetricsPort: 0, controllers: {node: {leakGracePeriod: 15m, hostEndpoint: {autoCreate: Enabled}}, loadBalancer: {}}}")
	clock := newClock()
	var got []netip.Addr
	for _, name := range []string{"web-1", "web-2"} {
		got = w.assign("node"+strings.TrimPrefix(name, "web"), name)
		c.create(pod("node"+strings.TrimPrefix(name, "web"), name, got))
	}
	w.assign("node-1", "leaked")
	c.create(service("balanced", ""))

	account := c.as("kube-system", "weft-controllers")
	w.set = c.connect(account).Clientset
	w.now = clock.now
	w.env["RECONCILER_PERIOD"] = "200ms"
	stored := open(account)
	w.tune = func(config *control.Config) {
		config.Etcd, config.Store, config.Raw = false, stored, w.set.CoreV1().RESTClient()
	}
	kubectl("apply", "-f", "testdata/takeover.yaml")
	kubectl("delete", "--wait=false", "tiers.projectcalico.org/left", "ippools.projectcalico.org/left", "tiers.projectcalico.org/used")
	w.start()
	w.until("host endpoints", func() bool {
		return slices.Equal(w.names(model.KindHostEndpoint), []string{"node-1-auto-hep", "node-2-auto-hep"})
	})
	w.until("address of the service", func() bool {
		s, err := c.set.CoreV1().Services("d").Get(t.Context(), "balanced", metav1.GetOptions{})
		return err == nil && len(s.Status.LoadBalancer.Ingress) == 1
	})
	w.until("settings in force", func() bool {
		o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"})
		return err == nil && o.Object.(*v3.KubeControllersConfiguration).Status.RunningConfig != nil
	})
	looked := w.passes("node")
	w.until("first looks", func() bool { return w.passes("node") > looked+1 })
	w.until("what only finalizers of Calico held", func() bool {
		return !w.has(model.KindTier, "", "left") && !w.has(model.KindIPPool, "", "left")
	})
	if !w.has(model.KindTier, "", "used") {
		t.Error("let a tier go that has a policy")
	}
	w.until("condition of a pool", func() bool {
		o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindIPPool, Name: "pool-a"})
		if err != nil {
			t.Fatal(err)
		}
		p := o.Object.(*v3.IPPool)
		return p.Status != nil && len(p.Status.Conditions) == 1 && p.Status.Conditions[0].Reason == "OK"
	})
	clock.add(20 * time.Minute)
	w.until("release of the leaked address", func() bool { return len(w.held("net.leaked")) == 0 })
	if got := w.held("net.web"); len(got) != 4 {
		t.Errorf("addresses of pods: %v", got)
	}
	if err := c.set.CoreV1().Nodes().Delete(t.Context(), "node-2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.set.CoreV1().Pods("d").Delete(t.Context(), "web-2", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	w.until("what the node left", func() bool {
		return len(w.held("net.web-2")) == 0 && slices.Equal(w.names(model.KindHostEndpoint), []string{"node-1-auto-hep"}) &&
			!strings.Contains(fmt.Sprint(w.names(model.KindBlockAffinity)), "node-2")
	})
	if got := w.held("net.web-1"); len(got) != 2 {
		t.Errorf("addresses of the pod on the other node: %v", got)
	}
	for _, name := range []string{"node", "loadbalancer", "conditions"} {
		w.until(name, func() bool { return w.state(name).Working && len(w.state(name).Notes) == 0 })
	}
}

// TestK8sOutage: an API server that hangs, and then is gone, makes controllers remove
// nothing; when it is back they go on.
func TestK8sOutage(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	w := newWorld(t)
	c.create(node("node-1"))
	w.apply(record("node-1", "192.168.0.1"))
	got := w.assign("node-1", "web")
	c.create(pod("node-1", "web", got))
	w.env["RECONCILER_PERIOD"] = "100ms"
	w.set = c.connect(c.account("all", "get,list,watch nodes", "get,list,watch pods", "get,list,watch namespaces",
		"get,list,watch services", "update services/status", leaseRights)).Clientset
	w.env["ENABLED_CONTROLLERS"] = "node,namespace"
	w.tune = func(c *control.Config) {
		c.Namespace = "d"
		c.Lease = control.Lease{Duration: 6 * time.Second, Renew: 4 * time.Second, Retry: 500 * time.Millisecond}
	}
	w.start()
	w.until("work", func() bool { return w.has(model.KindProfile, "", "kns.d") && w.state("node").Working })
	thaw := c.api.Freeze()
	w.until("lease lost while the server hangs", func() bool { return strings.Contains(w.logged(), "lease lost") })
	thaw()
	// Its state is the old one until it works again, so the log is what tells.
	leads := func(times int) bool {
		return strings.Count(w.logged(), "msg=leads ") >= times && w.state("node").Working
	}
	w.until("leads again", func() bool { return leads(2) })
	c.api.Stop()
	w.until("lease lost while the server is away", func() bool { return strings.Count(w.logged(), "lease lost") >= 2 })
	c.api.Start()
	w.until("leads again", func() bool { return leads(3) })
	if len(w.held("net.web")) != 2 || !w.has(model.KindNode, "", "node-1") || !w.has(model.KindProfile, "", "kns.d") {
		t.Errorf("removed: addresses left %v, nodes left %v, profiles left %v", w.held(""), w.names(model.KindNode), w.names(model.KindProfile))
	}
}

// TestK8sCompaction: etcd forgets what was of use a period before, and no more.
func TestK8sCompaction(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	st, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{c.api.Etcd}, Timeout: testenv.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	rev, err := st.Compact(t.Context(), 0)
	if err != nil || rev == 0 {
		t.Fatalf("compact nothing: %d, %v", rev, err)
	}
	c.create(namespace("later"))
	next, err := st.Compact(t.Context(), rev)
	if err != nil || next <= rev {
		t.Fatalf("compact to %d: %d, %v", rev, next, err)
	}
	if again, err := st.Compact(t.Context(), rev); err != nil || again < next {
		t.Fatalf("compact to %d again: %d, %v", rev, again, err)
	}
}
