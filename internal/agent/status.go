package agent

import (
	"net/netip"
	"os"
	"time"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/kernel/nft"
)

// Status is how an agent is: what `weft node status` prints.
type Status struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Ready   bool      `json:"ready"`
	Why     string    `json:"why"`    // why it is not ready
	BGP     bool      `json:"bgp"`    // the node speaks BGP
	Peers   []Peer    `json:"peers"`  // by name
	Kernel  fib.State `json:"kernel"` // routes, links and neighbours
	Filter  nft.State `json:"filter"` // policy: sets, chains, rules
	Tunnels []Tunnel  `json:"tunnels"`
	MTU     MTU       `json:"mtu"`
	Notes   []string  `json:"notes"` // objects that can't be used, and settings without effect
}

// Tunnel is a tunnel's device that this node is to have.
type Tunnel struct {
	Device    string     `json:"device"`
	Kind      string     `json:"kind"`                // ipip, vxlan or wireguard
	UserSpace bool       `json:"userSpace"`           // the agent does the kernel's work
	Addr      netip.Addr `json:"address"`             // zero: none
	MTU       int        `json:"mtu"`                 // bytes
	Up        bool       `json:"up"`                  // it is there, as it is to be; the notes say what is wrong
	Ends      int        `json:"ends"`                // other nodes that it leads to: VTEPs, or peers; 0 for IPIP, where routes say it
	Key       string     `json:"publicKey,omitempty"` // of WireGuard
}

// MTU is what packets may have, in bytes; 0: not known yet.
type MTU struct {
	Underlay int `json:"underlay"`
	Pods     int `json:"pods"`
}

// Peer is one BGP session.
type Peer struct {
	Name       string    `json:"name"`
	Type       string    `json:"type"` // as Calico's status has it: node-to-node mesh, node specific, global
	Addr       string    `json:"address"`
	ASN        uint32    `json:"asNumber"`
	State      string    `json:"state"`
	Since      time.Time `json:"since"`
	Info       string    `json:"info"` // why the last session or attempt ended
	Received   int       `json:"received"`
	Advertised int       `json:"advertised"`
	Stale      int       `json:"stale"`
	IPv4       Exchange  `json:"ipv4"`
	IPv6       Exchange  `json:"ipv6"`
}

// Exchange is what a session carries of one family.
type Exchange struct {
	Negotiated bool `json:"negotiated"` // the session carries routes of that family
	Received   int  `json:"received"`
	Advertised int  `json:"advertised"`
}

// status is how this agent is now.
func (a *agent) status() Status {
	a.engine.noteKernel()
	s := Status{
		Node: a.node.Name, Version: a.Version, PID: os.Getpid(), Since: a.started,
		Why: a.unready(), Kernel: a.engine.network.fib.State(), Filter: a.engine.filter.table.State(), Notes: a.engine.notes.all(), BGP: a.speaker != nil,
		Tunnels: a.network.tunnels(), MTU: MTU{a.tunnels.underlay(), a.podMTU.get()},
	}
	s.Ready = s.Why == ""
	if a.speaker == nil {
		return s
	}
	for _, p := range a.speaker.Status() {
		s.Peers = append(s.Peers, Peer{
			Name: p.Name, Type: peerType(p.Kind), Addr: p.Addr.String(), ASN: p.ASN, State: p.State.String(),
			Since: p.Since, Info: p.Err, Received: p.Received, Advertised: p.Advertised, Stale: p.Stale,
			IPv4: Exchange{p.Families.Has(bgp.IPv4), p.Received - p.Received6, p.Advertised - p.Advertised6},
			IPv6: Exchange{p.Families.Has(bgp.IPv6), p.Received6, p.Advertised6},
		})
	}
	return s
}

func peerType(k bgp.PeerKind) string {
	switch k {
	case bgp.NodeMesh:
		return "node-to-node mesh"
	case bgp.NodePeer:
		return "node specific"
	default:
		return "global"
	}
}
