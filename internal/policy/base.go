package policy

import (
	"github.com/weft-net/weft/internal/plan"
)

// Names of the sets of a table that hold interfaces' addresses and ended flows.
const (
	SourceAddrs = "source-addrs" // plan.SetLinkAddrs: interface . an address of its workload, single
	SourceNets  = "source-nets"  // plan.SetLinkNets: interface . what else its workload may send from
	EndedFlows  = "ended-flows"  // plan.SetFlows: flows that policy has ended
)

// Point is a place where packets are sent to the list chain of an interface.
type Point uint8

// The points.
const (
	FromWorkload Point = iota // workload, Egress
	ToWorkload                // workload, Ingress
	HostIn                    // host endpoint, Normal, Ingress
	HostOut
	HostForwardIn
	HostForwardOut
	HostPreDNAT
	HostUntrackedIn
	HostUntrackedOut
	points
)

// Point is the place where l is asked.
func (l List) Point() Point { panic("soon") }

// Classes is the name of the map from interface to class (plan.MapClasses).
func (p Point) Classes() string { panic("soon") }

// Chains is the name of the map from class to list chain (plan.MapChains).
func (p Point) Chains() string { panic("soon") }

// Any is the name of the chain for interfaces that are in no map. It belongs to
// the host endpoint "*": see [AnyChain]. Points of workloads have none.
func (p Point) Any() string { panic("soon") }

// AnyChain is the chain Any of p when there is a host endpoint "*" with the list
// chain of that name.
func (p Point) AnyChain(list string) plan.Chain { panic("soon") }

// Base is the part of the table that follows from settings and used alone: sets
// (all of which stand there, empty but for constants) and chains. used are the
// points at which host endpoints have lists; those of workloads are always there.
func (e Emitter) Base(used Points) plan.Table { panic("soon") }

// Points is a set of points.
type Points uint16

// With is s and p.
func (s Points) With(p Point) Points { return s | 1<<p }

// Has reports whether p is in s.
func (s Points) Has(p Point) bool { return s>>p&1 == 1 }
