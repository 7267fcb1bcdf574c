// Package bgp is a BGP-4 speaker without I/O: bytes and ticks in, bytes and
// routes out.
//
// A Router holds one Session per peer and one RIB. The shell around it
// (internal/speaker) owns the sockets and the clock: it tells the Router what
// happened and when, carries out the Effects it gets back, and asks for the
// updates a connection has room for. So every timer and every hostile byte can
// be tested without a socket, and a run can be replayed.
//
//	bytes ──► Session ──wire.Update──► RIB ──► LearnedBatch (to package route)
//	clock ──►  (FSM)                    │
//	bytes ◄── Session ◄── Updates ◄─────┘
//
// The invariant: what a peer was told equals the export of the current best
// routes once its pending set is empty; no copy of it is stored beside one bit
// per prefix and peer.
//
// It deliberately does not touch the kernel, resolve next hops, originate
// anything but Config.Networks, or speak families other than IPv4 and IPv6
// unicast. Standards: RFC 4271 (BGP-4), 4760 (multiprotocol), 6793 (4-byte
// AS), 2918 (route refresh), 4724 (graceful restart), 4456 (reflection), 7606
// (errors), 7911 (additional paths, receiving only), 1997 and 8092
// (communities), 8212 is not followed, as Calico's peers expect.
package bgp
