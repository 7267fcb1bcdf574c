package bgp

import (
	"net/netip"
	"time"
)

// Learned is the best route to a prefix as the peers told it, to be put into
// the kernel. Prefixes that we originate ourselves are never learned.
type Learned struct {
	Prefix netip.Prefix
	// NextHops are as received, sorted, each once, at least one; more than one
	// when several paths are equally good (ECMP). Whether they are on-link or
	// need resolving is for the consumer to find out. The slice is shared
	// between routes and must not be changed.
	NextHops []netip.Addr
	Source   Sources // FromIBGP or FromEBGP
}

// LearnedBatch is a change to the set of learned routes. It speaks like
// model.Batch: Reset opens a snapshot, Synced ends the first one.
type LearnedBatch struct {
	Reset   bool // forget everything learned before
	Puts    []Learned
	Deletes []netip.Prefix
	// Synced is set once: every peer that will tell its routes has told them,
	// or had its time. Only from then on may routes of an earlier run be pruned.
	Synced bool
}

// PeerStatus is what an operator wants to know of a session.
type PeerStatus struct {
	Name  string
	Kind  PeerKind
	Addr  netip.Addr
	ASN   uint32
	State State     // of the connection that is furthest
	Since time.Time // when State was entered
	Err   string    // why the last session ended; while there was none, the last attempt; "" if neither did

	Families   Families // that the session carries; none while it is not established
	Received   int      // prefixes accepted from the peer, stale ones included, of both families
	Advertised int      // prefixes the peer has from us, of both families
	Received6  int      // of Received, those of IPv6
	// Advertised6 is how many of Advertised are of IPv6.
	Advertised6 int
	Stale       int // prefixes kept through the peer's graceful restart
}

// State is a state of the finite state machine of RFC 4271 §8.2.2.
type State uint8

// The states.
const (
	Idle State = iota
	Connect
	Active
	OpenSent
	OpenConfirm
	Established
)

func (s State) String() string {
	return [...]string{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"}[min(s, Established)]
}
