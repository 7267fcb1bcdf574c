package nft

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Stats count what was done since New.
type Stats struct {
	Transactions uint64 // sent
	Refused      uint64 // of them, by the kernel
	Batches      uint64 // that these were sent as: what the kernel takes in at one instant
	Messages     uint64 // in them
	Reads        uint64 // of a table: all of it, or its rules before Synced
	Events       uint64 // of objects of ours that others changed
	Overruns     uint64 // times that events were lost
}

// State is what a node's status says about its packet filter.
type State struct {
	Synced        bool
	Sets, Members int // wanted, of both families
	Chains, Rules int
	Problems      []Problem
	Err           string // of the last pass; empty: all is well
	Stats         Stats
}

// Problem is an object that is not in the kernel as it is wanted. Its last good version
// is in force; a chain that has none drops.
type Problem struct {
	Table  string // "ip weft", "ip6 weft"
	Object string // "set NAME", "chain NAME", "table"
	Text   string // why
}

// String prints p on one line.
func (p Problem) String() string { return p.Table + ": " + p.Object + ": " + p.Text }

// State tells how things stand.
func (n *NFT) State() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := State{Synced: n.synced, Problems: n.problems(), Err: n.health.Err(), Stats: n.stats}
	for _, t := range n.tables {
		for _, x := range t.sets {
			if x.want {
				s.Sets++
				s.Members += x.wanted
			}
		}
		for _, c := range t.chains {
			if c.want {
				s.Chains++
				s.Rules += len(c.rules)
			}
		}
	}
	return s
}

// Problems are the objects that could not be written, by table and name.
func (n *NFT) Problems() []Problem {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.problems()
}

func (n *NFT) problems() []Problem {
	var out []Problem
	for _, t := range n.tables {
		if !t.troubled {
			continue // so that a pass does not look at all objects
		}
		before := len(out)
		add := func(object string, err error) {
			if err != nil {
				out = append(out, Problem{t.String(), object, err.Error()})
			}
		}
		add("table", t.refused)
		for name, s := range t.sets {
			add("set "+name, s.refused)
			for _, err := range s.bad {
				add("set "+name, err)
			}
		}
		for name, c := range t.chains {
			add("chain "+name, c.refused)
		}
		t.troubled = len(out) > before
	}
	slices.SortFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Text, b.Text))
	})
	return out
}

// refusedNamed is how many problems an error names.
const refusedNamed = 5

// refused is the problems as an error; nil when there are none.
func (n *NFT) refused() error {
	p := n.problems()
	var errs []error
	for i, x := range p {
		if i == refusedNamed {
			errs = append(errs, fmt.Errorf("nft: and %d more", len(p)-i))
			break
		}
		errs = append(errs, fmt.Errorf("nft: %s: %s: %s", x.Table, x.Object, x.Text))
	}
	return errors.Join(errs...)
}
