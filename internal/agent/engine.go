package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/peering"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/store"
)

// replanDelay is how long the engine waits for further changes before it plans
// the BGP sessions anew, so that a burst costs one plan.
const replanDelay = 10 * time.Millisecond

// rereadInterval is the time between two looks at the files of passwords.
const rereadInterval = 5 * time.Second

// firstMTUWait bounds the wait for the MTU of the underlay, which is known at once where
// there is an underlay.
const firstMTUWait = time.Second

// keysWait bounds how long a start waits for the keys of WireGuard devices: a kernel
// without WireGuard never has one.
const keysWait = 5 * time.Second

// engine is the one loop between the deciders and the doors. Everything it
// has is used by its goroutine only, but for what notes holds.
type engine struct {
	node     string
	network  *network
	view     *peering.View
	options  peering.Options
	secrets  secrets
	filter   *filter
	speaker  Speaker // nil: no BGP on this node
	alloc    *allocator.Allocator
	tunnels  *tunnels
	arrivals *arrivals
	doubt    *doubt
	notes    *notes
	log      *slog.Logger

	look   <-chan time.Time // due when the kernel is to be looked at
	replan <-chan time.Time // due when the sessions are to be planned anew; nil: not
	reread <-chan time.Time // due when the secrets are to be looked at again; nil: there are none

	restarting                 bool          // an earlier agent's routes are in the kernel
	synced                     chan struct{} // closed when the datastore is known
	storeSynced, learnedSynced bool
	keyed                      bool          // the record has the keys of WireGuard, or will not have them soon
	encrypted                  chan struct{} // closed when keyed
	keysDue                    <-chan time.Time
	settings                   route.Settings
	onSettings                 func(route.Settings)
	onPodMTU                   func(bytes int)
	onBatch                    func(model.Batch) // hears of each batch that was taken in
	pulse                      *pulse
}

// Speaker is the BGP speaker as the engine sees it.
type Speaker interface {
	// Apply makes the speaker follow c.
	Apply(c bgp.Config) error
	// Status lists the peers, by name.
	Status() []bgp.PeerStatus
}

// run takes in batches, learned routes and MTUs of the underlay until ctx ends.
func (e *engine) run(ctx context.Context, batches <-chan model.Batch, learned <-chan bgp.LearnedBatch, mtus <-chan int) error {
	select {
	case mtu := <-mtus: // before the first devices, or they would change at once
		e.measure(mtu)
	case <-time.After(firstMTUWait):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case b := <-batches:
			e.step(b)
		case b := <-learned:
			e.learn(b)
		case <-e.network.due:
			e.network.expire()
		case k := <-e.network.keys:
			e.network.keyed(k)
			e.filter.table.Apply(e.network.crypt.Filter())
			e.tellKeys()
			e.noteKeys(false)
		case <-e.keysDue:
			e.noteKeys(true)
		case mtu := <-mtus:
			e.network.measured(mtu)
			e.filter.table.Apply(e.network.crypt.Filter())
			e.tunnels.setMTU(mtu)
			e.tunnels.need(e.network.graph.Tunnels()) // a small one rules some out
			e.tellPodMTU()
		case <-e.replan:
			e.replan = nil
			e.plan()
		case <-e.reread:
			e.compareSecrets()
		case <-e.look:
			e.lookAtKernel()
		case <-e.pulse.asked:
		}
	}
}

// step takes in one batch from the datastore.
func (e *engine) step(b model.Batch) {
	if b.Synced && !e.storeSynced {
		e.lookAtKernel() // before the first rules are written
	}
	if e.filter.firstHost(b) {
		e.relink()
	}
	changes := e.network.step(b)
	e.filter.step(b, e.network.crypt.Filter())
	for _, d := range changes {
		e.network.apply(d)
	}
	e.alloc.Step(b)
	e.tunnels.step(b, e.network.graph.Tunnels())
	floating := e.filter.edge.FloatingIPs()
	changed := floating != e.options.FloatingIPs
	e.options.FloatingIPs = floating
	if (e.view.Step(b) || changed) && e.speaker != nil && e.replan == nil {
		e.replan = time.After(replanDelay)
	}
	e.notes.step(b)
	if b.Synced {
		if !e.storeSynced {
			close(e.synced)
			e.keysDue = time.After(keysWait)
		}
		e.storeSynced = true
		if e.replan == nil && e.speaker != nil {
			e.replan = time.After(0)
		}
	}
	e.release()
	e.noteKeys(false)
	if s := e.network.graph.Settings(); e.storeSynced && !sameSettings(s, e.settings) {
		e.settings = s
		e.onSettings(s)
	}
	e.tellPodMTU()
	e.tellKeys()
	e.notes.problems("route", e.network.graph.Problems())
	e.notes.problems("wireguard", e.network.crypt.Problems())
	e.notes.problems("policy", e.filter.graph.Problems())
	if b.Synced || concernsPools(b) {
		e.notes.problems("pools", ipam.Overlaps(e.alloc.Pools()))
	}
	e.arrivals.step(b)
	e.onBatch(b)
}

func concernsPools(b model.Batch) bool {
	return slices.ContainsFunc(b.Puts, func(v model.Value) bool { return v.Key().Kind == model.KindIPPool }) ||
		slices.ContainsFunc(b.Deletes, func(k model.Key) bool { return k.Kind == model.KindIPPool })
}

// learn takes in what BGP told.
func (e *engine) learn(b bgp.LearnedBatch) {
	e.network.learn(b)
	e.learnedSynced = e.learnedSynced || b.Synced
	e.release()
}

// lookAtKernel notes what the kernel has refused since, and which interfaces there are
// if anybody needs them: some thousand would be a thousandth of a core for nothing.
func (e *engine) lookAtKernel() {
	e.noteKernel()
	if e.filter.graph.NeedsLinks() {
		e.relink()
	}
	e.look = time.After(lookInterval)
}

// relink tells policy which interfaces the node has.
func (e *engine) relink() {
	if err := e.filter.relink(); err != nil {
		e.log.Warn("the node's interfaces can't be read; host endpoints stay as they are", "err", err)
	}
}

// release lets the kernel doors remove what an earlier run left, as soon as
// what must stay is known.
func (e *engine) release() {
	if e.storeSynced {
		e.filter.table.Synced()
		if e.doubt.keeps() {
			return // what the cluster's routes are is not certain
		}
		e.network.synced((e.learnedSynced || e.speaker == nil) && e.keyed)
	}
}

// noteKeys notes that the node's record has the keys of its WireGuard devices, for the
// first time or because it is not waited for any longer: until then routes into them that
// an earlier run left stay, and no pod starts.
func (e *engine) noteKeys(force bool) {
	if e.storeSynced && !e.keyed && (force || e.network.crypt.Published()) {
		e.keyed, e.keysDue = true, nil
		close(e.encrypted)
		e.release()
	}
}

// noteKernel notes what the kernel did not do as it was asked, and what it does otherwise,
// which the doors have logged.
func (e *engine) noteKernel() {
	e.notes.problems("kernel", slices.Concat(e.filter.refused(), e.network.refused()))
	e.notes.keep("notices", e.network.notices())
}

// measure takes in the MTU of the underlay.
func (e *engine) measure(mtu int) {
	e.network.measured(mtu)
	e.tunnels.setMTU(mtu)
	e.tunnels.need(e.network.graph.Tunnels()) // a small one rules some out
	e.tellPodMTU()
}

// tellPodMTU passes on what the underlay's MTU and the tunnels leave for workloads, once
// the datastore is known.
func (e *engine) tellPodMTU() {
	if mtu := e.network.graph.PodMTU(); mtu != 0 && e.storeSynced {
		e.onPodMTU(mtu)
	}
}

// tellKeys passes on which public keys the node's record must have.
func (e *engine) tellKeys() {
	for _, v6 := range []bool{false, true} {
		e.tunnels.setKey(v6, publishedKey(e.network.crypt.Key(v6)))
	}
}

// passwords reads the secrets that sessions refer to, and says which it can't.
func (e *engine) passwords() (found map[model.SecretRef]string, missing []error) {
	found = map[model.SecretRef]string{}
	for _, ref := range e.view.Secrets() {
		s, err := e.secrets.lookup(ref)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		found[ref] = s
	}
	return found, missing
}

// compareSecrets plans anew if a file of a password changed: nobody tells us.
func (e *engine) compareSecrets() {
	if now, _ := e.passwords(); !maps.Equal(now, e.options.Secrets) {
		e.plan()
		return
	}
	e.reread = time.After(rereadInterval)
}

// plan decides about the BGP sessions and tells the speaker.
func (e *engine) plan() {
	if !e.storeSynced {
		return
	}
	var missing []error
	e.options.Secrets, missing = e.passwords()
	e.reread = nil
	if len(e.options.Secrets)+len(missing) > 0 {
		e.reread = time.After(rereadInterval)
	}
	config, fixed, problems := e.view.Plan(e.options)
	for _, err := range missing {
		problems = append(problems, model.Problem{Text: err.Error()})
	}
	e.notes.problems("peering", problems)
	config.Restarting = e.restarting
	e.network.fix(fixed)
	if err := e.speaker.Apply(config); err != nil {
		// The plan is always valid, so this is a fault of ours: the sessions
		// that run go on.
		e.log.Error("BGP plan refused", "err", err)
	}
}

func sameSettings(a, b route.Settings) bool {
	return a.Form == b.Form && a.Tunnel == b.Tunnel && a.Pages == b.Pages && a.RemoveExternal == b.RemoveExternal && a.Process == b.Process &&
		a.RouteRefresh == b.RouteRefresh && a.LogSeverity == b.LogSeverity &&
		slices.Equal(a.InterfacePrefixes, b.InterfacePrefixes) && slices.Equal(a.Unbuilt, b.Unbuilt)
}

// follow copies the batches of a source into a channel until ctx ends.
// What ails the source is noted.
func follow(ctx context.Context, source store.Source, batches chan<- model.Batch, n *notes) error {
	last, log := "", n.log
	for b, err := range source.Watch(ctx, watched()...) {
		if err != nil {
			// The source tries again by itself; the same failure is said once.
			if ctx.Err() == nil && err.Error() != last {
				log.Warn("datastore watch broke", "err", err)
				last = err.Error()
				n.setBroken(last)
			}
			continue
		}
		if b.Synced && last != "" {
			log.Info("datastore watch is whole again")
			last = ""
			n.setBroken("")
		}
		select {
		case batches <- b:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if ctx.Err() == nil {
		return errors.New("agent: the datastore's watch ended by itself")
	}
	return context.Cause(ctx)
}

// watched are the kinds that the agent follows.
func watched() []model.Kind {
	return append(policy.Kinds(), model.KindBGPConfiguration, model.KindBGPPeer, model.KindClusterInformation,
		model.KindIPAMBlock, model.KindIPAMConfig, model.KindIPPool, model.KindIPReservation)
}
