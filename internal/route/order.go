package route

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// compareKeys orders objects of one kind by namespace and name.
func compareKeys(a, b model.Key) int {
	return cmp.Or(
		strings.Compare(string(a.Kind), string(b.Kind)),
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name))
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func compareRouteKeys(a, b plan.RouteKey) int {
	return cmp.Or(comparePrefixes(a.Dst, b.Dst), cmp.Compare(a.Priority, b.Priority))
}

func compareNeighborKeys(a, b plan.NeighborKey) int {
	return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Link, b.Link))
}

// sortDelta makes a delta that was collected from maps the same each time.
func sortDelta(d plan.Delta) {
	slices.SortFunc(d.PutRoutes, func(a, b plan.Route) int { return compareRouteKeys(a.RouteKey, b.RouteKey) })
	slices.SortFunc(d.DeleteRoutes, compareRouteKeys)
	slices.SortFunc(d.PutLinks, func(a, b plan.Link) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.DeleteLinks)
	slices.SortFunc(d.PutNeighbors, func(a, b plan.Neighbor) int { return compareNeighborKeys(a.NeighborKey, b.NeighborKey) })
	slices.SortFunc(d.DeleteNeighbors, compareNeighborKeys)
	slices.SortFunc(d.PutDevices, func(a, b plan.Device) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.DeleteDevices)
	slices.SortFunc(d.PutVTEPs, func(a, b plan.VTEP) int { return compareVTEPKeys(a.VTEPKey, b.VTEPKey) })
	slices.SortFunc(d.DeleteVTEPs, compareVTEPKeys)
}

func compareVTEPKeys(a, b plan.VTEPKey) int {
	return cmp.Or(strings.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr))
}
