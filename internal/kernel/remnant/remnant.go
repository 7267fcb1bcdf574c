// Package remnant finds what another agent of the cluster, Calico's Felix, has left in a
// node's packet filter, and takes it away: rules that drop what they do not know.
//
//	table ip calico, ip6 calico           (nftables mode)      goes whole
//	chains cali-… in filter, nat, mangle, (iptables-nft)       go, with the rules that lead
//	  raw of families ip and ip6                               there or have a note cali:…
//	the same in iptables-legacy                                are found, and stay
//	sets cali40…, cali60… of ipset                             go
//
// The tables of iptables are shared: kube-proxy's rules stand beside Calico's. So nothing is
// written, there are only deletions, each of a rule by the handle that the kernel gave it, of
// all rules of a chain cali-…, or of such a chain; what is not named stays as it is, in its
// place, byte for byte. All of one table goes in one transaction, or nothing.
//
// It is no loop that keeps anything: what comes back after it was removed is kept by somebody
// who is alive, and is not to be fought. Nor does it judge when the time has come.
//
// Invariant: no object is changed or removed that does not bear Calico's name, but a rule
// that leads to one that does.
package remnant

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

const (
	chainPrefix = "cali-" // of the names of chains
	notePrefix  = "cali:" // of the comments of rules
	ownTable    = "calico"
)

// Found is what there is of Calico. The zero Found is nothing.
type Found struct {
	Tables []string // of nftables, such as "ip calico"
	Chains []string // of iptables-nft, such as "ip filter cali-FORWARD"
	Rules  int      // in other chains of these tables
	Legacy []string // tables of iptables-legacy with rules of Calico, such as "ip filter"
	Sets   []string // of ipset
}

// Empty reports whether there is nothing.
func (f Found) Empty() bool { return f.Removable() == 0 && len(f.Legacy) == 0 }

// Removable is the number of things that [Remnants.Remove] takes away.
func (f Found) Removable() int { return len(f.Tables) + len(f.Chains) + f.Rules + len(f.Sets) }

// String says it in a few words.
func (f Found) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{len(f.Tables), "tables"}, {len(f.Chains), "chains"}, {f.Rules, "rules in other chains"}, {len(f.Sets), "ipsets"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if len(f.Legacy) > 0 {
		parts = append(parts, "rules in iptables-legacy ("+strings.Join(f.Legacy, ", ")+")")
	}
	return strings.Join(parts, ", ")
}

// Remnants looks at one network namespace. It is for one goroutine.
type Remnants struct{ socket *netlink.Socket }

// Open opens the socket in the network namespace of the calling thread. Close it.
func Open() (*Remnants, error) {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return nil, fmt.Errorf("remnant: %w", err)
	}
	return &Remnants{s}, nil
}

// Close ends it.
func (r *Remnants) Close() error { return r.socket.Close() }

// Find looks. iptables-legacy is looked at in the network namespace of the calling thread.
// With an error it returns what it found.
func (r *Remnants) Find() (Found, error) {
	var out Found
	tables, err := r.tables()
	errs := []error{err}
	for _, t := range tables {
		switch {
		case t.own:
			out.Tables = append(out.Tables, t.String())
		case len(t.chains) > 0 || len(t.rules) > 0:
			for _, c := range t.chains {
				out.Chains = append(out.Chains, t.String()+" "+c)
			}
			out.Rules += len(t.rules)
		}
	}
	out.Sets, err = r.sets()
	errs = append(errs, err)
	out.Legacy, err = legacyTables()
	return out, errors.Join(append(errs, err)...)
}

// Remove takes away what can be: tables one by one, then sets, which rules refer to. The
// error says what could not be.
func (r *Remnants) Remove() error {
	tables, err := r.tables()
	errs := []error{err}
	for _, t := range tables {
		if err := r.clear(t); err != nil {
			errs = append(errs, fmt.Errorf("remnant: table %v: %w", t, err))
		}
	}
	sets, err := r.sets()
	errs = append(errs, err)
	for _, name := range sets {
		if err := r.destroy(name); err != nil {
			errs = append(errs, fmt.Errorf("remnant: ipset %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// table is one with something of Calico.
type table struct {
	family uint8
	name   string
	own    bool       // all of it is Calico's
	chains []string   // that are
	rules  []ruleAddr // of other chains
}

// ruleAddr is where a rule is.
type ruleAddr struct {
	chain  string
	handle uint64
}

func (t *table) String() string {
	return map[uint8]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6"}[t.family] + " " + t.name
}

// tables reads those that iptables-nft has, and Calico's.
func (r *Remnants) tables() ([]*table, error) {
	var out []*table
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		if t := (&table{family: family, name: ownTable}); r.exists(t) {
			t.own = true
			out = append(out, t)
		}
		chains := map[string][]string{}
		err := r.socket.Dump(msgGetChain, []byte{family, unix.NFNETLINK_V0, 0, 0}, func(typ uint16, body []byte) {
			name, chain := chainOf(body, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME)
			if typ == msgNewChain && len(body) > 0 && body[0] == family && strings.HasPrefix(chain, chainPrefix) {
				chains[name] = append(chains[name], chain)
			}
		}, nil)
		if err != nil {
			return out, fmt.Errorf("remnant: list chains: %w", err)
		}
		for _, name := range []string{"filter", "mangle", "nat", "raw"} {
			t := &table{family: family, name: name, chains: chains[name]}
			slices.Sort(t.chains)
			if t.rules, err = r.rules(t); err != nil {
				return out, fmt.Errorf("remnant: list rules of %v: %w", t, err)
			}
			if len(t.chains)+len(t.rules) > 0 {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// exists reports whether there is that table.
func (r *Remnants) exists(t *table) bool {
	found := false
	// An error is as good as none: the next look tells.
	_ = r.socket.Dump(msgGetTable, []byte{t.family, unix.NFNETLINK_V0, 0, 0}, func(typ uint16, body []byte) {
		name, _ := chainOf(body, unix.NFTA_TABLE_NAME, 0)
		found = found || typ == msgNewTable && len(body) > 0 && body[0] == t.family && name == t.name
	}, nil)
	return found
}

// rules are those of a table that are Calico's and stand in chains that are not.
func (r *Remnants) rules(t *table) ([]ruleAddr, error) {
	var out []ruleAddr
	err := r.socket.Dump(msgGetRule, t.key(nil), func(typ uint16, body []byte) {
		name, chain := chainOf(body, unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN)
		if typ != msgNewRule || body[0] != t.family || name != t.name || strings.HasPrefix(chain, chainPrefix) {
			return
		}
		if handle, ok := calicoRule(body); ok {
			out = append(out, ruleAddr{chain, handle})
		}
	}, nil)
	return out, err
}

// clear takes away what is Calico's of a table, all of it or nothing.
func (r *Remnants) clear(t *table) error {
	b := batchEdge(nil, unix.NFNL_MSG_BATCH_BEGIN, r.socket.Next())
	var last uint32
	start := 0
	add := func(typ uint16, body func([]byte) []byte) {
		start, last = len(b), r.socket.Next()
		b = body(netlink.AppendHeader(b, typ, unix.NLM_F_REQUEST, last))
		netlink.EndMessage(b, start)
	}
	if t.own {
		add(msgDelTable, func(b []byte) []byte {
			return netlink.AppendAttrString(append(b, t.family, unix.NFNETLINK_V0, 0, 0), unix.NFTA_TABLE_NAME, t.name)
		})
	}
	for _, rule := range t.rules {
		add(msgDelRule, func(b []byte) []byte {
			return appendBE64(netlink.AppendAttrString(t.key(b), unix.NFTA_RULE_CHAIN, rule.chain), unix.NFTA_RULE_HANDLE, rule.handle)
		})
	}
	for _, c := range t.chains { // all rules of it
		add(msgDelRule, func(b []byte) []byte { return netlink.AppendAttrString(t.key(b), unix.NFTA_RULE_CHAIN, c) })
	}
	for _, c := range t.chains {
		add(msgDelChain, func(b []byte) []byte {
			b = netlink.AppendAttrString(append(b, t.family, unix.NFNETLINK_V0, 0, 0), unix.NFTA_CHAIN_TABLE, t.name)
			return netlink.AppendAttrString(b, unix.NFTA_CHAIN_NAME, c)
		})
	}
	netlink.Native.PutUint16(b[start+6:], netlink.Native.Uint16(b[start+6:])|unix.NLM_F_ACK)
	b = batchEdge(b, unix.NFNL_MSG_BATCH_END, r.socket.Next())
	var refused unix.Errno
	err := r.socket.Exchange(b, last, func(_ uint32, errno unix.Errno) {
		if refused == 0 {
			refused = errno
		}
	})
	if err == nil && refused != 0 {
		err = refused
	}
	return err
}
