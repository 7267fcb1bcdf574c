package model

import (
	"iter"
	"net/netip"
	"time"

	"github.com/weft-net/weft/internal/selector"
)

// EncapMode says to which nodes packets of a pool are encapsulated.
type EncapMode string

// The modes of encapsulation; the zero value means EncapNever.
const (
	EncapNever       EncapMode = "Never"
	EncapAlways      EncapMode = "Always"
	EncapCrossSubnet EncapMode = "CrossSubnet"
)

// Use is a set of purposes that addresses of a pool may serve.
type Use uint8

// The purposes of addresses.
const (
	UseWorkload Use = 1 << iota
	UseTunnel
	UseLoadBalancer
)

// Has reports whether all of want is in u.
func (u Use) Has(want Use) bool { return u&want == want }

// Pool is a range of addresses for workloads, cut into blocks that nodes claim.
type Pool struct {
	Name              string
	CIDR              netip.Prefix // masked
	BlockBits         int          // prefix length of its blocks: 20 to 32, or 116 to 128
	IPIP, VXLAN       EncapMode
	NATOutgoing       bool
	Disabled          bool // no new addresses; existing ones stay
	DisableBGPExport  bool
	NodeSelector      *selector.Selector // nil: all nodes
	NamespaceSelector *selector.Selector // nil: all namespaces
	Uses              Use
	Manual            bool      // addresses only on request
	Terminating       bool      // being deleted: no new addresses
	Created           time.Time // of two pools that overlap the older one gives addresses; zero: unknown
}

// Key implements [Value].
func (p Pool) Key() Key { return Key{Kind: KindIPPool, Name: p.Name} }

// Reservation is a set of addresses that are never assigned automatically.
type Reservation struct {
	Name  string
	CIDRs []netip.Prefix
}

// Key implements [Value].
func (r Reservation) Key() Key { return Key{Kind: KindIPReservation, Name: r.Name} }

// IPAMConfig steers assignment of addresses for the whole cluster.
type IPAMConfig struct {
	StrictAffinity     bool          // never take addresses from another node's block
	AutoAllocateBlocks bool          // claim new blocks when needed
	MaxBlocksPerHost   int           // 0: no limit of its own; the caller's default applies
	Cooldown           time.Duration // time before a released address may be used again
}

// DefaultIPAMConfig is what holds where the datastore has no IPAMConfig.
func DefaultIPAMConfig() IPAMConfig { return IPAMConfig{AutoAllocateBlocks: true} }

// Key implements [Value].
func (IPAMConfig) Key() Key { return Key{Kind: KindIPAMConfig, Name: "default"} }

// AffinityType says what sort of owner a block has.
type AffinityType string

// The sorts of owners of blocks.
const (
	AffinityHost    AffinityType = "host"
	AffinityVirtual AffinityType = "virtual"
)

// Affinity is the owner of a block. The zero Affinity means no owner.
type Affinity struct {
	Type AffinityType
	Node string // node name, or the name of the virtual owner
}

// HostAffinity is the affinity to a node.
func HostAffinity(node string) Affinity { return Affinity{AffinityHost, node} }

// String prints a as blocks store it: host:node-a; empty for the zero Affinity.
func (a Affinity) String() string {
	if a == (Affinity{}) {
		return ""
	}
	return string(a.Type) + ":" + a.Node
}

// AffinityState is the phase of a node's claim on a block.
type AffinityState string

// A claim is pending until the block is written, then confirmed; it is
// pending deletion while the block is given up.
const (
	AffinityPending         AffinityState = "pending"
	AffinityConfirmed       AffinityState = "confirmed"
	AffinityPendingDeletion AffinityState = "pendingDeletion"
)

// BlockAffinity is the claim of an owner on a block.
type BlockAffinity struct {
	Owner Affinity
	CIDR  netip.Prefix // masked
	State AffinityState
}

// Key implements [Value].
func (a BlockAffinity) Key() Key { return AffinityKey(a.Owner, a.CIDR) }

// Attribute describes why addresses of a block are taken. Several addresses of
// one block may share one Attribute.
type Attribute struct {
	Handle         string            // empty: none
	Secondary      map[string]string // free-form: node, pod, namespace, timestamp, type
	AlternateOwner map[string]string
	ReleasedAt     time.Time // set while a released address cools down
}

// Block is a range of addresses with its owner and the use of each address.
// An address is named by its ordinal: its distance from the block's first.
// Blocks are values: who changes one copies its slices and maps first ([Block.Clone]).
type Block struct {
	CIDR        netip.Prefix // masked
	Owner       Affinity     // zero: none
	ClaimedAt   time.Time    // zero: unknown; whole seconds
	Allocations []int        // by ordinal: index into Attributes, or -1 for free
	Unallocated []int        // free ordinals in the order in which they will be used
	Attributes  []Attribute
	Sequence    uint64         // goes up by one with each change
	SequenceOf  map[int]uint64 // by ordinal: Sequence when the address was assigned
	Deleted     bool           // marked for deletion: not to be used
}

// Key implements [Value].
func (b Block) Key() Key { return BlockKey(b.CIDR) }

// Handle is the set of blocks that hold addresses of one owner (a container, a
// tunnel), with the number of addresses in each.
type Handle struct {
	ID      string
	Blocks  map[netip.Prefix]int
	Deleted bool
}

// Key implements [Value].
func (h Handle) Key() Key { return HandleKey(h.ID) }

// Homes yields where the addresses of b are: its range with the node that owns it, if
// one does, and every single address that another node has taken from it (facts S-35). A
// node may be named that has no record.
func (b Block) Homes() iter.Seq2[netip.Prefix, string] {
	return func(yield func(netip.Prefix, string) bool) {
		if b.Deleted {
			return
		}
		owner := ""
		if b.Owner.Type == AffinityHost {
			owner = b.Owner.Node
		}
		if owner != "" && !yield(b.CIDR, owner) {
			return
		}
		elsewhere := false
		for _, a := range b.Attributes {
			elsewhere = elsewhere || a.Secondary["node"] != "" && a.Secondary["node"] != owner
		}
		if !elsewhere {
			return
		}
		addr := b.CIDR.Addr()
		for _, i := range b.Allocations {
			if i >= 0 && i < len(b.Attributes) {
				node := b.Attributes[i].Secondary["node"]
				if node != "" && node != owner && b.Attributes[i].ReleasedAt.IsZero() && !yield(netip.PrefixFrom(addr, addr.BitLen()), node) {
					return
				}
			}
			addr = addr.Next()
		}
	}
}
