// Package cni is the body of the CNI executable: the network plugin `calico`
// (or weft-cni) and the IPAM plugin `calico-ipam` (or weft-ipam), told apart by
// the name under which the program was started.
//
//	runtime ── environment, JSON on stdin ──► Run
//	            │  namespace work: veth pair, addresses, routes, neighbours, sysctls
//	            │  rpc.Client ──► node agent: addresses, endpoint, host routes
//	            │  or an IPAM plugin of others, run as a program
//	runtime ◄── result or error as JSON on stdout, a line on stderr
//
// It holds no credentials and knows no datastore: the agent decides addresses,
// and it writes the host's routes. To be quick the interface is made while the
// agent is still assigning; only the addresses themselves wait for its answer.
//
// The package knows neither api/v3 nor model, because their dependencies would
// make a program that is started for each container several times larger.
//
// Invariants: an ADD that fails has undone what it did. ADD repeated for the
// same container and interface gives the same result. DEL succeeds for what is
// unknown, half there, or already gone; with a dead agent its request is kept on
// disk. Nothing is changed before the input has been found valid.
//
// Standards: CNI specification 0.3.1, 0.4.0, 1.0.0 and 1.1.0; configuration keys
// and annotations as Calico's plugin has them.
package cni
