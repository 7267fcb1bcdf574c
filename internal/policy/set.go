package policy

import (
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// SetKind says where the contents of a set come from.
type SetKind uint8

// The kinds of sets that rules ask for.
const (
	SetSelected     SetKind = iota // addresses of endpoints and nets of network sets that Selector selects
	SetNamedPort                   // address, protocol, port of endpoints that Selector selects, for ports named Port
	SetServicePorts                // address, protocol, port of a service's backends
	SetServiceAddrs                // addresses of a service's backends
	SetConstNets                   // the nets in Const
	SetConstPorts                  // the ranges of ports in Const
)

// SetRef describes a set that a rule needs. It is comparable: rules with equal
// SetRefs share a set. It says nothing of the family, each table has its own.
type SetRef struct {
	Kind     SetKind
	Selector string // canonical text; of SetSelected and SetNamedPort
	Port     string // name of the port; of SetNamedPort
	Protocol uint8  // of SetNamedPort; 0: any
	Service  model.Service
	Const    string // packed members; see [SetRef.Members]
}

// Need is a set that rules need, with its selector parsed.
type Need struct {
	SetRef
	Of *selector.Selector // of SetSelected and SetNamedPort; else nil
}

// Type is the type of r's set. nets says that a member is not a single address;
// it matters for SetSelected only.
func (r SetRef) Type(nets bool) plan.SetType {
	switch r.Kind {
	case SetNamedPort, SetServicePorts:
		return plan.SetAddrPorts
	case SetConstNets:
		return plan.SetNets
	case SetConstPorts:
		return plan.SetPorts
	}
	if nets {
		return plan.SetNets
	}
	return plan.SetAddrs
}

// Name is the kernel's name of r's set when it has that type, at most 31 bytes.
func (r SetRef) Name(t plan.SetType) string { panic("soon") }

// Constant reports whether the set's members follow from r alone.
func (r SetRef) Constant() bool { return r.Kind >= SetConstNets }

// Members are the members of a constant set, sorted.
func (r SetRef) Members() []plan.Member { panic("soon") }
