// Package arch keeps the shape of the tree: which package may import which.
//
// The packages lie in layers, and dependencies point down only:
//
//	3  shells    cmd, agent, allocator, cni, ctl, lab, run, startup, control, docker
//	2  doors     store, kernel, speaker, reconcile, cni/rpc
//	1  deciders  policy, edge, route, wireguard, path, ipam, peering, bgp
//	0  nouns     api/v3, model, selector, plan
//
// Doors and deciders do not know each other; a shell brings them together. Nouns
// and deciders are pure: no clock, socket, file, lock, environment or logger. The
// CNI executable stays small: no Kubernetes or etcd client is linked into it.
//
// The package holds tests only. They ask `go list` for the real imports, so a new
// package that has no layer fails here until somebody gives it one.
package arch
