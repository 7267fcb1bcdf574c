package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/leak"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// blockView is what the datastore says of addresses.
type blockView struct {
	config     model.IPAMConfig
	blocks     []model.Block
	affinities []model.BlockAffinity
	unreadable bool // there are blocks beside these
}

// readBlocks reads all blocks, and whether there are some that can't be read.
func readBlocks(ctx context.Context, st store.Store) (blocks []model.Block, unreadable bool, err error) {
	objects, err := st.List(ctx, model.KindIPAMBlock, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return nil, false, err
	}
	unreadable = err != nil
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		b, ok := v.(model.Block)
		if err != nil || !ok {
			unreadable = true
			continue
		}
		blocks = append(blocks, b)
	}
	return blocks, unreadable, nil
}

// blocks reads what collect decides on. The blocks come first: a handle that is seen
// later than its block is never without it.
func (s *sweeper) blocks(ctx context.Context) (blockView, error) {
	v := blockView{config: model.DefaultIPAMConfig()}
	o, err := s.store.Get(ctx, model.IPAMConfig{}.Key())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return v, err
	}
	if err == nil {
		parsed, err := model.Parse(o.Object)
		if err != nil {
			return v, err
		}
		v.config = parsed.(model.IPAMConfig)
	}
	if v.blocks, v.unreadable, err = readBlocks(ctx, s.store); err != nil {
		return v, err
	}
	objects, err := s.store.List(ctx, model.KindBlockAffinity, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return v, err
	}
	for _, o := range objects {
		if parsed, err := model.Parse(o.Object); err == nil {
			v.affinities = append(v.affinities, parsed.(model.BlockAffinity))
		}
	}
	if v.unreadable {
		s.notes = append(s.notes, "a block of addresses can't be read: handles are not judged")
	}
	return v, nil
}

// handleEvery is the number of passes between looks at all handles: there is one for
// each pod.
const handleEvery = 12

// collect releases leaked addresses and gives up blocks. It reports whether work on
// nodes that are gone is left.
func (s *sweeper) collect(ctx context.Context, r roster, b blockView) (waiting bool, err error) {
	v := leak.View{
		Now: s.now(), Cooldown: b.config.Cooldown, Grace: s.Node.LeakGrace, Settle: s.periodOf(Node),
		KeepEmpty: !b.config.AutoAllocateBlocks, Blocks: b.blocks, Affinities: b.affinities, Unreadable: b.unreadable, Nodes: r.there,
	}
	if s.passes%handleEvery == 0 {
		if v.Handles, err = s.handles(ctx); err != nil {
			return false, err
		}
	}
	if s.pods != nil {
		v.Pods = map[leak.PodName]leak.Pod{}
		for _, k := range s.pods.keys() {
			if p, ok := s.pods.get(k).(*corev1.Pod); ok {
				v.Pods[leak.PodName{Namespace: p.Namespace, Name: p.Name}] = podFor(p)
			}
		}
	}
	plan, memory := leak.Step(v, s.memory)
	s.memory = memory
	s.measure(b, plan)
	if err := s.mayRelease(ctx, plan, len(v.Pods)); err != nil {
		return false, err
	}
	asked := &witness{sweeper: s, nodes: map[string]bool{}}
	errs := s.release(ctx, plan, asked)
	errs = append(errs, s.giveUp(ctx, plan, len(b.blocks), asked)...)
	errs = append(errs, s.dropOrphans(ctx, plan)...)
	return plan.Waiting, errors.Join(errs...)
}

func (s *sweeper) handles(ctx context.Context) ([]model.Handle, error) {
	objects, err := s.store.List(ctx, model.KindIPAMHandle, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return nil, err
	}
	out := []model.Handle{}
	for _, o := range objects {
		if v, err := model.Parse(o.Object); err == nil {
			out = append(out, v.(model.Handle))
		}
	}
	return out, nil
}

// measure publishes the numbers of a pass.
func (s *sweeper) measure(b blockView, plan leak.Plan) {
	m := s.board.metrics
	m.candidates.Set(float64(plan.Candidates))
	m.blocks.Reset()
	m.inUse.Reset()
	for _, block := range b.blocks {
		m.blocks.WithLabelValues(block.Owner.Node).Inc()
		m.inUse.WithLabelValues(block.Owner.Node).Add(float64(ipam.InUse(block)))
	}
}

// locked reports whether the datastore is locked (datastoreReady of the ClusterInformation is
// false): then nothing is given up, whatever it seems to be.
func (s *sweeper) locked(ctx context.Context) (bool, error) {
	o, err := s.store.Get(ctx, model.Cluster{}.Key())
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ready := o.Object.(*v3.ClusterInformation).Spec.DatastoreReady
	if ready == nil || *ready {
		return false, nil
	}
	s.notes = append(s.notes, "the datastore is locked: nothing is collected until it is unlocked")
	return true, nil
}

// mayRelease is nil if so many pods may be taken for gone at once on nodes that exist.
func (s *sweeper) mayRelease(ctx context.Context, plan leak.Plan, listed int) error {
	n := 0
	for _, x := range plan.Suspects {
		if !x.NodeGone {
			n++
		}
	}
	return s.podGuard.check(ctx, removal{what: "pods with addresses", n: n, total: plan.Holders, listed: listed, unseen: n})
}

// release asks about the suspects and releases those that are dead.
func (s *sweeper) release(ctx context.Context, plan leak.Plan, asked *witness) []error {
	var errs []error
	for _, x := range plan.Suspects {
		if ctx.Err() != nil {
			return append(errs, context.Cause(ctx))
		}
		evidence, err := asked.about(ctx, x)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !x.Dead(evidence) {
			continue
		}
		freed, err := s.releaseHeld(ctx, x)
		if err != nil {
			errs = append(errs, fmt.Errorf("release %s: %w", x.Handle, err))
		}
		if len(freed) == 0 {
			continue
		}
		if !x.NodeGone {
			s.podGuard.spent(1)
		}
		s.board.metrics.reclaimed.Add(float64(len(freed)))
		s.log.Info("released leaked addresses", "addresses", freed, "handle", x.Handle, "workload", x.Pod.Namespace+"/"+x.Pod.Name, "node", x.Node)
	}
	return errs
}

// releaseHeld frees just the assignments that were seen. One that changed since is
// another's business.
func (s *sweeper) releaseHeld(ctx context.Context, x leak.Suspect) ([]netip.Addr, error) {
	if x.Handle != "" && x.Pod != (leak.PodName{}) {
		freed, err := s.free.ReleaseSeen(ctx, x.Handle, x.Held)
		if errors.Is(err, ipam.ErrChanged) {
			err = nil
		}
		return freed, err
	}
	var freed []netip.Addr
	var errs []error
	for _, h := range x.Held {
		err := s.free.ReleaseAddr(ctx, h.Addr, ipam.Check{Handle: x.Handle, Sequence: h.Sequence})
		switch {
		case err == nil:
			freed = append(freed, h.Addr)
		case !errors.Is(err, ipam.ErrChanged) && !errors.Is(err, ipam.ErrNotAssigned):
			errs = append(errs, err)
		}
	}
	return freed, errors.Join(errs...)
}

// giveUp deletes the blocks that are empty, and claims of nodes that are gone. Of
// blocks of nodes that exist no more go at once than the budget allows; the others
// another time.
func (s *sweeper) giveUp(ctx context.Context, plan leak.Plan, total int, asked *witness) []error {
	var errs []error
	budget := s.budgetOf(blocksMinimum, 0).Limit(total)
	for _, x := range plan.Idle {
		if !x.NodeGone {
			if budget--; budget < 0 {
				continue
			}
		} else if x.Owner.Node != "" {
			there, err := asked.node(ctx, x.Owner.Node)
			if errs = append(errs, err); err != nil || there {
				continue
			}
		}
		err := s.free.GiveUpEmpty(ctx, x.CIDR, x.Sequence)
		switch {
		case err == nil:
			s.board.metrics.removed.WithLabelValues(string(model.KindIPAMBlock)).Inc()
			s.log.Info("gave up an empty block", "prefix", x.CIDR, "node", x.Owner.Node)
		case !errors.Is(err, ipam.ErrChanged):
			errs = append(errs, err)
		}
	}
	for _, a := range plan.Unclaim {
		there, err := asked.node(ctx, a.Owner.Node)
		if err != nil || there {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, s.deleteIf(ctx, a.Key(), func(o v3.Object) bool { return true }))
	}
	return errs
}

// dropOrphans deletes handles that hold nothing, as far as they are as they were seen.
func (s *sweeper) dropOrphans(ctx context.Context, plan leak.Plan) []error {
	var errs []error
	limit := s.budgetOf(holdersMinimum, 0).Limit(plan.Holders)
	for _, h := range plan.Orphans[:min(len(plan.Orphans), limit)] {
		errs = append(errs, s.deleteIf(ctx, h.Key(), func(o v3.Object) bool {
			v, err := model.Parse(o)
			now, ok := v.(model.Handle)
			return err == nil && ok && len(now.Blocks) == len(h.Blocks)
		}))
	}
	return errs
}

// deleteIf deletes an object that is still as ok wants it, by the revision that was
// read.
func (s *sweeper) deleteIf(ctx context.Context, key model.Key, ok func(v3.Object) bool) error {
	o, err := s.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || !ok(o.Object) {
		return err
	}
	_, err = s.store.Commit(ctx, store.Op{Verb: store.Delete, Object: o})
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return nil
	}
	if err == nil {
		s.board.metrics.removed.WithLabelValues(string(key.Kind)).Inc()
	}
	return err
}

// witness asks the API server about suspects: about each node once a pass.
type witness struct {
	*sweeper
	nodes map[string]bool
}

func (w *witness) node(ctx context.Context, name string) (bool, error) {
	if there, asked := w.nodes[name]; asked {
		return there, nil
	}
	there, err := w.nodeIsThere(ctx, name)
	if err == nil {
		w.nodes[name] = there
	}
	return there, err
}

// about is the evidence about a suspect. Where endpoints are stored apart from pods, a
// pod that exists has the addresses of its endpoint, too: an API server that was not
// reached from the node may not know them.
func (w *witness) about(ctx context.Context, x leak.Suspect) (leak.Evidence, error) {
	e := leak.Evidence{NodeExists: true}
	if x.NodeGone {
		there, err := w.node(ctx, x.Node)
		if err != nil {
			return e, err
		}
		e.NodeExists = there
	}
	if x.Pod == (leak.PodName{}) {
		return e, nil
	}
	p, err := w.Clientset.CoreV1().Pods(x.Pod.Namespace).Get(ctx, x.Pod.Name, metav1.GetOptions{})
	there, err := isThere(err, pods, x.Pod.Namespace+"/"+x.Pod.Name)
	if err != nil || !there {
		return e, err
	}
	pod := podFor(p)
	if w.Etcd && !pod.Ended && len(pod.Addrs) > 0 {
		err = w.eachEndpoint(ctx, x.Pod.Namespace, func(o store.Object) {
			if ep, ok := o.Object.(*v3.WorkloadEndpoint); ok && ep.Spec.Pod == x.Pod.Name && ep.Spec.Orchestrator == v3.OrchestratorKubernetes {
				for _, text := range ep.Spec.IPNetworks {
					if n, err := netip.ParsePrefix(text); err == nil && !slices.Contains(pod.Addrs, n.Addr()) {
						pod.Addrs = append(pod.Addrs, n.Addr())
					}
				}
			}
		})
	}
	e.Pod = &pod
	return e, err
}
