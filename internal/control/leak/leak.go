// Package leak decides which assigned addresses have no owner any more: those of pods
// and nodes that are gone while nobody gave their addresses back.
//
// What it is shown may be stale: lists of pods and nodes come from caches, and an API
// server may answer lists from a cache of its own. So nothing is released on the word
// of a list. [Step] finds suspects; an address that is one for the grace period, or
// whose node is gone, is asked about, one live read for its pod and one for its node;
// and only a [Suspect] that is [Suspect.Dead] by these answers is released, by
// compare-and-swap with the very assignment that was seen.
//
//	blocks ─┐                      live reads
//	pods   ─┼─► Step ─► Suspects ──────┴──► Dead ─► release (handle, sequence)
//	nodes  ─┘     │  └► Idle blocks, claims and handles without addresses
//	        Memory ◄┘ (what was seen, and since when)
//
// All addresses of a handle go together or not at all: a pod with one address that is
// alive is alive. An address whose holder is no pod and no tunnel of a node (a container
// of another orchestrator, a service, a virtual machine that keeps its address) is
// never a suspect.
//
// Invariant: an address that a live read shows in use, or about which it tells
// nothing, is not released.
package leak

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// Pod is what is known of a pod.
type Pod struct {
	// Addrs are all addresses that the pod is said to have, by anybody; empty: it is
	// not known yet which.
	Addrs []netip.Addr
	// Container is the sandbox that has the addresses; empty: unknown.
	Container string
	// Ended says that all containers have ended for good, so the addresses are not
	// in use.
	Ended bool
}

// PodName names a pod.
type PodName struct{ Namespace, Name string }

// View is what the caller knows when it looks for leaks. It is only read.
type View struct {
	Now time.Time
	// Cooldown is how long a released address is kept unused.
	Cooldown time.Duration
	// Grace is how long an address on a node that exists must look leaked before it is
	// asked about; 0: addresses on such nodes are left alone.
	Grace time.Duration
	// Settle is how long a block of a node that exists must be empty before it is given
	// up.
	Settle time.Duration
	// KeepEmpty leaves empty blocks to nodes that exist: they could not claim new ones.
	KeepEmpty bool
	// Blocks are all blocks of the cluster that can be read.
	Blocks []model.Block
	// Affinities are all claims.
	Affinities []model.BlockAffinity
	// Handles are all handles; nil: they were not read this time.
	Handles []model.Handle
	// Unreadable says that there are blocks beside Blocks: then no handle counts as
	// without addresses.
	Unreadable bool
	// Nodes are the nodes that exist, by the names that blocks have.
	Nodes map[string]bool
	// Pods are the pods by name; nil: nobody may know, so no address of a pod is a
	// suspect.
	Pods map[PodName]Pod
}

// Held is one assignment of an address.
type Held = ipam.Assignment

// Suspect is a holder all of whose addresses look leaked. The zero Suspect is none.
type Suspect struct {
	Handle string  // empty: an address without a handle
	Held   []Held  // all that it holds, in order
	Pod    PodName // zero: the holder is a node's own (tunnel)
	Node   string  // that the holder is on; empty: not said
	// NodeGone says that the node did not exist when the suspect was found: then it is
	// one at once.
	NodeGone bool
	// Long says that it has been a suspect for the grace period.
	Long bool
}

// Idle is a block without addresses that is to be given up, as long as its sequence
// is that.
type Idle struct {
	CIDR     netip.Prefix
	Sequence uint64
	Owner    model.Affinity
	NodeGone bool // the owner is a node that does not exist
}

// Plan is what a look found.
type Plan struct {
	Suspects   []Suspect // ask about them, and release those that are dead
	Idle       []Idle
	Unclaim    []model.BlockAffinity // claims of nodes that are gone on blocks that are not theirs
	Orphans    []model.Handle        // handles that hold no address
	Candidates int                   // addresses that look leaked, ripe or not
	Holders    int                   // pods that hold addresses
	Waiting    bool                  // there is work on nodes that are gone which another look may finish
}

// Memory is what one look leaves for the next. The zero Memory is that of the first.
type Memory struct {
	since  map[Held]time.Time
	empty  map[Held]time.Time // by block and its sequence; Addr is zero
	claims map[model.Key]bool
	orphan map[string]orphan
}

type orphan struct {
	since time.Time
	sum   int
}

// Step looks once.
func Step(v View, m Memory) (Plan, Memory) {
	s := look{View: v, old: m, next: Memory{
		since: map[Held]time.Time{}, empty: map[Held]time.Time{}, claims: map[model.Key]bool{}, orphan: map[string]orphan{},
	}}
	s.holders()
	s.idle()
	s.unclaim()
	s.orphans()
	return s.plan, s.next
}

// look is a Step in progress.
type look struct {
	View
	old, next Memory
	plan      Plan
}

// holder is all that is known of who holds addresses under one handle.
type holder struct {
	Suspect
	kept bool // it is no suspect, whatever its other addresses are
}

// holders finds the suspects.
func (s *look) holders() {
	all := map[string]*holder{}
	for _, b := range s.Blocks {
		if b.Deleted || b.Owner.Type == model.AffinityVirtual {
			continue
		}
		for ord, at := range b.Allocations {
			if at >= 0 && at < len(b.Attributes) && b.Attributes[at].ReleasedAt.IsZero() {
				s.add(all, b, ord, b.Attributes[at])
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		h := all[key]
		if h.Pod != (PodName{}) {
			s.plan.Holders++
		}
		if h.kept {
			continue
		}
		s.plan.Candidates += len(h.Held)
		if s.ripe(h) {
			s.plan.Suspects = append(s.plan.Suspects, h.Suspect)
		}
	}
}

// add takes the assignment of one address into its holder.
func (s *look) add(all map[string]*holder, b model.Block, ord int, a model.Attribute) {
	addr := ipam.AddrAt(b.CIDR, ord)
	sort, pod := sortOf(a)
	node := cmp.Or(a.Secondary["node"], hostOf(b))
	key := a.Handle
	switch key {
	case "":
		key = "\x00" + addr.String() // nothing else goes with it
	case ipam.WindowsHandle:
		key += "\x00" + node // each node's own, whatever it is called
	}
	h, ok := all[key]
	if !ok {
		h = &holder{Suspect: Suspect{Handle: a.Handle}}
		all[key] = h
	}
	at := Held{Addr: addr, Block: b.CIDR, Sequence: b.SequenceOf[ord]}
	h.Held = append(h.Held, at)
	if len(h.Held) > 1 && (h.Pod != pod || h.Node != node) {
		h.kept = true // one handle for two holders: who can tell which of them it is
		return
	}
	h.Pod, h.Node, h.NodeGone = pod, node, node != "" && !s.Nodes[node]
	switch sort {
	case sortPod:
		known, exists := s.Pods[pod]
		h.kept = h.kept || s.Pods == nil || exists && !h.Suspect.dead(known)
	case sortNode:
		h.kept = h.kept || !h.NodeGone
	default:
		h.kept = true
	}
}

// ripe reports whether the holder has been a suspect long enough, and remembers since
// when each of its addresses is.
func (s *look) ripe(h *holder) bool {
	h.Long = s.Grace > 0 && h.Pod != (PodName{})
	for _, at := range h.Held {
		since, ok := s.old.since[at]
		if !ok {
			since = s.Now
		}
		s.next.since[at] = since
		h.Long = h.Long && s.Now.Sub(since) >= s.Grace
	}
	s.plan.Waiting = s.plan.Waiting || h.NodeGone
	return h.Long || h.NodeGone
}

// idle finds the blocks to give up: empty ones that were so before, at the same
// sequence. A node that exists keeps one block of each family.
func (s *look) idle() {
	type share struct {
		owner model.Affinity
		v6    bool
	}
	left := map[share]int{}
	blocks := slices.Clone(s.Blocks)
	slices.SortFunc(blocks, func(a, b model.Block) int { return a.CIDR.Compare(b.CIDR) })
	for _, b := range blocks {
		left[share{b.Owner, b.CIDR.Addr().Is6()}]++
	}
	for _, b := range blocks {
		if b.Deleted || len(b.Allocations) == 0 || b.Owner.Type == model.AffinityVirtual {
			continue
		}
		if ipam.InUse(ipam.Thaw(b, s.Cooldown, s.Now)) > 0 {
			continue
		}
		gone := b.Owner.Type != model.AffinityHost || !s.Nodes[b.Owner.Node]
		seen := Held{Sequence: b.Sequence, Block: b.CIDR}
		since, again := s.old.empty[seen]
		if !again {
			since = s.Now
		}
		s.next.empty[seen] = since
		at := share{b.Owner, b.CIDR.Addr().Is6()}
		switch {
		case gone && again:
		case gone:
			s.plan.Waiting = true
			continue
		case s.KeepEmpty, !again, s.Now.Sub(since) < s.Settle, left[at] <= 1:
			continue
		}
		left[at]--
		s.plan.Idle = append(s.plan.Idle, Idle{CIDR: b.CIDR, Sequence: b.Sequence, Owner: b.Owner, NodeGone: gone})
	}
}

// unclaim finds the claims of nodes that are gone, on blocks that were never made or
// are another's, seen twice.
func (s *look) unclaim() {
	if s.Unreadable {
		return // a block that can't be read may be the one
	}
	owners := map[netip.Prefix]model.Affinity{}
	for _, b := range s.Blocks {
		owners[b.CIDR] = b.Owner
	}
	for _, a := range s.Affinities {
		if a.Owner.Type != model.AffinityHost || s.Nodes[a.Owner.Node] || owners[a.CIDR] == a.Owner {
			continue
		}
		s.next.claims[a.Key()] = true
		if s.old.claims[a.Key()] {
			s.plan.Unclaim = append(s.plan.Unclaim, a)
		} else {
			s.plan.Waiting = true
		}
	}
}

// orphans finds the handles that hold nothing, and have not changed for the grace
// period: what a writer that died between two writes left.
func (s *look) orphans() {
	if s.Handles == nil {
		if s.old.orphan != nil {
			s.next.orphan = s.old.orphan
		}
		return
	}
	if s.Unreadable {
		return
	}
	holding := map[string]bool{}
	for _, b := range s.Blocks {
		for _, a := range b.Attributes {
			if a.ReleasedAt.IsZero() {
				holding[strings.ToLower(a.Handle)] = true
			}
		}
	}
	for _, h := range s.Handles {
		if holding[strings.ToLower(h.ID)] {
			continue
		}
		sum := 0
		for cidr, n := range h.Blocks {
			sum += n * (1 + cidr.Bits())
		}
		was, ok := s.old.orphan[h.ID]
		if !ok || was.sum != sum {
			was = orphan{s.Now, sum}
		}
		s.next.orphan[h.ID] = was
		if ok && s.Grace > 0 && s.Now.Sub(was.since) >= s.Grace {
			s.plan.Orphans = append(s.plan.Orphans, h)
		}
	}
}
