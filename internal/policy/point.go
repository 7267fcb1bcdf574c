package policy

import "github.com/weft-net/weft/internal/plan"

// Point is a place where packets are sent to the list chain of an interface.
type Point uint8

// The points.
const (
	FromWorkload     Point = iota // workload, Egress
	ToWorkload                    // workload, Ingress
	HostIn                        // host endpoint, Normal, Ingress
	HostOut                       // host endpoint, Normal, Egress
	HostForwardIn                 // host endpoint, Forwarded, Ingress
	HostForwardOut                // host endpoint, Forwarded, Egress
	HostPreDNAT                   // host endpoint, PreDNAT, Ingress
	HostUntrackedIn               // host endpoint, Untracked, Ingress
	HostUntrackedOut              // host endpoint, Untracked, Egress
)

// HostPoints are the points of host endpoints with their stage and direction.
func HostPoints() []Point {
	return []Point{HostIn, HostOut, HostForwardIn, HostForwardOut, HostPreDNAT, HostUntrackedIn, HostUntrackedOut}
}

// When is the stage and direction that p is about.
func (p Point) When() (Stage, Direction) {
	switch p {
	case ToWorkload, HostIn:
		return Normal, Ingress
	case HostForwardIn:
		return Forwarded, Ingress
	case HostForwardOut:
		return Forwarded, Egress
	case HostPreDNAT:
		return PreDNAT, Ingress
	case HostUntrackedIn:
		return Untracked, Ingress
	case HostUntrackedOut:
		return Untracked, Egress
	}
	return Normal, Egress
}

// Point is the place where l is asked.
func (l List) Point() Point {
	if !l.Host {
		return [...]Point{Ingress: ToWorkload, Egress: FromWorkload}[l.Direction]
	}
	for _, p := range HostPoints() {
		if s, d := p.When(); s == l.Stage && d == l.Direction {
			return p
		}
	}
	return HostPreDNAT // PreDNAT and Egress: there are no such policies
}

// String is the point as names of chains and maps have it.
func (p Point) String() string {
	return [...]string{
		"from-workload", "to-workload", "host-in", "host-out", "host-forward-in", "host-forward-out",
		"host-pre-dnat", "host-untracked-in", "host-untracked-out",
	}[p]
}

// Classes is the name of the map from interface to class (plan.MapClasses).
func (p Point) Classes() string { return p.String() + "-links" }

// Chains is the name of the map from class to list chain (plan.MapChains).
func (p Point) Chains() string { return p.String() + "-lists" }

// Any is the name of the chain for interfaces that are in no map. It belongs to
// the host endpoint "*": see [Point.AnyChain]. Points of workloads have none.
func (p Point) Any() string { return p.String() + "-any" }

// AnyChain is the chain Any of p when there is a host endpoint "*" with the list
// chain of that name; empty: there is none.
func (p Point) AnyChain(list string) plan.Chain {
	c := plan.Chain{Name: p.Any()}
	if list != "" {
		c.Rules = []plan.Rule{{Verdict: plan.Goto, Target: list}}
	}
	return c
}

// Points is a set of points.
type Points uint16

// With is s and p.
func (s Points) With(p Point) Points { return s | 1<<p }

// Has reports whether p is in s.
func (s Points) Has(p Point) bool { return s>>p&1 == 1 }

// hosts reports whether s has any point of host endpoints.
func (s Points) hosts() bool { return s&^(1<<FromWorkload|1<<ToWorkload) != 0 }

// PointsFor are the points at which a node's host endpoints have lists, where any of
// them has policies in a stage and direction: the others are left out of the packets'
// way. At each of them every host endpoint of the node has a list, if an empty one.
func PointsFor(hosts bool, has func(Stage, Direction) bool) Points {
	var out Points
	if !hosts {
		return out
	}
	for _, p := range HostPoints() {
		if s, d := p.When(); s == Normal || has(s, d) {
			out = out.With(p)
		}
	}
	return out
}
