package peering

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// concerns reports whether v can make a difference to the plan of node.
func concerns(node string, v model.Value) bool {
	switch v := v.(type) {
	case model.Node, model.Peer, model.Pool:
		return true
	case model.BGPConfig:
		return v.Name == "default" || strings.HasPrefix(v.Name, "node.")
	case model.Block:
		return v.Owner == model.HostAffinity(node) && !v.Deleted
	case model.Endpoint:
		return v.Node == node && v.Link != ""
	}
	return false
}

// View is the part of the cluster that Plan reads, for one node. It is for one
// goroutine.
type View struct {
	node  string
	world model.World
	stale map[model.Key]struct{} // known, and not yet mentioned by the snapshot in progress
	poor  map[model.Key]struct{} // known by Invalid.Strict only: there never was a good version
}

// NewView returns a View for the node of that name which knows nothing yet.
func NewView(node string) *View {
	return &View{node: node, world: model.World{}, poor: map[model.Key]struct{}{}}
}

// Step takes in a batch and reports whether the plan may have changed. During a
// snapshot what was known stays until the batch with Synced.
func (v *View) Step(b model.Batch) bool {
	changed := false
	if b.Reset {
		v.stale = make(map[model.Key]struct{}, len(v.world))
		for k := range v.world {
			v.stale[k] = struct{}{}
		}
	}
	for _, in := range b.Invalids {
		delete(v.stale, in.Key) // the last good version stays
		_, known := v.world[in.Key]
		if _, poor := v.poor[in.Key]; in.Strict != nil && (poor || !known) {
			changed = v.put(in.Strict) || changed
			if _, known = v.world[in.Key]; known {
				v.poor[in.Key] = struct{}{}
			}
		}
	}
	for _, o := range b.Puts {
		delete(v.stale, o.Key())
		delete(v.poor, o.Key())
		changed = v.put(o) || changed
	}
	for _, k := range b.Deletes {
		delete(v.stale, k)
		changed = v.drop(k) || changed
	}
	if b.Synced {
		for k := range v.stale {
			changed = v.drop(k) || changed
		}
		v.stale = nil
	}
	return changed
}

// put reports whether o makes a difference.
func (v *View) put(o model.Value) bool {
	k := o.Key()
	if !concerns(v.node, o) {
		return v.drop(k)
	}
	// Blocks and endpoints change with every pod; what Plan reads of them seldom does.
	switch t := o.(type) {
	case model.Block:
		o = model.Block{CIDR: t.CIDR, Owner: t.Owner}
	case model.Endpoint:
		o = model.Endpoint{Namespace: t.Namespace, Name: t.Name, Node: t.Node, Link: t.Link, Addrs: t.Addrs, FloatingIPs: t.FloatingIPs}
	}
	if old, had := v.world[k]; had && reflect.DeepEqual(old, o) {
		return false
	}
	v.world[k] = o
	return true
}

// drop reports whether there was something under k.
func (v *View) drop(k model.Key) bool {
	_, had := v.world[k]
	delete(v.world, k)
	delete(v.poor, k)
	return had
}

// Plan is the package's Plan of what the View knows.
func (v *View) Plan(opt Options) (bgp.Config, map[netip.Prefix]plan.Hops, []model.Problem) {
	return Plan(v.node, v.world, opt)
}

// Secrets are the references to passwords that Plan may need, sorted.
func (v *View) Secrets() []model.SecretRef {
	refs := map[model.SecretRef]struct{}{}
	for _, o := range v.world {
		switch o := o.(type) {
		case model.Peer:
			refs[o.Password] = struct{}{}
		case model.BGPConfig:
			refs[o.MeshPassword] = struct{}{}
		}
	}
	delete(refs, model.SecretRef{})
	return slices.SortedFunc(maps.Keys(refs), func(a, b model.SecretRef) int {
		return strings.Compare(a.Name+"/"+a.Key, b.Name+"/"+b.Key)
	})
}
