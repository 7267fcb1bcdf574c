package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// View is what the caller knows of the cluster when a node decides. Its maps
// and slices are only read.
type View struct {
	Name     string      // of the node that decides
	Virtual  bool        // Name is no node but a virtual owner of blocks, such as load-balancer; Node is made up then
	Node     *model.Node // nil: not in the datastore
	Config   model.IPAMConfig
	Pools    []model.Pool // all, in any order
	BadPools bool         // there are pools beside Pools that can't be read: no block counts as out of all pools
	Reserved []netip.Prefix
	Now      time.Time
	// Blocks are the known blocks: all of the node's own at least. One that
	// exists but can't be read stands here as Deleted, which nobody uses.
	Blocks map[netip.Prefix]model.Block
	// Handles are the known handles.
	Handles map[string]model.Handle
	// Missing are blocks and handles that are known not to exist.
	Missing map[model.Key]bool
	// Complete says that Blocks has every block of the cluster.
	Complete bool
	// Claims are the claims in progress: blocks that other nodes have an
	// affinity to which is not confirmed yet, and which are not made yet. They
	// are taken only when nothing else is left, as their node may be dead.
	Claims map[netip.Prefix]bool
}

// NeedError says that a decision depends on an object that is not in the view.
// The caller reads it (or learns that it is missing) and decides again.
type NeedError struct {
	Key model.Key // the zero Key: every block and affinity
}

// Error implements error.
func (e *NeedError) Error() string {
	if e.Key == (model.Key{}) {
		return "ipam: all blocks must be known"
	}
	return fmt.Sprintf("ipam: %v must be known", e.Key)
}

// ErrNoNode says that the node has no record, without which selectors of pools
// can't be judged.
var ErrNoNode = errors.New("the node is not in the datastore")

// Family is what a request wants of one family.
type Family struct {
	Count int      // addresses wanted; usually 0 or 1
	Pools []string // names or CIDRs of the pools to use, whatever they select; none: any suitable
}

// PodHolder describes a pod that holds addresses, as Calico does; at is when it
// got them.
func PodHolder(handle, node, namespace, pod string, at time.Time) model.Attribute {
	return model.Attribute{Handle: handle, Secondary: map[string]string{
		"namespace": namespace, "node": node, "pod": pod, "timestamp": at.UTC().String(),
	}}
}

// Request asks for addresses for a holder.
type Request struct {
	Holder          model.Attribute // its handle is required
	Use             model.Use       // what the addresses are for: one purpose
	NamespaceLabels map[string]string
	V4, V6          Family
	Addrs           []netip.Addr // these very addresses, beside what V4 and V6 want
}

func (r Request) family(v6 bool) Family {
	if v6 {
		return r.V6
	}
	return r.V4
}

// Assigned is an address that a request got.
type Assigned struct {
	Addr     netip.Addr
	Block    netip.Prefix
	Pool     string // empty: in no pool any more
	Borrowed bool   // the block is not the node's own
}

// Change is what a decision does. All of it is written, or nothing.
type Change struct {
	Addrs    []Assigned            // what the request has now: as asked for, then IPv4, IPv6
	Put      []model.Block         // changed and new blocks
	Delete   []netip.Prefix        // blocks that are given up
	Claim    []model.BlockAffinity // affinities to write
	Unclaim  []model.BlockAffinity // affinities to delete
	Handles  []model.Handle        // handles to write; one without blocks is to be deleted
	Released []netip.Addr          // addresses that are no longer in use
}

// Empty reports whether there is nothing to write.
func (c Change) Empty() bool {
	return len(c.Put)+len(c.Delete)+len(c.Claim)+len(c.Unclaim)+len(c.Handles) == 0
}

// draft is a decision in the making: a view and what changed so far.
type draft struct {
	*View
	put     map[netip.Prefix]model.Block
	gone    map[netip.Prefix]bool
	claim   []model.BlockAffinity
	unclaim []model.BlockAffinity
}

func (v *View) draft() *draft {
	return &draft{View: v, put: map[netip.Prefix]model.Block{}, gone: map[netip.Prefix]bool{}}
}

// block is a block as the decision has it so far.
func (d *draft) block(cidr netip.Prefix) (model.Block, bool) {
	if b, ok := d.put[cidr]; ok {
		return b, true
	}
	b, ok := d.Blocks[cidr]
	if !ok || d.gone[cidr] {
		return model.Block{}, false
	}
	return Thaw(b, d.Config.Cooldown, d.Now), true
}

// need is nil when it is known whether that block exists.
func (d *draft) need(cidr netip.Prefix) error {
	if _, ok := d.block(cidr); ok || d.Complete || d.Missing[model.BlockKey(cidr)] {
		return nil
	}
	return &NeedError{model.BlockKey(cidr)}
}

// sorted is the blocks that want selects, in the byte order of their keys.
func (d *draft) sorted(want func(model.Block) bool) []netip.Prefix {
	names := map[netip.Prefix]string{}
	for cidr, b := range d.Blocks {
		if now, ok := d.put[cidr]; ok {
			b = now
		}
		if !d.gone[cidr] && want(b) {
			names[cidr] = model.CIDRName(cidr)
		}
	}
	for cidr, b := range d.put {
		if want(b) {
			names[cidr] = model.CIDRName(cidr)
		}
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b netip.Prefix) int { return cmp.Compare(names[a], names[b]) })
}

// owner is the affinity of the view's node or virtual owner.
func (v *View) owner() model.Affinity {
	if v.Virtual {
		return model.Affinity{Type: model.AffinityVirtual, Node: v.Name}
	}
	return model.HostAffinity(v.Name)
}

// assigned describes an address that a request has.
func (d *draft) assigned(a netip.Addr, block model.Block) Assigned {
	pool, _ := d.poolOf(a)
	return Assigned{a, block.CIDR, pool.Name, block.Owner != d.owner()}
}

// change is the decision so far, handles left out.
func (d *draft) change() Change {
	c := Change{Claim: d.claim, Unclaim: d.unclaim}
	for _, cidr := range slices.SortedFunc(maps.Keys(d.put), netip.Prefix.Compare) {
		c.Put = append(c.Put, d.put[cidr])
	}
	c.Delete = slices.SortedFunc(maps.Keys(d.gone), netip.Prefix.Compare)
	return c
}

// Apply makes the view what it is once c is written. It changes the view's maps.
func (v *View) Apply(c Change) {
	for _, b := range c.Put {
		v.Blocks[b.CIDR] = b
	}
	for _, cidr := range c.Delete {
		delete(v.Blocks, cidr)
		v.Missing[model.BlockKey(cidr)] = true
	}
	for _, h := range c.Handles {
		if len(h.Blocks) > 0 {
			v.Handles[h.ID] = h
			continue
		}
		delete(v.Handles, h.ID)
		v.Missing[h.Key()] = true
	}
}

// Clone is v with maps of its own.
func (v *View) Clone() *View {
	c := *v
	c.Blocks, c.Handles, c.Missing = maps.Clone(v.Blocks), maps.Clone(v.Handles), maps.Clone(v.Missing)
	return &c
}

// Then is c with next after it, which was decided on what c left.
func (c Change) Then(next Change) Change {
	cidr := func(b model.Block) netip.Prefix { return b.CIDR }
	claimed := func(a model.BlockAffinity) netip.Prefix { return a.CIDR }
	return Change{
		Addrs:    next.Addrs,
		Put:      append(without(without(c.Put, cidr, next.Put, cidr), cidr, next.Delete, self), next.Put...),
		Delete:   append(without(c.Delete, self, next.Put, cidr), next.Delete...),
		Claim:    append(without(c.Claim, claimed, next.Unclaim, claimed), next.Claim...),
		Unclaim:  append(without(c.Unclaim, claimed, next.Claim, claimed), next.Unclaim...),
		Handles:  append(slices.Clip(c.Handles), next.Handles...),
		Released: append(slices.Clip(c.Released), next.Released...),
	}
}

func self(p netip.Prefix) netip.Prefix { return p }

// without is list without what other has, too, in a new slice.
func without[T, O any](list []T, of func(T) netip.Prefix, other []O, ofOther func(O) netip.Prefix) []T {
	return slices.DeleteFunc(slices.Clone(list), func(t T) bool {
		return slices.ContainsFunc(other, func(o O) bool { return ofOther(o) == of(t) })
	})
}
