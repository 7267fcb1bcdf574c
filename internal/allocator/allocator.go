// Package allocator gives out addresses on a node: the compare-and-swap around
// the decisions of package ipam.
//
// One loop serves all callers of a process. It takes every request that waits,
// decides about them one after the other on what it knows of the datastore, and
// writes all that follows (blocks, handles, affinities, and what the callers
// add, such as the endpoint that gets the address) in one transaction. So a
// hundred requests that wait cost one write, and with the node's block at hand
// a request costs no read.
//
//	Assign ─┐             ┌─ decide (ipam.View) ─ *NeedError? read ─┐
//	Release ┼─► queue ─► loop                                       │
//	GiveUp ─┘             └─ Commit ─ changed meanwhile? read it ───┘ at most 100 times
//
// What the loop knows is only ever a guess: every write names the revision that
// it was decided on, and no answer is given from memory alone. A request that
// would fail is decided again on a fresh reading first.
//
// Where the datastore has no transactions (Kubernetes), a commit may be carried out in
// part. What was is taken in, and the rest decided anew on top of it; what a request has
// got that is refused in the end is released before it is answered.
//
// A request is either not begun or answered: once the loop has taken it, the
// end of its context does not abandon it. When the datastore's answer is lost
// the error says so; asking again with the same handle gives the same addresses
// or new ones, never both, and releasing the handle frees whatever it has.
//
// Calico's own tools may work on the same datastore at the same time. They
// write in several steps; a claim that one of them left half done on this node
// is completed or taken back when the loop reads the node's affinities.
//
// Invariant: an address is given out only by a transaction that found its block
// as it was when the address was seen to be free.
package allocator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Limits of one round of the loop.
const (
	// maxOps is the number of operations of one transaction: etcd takes 128.
	maxOps = 128
	// maxAttempts is how often a round is decided anew when others were faster.
	maxAttempts = 100
	// roundTimeout bounds a round, so that a datastore that hangs is an error.
	roundTimeout = 10 * time.Second
)

// Errors that callers branch on with errors.Is.
var (
	// ErrStopped says that Run has ended: nothing was changed.
	ErrStopped = errors.New("allocator: stopped")
	// ErrUnknownOutcome says that the datastore's answer was lost: the request
	// may have been carried out. Ask again, or release the handle.
	ErrUnknownOutcome = errors.New("allocator: the outcome is not known")
)

// Request asks for addresses and for what is to be written with them.
type Request struct {
	ipam.Request
	// Extra makes the operations that depend on the addresses, such as the
	// creation of the endpoint; nil: none. They are carried out in the same
	// transaction, each on an object of its own. Extra runs in the loop, once or
	// more, and must be quick. When one of its operations is refused (it exists,
	// is not found, changed meanwhile) the request fails with that error, and no
	// address is assigned.
	Extra func([]ipam.Assigned) ([]store.Op, error)
}

// Result is what a request got.
type Result struct {
	Addrs []ipam.Assigned // those asked for by name, then IPv4, then IPv6
	Extra []store.Object  // as written, in the order of the operations
}

// Allocator gives out addresses on one node. Its methods are safe for
// concurrent use; they wait until Run serves them.
type Allocator struct {
	node  string
	queue chan *call
	done  chan struct{} // closed when Run ends
	loop  loop          // Run's alone

	mu       sync.Mutex
	feed     feed  // pools, reservations, configuration and nodes as Step tells them; never changed in place
	snapshot *feed // one in progress, else nil
	fed      bool  // feed is complete
}

// New makes an allocator for a node. Without a node (the empty name) it can
// only release. now is the clock.
func New(st store.Store, node string, now func() time.Time) *Allocator {
	return &Allocator{
		node: node, queue: make(chan *call), done: make(chan struct{}),
		loop: loop{store: st, node: node, now: now},
		feed: feed{model.World{}, map[model.Key]model.Value{}},
	}
}

// NewVirtual makes an allocator for a virtual owner of blocks, which is no node: such
// as load-balancer, for the addresses of services. There must be one at a time in the
// cluster, since it gives up its empty blocks at once.
func NewVirtual(st store.Store, owner string, now func() time.Time) *Allocator {
	a := New(st, owner, now)
	a.loop.virtual = true
	return a
}

// GiveUpEmpty deletes a block that is empty and unchanged since sequence, with its
// owner's claim: see [ipam.View.GiveUpEmpty].
func (a *Allocator) GiveUpEmpty(ctx context.Context, cidr netip.Prefix, sequence uint64) error {
	return a.do(ctx, &call{decide: func(v *ipam.View) (ipam.Change, error) { return v.GiveUpEmpty(cidr, sequence) }})
}

// Run serves requests until ctx ends, and returns its cause. It is called once.
func (a *Allocator) Run(ctx context.Context) error {
	defer close(a.done)
	var late []*call // taken, but there was no room in the transaction
	for {
		calls := late
		if len(calls) == 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case c := <-a.queue:
				calls = append(calls, c)
			}
		}
		calls = a.waiting(calls)
		// What is taken is finished, so that nobody is left without an answer.
		round, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundTimeout)
		late = a.loop.round(round, a.settings(), calls)
		cancel()
	}
}

// waiting adds to calls those that wait, as far as they may fit in one round.
func (a *Allocator) waiting(calls []*call) []*call {
	for len(calls) < maxOps {
		select {
		case c := <-a.queue:
			calls = append(calls, c)
		default:
			return calls
		}
	}
	return calls
}

// Assign gives the request all that it wants, or nothing: see
// [ipam.View.Assign] for the errors, beside ErrStopped, ErrUnknownOutcome, the
// error of an operation of Extra, and the end of ctx before the loop took the
// request.
func (a *Allocator) Assign(ctx context.Context, r Request) (Result, error) {
	c := &call{
		handle: r.Holder.Handle, extra: r.Extra,
		decide: func(v *ipam.View) (ipam.Change, error) { return v.Assign(r.Request) },
	}
	err := a.do(ctx, c)
	return Result{c.addrs, c.written}, err
}

// Release frees all addresses of a handle, and carries out extra in the same
// transaction. A handle that does not exist is no error, and neither is the
// deletion in extra of what does not exist. It returns what was freed.
func (a *Allocator) Release(ctx context.Context, handle string, extra ...store.Op) ([]netip.Addr, error) {
	c := &call{
		lenient: true,
		decide:  func(v *ipam.View) (ipam.Change, error) { return v.Release(handle) },
		extra:   func([]ipam.Assigned) ([]store.Op, error) { return extra, nil },
	}
	err := a.do(ctx, c)
	return c.released, err
}

// ReleaseSeen frees all addresses of a handle if it holds nothing but seen, and that
// since then. It returns what was freed. Errors: ipam.ErrChanged and those of Release.
func (a *Allocator) ReleaseSeen(ctx context.Context, handle string, seen []ipam.Assignment) ([]netip.Addr, error) {
	c := &call{decide: func(v *ipam.View) (ipam.Change, error) { return v.ReleaseSeen(handle, seen) }}
	err := a.do(ctx, c)
	return c.released, err
}

// ReleaseAddr frees one address if it is still held as check says. Errors:
// ipam.ErrNotAssigned, ipam.ErrChanged and those of Release.
func (a *Allocator) ReleaseAddr(ctx context.Context, addr netip.Addr, check ipam.Check) error {
	return a.do(ctx, &call{decide: func(v *ipam.View) (ipam.Change, error) { return v.ReleaseAddr(addr, check) }})
}

// GiveUp takes the blocks that which selects from their owners, as deleting a
// pool or a node asks for: see [ipam.View.GiveUp]. It does all it can and
// returns what it could not.
func (a *Allocator) GiveUp(ctx context.Context, which func(model.Block) bool) error {
	objects, err := a.loop.store.List(ctx, model.KindIPAMBlock, "")
	errs := []error{err}
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		b, ok := v.(model.Block)
		if errs = append(errs, err); !ok || !which(b) {
			continue
		}
		errs = append(errs, a.do(ctx, &call{decide: func(v *ipam.View) (ipam.Change, error) { return v.GiveUp(b.CIDR) }}))
	}
	return errors.Join(errs...)
}

// do hands c to the loop and waits for the answer.
func (a *Allocator) do(ctx context.Context, c *call) error {
	c.answered = make(chan struct{})
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return ErrStopped
	case a.queue <- c:
	}
	<-c.answered
	return c.err
}

// call is a request on its way through the loop. The loop owns it until
// answered is closed.
type call struct {
	handle  string // whose addresses are asked for; empty: none
	decide  func(*ipam.View) (ipam.Change, error)
	extra   func([]ipam.Assigned) ([]store.Op, error)
	lenient bool // deleting in extra what does not exist is no error

	gone map[model.Key]bool         // what extra need not delete
	done map[model.Key]store.Object // what was carried out of extra by commits that failed
	// had: before anything was written for it, its handle had addresses, as far as is
	// known: not all that it has is of this call. wrote: its handle was written.
	had, wrote bool

	failed *call // this one takes back what that one has got in part; then that is answered
	why    error // why it failed

	answered chan struct{}
	addrs    []ipam.Assigned
	released []netip.Addr
	written  []store.Object
	err      error
}

// finished records that an operation of extra is carried out.
func (c *call) finished(key model.Key, o store.Object) {
	if c.done == nil {
		c.done = map[model.Key]store.Object{}
	}
	c.done[key] = o
}

// answer ends the call.
func (c *call) answer(err error) {
	if c.failed == nil {
		c.err = err
		close(c.answered)
		return
	}
	if err != nil {
		c.why = fmt.Errorf("%w: %w, and what it has got is not released: %w", ErrUnknownOutcome, c.why, err)
	}
	c.failed.answer(c.why)
}
