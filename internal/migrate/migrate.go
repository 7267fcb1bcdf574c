// Package migrate carries a whole cluster's objects from one datastore to another: from etcd
// to Kubernetes and back, from etcd to etcd.
//
//	store ──Read──► Dump ──Write──► file ──Parse──► Dump ──Import──► store
//	                                                            └─► Report: what landed, what differs
//
// The file is the one of Calico's own tool, so that each reads what the other wrote: the
// resources as YAML, the ClusterInformation as JSON, and what address management keeps as the
// keys and values that it has in etcd, parted by lines of "===". What Calico's tool leaves out
// (endpoints, profiles, the requests for node status) stands with the third part, under a name
// that it passes over.
//
// An import begins with a look at the target: it refuses one that holds anything that is not
// of the file. Then it locks the target, writes what is missing, in an order in which a break
// at any place leaves no address without its handle, and reads everything back. So a second
// run goes on where the first one broke, and one that has nothing to do says so.
//
// What Kubernetes keeps itself is not carried there: pods are the endpoints, namespaces and
// service accounts the profiles, and a node must exist, which gets what the file says of it.
//
// Not carried from anywhere are births (uid, creationTimestamp, resourceVersion) and owners.
// The package decides nothing about policy or addresses, and knows no terminal.
//
// Invariant: nothing is deleted, and nothing that differs is overwritten unless the caller
// says so.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Datastore is one end of a migration.
type Datastore struct {
	Store store.Store
	// Kubernetes says that it is an API server, which keeps nodes, endpoints and profiles
	// in its own way.
	Kubernetes bool
}

// Dump is everything of a cluster that can be carried to another datastore.
type Dump struct {
	// Cluster is nil where the source has none.
	Cluster *v3.ClusterInformation
	// Objects are all others, in the order in which they are to be made. Their stored forms
	// are those of package v3, or of etcd for what address management keeps: with the
	// fields that weft does not know.
	Objects []store.Object
}

// part is the part of the file that a kind stands in.
type part int

// The parts.
const (
	resources part = iota
	addressing
	others
)

// place says where objects of a kind stand.
type place struct {
	kind model.Kind
	part part
}

// places are all kinds that are carried, in the order in which their objects are made: what
// others refer to first, and endpoints when their addresses are taken.
func places() []place {
	return []place{
		{model.KindTier, resources},
		{model.KindIPPool, resources},
		{model.KindIPReservation, resources},
		{model.KindBGPConfiguration, resources},
		{model.KindBGPFilter, resources},
		{model.KindFelixConfiguration, resources},
		{model.KindKubeControllersConfiguration, resources},
		{model.KindNode, resources},
		{model.KindBGPPeer, resources},
		{model.KindProfile, others},
		{model.KindGlobalNetworkSet, resources},
		{model.KindNetworkSet, resources},
		{model.KindGlobalNetworkPolicy, resources},
		{model.KindStagedGlobalNetworkPolicy, resources},
		{model.KindNetworkPolicy, resources},
		{model.KindStagedNetworkPolicy, resources},
		{model.KindStagedKubernetesNetworkPolicy, resources},
		{model.KindHostEndpoint, resources},
		{model.KindCalicoNodeStatus, others},
		{model.KindIPAMConfiguration, others},
		{model.KindIPAMConfig, addressing},
		{model.KindIPAMHandle, addressing},
		{model.KindIPAMBlock, addressing},
		{model.KindBlockAffinity, addressing},
		{model.KindWorkloadEndpoint, others},
	}
}

// Kinds are those that are carried, beside the ClusterInformation.
func Kinds() []model.Kind {
	var kinds []model.Kind
	for _, p := range places() {
		kinds = append(kinds, p.kind)
	}
	return kinds
}

// partOf is the part that an object stands in. Policies that Calico's controllers made of those
// of Kubernetes are not with the others: Kubernetes has them already.
func partOf(k model.Key) part {
	if isConverted(k) {
		return others
	}
	i := slices.IndexFunc(places(), func(p place) bool { return p.kind == k.Kind })
	return places()[i].part
}

// isConverted reports whether k is a policy made of one of Kubernetes.
func isConverted(k model.Key) bool {
	return k.Kind == model.KindNetworkPolicy && strings.HasPrefix(k.Name, "knp.default.")
}

// Progress is told how many of all objects are done. It is called from one goroutine.
type Progress func(done, all int)

// Read takes everything out of a datastore. Objects that can't be read are an error, which
// names each: a migration must not lose them in silence. Of a cluster in Kubernetes, profiles
// are left out, which it makes itself.
func Read(ctx context.Context, from Datastore) (Dump, error) {
	var d Dump
	var unread []error
	clusters, err := from.Store.List(ctx, model.KindClusterInformation, "")
	if err != nil {
		return Dump{}, fmt.Errorf("migrate: read: %w", err)
	}
	for _, o := range clusters {
		if c, ok := o.Object.(*v3.ClusterInformation); ok && c.Name == "default" {
			d.Cluster = c
		}
	}
	for _, p := range places() {
		if from.Kubernetes && (p.kind == model.KindProfile || p.kind == model.KindIPAMConfiguration) {
			continue // namespaces and service accounts; KindIPAMConfig, by another name
		}
		objects, err := from.Store.List(ctx, p.kind, "")
		switch {
		case errors.Is(err, store.ErrNoKind):
			continue
		case errors.Is(err, store.ErrUnreadable):
			unread = append(unread, err)
		case err != nil:
			return Dump{}, fmt.Errorf("migrate: read: %w", err)
		}
		for _, o := range objects {
			plain, err := portable(o, p, from.Kubernetes)
			if err != nil {
				return Dump{}, fmt.Errorf("migrate: read: %w", err)
			}
			d.Objects = append(d.Objects, plain)
		}
	}
	if len(unread) > 0 {
		return Dump{}, fmt.Errorf("migrate: read: %w", errors.Join(unread...))
	}
	return d, nil
}

// Count is how many objects d has.
func (d Dump) Count() int {
	if d.Cluster != nil {
		return len(d.Objects) + 1
	}
	return len(d.Objects)
}

// keyOf is the key of an object of a datastore; all of those have one.
func keyOf(o v3.Object) model.Key {
	k, err := model.KeyOf(o)
	if err != nil { // what can't be told apart stays so: the writer says what is wrong
		return model.Key{Kind: model.Kind(v3.KindOf(o).Name), Name: o.Meta().Name}
	}
	return k
}
