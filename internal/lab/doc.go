// Package lab runs a whole cluster on one machine: real node agents, real pods,
// real routers and a real etcd, each where it would be, in a network namespace of
// its own.
//
// One process, the holder, owns everything. It is the first process of a PID
// namespace and has a mount and a network namespace of its own (and a user
// namespace, unless root started it). So the kernel itself guarantees the lab's
// one invariant: when the holder dies, of whatever cause, every process and every
// interface of the lab is gone. What may be left is a directory of logs, which
// the next `lab down` or `lab up` removes.
//
//	weft lab up ──starts──► holder (PID 1, netns = fabric) ──► weft store
//	weft lab status ─┐        │ control socket                 weft node run  × nodes
//	weft lab exec   ─┼───────►│                                bird           × routers
//	weft lab down   ─┘        └──► calico (weft-cni) ADD       × pods
//
// The holder's own network namespace is the fabric: a bridge for each rack, and
// forwarding between them. It holds no route to pods.
//
// Commands speak to the holder over a unix socket: one JSON request, then a
// stream of replies. `lab exec` sends its standard streams along (SCM_RIGHTS), so
// the command runs inside as a child of the holder, whether the caller is root or
// not.
//
// The package starts programs, as the CNI runtime and the machines of a real
// cluster do; nothing else in weft does. What the lab is to look like is package
// topology's.
package lab
