// Package control runs the Kubernetes controllers: what must be done once for the whole
// cluster, rather than by every node.
//
//	policy, namespace,     copy what Kubernetes has into etcd (with Kubernetes as the
//	serviceaccount,        datastore there is nothing to copy)
//	workloadendpoint
//	node                   removes what nodes that are gone leave, releases leaked
//	                       addresses, syncs labels, makes host endpoints
//	loadbalancer           gives services of type LoadBalancer their addresses
//
// One process of several leads, by a Lease; the others wait. What the controllers
// decide are functions on values, in packages leak and want, route and ipam; here are
// the caches of Kubernetes around them, the reads that make certain, and the writes.
//
//	Lease ─► lead ─► settings ─► supervise each controller ──► pass, pass, pass …
//	                 (environment over                          │
//	                 KubeControllersConfiguration)   feeds ─────┤ (caches, may be stale)
//	                                                 live reads ┘ (before anything goes)
//
// A pass compares all or what changed, and does it all or says why not. What a pass
// would remove is held against a budget (want.Budget): a list that came back empty or
// much shorter stops that controller with an alarm, and nothing else. And each single
// removal is preceded by a live read of the object that is said to be gone.
//
// Every controller has the rights that it needs and no more; which are missing is said
// one by one. A controller that fails does not touch the others.
//
// Invariant: nothing is removed because a cache or a list says so.
package control
