// Package nft makes the packet filter of Linux equal to a plan.Filter. It is the one
// owner of the nftables tables `ip weft` and `ip6 weft`, and writes no other.
//
//	plan.FilterDelta ─► Apply ─► want ──┐
//	nf_tables events ─► stale ──────────┼─► pass ─► transaction ─► kernel
//	a dump every 90 s ─► have ──────────┘
//
// All that was applied since the last pass changes in one nfnetlink batch, over both
// tables, so that the kernel goes from one good state to the next at once. New sets and
// chains are made in a batch before it, and old ones go in a batch after it: packets on
// their way may ask either (see build). Rules of a chain are compared with those that
// stand, and only what differs is deleted and inserted, by handle, which keeps the
// counters of the others.
//
// While a large transaction is sent nobody listens to events, and the generation tells
// whether others changed anything (see quiet.go).
//
// The order satisfies the kernel: sets, chains, elements, rules, and then what goes:
// rules, sets, chains.
//
// What the kernel refuses is narrowed down to the object to blame: it keeps its last
// good version, everything else goes in, and it is tried again later. A chain that
// never had a good version drops: a mistake never opens a door.
//
// A rule is encoded as the kernel dumps it, so that reading back is a comparison of
// bytes, without an allocation for what is as it should be. Where a kernel dumps
// otherwise than we write, its form of our own rule is learned.
//
// The tables persist when the agent ends (they have no owner flag), and the next agent
// compares before it writes. Before Synced it reads rules, and touches nothing.
//
// Sources: nf_tables(7) does not exist; linux/netfilter/nf_tables.h, net/netfilter/nf_tables_api.c,
// and the netlink debug output of nft(8).
package nft
