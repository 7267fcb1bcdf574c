package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// maxHolders is how many nodes a message about a full pool names.
const maxHolders = 3

// ExhaustedError says that no pool had an address for a node, and why: which
// pools were tried, how full they are and who has their blocks, and which were
// not tried.
type ExhaustedError struct {
	Node    string
	V6      bool
	Use     model.Use
	Tried   []PoolState
	Refused []Refusal
	Limit   error // why the node claimed no further block; nil where it tried all
	Strict  bool  // free addresses of other nodes' blocks are not taken
}

// PoolState is how full a pool is.
type PoolState struct {
	Pool     string
	CIDR     netip.Prefix
	Blocks   int      // that exist
	Size     int      // addresses in these
	InUse    int      // in use or cooling down
	Cooling  int      // of InUse
	Reserved int      // free, but reserved
	Holders  []Holder // who has the blocks, most first
}

// Holder is an owner of blocks; an empty Name is none.
type Holder struct {
	Name   string
	Blocks int
}

// Error gives everything in one line.
func (e *ExhaustedError) Error() string {
	var b strings.Builder
	if len(e.Tried) == 0 {
		fmt.Fprintf(&b, "ipam: no %s pool for node %s and use %v", familyName(e.V6), e.Node, e.Use)
		if len(e.Refused) == 0 {
			b.WriteString(": there are no pools")
		}
	} else {
		fmt.Fprintf(&b, "ipam: no free %s address for node %s in pools ", familyName(e.V6), e.Node)
		for i, p := range e.Tried {
			b.WriteString(separator(i, "; ") + p.String())
		}
	}
	for i, r := range e.Refused {
		if i == 0 && len(e.Tried) > 0 {
			b.WriteString("; not tried: ")
		} else {
			b.WriteString(separator(i, "; "))
			if i == 0 {
				b.WriteString(": ")
			}
		}
		fmt.Fprintf(&b, "pool %s: %s", r.Pool, r.Why)
	}
	if e.Limit != nil && e.Limit != errNoBlock {
		fmt.Fprintf(&b, "; %v", e.Limit)
	}
	if e.Strict && len(e.Tried) > 0 {
		fmt.Fprintf(&b, "; %v", ErrForeign)
	}
	return b.String()
}

// Unwrap gives the limit, for errors.Is.
func (e *ExhaustedError) Unwrap() error { return e.Limit }

// String prints p as "pool-a 10.10.0.0/30: 1 block, 4 of 4 in use: node-a 1 block".
func (p PoolState) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v: %s", p.Pool, p.CIDR, plural(p.Blocks, "block"))
	if p.Blocks > 0 {
		fmt.Fprintf(&b, ", %d of %d in use", p.InUse, p.Size)
	}
	if p.Cooling > 0 {
		fmt.Fprintf(&b, " (%d cooling down)", p.Cooling)
	}
	if p.Reserved > 0 {
		fmt.Fprintf(&b, ", %d reserved", p.Reserved)
	}
	for i, h := range p.Holders {
		b.WriteString(separator(i, ", "))
		if i == 0 {
			b.WriteString(": ")
		}
		if i == maxHolders {
			fmt.Fprintf(&b, "%s more", plural(len(p.Holders)-i, "node"))
			break
		}
		fmt.Fprintf(&b, "%s %s", cmp.Or(h.Name, "(no owner)"), plural(h.Blocks, "block"))
	}
	return b.String()
}

func separator(i int, s string) string {
	if i == 0 {
		return ""
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// describe fills in how full the pools are.
func (d *draft) describe(e *ExhaustedError, pools []model.Pool) {
	e.Strict = d.Config.StrictAffinity
	for _, p := range pools {
		s := PoolState{Pool: p.Name, CIDR: p.CIDR}
		holders := map[string]int{}
		for _, cidr := range d.sorted(func(b model.Block) bool { return holds(p, b.CIDR) }) {
			b, _ := d.block(cidr)
			s.add(b, d.Reserved)
			holders[ownerName(b)]++
		}
		for name, n := range holders {
			s.Holders = append(s.Holders, Holder{name, n})
		}
		slices.SortFunc(s.Holders, func(x, y Holder) int {
			return cmp.Or(-cmp.Compare(x.Blocks, y.Blocks), cmp.Compare(x.Name, y.Name))
		})
		e.Tried = append(e.Tried, s)
	}
}

func (p *PoolState) add(b model.Block, reserved []netip.Prefix) {
	p.Blocks++
	p.Size += len(b.Allocations)
	p.InUse += InUse(b)
	for _, at := range b.Allocations {
		if at >= 0 && !b.Attributes[at].ReleasedAt.IsZero() {
			p.Cooling++
		}
	}
	for _, ord := range b.Unallocated {
		if contains(reserved, AddrAt(b.CIDR, ord)) {
			p.Reserved++
		}
	}
}

// ownerName is the name of a block's owner, empty when it has none.
func ownerName(b model.Block) string { return b.Owner.Node }

// describeHolder says for a message who has the address.
func describeHolder(b model.Block, a netip.Addr) string {
	h, ok := HolderOf(b, a)
	if !ok {
		return "(cooling down)"
	}
	who := "by handle " + h.Handle
	if pod := h.Secondary["pod"]; pod != "" {
		who = fmt.Sprintf("by pod %s/%s (handle %s)", h.Secondary["namespace"], pod, h.Handle)
	}
	if node := h.Secondary["node"]; node != "" {
		who += " on node " + node
	}
	return who
}

// openPools lists the pools of a family from which addresses are given out.
func (v *View) openPools(v6 bool) string {
	var open []string
	for _, p := range v.family(v6) {
		if v.shut(p) == "" {
			open = append(open, fmt.Sprintf("%s %v", p.Name, p.CIDR))
		}
	}
	if len(open) == 0 {
		return "none"
	}
	return strings.Join(open, ", ")
}
