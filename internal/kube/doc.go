// Package kube is the door to the Kubernetes API for everything that is not the
// datastore: how a process finds the API server and proves who it is, and small
// functions on single objects (nodes, pods, the cluster) for those who need them.
// What is kept in the API as a datastore is package store/kube's, which connects
// with the same [Config].
//
//	environment ─► ConfigFromEnv ─► Config ─► Connect ─► *Client ─► API server
//	                                   └────► store/kube.Open
//
// Settings are those of Calico's components (KUBECONFIG, K8S_API_ENDPOINT, …);
// inside a pod without any, the service account. Core kinds travel as protobuf,
// there is no limit of requests a second on this side (who uses it makes few), and
// all users of one Config share one HTTP/2 connection.
//
// Deliberately missing: kubeconfig users with an exec plugin or an auth provider.
// weft starts no other program; the error says what to use instead.
//
// Invariant: no token, key or password is ever printed: they are of type [Secret], or
// in files that client-go reads, and reads again when they change.
package kube
