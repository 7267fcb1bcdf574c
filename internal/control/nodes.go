package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/leak"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// How much of what may go at once in the smallest cluster. What goes with a node that
// is gone counts as that node.
const (
	nodesMinimum   = 2
	holdersMinimum = 16
	blocksMinimum  = 8
	hostsMinimum   = 4
)

// sweeper is the node controller: what nodes leave, and what is made of nodes.
type sweeper struct {
	*term
	nodeGuard, podGuard, hostGuard guard
	from                           *feed
	pods                           *feed // nil: this process may not read pods
	noPods                         error // why not
	memory                         leak.Memory
	buried                         map[string]bool // nodes that are gone and are counted already
	looked                         bool            // endpoints of nodes that are gone were looked for
	passes                         int
	notes                          []string
}

// roster is what is known of the nodes in one pass.
type roster struct {
	records map[string]store.Object // records, by name
	// there are the nodes that exist, by their names in the datastore.
	there map[string]bool
	// known is how many nodes there are or were.
	known map[string]bool
}

func (t *term) nodes() controller {
	return controller{name: Node, needs: []kube.Access{reading(nodes)}, run: func(ctx context.Context) error {
		f, err := t.feed(ctx, Node, nodes)
		if err != nil {
			return err
		}
		s := &sweeper{
			term: t, from: f, buried: map[string]bool{},
			nodeGuard: t.guarded(Node, nodesMinimum), podGuard: t.guarded(Node, holdersMinimum), hostGuard: t.guarded(Node, hostsMinimum),
		}
		// Pods are another right. Without it everything but pods' addresses works.
		if s.noPods = allowed(ctx, t.Clientset, []kube.Access{reading(pods)}); s.noPods == nil {
			if s.pods, err = t.feed(ctx, Node, pods); err != nil {
				return err
			}
		}
		changed, stop := follow(f, sameNode)
		defer stop()
		kick := make(chan struct{}, 1)
		soon := func() {
			select {
			case kick <- struct{}{}:
			default:
			}
		}
		defer s.followStrays(soon)()
		var delay time.Duration
		return t.loop(ctx, Node, merge(ctx, changed.kick, kick), func(ctx context.Context, _ bool) error {
			keys, seen := changed.take()
			if len(keys) > 0 {
				delay = 0
			}
			again, err := s.pass(ctx, seen)
			if again && err == nil {
				// What must be seen twice is looked at again soon, and then less and less often.
				delay = min(max(2*delay, t.retry.first), t.retry.last/2)
				time.AfterFunc(delay, soon)
			}
			return err
		}, func() []string { return s.notes })
	}}
}

// followStrays calls soon a moment after pods of nodes that are gone went, or ended, until
// the returned function is called: such pods go some time after their node, and nobody is
// left on it to give their addresses back. A moment, because they go one after the other.
func (s *sweeper) followStrays(soon func()) (stop func()) {
	if s.pods == nil {
		return func() {}
	}
	var due atomic.Bool
	note := func(o any) {
		if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = unknown.Obj
		}
		p, ok := o.(*corev1.Pod)
		if !ok || p.Spec.NodeName == "" || s.from.get(p.Spec.NodeName) != nil || !due.CompareAndSwap(false, true) {
			return
		}
		time.AfterFunc(s.retry.first, func() {
			due.Store(false)
			soon()
		})
	}
	reg, err := s.pods.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, now any) {
			if a, ok := old.(*corev1.Pod); ok && a.Status.Phase != now.(*corev1.Pod).Status.Phase {
				note(now)
			}
		},
		DeleteFunc: note,
	})
	if err != nil { // the informer has ended
		return func() {}
	}
	return func() { _ = s.pods.informer.RemoveEventHandler(reg) }
}

// merge gives one channel of two, until ctx ends.
func merge(ctx context.Context, a, b <-chan struct{}) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-a:
			case <-b:
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// sameNode tells that two versions of a node differ in nothing that matters here:
// kubelets write their nodes' status all the time.
func sameNode(old, now any) bool {
	a, ok1 := old.(*corev1.Node)
	b, ok2 := now.(*corev1.Node)
	return ok1 && ok2 && a.UID == b.UID && maps.Equal(a.Labels, b.Labels)
}

// pass does everything once. It reports whether to look again soon.
func (s *sweeper) pass(ctx context.Context, seen map[string]bool) (again bool, err error) {
	s.notes = nil
	// Half of a cluster may be there while somebody carries it here.
	locked, err := s.locked(ctx)
	if err != nil || locked {
		return false, err
	}
	if s.noPods != nil {
		s.notes = append(s.notes, "addresses of pods are not collected: "+s.noPods.Error())
	}
	r, err := s.roster(ctx)
	if err != nil {
		return false, err
	}
	blocks, err := s.blocks(ctx)
	if err != nil {
		return false, err
	}
	lost := s.lost(r, blocks)
	if err := s.mayBury(ctx, r, lost, seen); err != nil {
		return false, err
	}
	var errs []error
	errs = append(errs, s.dropRecords(ctx, r))
	if s.Etcd && s.Node.SyncLabels {
		errs = append(errs, s.syncLabels(ctx, r))
	}
	errs = append(errs, s.hostEndpoints(ctx, r))
	if len(lost) > 0 || !s.looked {
		left, err := s.dropEndpoints(ctx, r)
		again = again || left
		errs = append(errs, err)
		s.looked = s.looked || err == nil
	}
	waiting, err := s.collect(ctx, r, blocks)
	s.passes++
	return again || waiting, errors.Join(append(errs, err)...)
}

// roster reads the records and puts them beside the nodes of Kubernetes.
func (s *sweeper) roster(ctx context.Context) (roster, error) {
	r := roster{records: map[string]store.Object{}, there: map[string]bool{}, known: map[string]bool{}}
	objects, err := s.store.List(ctx, model.KindNode, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return r, err
	}
	if err != nil {
		s.notes = append(s.notes, oneLine(err).Error())
		for _, k := range unreadable(err) {
			r.there[k.Name], r.known[k.Name] = true, true // nobody knows what it is
		}
	}
	for _, k := range s.from.keys() {
		r.there[k], r.known[k] = true, true
	}
	for _, o := range objects {
		n, ok := o.Object.(*v3.Node)
		if !ok {
			continue
		}
		r.records[n.Name], r.known[n.Name] = o, true
		if !s.Etcd {
			continue // the record is the node
		}
		name, kubernetes := want.KubernetesName(n)
		r.there[n.Name] = !kubernetes || s.from.get(name) != nil
	}
	return r, nil
}

// unreadable is the keys of the objects that err says can't be read.
func unreadable(err error) []model.Key {
	var out []model.Key
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			out = append(out, unreadable(e)...)
		}
		return out
	}
	var one *store.Error
	if errors.As(err, &one) && errors.Is(err, store.ErrUnreadable) {
		out = append(out, one.Key)
	}
	return out
}

// lost is the nodes that are gone and have left something.
func (s *sweeper) lost(r roster, b blockView) map[string]bool {
	out := map[string]bool{}
	for name := range r.known {
		out[name] = !r.there[name]
	}
	note := func(node string) {
		if node != "" && !r.there[node] {
			out[node], r.known[node] = true, true
		}
	}
	for _, block := range b.blocks {
		if block.Owner.Type == model.AffinityHost {
			note(block.Owner.Node)
		}
	}
	for _, a := range b.affinities {
		if a.Owner.Type == model.AffinityHost {
			note(a.Owner.Node)
		}
	}
	maps.DeleteFunc(out, func(_ string, gone bool) bool { return !gone })
	return out
}

// mayBury is nil if so many nodes may be taken for gone at once. Each counts once.
func (s *sweeper) mayBury(ctx context.Context, r roster, lost, seen map[string]bool) error {
	fresh, unseen := 0, 0
	for name := range lost {
		if s.buried[name] {
			continue
		}
		fresh++
		if !seen[name] {
			unseen++
		}
	}
	maps.DeleteFunc(s.buried, func(name string, _ bool) bool { return !lost[name] })
	total := len(r.known) - len(s.buried)
	if err := s.nodeGuard.check(ctx, removal{what: "nodes", n: fresh, total: total, listed: len(s.from.keys()), unseen: unseen}); err != nil {
		return err
	}
	for name := range lost {
		s.buried[name] = true
	}
	s.nodeGuard.spent(fresh)
	return nil
}

// nodeIsThere asks the API server itself, or for what is no node of Kubernetes the
// datastore.
func (s *sweeper) nodeIsThere(ctx context.Context, name string) (bool, error) {
	kubernetes := name
	if s.Etcd {
		o, err := s.store.Get(ctx, model.Key{Kind: model.KindNode, Name: name})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
		if n, ok := o.Object.(*v3.Node); ok && err == nil {
			ref, is := want.KubernetesName(n)
			if !is {
				return true, nil
			}
			kubernetes = ref
		}
	}
	_, err := s.Clientset.CoreV1().Nodes().Get(ctx, kubernetes, metav1.GetOptions{})
	return isThere(err, nodes, kubernetes)
}

// dropRecords deletes the records of nodes that are gone from Kubernetes. Where the
// node is the record there is nothing to do.
func (s *sweeper) dropRecords(ctx context.Context, r roster) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.records)) {
		if !s.Etcd || r.there[name] {
			continue
		}
		there, err := s.nodeIsThere(ctx, name)
		if err != nil || there {
			errs = append(errs, err)
			r.there[name] = r.there[name] || there
			continue
		}
		_, err = s.store.Commit(ctx, store.Op{Verb: store.Delete, Object: r.records[name]})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		delete(r.records, name)
		s.board.metrics.removed.WithLabelValues(string(model.KindNode)).Inc()
		s.log.Info("deleted the record of a node that Kubernetes has no more", "node", name)
	}
	return errors.Join(errs...)
}

// syncLabels puts the labels of nodes on their records.
func (s *sweeper) syncLabels(ctx context.Context, r roster) error {
	var writes []write
	for _, name := range slices.Sorted(maps.Keys(r.records)) {
		o := r.records[name]
		n := o.Object.(*v3.Node)
		ref, kubernetes := want.KubernetesName(n)
		k, ok := s.from.get(ref).(*corev1.Node)
		if !kubernetes || !ok {
			continue
		}
		if next, changed := want.NodeLabels(n, k.Labels); changed {
			r.records[name] = o.With(next) // host endpoints inherit them
			writes = append(writes, write{name, store.Op{Verb: store.Update, Object: r.records[name]}})
		}
	}
	return s.commit(ctx, writes)
}

// dropEndpoints deletes the endpoints of pods on nodes that are gone, when the pods are
// gone too. It reports whether some are left. Where pods are the endpoints there is
// nothing to do.
func (s *sweeper) dropEndpoints(ctx context.Context, r roster) (left bool, err error) {
	if !s.Etcd || s.pods == nil {
		return false, nil
	}
	var errs []error
	var writes []write
	errs = append(errs, s.eachEndpoint(ctx, "", func(o store.Object) {
		e, ok := o.Object.(*v3.WorkloadEndpoint)
		if !ok || e.Spec.Orchestrator != v3.OrchestratorKubernetes || r.there[e.Spec.Node] {
			return
		}
		nodeThere, err := s.nodeIsThere(ctx, e.Spec.Node)
		errs = append(errs, err)
		if err != nil || nodeThere {
			return
		}
		p, err := s.Clientset.CoreV1().Pods(e.Namespace).Get(ctx, e.Spec.Pod, metav1.GetOptions{})
		podThere, err := isThere(err, pods, e.Namespace+"/"+e.Spec.Pod)
		errs = append(errs, err)
		if err != nil || podThere && p.Spec.NodeName == e.Spec.Node {
			left = true
			return
		}
		writes = append(writes, write{e.Name, store.Op{Verb: store.Delete, Object: o}})
	}))
	err = s.commit(ctx, writes)
	s.board.metrics.removed.WithLabelValues(string(model.KindWorkloadEndpoint)).Add(float64(len(writes)))
	return left, errors.Join(append(errs, err)...)
}

// hostEndpoints makes the host endpoints that the settings ask for, and removes those
// that were made and are not asked for any more.
func (s *sweeper) hostEndpoints(ctx context.Context, r roster) error {
	objects, err := s.store.List(ctx, model.KindHostEndpoint, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return err
	}
	have := map[string]store.Object{}
	for _, o := range objects {
		if h, ok := o.Object.(*v3.HostEndpoint); ok {
			have[h.Name] = o
		}
	}
	var puts, removals []write
	asked := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(r.records)) {
		for _, h := range want.HostEndpoints(r.records[name].Object.(*v3.Node), s.Node.HostEndpoints) {
			asked[h.Name] = true
			stored, ok := have[h.Name]
			switch {
			case !ok:
				puts = append(puts, write{h.Name, store.Op{Verb: store.Create, Object: store.New(h)}})
			case !want.IsMade(stored.Object.(*v3.HostEndpoint)):
				s.notes = append(s.notes, fmt.Sprintf("host endpoint %s: exists, and was not made by the controllers: rename it", h.Name))
			case !sameHost(stored.Object, h):
				*h.Meta() = hostMeta(stored.Object, h)
				puts = append(puts, write{h.Name, store.Op{Verb: store.Update, Object: stored.With(h)}})
			}
		}
	}
	guarded := 0
	made := 0
	for _, name := range slices.Sorted(maps.Keys(have)) {
		h := have[name].Object.(*v3.HostEndpoint)
		if !want.IsMade(h) {
			continue
		}
		made++
		if asked[name] {
			continue
		}
		if _, node := r.records[h.Spec.Node]; node && s.Node.HostEndpoints.Enabled {
			guarded++
		}
		removals = append(removals, write{name, store.Op{Verb: store.Delete, Object: have[name]}})
	}
	check := removal{what: "host endpoints", n: guarded, total: made, listed: len(r.records), unseen: guarded}
	if err := s.hostGuard.check(ctx, check); err != nil {
		return err
	}
	err = s.commit(ctx, puts)
	removals = slices.DeleteFunc(removals, func(w write) bool {
		node := w.op.Object.Object.(*v3.HostEndpoint).Spec.Node
		if _, known := r.records[node]; known {
			return false // the settings say so
		}
		there, readErr := s.nodeIsThere(ctx, node)
		err = errors.Join(err, readErr)
		return readErr != nil || there && s.Node.HostEndpoints.Enabled
	})
	err = errors.Join(err, s.commit(ctx, removals))
	s.hostGuard.spent(min(guarded, len(removals)))
	s.board.metrics.removed.WithLabelValues(string(model.KindHostEndpoint)).Add(float64(len(removals)))
	return err
}

// sameHost reports whether a host endpoint is as it should be: its labels are all ours.
func sameHost(stored v3.Object, h *v3.HostEndpoint) bool {
	return same(stored, h) && maps.Equal(stored.Meta().Labels, h.Labels) && covers(stored.Meta().Annotations, h.Annotations)
}

func hostMeta(stored v3.Object, h *v3.HostEndpoint) metav1.ObjectMeta {
	m := *stored.Meta().DeepCopy()
	m.Labels = h.Labels
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	maps.Copy(m.Annotations, h.Annotations)
	return m
}
