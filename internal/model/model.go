// Package model is the cluster as weft thinks of it: parsed, valid, immutable
// values, and the one event, [Batch], that carries changes of them.
//
// It is the second of weft's three shapes. What users write and the datastore
// keeps is package v3 (first shape); what one node must look like is package
// plan (third shape). [Parse] is the only door from the first to the second:
// past it no address is a string, no default is missing and no selector needs
// parsing again.
//
//	v3.Object ── Parse ──► Value ── Batch ──► deciders (ipam, route, peering, …)
//
// The package is not a cache and holds no state: [World] is a plain map that
// tests and slow reference implementations use to fold batches.
//
// Invariant: a Value that left Parse is valid and is never changed; who wants
// another one makes a copy.
package model

import (
	"net/netip"
	"strings"
)

// Kind names a kind of object, as in the `kind` field of its YAML.
type Kind string

// The kinds that the datastore holds. IPAMConfig is the setting that steers
// address assignment (in etcd the key /calico/ipam/v2/config); the resource
// IPAMConfiguration is what users edit where the datastore is Kubernetes.
const (
	KindBGPConfiguration   Kind = "BGPConfiguration"
	KindBGPPeer            Kind = "BGPPeer"
	KindBlockAffinity      Kind = "BlockAffinity"
	KindClusterInformation Kind = "ClusterInformation"
	KindFelixConfiguration Kind = "FelixConfiguration"
	KindIPAMBlock          Kind = "IPAMBlock"
	KindIPAMConfig         Kind = "IPAMConfig"
	KindIPAMConfiguration  Kind = "IPAMConfiguration"
	KindIPAMHandle         Kind = "IPAMHandle"
	KindIPPool             Kind = "IPPool"
	KindIPReservation      Kind = "IPReservation"
	KindNode               Kind = "Node"
	KindProfile            Kind = "Profile"
	KindTier               Kind = "Tier"
	KindWorkloadEndpoint   Kind = "WorkloadEndpoint"
)

// Key identifies one object. It is comparable. Namespace is empty for kinds
// that are cluster-wide.
//
// The IPAM kinds have no names of their own; theirs are made by [BlockKey],
// [AffinityKey] and [HandleKey].
type Key struct {
	Kind      Kind
	Namespace string
	Name      string
}

// String prints k for messages: Kind/name or Kind/namespace/name.
func (k Key) String() string {
	if k.Namespace == "" {
		return string(k.Kind) + "/" + k.Name
	}
	return string(k.Kind) + "/" + k.Namespace + "/" + k.Name
}

// BlockKey is the key of the block with that CIDR (masked).
func BlockKey(cidr netip.Prefix) Key {
	return Key{Kind: KindIPAMBlock, Name: CIDRName(cidr)}
}

// AffinityKey is the key of the affinity that ties the block cidr to a.
func AffinityKey(a Affinity, cidr netip.Prefix) Key {
	return Key{Kind: KindBlockAffinity, Name: string(a.Type) + "/" + a.Node + "/" + CIDRName(cidr)}
}

// HandleKey is the key of the handle with that ID.
func HandleKey(id string) Key { return Key{Kind: KindIPAMHandle, Name: id} }

// CIDRName is a prefix as datastore names write it: 10.0.0.0-26 for 10.0.0.0/26.
func CIDRName(cidr netip.Prefix) string {
	return strings.Replace(cidr.String(), "/", "-", 1)
}

// Value is one parsed object: Pool, Block, Node and so on, by value.
type Value interface {
	// Key is the identity of the object this value was parsed from.
	Key() Key
}

// Invalid is an object that is in the datastore but can't be used. What was
// known of it before stays in force: a bad object never removes what worked.
type Invalid struct {
	Key Key
	Err error // one line: what, where, why, what is allowed
	// Strict is what can be understood of the object, in the sense that allows the
	// least; nil if nothing can, or if nothing of it would allow less than its
	// absence. It counts only for who knows no earlier version: see [Strict].
	Strict Value
}

// Batch is a set of changes that belong together: the one event of weft.
// Within a batch each key occurs once.
type Batch struct {
	// Reset says that this batch starts a full snapshot: whatever was known
	// and is not put again up to and including the batch with Synced is gone.
	Reset bool
	// Puts are objects that are new or changed.
	Puts []Value
	// Deletes are objects that are gone. Deleting what is not known is no error.
	Deletes []Key
	// Invalids are objects that exist but can't be used.
	Invalids []Invalid
	// Synced says that with this batch the snapshot begun by the last Reset is
	// complete.
	Synced bool
}

// Empty reports whether b carries nothing at all.
func (b Batch) Empty() bool {
	return !b.Reset && !b.Synced && len(b.Puts)+len(b.Deletes)+len(b.Invalids) == 0
}

// World is the cluster as a map: the slow and obvious form that tests and
// references fold batches into. A snapshot in progress is applied at once, so
// a World is exact only between Synced and the next Reset.
type World map[Key]Value

// Apply returns w with b applied. It changes w if b is no Reset. An Invalid
// leaves the last good value in place, unless b starts a snapshot.
func (w World) Apply(b Batch) World {
	if b.Reset || w == nil {
		old := w
		w = World{}
		for _, in := range b.Invalids {
			if v, ok := old[in.Key]; ok {
				w[in.Key] = v
			}
		}
	}
	for _, v := range b.Puts {
		w[v.Key()] = v
	}
	for _, k := range b.Deletes {
		delete(w, k)
	}
	return w
}
