// Package audit compares what is recorded of addresses with who uses them, and tells
// where the two disagree.
//
// On the one side are the records of address assignment: blocks, handles and claims on
// blocks, with the pools and reservations that they are made from. On the other side is
// whoever uses an address: endpoints and pods, tunnels of nodes, services. The caller
// reads both and shows them as a [World]; [Check] looks at each thing once, and so takes
// time in proportion to what there is.
//
//	blocks, handles, claims ─┐
//	pools                    ├─► World ─► Check ─► Result ─► Report ─► release, if a
//	endpoints, tunnels, … ───┘            Findings, Allocations        second look agrees
//
// The two sides can't be read at one moment. A caller reads the blocks before and after
// all else, checks both times, and keeps what [Confirm] finds in both results: then what
// one change made look wrong, because it came between two reads, is not told. What is told
// may be wrong nevertheless a moment later; so [Releasable] asks for a second look before
// anything is released, and the release is a compare-and-swap with what was seen.
//
// The package judges only what it is shown. Where nobody was asked about services, no
// address of a service is leaked; where a block can't be read, no handle is an orphan. An
// address that a virtual machine keeps without its pod is never leaked. package leak is
// the other judge of leaks: that of the controllers, which release by themselves and so
// wait, ask again, and know pods and nodes only. What holds an address both have from
// [ipam.OwnerFor].
//
// Invariant: of a world in which no writer was interrupted there are no findings.
package audit

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// Kind is what is wrong.
type Kind string

// The kinds of findings, in the order in which they are told.
const (
	Leaked         Kind = "leaked"                 // allocated, and nobody uses it
	Stray          Kind = "stray-tunnel"           // the same of a tunnel: no node has it as its address
	DoublyOwned    Kind = "doubly-owned"           // two hold it, or two use it
	Unallocated    Kind = "unallocated-in-use"     // used, in a pool, and not allocated
	OutsidePools   Kind = "in-use-outside-pools"   // used, and in no pool
	OrphanHandle   Kind = "orphaned-handle"        // a handle that holds no address
	MissingHandle  Kind = "missing-handle"         // a block names a handle that does not exist
	HandleCount    Kind = "wrong-handle"           // a handle counts other addresses than the blocks
	InvalidBlock   Kind = "invalid-block"          // can't be right by itself, or not beside the others
	OrphanClaim    Kind = "orphaned-affinity"      // on a block that does not exist or is another's
	MissingClaim   Kind = "missing-affinity"       // of the owner of a block
	ForgottenClaim Kind = "affinity-of-no-node"    // of a node that does not exist
	Unreadable     Kind = "unreadable-ipam-record" // beside blocks: a handle, a claim, an endpoint
)

// Kinds are all kinds in order.
func Kinds() []Kind {
	return []Kind{
		Leaked, Stray, DoublyOwned, Unallocated, OutsidePools, OrphanHandle, MissingHandle, HandleCount,
		InvalidBlock, OrphanClaim, MissingClaim, ForgottenClaim, Unreadable,
	}
}

// UserSort is what sort of thing uses an address.
type UserSort string

// The sorts of users.
const (
	Workload UserSort = "Workload" // an endpoint
	Pod      UserSort = "Pod"      // of Kubernetes, where it is not an endpoint as well
	Node     UserSort = "Node"     // a tunnel of it
	Service  UserSort = "Service"  // in its status
)

// User is the use of one address.
type User struct {
	Sort           UserSort
	Name           string // of the object, after its namespace and a slash where it has one
	Node           string // that it is on; empty: none
	Namespace, Pod string // the pod that an endpoint is; empty: it is none
	Addr           netip.Addr
	// Aside says that the address need not be one of ours, as those of further
	// interfaces of a pod: it keeps an allocation from being leaked, and no more.
	Aside bool
}

// String is the user as Calico's reports name it, such as "Workload(default/w1)".
func (u User) String() string { return string(u.Sort) + "(" + u.Name + ")" }

// same reports whether u and v are one thing: an endpoint and a pod may be.
func (u User) same(v User) bool {
	if u.Pod != "" && v.Pod != "" {
		return u.Namespace == v.Namespace && u.Pod == v.Pod
	}
	return u.Sort == v.Sort && u.Name == v.Name
}

// Broken is a record that can't be read.
type Broken struct {
	Key model.Key
	Err error
}

// Object names a pod or service.
type Object struct{ Namespace, Name string }

// World is what the audit is shown. It is only read.
type World struct {
	Blocks     []model.Block
	Handles    []model.Handle
	Affinities []model.BlockAffinity
	Broken     []Broken // blocks, handles, claims and endpoints beside these
	Pools      []model.Pool
	BadPools   bool // there are pools beside Pools that can't be read: nothing is outside of all pools
	Reserved   []netip.Prefix
	Nodes      map[string]bool // those that exist; nil: nobody knows
	Users      []User
	// Starting are the pods that exist and have no address that is known yet.
	Starting map[Object]bool
	// Services are those that exist and may have addresses; nil: nobody knows.
	Services map[Object]bool
}

// Finding is one thing that is wrong. It is comparable.
type Finding struct {
	Kind     Kind         `json:"kind"`
	Addr     netip.Addr   `json:"address,omitzero"`
	Block    netip.Prefix `json:"block,omitzero"`
	Handle   string       `json:"handle,omitempty"`
	Sequence uint64       `json:"sequence,omitempty"` // of the allocation
	Owner    string       `json:"owner,omitempty"`    // who holds it, or uses it
	Node     string       `json:"node,omitempty"`
	Why      string       `json:"why"`
	Mends    bool         `json:"released"` // a release from a report puts it right
}

// Allocation is one address as a block has it, with who uses it.
type Allocation struct {
	Addr     netip.Addr
	Block    netip.Prefix
	Sequence uint64
	By       model.Attribute
	Owner    ipam.Owner
	Users    []User
	Borrowed bool
	// Kept says why an address that nobody uses is not leaked; empty: it is used, or
	// leaked.
	Kept string
}

// Result is what a look found.
type Result struct {
	Findings    []Finding    // by kind, then address, then the rest
	Allocations []Allocation // in the order of blocks and addresses
	Held        int          // handles that hold addresses
}

// Count is the number of findings of these kinds.
func (r Result) Count(kinds ...Kind) int {
	n := 0
	for _, f := range r.Findings {
		if slices.Contains(kinds, f.Kind) {
			n++
		}
	}
	return n
}

// Of are the findings of these kinds.
func (r Result) Of(kinds ...Kind) []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return !slices.Contains(kinds, f.Kind) })
}

// Check looks once.
func Check(w World) Result {
	s := look{World: w, holds: map[netip.Addr][]int{}, uses: make(map[netip.Addr][]User, len(w.Users)), cooling: map[netip.Addr]bool{}}
	s.index()
	s.allocations()
	s.users()
	s.handles()
	s.blocks()
	s.claims()
	order := map[Kind]int{}
	for i, k := range Kinds() {
		order[k] = i
	}
	slices.SortFunc(s.result.Findings, func(a, b Finding) int {
		return cmp.Or(order[a.Kind]-order[b.Kind], a.Addr.Compare(b.Addr), a.Block.Compare(b.Block),
			strings.Compare(a.Handle, b.Handle), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Why, b.Why))
	})
	return s.result
}

// Confirm is second without the findings that first did not have: those that one of the
// two looks alone shows may come from a change between two reads.
func Confirm(first, second Result) Result {
	identity := func(f Finding) Finding {
		f.Why = ""
		return f
	}
	seen := map[Finding]bool{}
	for _, f := range first.Findings {
		seen[identity(f)] = true
	}
	second.Findings = slices.DeleteFunc(slices.Clone(second.Findings), func(f Finding) bool { return !seen[identity(f)] })
	return second
}

// look is a Check in progress.
type look struct {
	World
	holds   map[netip.Addr][]int // by address, the allocations
	uses    map[netip.Addr][]User
	cooling map[netip.Addr]bool // released lately
	result  Result
}

func (s *look) find(f Finding) { s.result.Findings = append(s.result.Findings, f) }

// index lists allocations and uses by address.
func (s *look) index() {
	for _, u := range s.Users {
		list := s.uses[u.Addr]
		if !slices.ContainsFunc(list, u.same) {
			s.uses[u.Addr] = append(list, u)
		}
	}
	for _, b := range s.Blocks {
		if b.Deleted {
			continue
		}
		owners := make([]ipam.Owner, len(b.Attributes))
		for i, a := range b.Attributes {
			owners[i] = ipam.OwnerFor(a)
		}
		for ord, at := range b.Allocations {
			if at < 0 || at >= len(b.Attributes) {
				continue
			}
			addr := ipam.AddrAt(b.CIDR, ord)
			if !b.Attributes[at].ReleasedAt.IsZero() {
				s.cooling[addr] = true
				continue
			}
			s.holds[addr] = append(s.holds[addr], len(s.result.Allocations))
			s.result.Allocations = append(s.result.Allocations, Allocation{
				Addr: addr, Block: b.CIDR, Sequence: b.SequenceOf[ord], By: b.Attributes[at],
				Owner: owners[at], Users: s.uses[addr], Borrowed: ipam.Borrowed(b, owners[at]),
			})
		}
	}
}

// poolOf is a pool that a lies in; of several one that addresses are taken from.
func (s *look) poolOf(a netip.Addr) (model.Pool, bool) {
	var found model.Pool
	ok := false
	for _, p := range s.Pools {
		if p.CIDR.Contains(a) && (!ok || !p.Disabled) {
			found, ok = p, true
		}
	}
	return found, ok
}

// reserved is a reservation that a lies in.
func (s *look) reserved(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range s.Reserved {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// broken reports whether a record of that kind can't be read.
func (s *look) broken(kind model.Kind) bool {
	return slices.ContainsFunc(s.Broken, func(b Broken) bool { return b.Key.Kind == kind })
}
