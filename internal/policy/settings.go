package policy

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// DefaultMark is the first of two bits of packets' marks that weft uses, on nodes with
// host endpoints only: the lowest that Calico takes for itself (nftablesMarkMask).
const DefaultMark = 0x10000

// Log rules that nobody gave a rate may log so much; else one port scan fills a disk.
const (
	defaultLogRate  = 100 // packets a second
	defaultLogBurst = 100
)

// Settings is what the packet filter of a node depends on beside policy.
type Settings struct {
	Prefixes []string // interfaces of workloads begin with one of them; at least one
	IPv6     bool     // there is a table for IPv6
	// Failsafes of what comes in to the host and goes out from it.
	FailsafeIn, FailsafeOut []Failsafe
	ToHost                  model.Action // workloads to their host: Deny, Allow, or Pass: what others' rules say
	Reject                  bool         // a packet that is denied is rejected rather than dropped
	KeepInvalid             bool         // packets that connection tracking calls invalid are not dropped
	AllowVXLAN              bool         // workloads may encapsulate in VXLAN
	AllowIPIP               bool         // workloads may encapsulate in IP in IP
	VXLANPort               uint16       // of the node, and of what workloads may not send
	// Ports of WireGuard over IPv4 and IPv6; 0: it is not in use.
	WireGuardPort, WireGuardPortV6 uint16
	ExternalNodes                  []netip.Prefix // may send encapsulated packets, beside the nodes; masked
	SpoofAny                       bool           // workloads' SourcePrefixes count
	EndFlows                       bool           // connections that a new rule forbids are ended, and stay so
	LogDenied                      bool           // what tiers and endpoints deny by default is logged
	LogRate                        uint32         // logged packets in LogPerSeconds, of each rule; 0: no limit
	LogBurst                       uint32         // packets beyond it at once
	LogPerSeconds                  uint32
	Append                         bool          // where others' rules must be, ours come last (chainInsertMode)
	LeaveAllowed                   bool          // others' chains that drop by default may drop what is allowed here, too
	LogPrefix                      string        // begins the log lines of Log rules
	Mark                           uint32        // one bit of packets' marks, the next one is taken, too; 0: DefaultMark
	MaxSetSize                     int           // members that a set may have; 0: no limit
	Refresh                        time.Duration // between two readings of the kernel's tables; 0: never
}

// Failsafe is traffic of the host that policy never closes.
type Failsafe = model.Failsafe

// Equal reports whether s and o are the same.
func (s Settings) Equal(o Settings) bool {
	lists := slices.Equal(s.Prefixes, o.Prefixes) && slices.Equal(s.FailsafeIn, o.FailsafeIn) && slices.Equal(s.FailsafeOut, o.FailsafeOut) &&
		slices.Equal(s.ExternalNodes, o.ExternalNodes)
	return lists && s.scalars() == o.scalars()
}

// scalars is s without its lists, as something that can be compared.
func (s Settings) scalars() any {
	return [...]any{
		s.IPv6, s.ToHost, s.Reject, s.KeepInvalid, s.AllowVXLAN, s.AllowIPIP, s.VXLANPort, s.WireGuardPort, s.WireGuardPortV6, s.SpoofAny, s.EndFlows, s.LogDenied,
		s.LogRate, s.LogBurst, s.LogPerSeconds, s.LogPrefix, s.Append, s.LeaveAllowed, s.Mark, s.MaxSetSize, s.Refresh,
	}
}

// DefaultSettings hold where nothing is configured.
func DefaultSettings() Settings {
	return Settings{
		Prefixes: []string{"cali"}, IPv6: true, FailsafeIn: model.DefaultFailsafeIn(), FailsafeOut: model.DefaultFailsafeOut(),
		VXLANPort: model.DefaultVXLANPort, EndFlows: true, LogRate: defaultLogRate, LogBurst: defaultLogBurst, LogPerSeconds: 1,
		LogPrefix: model.DefaultLogPrefix, Mark: DefaultMark, MaxSetSize: model.DefaultMaxSetSize, Refresh: model.DefaultFilterRefresh,
	}
}

// SettingsFor lays configurations over each other for one node; of values it reads the
// FelixConfigs. The first that sets a field wins: env, then as [model.FelixConfigsFor]
// has them.
func SettingsFor(node model.Node, values iter.Seq[model.Value], env ...model.FelixConfig) Settings {
	s := DefaultSettings()
	configs := append(slices.Clone(env), model.FelixConfigsFor(node, values)...)
	var rate *model.LogRate
	var burst *uint32
	var tunnel model.TunnelConfig
	for _, c := range slices.Backward(configs) {
		s = s.under(c)
		tunnel = c.Tunnel.Over(tunnel)
		rate, burst = cmp.Or(c.Filter.LogRate, rate), cmp.Or(c.Filter.LogBurst, burst)
	}
	if rate != nil {
		s.LogRate, s.LogPerSeconds, s.LogBurst = rate.Packets, uint32(max(1, rate.Per/time.Second)), model.DefaultLogBurst
	}
	over(&s.LogBurst, burst)
	s.ExternalNodes = tunnel.ExternalNodes
	s.WireGuardPort = wireGuardPort(tunnel.WireGuard, tunnel.WireGuardPort, model.DefaultWireGuardPort)
	s.WireGuardPortV6 = wireGuardPort(tunnel.WireGuardV6, tunnel.WireGuardPortV6, model.DefaultWireGuardPortV6)
	return s
}

// wireGuardPort is where WireGuard listens; 0: it is not on.
func wireGuardPort(on *bool, port *uint16, usual uint16) uint16 {
	if on == nil || !*on {
		return 0
	}
	over(&usual, port)
	return usual
}

// under returns s with what c sets laid over it.
func (s Settings) under(c model.FelixConfig) Settings {
	f := c.Filter
	if len(c.InterfacePrefixes) > 0 {
		s.Prefixes = c.InterfacePrefixes
	}
	if f.FailsafeIn != nil {
		s.FailsafeIn = f.FailsafeIn
	}
	if f.FailsafeOut != nil {
		s.FailsafeOut = f.FailsafeOut
	}
	if f.KeepDenied != nil {
		s.EndFlows = !*f.KeepDenied
	}
	over(&s.IPv6, f.IPv6)
	over(&s.ToHost, f.ToHost)
	over(&s.Reject, f.Reject)
	over(&s.KeepInvalid, f.KeepInvalid)
	over(&s.AllowVXLAN, f.AllowVXLAN)
	over(&s.AllowIPIP, f.AllowIPIP)
	over(&s.VXLANPort, f.VXLANPort)
	over(&s.SpoofAny, f.SpoofAny)
	over(&s.LogDenied, f.LogDenied)
	over(&s.LogPrefix, f.LogPrefix)
	over(&s.Append, f.Append)
	over(&s.LeaveAllowed, f.FilterReturn)
	over(&s.MaxSetSize, f.MaxSetSize)
	over(&s.Refresh, f.Refresh)
	return s
}

// over sets a field that is set.
func over[T any](field, v *T) {
	if v != nil {
		*field = *v
	}
}
