package policy

import (
	"iter"
	"net/netip"

	"github.com/weft-net/weft/internal/model"
)

// Settings is what the packet filter of a node depends on beside policy.
type Settings struct {
	Prefixes     []string // interfaces of workloads begin with one of them; at least one
	IPv6         bool     // there is a table for IPv6
	FailsafeIn   []Failsafe
	FailsafeOut  []Failsafe
	ToHost       model.Action // Deny, Allow, or Pass: what others' rules and host endpoints say
	Reject       bool         // a packet that is denied is rejected rather than dropped
	KeepInvalid  bool         // packets that connection tracking calls invalid are not dropped
	AllowVXLAN   bool         // workloads may encapsulate in VXLAN
	AllowIPIP    bool         // workloads may encapsulate in IP in IP
	VXLANPort    uint16
	SpoofAny     bool   // workloads may ask for source prefixes
	LogDenied    bool   // what tiers and endpoints deny by default is logged
	LogRate      uint32 // packets in LogPerSeconds; 0: no limit
	LogBurst     uint32
	LogPerSecond uint32
	Mark         uint32 // the bit of packets' marks that weft uses
	EndFlows     bool   // flows that policy ends stay ended
}

// Failsafe is traffic of the host that policy never closes.
type Failsafe struct {
	Protocol uint8
	Port     uint16
	Net      netip.Prefix // the other end; zero: any
}

// SettingsFor lays configurations over each other for one node, in the order
// that package route has: env, node.NAME, those that select the node, default.
func SettingsFor(node model.Node, values iter.Seq[model.Value], env ...model.FelixConfig) Settings {
	panic("soon")
}
