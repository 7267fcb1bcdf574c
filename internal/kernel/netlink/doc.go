// Package netlink is the socket and the codec by which the doors below
// internal/kernel speak to Linux: routes (fib), packet filter (nft), connections
// and logs (ct, nflog).
//
//	request, batch ─► Socket.Exchange ─► kernel ─► errors, acknowledgement
//	request ────────► Socket.Dump ─────► kernel ─► messages
//	                  Socket.Read ◄───── events of the groups joined
//
// It knows the envelope only: headers, attributes, sequence numbers, the end of a
// dump (netlink(7), RFC 3549). What is inside is the business of its users. Nothing
// is allocated for a message that is read, and a request is bytes that the caller
// appends to, because a resync reads 200,000 objects and an update is to cost
// microseconds.
//
// Invariant: an answer is never taken for that of another request: the sequence
// numbers of one socket never repeat within 2^32 requests, and messages of others
// are passed over.
package netlink
