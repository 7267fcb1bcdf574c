package store

import (
	"context"
	"slices"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// ByNode is a Store that can list the workload endpoints of one node for less than those
// of all.
type ByNode interface {
	// EndpointsOn is List of the endpoints whose node that is.
	EndpointsOn(ctx context.Context, node string) ([]Object, error)
}

// EndpointsOn lists the workload endpoints of a node, as [Store] lists objects.
func EndpointsOn(ctx context.Context, st Store, node string) ([]Object, error) {
	if s, ok := st.(ByNode); ok {
		return s.EndpointsOn(ctx, node)
	}
	all, err := st.List(ctx, model.KindWorkloadEndpoint, "")
	return slices.DeleteFunc(all, func(o Object) bool {
		e, ok := o.Object.(*v3.WorkloadEndpoint)
		return !ok || e.Spec.Node != node
	}), err
}
