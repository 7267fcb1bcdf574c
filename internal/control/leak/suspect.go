package leak

import (
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// sort is what a holder of addresses is.
type sort uint8

const (
	sortOther sort = iota // not ours to judge
	sortPod
	sortNode // a node's tunnel, or what Windows reserves on a node
)

// sortOf tells what holds an address, and which pod. Virtual machines keep addresses
// without a pod, and what else holds one is not ours to judge.
func sortOf(a model.Attribute) (sort, PodName) {
	switch h := ipam.OwnerFor(a); h.Sort {
	case ipam.OwnerTunnel, ipam.OwnerWindows:
		return sortNode, PodName{}
	case ipam.OwnerPod:
		return sortPod, PodName{h.Namespace, h.Name}
	}
	return sortOther, PodName{}
}

// hostOf is the node that owns the block; empty: none.
func hostOf(b model.Block) string {
	if b.Owner.Type == model.AffinityHost {
		return b.Owner.Node
	}
	return ""
}

// Evidence is the answer of live reads about a suspect: not from a cache, and not from
// a list.
type Evidence struct {
	NodeExists bool // of the suspect's node; true where nobody was asked
	Pod        *Pod // the suspect's; nil: there is none
}

// Dead reports whether the suspect's addresses are without owner by what was read just
// now. What had no grace because its node was gone gets it if the node is there, or the
// pod: it may have addresses that the API server has not been told yet.
func (s Suspect) Dead(e Evidence) bool {
	switch {
	case s.NodeGone && e.NodeExists:
		return false
	case s.Pod == (PodName{}):
		return s.NodeGone
	case e.Pod == nil:
		return true
	}
	return (s.Long || e.Pod.Ended) && s.dead(*e.Pod)
}

// dead reports whether p, the pod by the suspect's name, has none of its addresses. A
// pod of which no address is known may have any.
func (s Suspect) dead(p Pod) bool {
	switch {
	case p.Ended:
		return true
	case len(p.Addrs) == 0:
		return false
	case p.Container != "" && strings.HasSuffix(s.Handle, "."+p.Container):
		return false
	}
	return !slices.ContainsFunc(s.Held, func(h Held) bool { return slices.Contains(p.Addrs, h.Addr) })
}
