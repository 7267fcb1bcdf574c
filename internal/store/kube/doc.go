// Package kube is a store.Store on a Kubernetes API server: Calico's kinds as custom
// resources, and what Kubernetes has already as it is there.
//
//	IPPool, IPAMBlock, NetworkPolicy, …   custom resources of projectcalico.org/v3 or
//	                                      crd.projectcalico.org/v1 (see [Group])
//	Node                                  a node's labels, annotations and addresses
//	WorkloadEndpoint                      a pod with an address; written as annotations
//	Profile                               namespaces (kns.*) and service accounts (ksa.*)
//	Kubernetes… kinds                     NetworkPolicy, ClusterNetworkPolicy, EndpointSlice
//
// Reading and writing goes object by object:
//
//	API server ─ JSON ─ form (legacy or native) ─ v3.Object ─ store.Object
//	pod, node, … ─────── conversion ─────────────┘
//
// An API server has no transactions. A Commit carries its operations out in phases, so
// that wherever it breaks nothing is given out twice, and what is left over can be found:
// handles, then endpoints that go, blocks, the rest, and last what nobody points to any
// more. See [Store.Commit].
//
// A Watch runs one client-go reflector for each resource: the list comes as a stream
// where the server can, a broken watch resumes where it was. Each object becomes a model
// value at once and is forgotten; what is kept is its revision and its key, so that a
// new list is told as the changes since. An API server that is slow, absent or answers
// errors ends no watch and deletes nothing.
//
// Deliberately missing: polling. At rest there are watches and nothing else.
//
// Invariant: fields, labels and annotations that weft does not know survive every write;
// of objects of Kubernetes only those annotations and labels are written that differ.
package kube
