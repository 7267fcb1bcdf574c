package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// Refusal is a pool that is not used, with the reason.
type Refusal struct {
	Pool string
	Why  string // continues "pool NAME: "
}

// poolsFor chooses the pools of a family that may serve the request, in the
// order in which new blocks are claimed from them: as named in the request,
// else by name. A named pool is used whatever its selectors and mode say. The
// error says which named pool does not exist or can't be used.
func (v *View) poolsFor(r Request, v6 bool) ([]model.Pool, []Refusal, error) {
	if names := r.family(v6).Pools; len(names) > 0 {
		return v.namedPools(names, r.Use, v6)
	}
	var usable []model.Pool
	var refused []Refusal
	for _, p := range v.family(v6) {
		if why := cmp.Or(v.closed(p, r.Use), v.deselected(p, r)); why != "" {
			refused = append(refused, Refusal{p.Name, why})
			continue
		}
		usable = append(usable, p)
	}
	return usable, refused, nil
}

func (v *View) namedPools(names []string, use model.Use, v6 bool) ([]model.Pool, []Refusal, error) {
	var usable []model.Pool
	var refused []Refusal
	for _, name := range names {
		i := slices.IndexFunc(v.Pools, func(p model.Pool) bool { return p.Name == name || p.CIDR.String() == name })
		if i < 0 {
			return nil, nil, fmt.Errorf("ipam: pool %q: no such pool: must be the name or the CIDR of one of: %s",
				name, cmp.Or(poolNames(v.family(v6)), "(there are none)"))
		}
		p := v.Pools[i]
		if p.CIDR.Addr().Is6() != v6 {
			return nil, nil, fmt.Errorf("ipam: pool %q: %v is not an %s pool", name, p.CIDR, familyName(v6))
		}
		if why := v.shut(p); why != "" {
			return nil, nil, fmt.Errorf("ipam: pool %q: %s", name, why)
		}
		if why := v.closed(p, use); why != "" {
			refused = append(refused, Refusal{p.Name, why})
			continue
		}
		usable = append(usable, p)
	}
	return usable, refused, nil
}

// shut says why no address of the pool is given out at all; empty: it is open.
func (v *View) shut(p model.Pool) string {
	switch {
	case p.Disabled:
		return "disabled"
	case p.Terminating:
		return "being deleted"
	}
	if q, ok := overlapped(p, v.Pools); ok {
		return fmt.Sprintf("overlaps pool %s %v", q.Name, q.CIDR)
	}
	return ""
}

// overlapped returns the pool that keeps p from giving addresses, because they
// overlap. A pool that is itself kept from it keeps no other.
func overlapped(p model.Pool, pools []model.Pool) (model.Pool, bool) {
	for _, q := range pools {
		if q.Name == p.Name || q.Disabled || !q.CIDR.Overlaps(p.CIDR) || !senior(q, p) {
			continue
		}
		if _, lost := overlapped(q, pools); !lost {
			return q, true
		}
	}
	return model.Pool{}, false
}

// Overlaps names the enabled pools that give no addresses because they overlap
// another one.
func Overlaps(pools []model.Pool) []model.Problem {
	var out []model.Problem
	for _, p := range pools {
		if q, ok := overlapped(p, pools); ok && !p.Disabled {
			out = append(out, model.Problem{Key: p.Key(), Text: fmt.Sprintf(
				"spec.cidr: %v: overlaps %v of the older pool %s: no address is given from this pool: delete it, and make one that overlaps none", p.CIDR, q.CIDR, q.Name)})
		}
	}
	return out
}

// senior reports whether q keeps its addresses when it and p overlap: the
// older one does, so that a new pool never takes away what an old one has.
func senior(q, p model.Pool) bool {
	if c := q.Created.Compare(p.Created); c != 0 {
		return c < 0
	}
	return q.Name < p.Name
}

// closed says why the pool gives no address for that use; empty: it does.
func (v *View) closed(p model.Pool, use model.Use) string {
	if why := v.shut(p); why != "" {
		return why
	}
	if !p.Uses.Has(use) {
		return fmt.Sprintf("not for use %v (allowedUses: %v)", use, p.Uses)
	}
	return ""
}

// deselected says why the pool gives the request no address unless named.
func (v *View) deselected(p model.Pool, r Request) string {
	switch {
	case p.Manual:
		return "only on request (assignmentMode Manual)"
	case !v.selects(p):
		return fmt.Sprintf("nodeSelector %v does not select node %s", p.NodeSelector, v.Name)
	case r.Use == model.UseWorkload && p.NamespaceSelector != nil && !p.NamespaceSelector.Matches(r.NamespaceLabels):
		return fmt.Sprintf("namespaceSelector %v does not select the namespace", p.NamespaceSelector)
	}
	return ""
}

// selects reports whether the pool is for the view's node.
func (v *View) selects(p model.Pool) bool {
	return p.NodeSelector == nil || v.Node != nil && p.NodeSelector.Matches(v.Node.Labels)
}

// family is the pools of a family by name.
func (v *View) family(v6 bool) []model.Pool {
	var pools []model.Pool
	for _, p := range v.Pools {
		if p.CIDR.Addr().Is6() == v6 {
			pools = append(pools, p)
		}
	}
	slices.SortFunc(pools, func(a, b model.Pool) int { return cmp.Compare(a.Name, b.Name) })
	return pools
}

// poolOf is the pool that a lies in: an open one, if there is one. False: none.
func (v *View) poolOf(a netip.Addr) (model.Pool, bool) {
	var found model.Pool
	ok := false
	for _, p := range v.family(a.Is6()) {
		if p.CIDR.Contains(a) && (!ok || v.shut(p) == "") {
			found, ok = p, true
		}
	}
	return found, ok
}

// inPools reports whether the block lies in one of the pools.
func inPools(pools []model.Pool, block netip.Prefix) bool {
	return slices.ContainsFunc(pools, func(p model.Pool) bool { return holds(p, block) })
}

// holds reports whether the block lies in the pool.
func holds(p model.Pool, block netip.Prefix) bool {
	return p.CIDR.Bits() <= block.Bits() && p.CIDR.Contains(block.Addr())
}

func poolNames(pools []model.Pool) string {
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}
