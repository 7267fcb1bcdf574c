package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/cni/install"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/startup"
	"github.com/weft-net/weft/internal/store"
)

// Bounds of what is asked of the API server.
const (
	// kubeTimeout bounds one request, or a few: a server that hangs is an error.
	kubeTimeout = 20 * time.Second
	// farewellTimeout bounds what is asked when the agent ends. The kubelet gives a pod 30 s.
	farewellTimeout = 5 * time.Second
	// firstKubeDelay and lastKubeDelay bound the time between two attempts.
	firstKubeDelay = time.Second
	lastKubeDelay  = time.Minute
	// routingInterval is the time between two looks at whether routing is up; the machine's
	// own state is looked at, no server is asked.
	routingInterval = 200 * time.Millisecond
)

// Words of the condition NetworkUnavailable and of events.
const (
	reasonUp       = "WeftIsUp"
	reasonDown     = "WeftIsDown"
	reasonConflict = "AddressConflict"
)

// Pod is what the agent's own pod is called, if it runs in one; the zero Pod: it does not.
type Pod struct{ Namespace, Name string }

// kubernetes is what the agent does in Kubernetes beside its datastore: it learns of the
// cluster's networks, says when the node's network is up, installs the CNI plugin, and
// finds out in the end whether the node is left for good.
//
// A nil *kubernetes has no Kubernetes and does nothing.
type kubernetes struct {
	client    *kube.Client
	node      string // as Kubernetes calls it
	required  bool   // the datastore is in Kubernetes: without its node there is no start
	pod       Pod
	installer *install.Installer // nil: the plugin is not installed by this agent
	now       func() time.Time
	log       *slog.Logger
	overlap   func([]model.Problem) // takes in what is wrong with pools

	install sync.WaitGroup // the installer, while it runs
	again   chan struct{}  // holds a token when the node's condition is to be looked at again

	mu        sync.Mutex
	daemonSet string       // of the own pod; empty: none, or not known
	said      kube.Network // the condition as it is; the zero value: not known
	services  []netip.Prefix
	pools     []model.Pool
}

// newKubernetes makes what belongs to c; nil where there is neither Kubernetes nor a plugin
// to install.
func newKubernetes(c Config) *kubernetes {
	if c.Kube == nil && c.Installer == nil {
		return nil
	}
	k := &kubernetes{
		client: c.Kube, node: c.kubeNode(), required: c.KubeRequired, pod: c.Pod, installer: c.Installer,
		now: time.Now, log: c.Log.With("part", "kubernetes"), overlap: func([]model.Problem) {}, again: make(chan struct{}, 1),
	}
	return k
}

// kubeNode is the node's name in Kubernetes.
func (c Config) kubeNode() string {
	if c.Settings.KubernetesName != "" {
		return c.Settings.KubernetesName
	}
	return c.Settings.Node
}

// begin installs the executables of the CNI plugin: they need nothing of the cluster. What it
// returns ends that and waits for it; it may be called twice.
func (k *kubernetes) begin(ctx context.Context) (end func()) {
	if k == nil || k.installer == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	k.install.Go(func() { _ = k.installer.Run(ctx) }) // it ends by ctx only
	return func() {
		cancel()
		k.install.Wait()
	}
}

// learn waits for the node to be there, and reads what Kubernetes knows of it and of the
// cluster's networks into s. The error is one of a server that should be asked again, or that
// there is no such node where one is needed.
func (k *kubernetes) learn(ctx context.Context, s *startup.Settings) error {
	if k == nil || k.client == nil {
		return nil
	}
	if err := k.learnNode(ctx, s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, kubeTimeout, fmt.Errorf("no answer within %v", kubeTimeout))
	defer cancel()
	kubeadm, err := k.client.Kubeadm(ctx)
	if err != nil && kube.Transient(err) {
		return err
	}
	if err != nil {
		k.log.Warn("what kubeadm was told of the cluster's networks is not known", "err", kube.Explain(err))
	}
	services, _, err := k.client.ServiceCIDRs(ctx)
	switch {
	case err != nil && kube.Transient(err):
		return err
	case err != nil:
		services = kubeadm.ServiceCIDRs
	}
	s.Cluster = startup.Cluster{Kubeadm: kubeadm.Found, PodCIDRs: kubeadm.PodCIDRs, ServiceCIDRs: services}
	k.mu.Lock()
	k.services = services
	k.mu.Unlock()
	if k.pod.Name == "" {
		return nil
	}
	owner, err := k.client.DaemonSetOf(ctx, k.pod.Namespace, k.pod.Name)
	if err != nil {
		k.log.Warn("the DaemonSet of this agent is not known: the CNI configuration stays when it is deleted", "err", kube.Explain(err))
	}
	k.mu.Lock()
	k.daemonSet = owner
	k.mu.Unlock()
	return nil
}

// learnNode reads the node.
func (k *kubernetes) learnNode(ctx context.Context, s *startup.Settings) error {
	if !k.required { // the datastore has nodes of its own
		short, cancel := context.WithTimeout(ctx, kubeTimeout)
		defer cancel()
		n, err := k.client.Node(short, k.node)
		if err != nil {
			k.log.Warn("what Kubernetes knows of this node is not known; its condition is not kept", "err", kube.Explain(err))
			k.node = ""
			return nil
		}
		k.note(n, s)
		return nil
	}
	addressed := func(n *kube.Node) bool { return !s.NeedsInternalIP() || len(kube.InternalIPs(n)) > 0 }
	n, err := k.client.AwaitNode(ctx, k.node, addressed, func(there *kube.Node) {
		if there != nil {
			k.log.Warn("waiting for the InternalIP of the node in Kubernetes, by which this node's address is found", "node", k.node)
			return
		}
		k.log.Warn("waiting for the node to be registered in Kubernetes by its kubelet: is NODENAME its name there?", "node", k.node)
	})
	if err != nil {
		return err
	}
	k.note(n, s)
	return nil
}

// note takes in what a node of Kubernetes says.
func (k *kubernetes) note(n *kube.Node, s *startup.Settings) {
	s.InternalAddrs = append(slices.Clone(s.InternalAddrs), kube.InternalIPs(n)...)
	w, _ := kube.NetworkOf(n)
	k.mu.Lock()
	k.said = w
	k.mu.Unlock()
}

// prepare makes the node known, see [startup.Prepare], and describes the cluster. What
// another attempt may heal is tried again until ctx ends, unless c says not to wait; the node
// goes on with what an earlier agent left in the kernel meanwhile.
func (k *kubernetes) prepare(ctx context.Context, c *Config, st store.Store, host startup.Host) (model.Node, error) {
	settings, last, delay := c.Settings, "", firstKubeDelay
	for {
		c.Settings = settings
		node, err := k.attempt(ctx, c, st, host)
		if conflict := (*startup.ConflictError)(nil); errors.As(err, &conflict) {
			k.tellConflict(ctx, conflict)
		}
		undefined := errors.Is(err, store.ErrNoKind) // until somebody applies the definitions
		if err == nil || k == nil || k.client == nil || c.NoWait || !kube.Transient(err) && !undefined || ctx.Err() != nil {
			return node, err
		}
		if text := kube.Explain(err); text != last {
			what := "the API server"
			if undefined {
				what = "the custom resource definitions"
			}
			c.Log.Warn("waiting for "+what+"; what runs keeps its network", "err", text)
			last = text
		}
		select {
		case <-time.After(delay - rand.N(delay/4)):
		case <-ctx.Done():
			return model.Node{}, context.Cause(ctx)
		}
		delay = min(2*delay, lastKubeDelay)
	}
}

func (k *kubernetes) attempt(ctx context.Context, c *Config, st store.Store, host startup.Host) (model.Node, error) {
	if err := k.learn(ctx, &c.Settings); err != nil {
		return model.Node{}, err
	}
	if k != nil && k.required {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, kubeTimeout, fmt.Errorf("no answer within %v", kubeTimeout))
		defer cancel()
	}
	return introduce(ctx, c, st, host)
}

// tellConflict says in Kubernetes that the node can't start, where those look who wonder.
func (k *kubernetes) tellConflict(ctx context.Context, conflict *startup.ConflictError) {
	if k == nil || k.client == nil || k.node == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, farewellTimeout)
	defer cancel()
	text := fmt.Sprintf("%v is the address of node %s", conflict.Addr, conflict.Owner)
	for _, err := range []error{
		k.client.SetNetwork(ctx, k.node, kube.Network{Unavailable: true, Reason: reasonConflict, Message: text}, k.now()),
		k.client.AnnotateNode(ctx, k.node, startup.ConflictAnnotation, text),
		k.client.Tell(ctx, kube.NodeEvent{Node: k.node, Reason: reasonConflict, Message: kube.Explain(conflict), Warning: true}, k.now()),
	} {
		if err != nil {
			k.log.Warn("the address conflict could not be told in Kubernetes", "err", kube.Explain(err))
		}
	}
}

// run starts what keeps the node's condition, and looks at pools and services. down says
// why routing is not up; empty when it is.
func (k *kubernetes) run(start func(func(context.Context) error), down func() string) {
	if k == nil || k.client == nil {
		return
	}
	start(k.watchServices)
	if k.node != "" {
		start(func(ctx context.Context) error { return k.keepCondition(ctx, down) })
	}
}

// keepCondition says in the node's condition that its network is up, once it is, and again
// when somebody has made the node anew. A condition that says so is not written.
func (k *kubernetes) keepCondition(ctx context.Context, down func() string) error {
	for down() != "" {
		if err := pause(ctx, routingInterval); err != nil {
			return err
		}
	}
	want := kube.Network{Reason: reasonUp, Message: "weft routes on this node"}
	last, delay := "", firstKubeDelay
	for {
		err := k.say(ctx, want)
		text := ""
		if err != nil && ctx.Err() == nil {
			if text = kube.Explain(err); text != last {
				k.log.Warn("the node's condition NetworkUnavailable can't be cleared; trying again", "err", text)
			}
			if err := pause(ctx, delay-rand.N(delay/4)); err != nil {
				return err
			}
			delay, last = min(2*delay, lastKubeDelay), text
			continue
		}
		last, delay = "", firstKubeDelay
		select {
		case <-k.again:
			k.look(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// say makes the condition say w, unless it does.
func (k *kubernetes) say(ctx context.Context, w kube.Network) error {
	k.mu.Lock()
	same := k.said == w
	k.mu.Unlock()
	if same {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, kubeTimeout, fmt.Errorf("no answer within %v", kubeTimeout))
	defer cancel()
	if err := k.client.SetNetwork(ctx, k.node, w, k.now()); err != nil {
		return err
	}
	k.log.Info("said in the node's condition NetworkUnavailable", "unavailable", w.Unavailable, "reason", w.Reason)
	k.mu.Lock()
	k.said = w
	k.mu.Unlock()
	return nil
}

// look reads the condition again; what can't be read is written anew.
func (k *kubernetes) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, kubeTimeout)
	defer cancel()
	var w kube.Network
	if n, err := k.client.Node(ctx, k.node); err == nil {
		w, _ = kube.NetworkOf(n)
	}
	k.mu.Lock()
	k.said = w
	k.mu.Unlock()
}

// madeAnew says that the node's record was deleted, or is there again.
func (k *kubernetes) madeAnew() {
	if k == nil {
		return
	}
	select {
	case k.again <- struct{}{}:
	default:
	}
}

// serve says that the agent serves the CNI plugin now, with addresses of these families.
func (k *kubernetes) serve(f install.Families) {
	if k != nil && k.installer != nil {
		k.installer.Serve(f)
	}
}

// problem is what keeps new pods from being started here; empty: nothing.
func (k *kubernetes) problem() string {
	if k == nil || k.installer == nil {
		return ""
	}
	if why := k.installer.Problem(); why != "" {
		return why
	}
	if !k.installer.Installed() {
		return "the CNI plugin is being installed"
	}
	return ""
}

// watchServices hears of the ranges of services, and holds pools against them.
func (k *kubernetes) watchServices(ctx context.Context) error {
	k.compare()
	err := k.client.WatchServiceCIDRs(ctx, func(cidrs []netip.Prefix) {
		k.mu.Lock()
		k.services = cidrs
		k.mu.Unlock()
		k.compare()
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	k.mu.Lock()
	known := k.services
	k.mu.Unlock()
	k.log.Warn("the ranges of services are not followed: pools are held against those known at the start", "services", known, "err", kube.Explain(err))
	<-ctx.Done()
	return context.Cause(ctx)
}

// setPools says which pools there are now.
func (k *kubernetes) setPools(pools []model.Pool) {
	if k == nil || k.client == nil {
		return
	}
	k.mu.Lock()
	k.pools = pools
	k.mu.Unlock()
	k.compare()
}

// compare holds pools against services.
func (k *kubernetes) compare() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.overlap(startup.Overlaps(k.pools, k.services))
}

// farewell is what is to be done when the agent was told to end: it says that the node's
// network is not kept any more, and takes the CNI configuration away if the node is left for
// good. Who can't be asked leaves all as it is.
func (k *kubernetes) farewell() {
	if k == nil || k.client == nil || k.node == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewellTimeout)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() {
		k.install.Wait() // it would put back what is removed; the agent's context has ended
		k.leave(ctx)
	})
	both.Go(func() {
		if err := k.say(ctx, kube.Network{Unavailable: true, Reason: reasonDown, Message: "weft was told to end on this node"}); err != nil {
			k.log.Info("the node's condition stays as it is", "err", kube.Explain(err))
		}
	})
	both.Wait()
}

// leave removes the CNI configuration if no agent will be on this node again.
func (k *kubernetes) leave(ctx context.Context) {
	k.mu.Lock()
	daemonSet := k.daemonSet
	k.mu.Unlock()
	if k.installer == nil || daemonSet == "" {
		return
	}
	why, err := k.client.Leaves(ctx, k.pod.Namespace, daemonSet, k.node)
	if err != nil {
		k.log.Info("the CNI configuration stays: whether this node is left for good is not known", "err", kube.Explain(err))
		return
	}
	if why == "" {
		return
	}
	if err := k.installer.Remove(); err != nil {
		k.log.Warn("the CNI configuration stays, though this node is left", "err", err)
		return
	}
	k.log.Info("removed the CNI configuration: this node is left for good", "why", why)
}
