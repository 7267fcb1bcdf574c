// Package ipam decides about addresses: which block a node takes, which address
// of it a workload gets, what a release frees and which blocks are given up.
//
// Addresses come from pools. A pool is cut into blocks of equal size; a node
// claims whole blocks, so that one route per block is enough, and gives out
// addresses of its blocks without asking anybody. A handle names the holder of
// addresses (a container, a tunnel) and counts them by block.
//
//	Request ─► View.Assign ──► Change: blocks, handle and affinities to write
//	handle  ─► View.Release ─┘    ▲
//	                              └─ or *NeedError: show me this object first
//
// A [View] is what the caller knows of the cluster. A decision that depends on
// something that is not in it names that and changes nothing; so a node whose
// block has room decides without a single read, and package allocator is
// nothing but the compare-and-swap around this package.
//
// The order of choice is Calico's, so that both can work on one datastore:
// blocks the node has, in the byte order of their keys; then a new block, from
// a start that depends on the node's name, walking up with wrap-around; then an
// empty block of another node whose claim is older than a minute; then, unless
// affinity is strict, single addresses of other nodes' blocks. Within a block
// fresh addresses come first, released ones after in the order of release.
//
// Invariant: an address is free (Unallocated), in use or cooling down, never
// two of these; functions return changed copies and never change what they got.
package ipam
