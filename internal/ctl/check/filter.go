package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// The sets of the tried packet filter.
const (
	setOfNets     = "try-nets"
	setOfLinkNets = "try-link-nets"
	mapOfClasses  = "try-classes"
	mapOfChains   = "try-chains"
)

// filterAbilities are those of the packet filter: of each there is a chain.
func filterAbilities() []ability {
	return []ability{
		{name: "nftables", module: "nf_tables", config: "CONFIG_NF_TABLES", purpose: "policy", required: true, chain: "try-base"},
		{name: "connection state", module: "nft_ct", config: "CONFIG_NFT_CT", purpose: "policy", required: true, chain: "try-state"},
		{name: "address sets", module: "nf_tables", config: "CONFIG_NF_TABLES", purpose: "selectors of policy, and the check of source addresses", required: true, chain: "try-sets"},
		{name: "reject", module: "nft_reject", config: "CONFIG_NFT_REJECT", purpose: "answers to forbidden packets", chain: "try-reject"},
		{name: "log", module: "nfnetlink_log", config: "CONFIG_NETFILTER_NETLINK_LOG", purpose: "rules with the action Log", chain: "try-log"},
		{name: "limits", module: "nft_limit", config: "CONFIG_NFT_LIMIT", purpose: "limits of packets", chain: "try-limit"},
		{name: "connection limits", module: "nft_connlimit", config: "CONFIG_NFT_CONNLIMIT", purpose: "limits of connections", chain: "try-connlimit"},
		{name: "own addresses", module: "nft_fib", config: "CONFIG_NFT_FIB", purpose: "floating addresses, and NAT", chain: "try-fib"},
		{name: "nat", module: "nft_masq", config: "CONFIG_NFT_MASQ", purpose: "pools with natOutgoing", chain: "try-nat"},
		{name: "floating addresses", module: "nft_nat", config: "CONFIG_NFT_NAT", purpose: "floating addresses", chain: "try-dnat"},
	}
}

// filterTables are chains that show what a kernel can do, by family.
func filterTables() plan.FilterDelta {
	return plan.FilterDelta{
		V4: filterTable(netip.MustParsePrefix("192.0.2.0/24"), netip.MustParseAddr("192.0.2.1")),
		V6: filterTable(netip.MustParsePrefix("2001:db8::/64"), netip.MustParseAddr("2001:db8::1")),
	}
}

func filterTable(pool netip.Prefix, addr netip.Addr) plan.TableDelta {
	chain := func(name string, base *plan.Base, rules ...plan.Rule) plan.Chain {
		return plan.Chain{Name: name, Base: base, Rules: rules}
	}
	local := plan.Match{Kind: plan.MatchDstLocal}
	return plan.TableDelta{
		PutSets: []plan.Set{{Name: setOfNets, Type: plan.SetNets}, {Name: setOfLinkNets, Type: plan.SetLinkNets}, {Name: mapOfClasses, Type: plan.MapClasses}, {Name: mapOfChains, Type: plan.MapChains}},
		Changes: []plan.SetChange{
			{Set: setOfNets, Put: []plan.Member{plan.NetMember(pool)}},
			{Set: setOfLinkNets, PutElement: []plan.Element{{Link: linkA, Net: pool}}},
			{Set: mapOfClasses, PutElement: []plan.Element{{Link: linkA, Value: "try"}}},
			{Set: mapOfChains, PutElement: []plan.Element{{Link: "try", Value: "try-state"}}},
		},
		PutChains: []plan.Chain{
			chain("try-base", &plan.Base{Hook: plan.Forward}, plan.Rule{Match: []plan.Match{{Kind: plan.MatchInLink, Link: linkA}}, Count: true, Verdict: plan.Accept, Comment: "try"}),
			chain("try-state", nil, plan.Rule{Match: []plan.Match{{Kind: plan.MatchState, Low: plan.StateEstablished | plan.StateRelated}}, Verdict: plan.Accept}),
			chain("try-sets", &plan.Base{Hook: plan.Forward, Priority: 1},
				plan.Rule{Match: []plan.Match{{Kind: plan.MatchInSource, Set: setOfLinkNets}, {Kind: plan.MatchDstSet, Set: setOfNets}}, Verdict: plan.Return},
				plan.Rule{Dispatch: &plan.Dispatch{Classes: mapOfClasses, Chains: mapOfChains}}),
			chain("try-reject", nil, plan.Rule{Verdict: plan.Reject}),
			chain("try-log", nil, plan.Rule{Log: &plan.NFLog{Group: 1, Prefix: "try"}}),
			chain("try-limit", nil, plan.Rule{Match: []plan.Match{{Kind: plan.MatchOverRate, Rate: 10, Burst: 5}}, Verdict: plan.Drop}),
			chain("try-connlimit", nil, plan.Rule{Match: []plan.Match{{Kind: plan.MatchOverConns, Rate: 10}}, Verdict: plan.Drop}),
			chain("try-fib", &plan.Base{Hook: plan.Prerouting, Priority: -300}, plan.Rule{Match: []plan.Match{local}, Verdict: plan.Return}),
			chain("try-nat", &plan.Base{Hook: plan.Postrouting, Priority: 100, Type: plan.ChainNAT}, plan.Rule{Match: []plan.Match{{Kind: plan.MatchSrcNet, Net: pool}}, Verdict: plan.Masquerade, NAT: &plan.NAT{}}),
			chain("try-dnat", &plan.Base{Hook: plan.Prerouting, Priority: -100, Type: plan.ChainNAT}, plan.Rule{Match: []plan.Match{{Kind: plan.MatchDstNet, Net: netip.PrefixFrom(addr, addr.BitLen())}}, Verdict: plan.DNAT, NAT: &plan.NAT{Addr: addr.Next()}}),
		},
	}
}

// tryFilter writes all chains and notes which ones the kernel refused, in the namespace of the
// calling thread.
func tryFilter(ctx context.Context, tries []ability, outcome map[string]error) {
	ctx, cancel := context.WithTimeout(ctx, filterPatience)
	defer cancel()
	table, err := nft.New(nft.Options{Resync: -1})
	if err == nil {
		ended := make(chan struct{})
		running, end := context.WithCancel(ctx)
		go func() { defer close(ended); _ = table.Run(running) }() // it ends by end
		table.Apply(filterTables())
		table.Synced()
		err = table.WaitApplied(ctx)
		defer func() { end(); <-ended }()
	}
	var problems []nft.Problem
	if table != nil {
		problems = table.State().Problems
	}
	for _, a := range tries {
		if a.chain == "" {
			continue
		}
		outcome[a.name] = chainError(problems, a.chain)
		switch {
		case outcome[a.name] != nil || err == nil || len(problems) > 0:
		case a.chain == "try-base":
			outcome[a.name] = err
		default:
			outcome[a.name] = errNoFilter
		}
	}
}

// chainError is why a chain is not in force; nil if it is.
func chainError(problems []nft.Problem, chain string) error {
	var errs []error
	for _, p := range problems {
		if p.Object == "chain "+chain || p.Object == "table" || chain == "try-sets" && strings.HasPrefix(p.Object, "set ") {
			errs = append(errs, fmt.Errorf("%s: %s", p.Table, p.Text))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New(strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "))
}
