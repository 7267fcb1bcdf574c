// Package rpc is what the CNI executable and the node agent say to each other
// over a unix socket on the node.
//
//	weft-cni ── one JSON request ──►  agent
//	         ◄── one JSON response ──
//
// One connection carries one request and one response, then it is closed. A
// client that closes early withdraws its request: the agent's context ends.
// [Agent] is the protocol as an interface; [Client] speaks it from the
// executable's side, and [Serve] offers any other implementation (the node
// agent, the fake of a test) on a listener.
//
// A message of an unknown version or verb is refused, not guessed at: both
// programs are installed together, and the executable of yesterday may meet
// the agent of today.
//
// The package also has the [Queue]: what the executable could not tell a dead
// agent (a DEL must succeed all the same) lies there on disk until the agent is
// back.
//
// It is deliberately poor: no credentials, no datastore types, no HTTP. Whoever
// may open the socket is the node's root; [Serve] checks that a second time by
// the peer's credentials.
//
// Invariant: calls for one attachment (network, container, interface) never
// overlap in the server, and a client that withdraws an Add hears that it has
// ended before it asks for anything else.
package rpc
