package bgp

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// Default values, used where a Config or Peer field is zero.
const (
	DefaultPort        = 179
	DefaultHoldTime    = 90 * time.Second
	DefaultRestartTime = 120 * time.Second // Calico's BIRD (facts S-05)
	maxRestartTime     = 4095 * time.Second
	maxHoldTime        = 65535 * time.Second
)

// Config is everything a speaker must be and say. It is a value: a Router is
// handed a whole new Config and works out the difference, so sessions whose
// own fields did not change are left alone. The zero Config has no peers.
type Config struct {
	ASN         uint32       // own AS number, 1 to 4294967295
	RouterID    netip.Addr   // BGP identifier; an IPv4 address other than 0.0.0.0
	ListenPort  uint16       // TCP port to listen on; 0 means 179
	ListenAddrs []netip.Addr // addresses to listen on; empty means every address
	Peers       map[string]Peer
	Networks    []Network         // prefixes this speaker originates, in any order, each once
	Policies    map[string]Policy // by the names that Peer.Import and Peer.Export use

	// RestartTime is how long peers keep our routes after the session broke
	// without a NOTIFICATION (RFC 4724), in whole seconds up to 4095; 0 means
	// 120 s. Peer.RestartTime overrides it.
	RestartTime time.Duration
	// Restarting says that this process follows an earlier one whose routes
	// are still in the kernel. Peers are told so (the R and F bits), and what
	// was learned is advertised only after the first synchronisation.
	// It is read when the Router is given its first Config, and ignored later.
	Restarting bool
}

// Peer is one session. It is comparable: two equal Peers are the same session.
// Names in Config.Peers are those of Calico's BIRD protocols: Mesh_10_0_0_2,
// Global_10_0_0_9, Node_fd00__1.
type Peer struct {
	Kind     PeerKind
	Addr     netip.Addr // the peer's address; a link-local one carries its zone
	Port     uint16     // the peer's port; 0 means 179
	ASN      uint32     // the peer's AS number
	LocalASN uint32     // our AS number towards this peer; 0 means Config.ASN
	Local    netip.Addr // source address; zero lets the kernel choose
	Passive  bool       // never dial, only accept
	Password Secret     // TCP MD5 key (RFC 2385), at most 80 bytes; empty means none

	// Families carried; 0 means that of Addr alone, as Calico's peers expect.
	Families Families
	NextHop  NextHopMode
	// NextHop4 and NextHop6 are our own address as next hop of a family; zero
	// means the session's local address, when it is of that family. A route of
	// a family for which there is no own address is not advertised.
	NextHop4, NextHop6 netip.Addr

	RRClient  bool       // the peer is our route reflection client (RFC 4456)
	ClusterID netip.Addr // our cluster ID towards this peer; zero means Config.RouterID

	HoldTime      time.Duration // 0 means 90 s, or 3 × KeepaliveTime if that is more
	KeepaliveTime time.Duration // 0 means a third of the negotiated hold time
	RestartTime   time.Duration // Calico's maxRestartTime; 0 means Config.RestartTime
	NoRestart     bool          // do not negotiate graceful restart

	TTLSecurity  uint8 // hops; n accepts only packets with TTL ≥ 256-n (RFC 5082); 0 means off
	AllowLocalAS uint8 // how many times our own AS number may be in a received AS path

	Import, Export string // names in Config.Policies; "" accepts everything
}

// PeerKind says where a peer comes from; it is shown, and decides nothing.
type PeerKind uint8

// The kinds of peers, as Calico's status shows them.
const (
	NodeMesh   PeerKind = iota // the full mesh of nodes
	NodePeer                   // a BGPPeer for one node or a node selector
	GlobalPeer                 // a BGPPeer for all nodes
)

func (k PeerKind) String() string {
	return [...]string{"NodeMesh", "NodePeer", "GlobalPeer"}[min(k, GlobalPeer)]
}

// NextHopMode says which next hop is advertised to a peer.
type NextHopMode uint8

// The values of nextHopMode in BGPPeer.
const (
	NextHopAuto NextHopMode = iota // keep towards iBGP, self towards eBGP
	NextHopSelf                    // always our own address
	NextHopKeep                    // always the one the route has, if it has one
)

// Families is a set of address families, all unicast.
type Families = wire.Families

// Members of Families.
const (
	IPv4 = wire.IPv4
	IPv6 = wire.IPv6
)

// Secret is a password. It prints as "(secret)" or, when empty, as "", in
// every way that fmt, slog and encoding/json know.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// GoString keeps %#v from printing the value.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText keeps text and JSON encoders, and slog's text handler, from
// printing the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Network is a prefix that the speaker originates. A Network always wins over
// a learned route for the same prefix, and is never among the learned ones.
type Network struct {
	Prefix    netip.Prefix // masked; never 4-in-6
	NextHop   netip.Addr   // zero means our own address towards each peer
	LocalPref uint32       // towards iBGP; 0 means 100
	MED       uint32       // 0 means none
	// Communities and LargeCommunities are sent along, sorted by the Router.
	Communities      []uint32
	LargeCommunities []LargeCommunity
}

// LargeCommunity is the value of RFC 8092, global administrator first.
type LargeCommunity [3]uint32

// Policy judges routes on their way in or out: the first rule that matches
// decides, and a route that no rule matches is refused. The nil Policy
// therefore refuses everything; a Peer that names none accepts everything.
type Policy []Rule

// Rule is one step of a Policy. Every field that is set must match.
type Rule struct {
	Prefix           netip.Prefix // zero matches every prefix
	Op               MatchOp      // how the route's prefix relates to Prefix
	MinBits, MaxBits uint8        // the route's prefix length; MaxBits 0 means any
	Sources          Sources      // 0 means any
	Community        uint32       // the route carries it; 0 means any
	ASPathPrefix     string       // AS numbers joined by a blank, as the path begins; "" means any

	Accept bool // else refuse
	// On Accept, the route is changed thus, in this order.
	AddCommunities      []uint32
	AddLargeCommunities []LargeCommunity
	PrependAS           []uint32 // leftmost first
	LocalPref           uint32   // 0 leaves it
}

// MatchOp relates a route's prefix to a rule's; the words of BGPFilter.
type MatchOp uint8

// The operators.
const (
	In       MatchOp = iota // equal or more specific
	Equal                   // the very prefix
	NotIn                   // neither equal nor more specific
	NotEqual                // any other prefix
)

// Sources is a set of origins of a route.
type Sources uint8

// Members of Sources.
const (
	FromSelf Sources = 1 << iota // one of Config.Networks
	FromIBGP                     // learned from a peer of our own AS
	FromEBGP                     // learned from a peer of another AS
)

func (s Sources) String() string {
	switch s {
	case FromSelf:
		return "self"
	case FromIBGP:
		return "ibgp"
	case FromEBGP:
		return "ebgp"
	}
	return fmt.Sprintf("sources(%d)", uint8(s))
}

// Validate returns every reason why a speaker cannot run c, joined; nil if it can.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("bgp: config: "+format, args...)) }
	if c.ASN == 0 {
		bad("AS number 0 is not allowed")
	}
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		bad("router id %v: want an IPv4 address other than 0.0.0.0", c.RouterID)
	}
	addrs := map[netip.Addr]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		p := c.Peers[name]
		if err := p.validate(c); err != nil {
			bad("peer %s: %w", name, err)
		}
		if other, ok := addrs[p.Addr]; ok {
			bad("peer %s: address %v is that of peer %s too", name, p.Addr, other)
		}
		addrs[p.Addr] = name
	}
	seen := map[netip.Prefix]bool{}
	for _, n := range c.Networks {
		if !n.Prefix.IsValid() || n.Prefix.Masked() != n.Prefix || n.Prefix.Addr().Is4In6() {
			bad("network %v: want a masked prefix", n.Prefix)
		}
		if seen[n.Prefix] {
			bad("network %v: given twice", n.Prefix)
		}
		seen[n.Prefix] = true
	}
	return errors.Join(errs...)
}

func (p Peer) validate(c Config) error {
	switch {
	case !p.Addr.IsValid() || p.Addr.Is4In6() || p.Addr.IsUnspecified() || p.Addr.IsMulticast():
		return fmt.Errorf("address %v: want a unicast address", p.Addr)
	case p.ASN == 0:
		return errors.New("AS number 0 is not allowed")
	case p.Local.IsValid() && wire.FamilyOf(p.Local) != wire.FamilyOf(p.Addr):
		return fmt.Errorf("source address %v is not of the family of %v", p.Local, p.Addr)
	case len(p.Password) > 80:
		return fmt.Errorf("password of %d bytes: at most 80 are allowed", len(p.Password))
	case p.ClusterID.IsValid() && !p.ClusterID.Is4():
		return fmt.Errorf("cluster id %v: want the form of an IPv4 address", p.ClusterID)
	case p.RRClient && p.ASN != p.localASN(c):
		return fmt.Errorf("AS %d differs from our AS %d: only an iBGP peer can be a route reflection client", p.ASN, p.localASN(c))
	case p.HoldTime != 0 && (p.HoldTime < 3*time.Second || p.HoldTime > maxHoldTime):
		return fmt.Errorf("hold time %v: want 3s to %v", p.HoldTime, maxHoldTime)
	case p.KeepaliveTime < 0 || p.KeepaliveTime > maxHoldTime/3:
		return fmt.Errorf("keepalive time %v: want up to %v", p.KeepaliveTime, maxHoldTime/3)
	case p.RestartTime < 0 || p.RestartTime > maxRestartTime:
		return fmt.Errorf("restart time %v: want up to %v", p.RestartTime, maxRestartTime)
	}
	for _, name := range []string{p.Import, p.Export} {
		if _, ok := c.Policies[name]; !ok && name != "" {
			return fmt.Errorf("policy %q does not exist", name)
		}
	}
	return nil
}

func (p Peer) localASN(c Config) uint32 {
	if p.LocalASN != 0 {
		return p.LocalASN
	}
	return c.ASN
}

func (p Peer) families() Families {
	if p.Families != 0 {
		return p.Families
	}
	return wire.FamilyOf(p.Addr)
}

func (p Peer) holdTime() time.Duration {
	if p.HoldTime != 0 {
		return p.HoldTime
	}
	return max(DefaultHoldTime, 3*p.KeepaliveTime)
}

func (p Peer) restartTime(c Config) time.Duration {
	switch {
	case p.RestartTime != 0:
		return p.RestartTime
	case c.RestartTime != 0:
		return c.RestartTime
	}
	return DefaultRestartTime
}
