package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// String is the rule as nft writes it, near enough to read it beside `nft list`;
// a Dispatch is written as one line where the kernel's takes more.
func (r Rule) String() string {
	var b strings.Builder
	for _, m := range r.Match {
		b.WriteString(m.String() + " ")
	}
	if r.Update != "" {
		fmt.Fprintf(&b, "update @%s { flow } ", r.Update)
	}
	if r.Count {
		b.WriteString("counter ")
	}
	if l := r.Log; l != nil {
		if l.Rate > 0 {
			fmt.Fprintf(&b, "limit rate %d/%ds burst %d packets ", l.Rate, l.PerSeconds, l.Burst)
		}
		fmt.Fprintf(&b, "log prefix %q group %d ", l.Prefix, l.Group)
	}
	if r.ClearMark != 0 {
		fmt.Fprintf(&b, "meta mark set mark and %#x ", ^r.ClearMark)
	}
	if r.SetMark != 0 {
		fmt.Fprintf(&b, "meta mark set mark or %#x ", r.SetMark)
	}
	if r.Track {
		b.WriteString("notrack ")
	}
	if r.SetDSCP {
		fmt.Fprintf(&b, "dscp set %d ", r.DSCP)
	}
	b.WriteString(r.end())
	if r.Comment != "" {
		fmt.Fprintf(&b, "comment %q", r.Comment)
	}
	return strings.TrimSuffix(b.String(), " ")
}

// end is the verdict, with a space behind it if there is one.
func (r Rule) end() string {
	if d := r.Dispatch; d != nil {
		name := "iifname"
		if d.Out {
			name = "oifname"
		}
		return fmt.Sprintf("%s map @%s vmap @%s ", name, d.Classes, d.Chains)
	}
	switch r.Verdict {
	case Continue:
		return ""
	case Jump, Goto:
		return r.Verdict.String() + " " + r.Target + " "
	case Masquerade, SNAT, DNAT:
		return r.Verdict.String() + r.NAT.String() + " "
	}
	return r.Verdict.String() + " "
}

// String is the verdict as nft writes it.
func (v Verdict) String() string {
	return [...]string{"continue", "accept", "drop", "reject", "return", "jump", "goto", "masquerade", "snat", "dnat"}[v]
}

// String is the match as nft writes it.
func (m Match) String() string {
	not := ""
	if m.Not {
		not = "!= "
	}
	at := not + "@" + m.Set
	switch m.Kind {
	case MatchInLink:
		return "iifname " + not + strconv.Quote(m.Link)
	case MatchOutLink:
		return "oifname " + not + strconv.Quote(m.Link)
	case MatchInLinkSet:
		return "iifname " + at
	case MatchOutLinkSet:
		return "oifname " + at
	case MatchInSource:
		return "iifname . saddr " + at
	case MatchSrcNet:
		return "saddr " + not + netText(m.Net)
	case MatchDstNet:
		return "daddr " + not + netText(m.Net)
	case MatchSrcSet:
		return "saddr " + at
	case MatchDstSet:
		return "daddr " + at
	case MatchSrcAddrPort:
		return "saddr . meta l4proto . th sport " + at
	case MatchDstAddrPort:
		return "daddr . meta l4proto . th dport " + at
	case MatchFlow:
		return "flow " + at
	case MatchMark:
		if m.Not {
			return fmt.Sprintf("mark and %#x == 0", m.Mark)
		}
		return fmt.Sprintf("mark and %#x != 0", m.Mark)
	}
	return m.numbers(not, at)
}

// numbers is String of the matches that compare numbers.
func (m Match) numbers(not, at string) string {
	switch m.Kind {
	case MatchProtocol:
		return "meta l4proto " + not + protocolText(uint8(m.Low))
	case MatchSrcPort:
		return "th sport " + not + rangeText(m.Low, m.High)
	case MatchDstPort:
		return "th dport " + not + rangeText(m.Low, m.High)
	case MatchSrcPortSet:
		return "th sport " + at
	case MatchDstPortSet:
		return "th dport " + at
	case MatchICMPType:
		return "icmp type " + not + rangeText(m.Low, m.High)
	case MatchICMPCode:
		return "icmp code " + not + strconv.Itoa(int(m.Low))
	case MatchICMPTypeCode:
		return fmt.Sprintf("icmp type . icmp code %s%d . %d", not, m.Low, m.High)
	case MatchState:
		return "ct state " + not + stateText(m.Low)
	case MatchDstLocal:
		if m.Not {
			return "fib daddr type != local"
		}
		return "fib daddr type local"
	case MatchSrcLocal:
		return "fib saddr type " + not + "local"
	case MatchSrcLink:
		return "fib saddr . oif type " + not + "local"
	case MatchOverRate:
		return fmt.Sprintf("limit rate %s%d/second burst %d packets", overText(m.Not), m.Rate, m.Burst)
	case MatchOverConns:
		return fmt.Sprintf("ct count %s%d", overText(m.Not), m.Rate)
	}
	return fmt.Sprintf("match %d", m.Kind)
}

func overText(not bool) string {
	if not {
		return ""
	}
	return "over "
}

func netText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func rangeText(low, high uint16) string {
	if low == high {
		return strconv.Itoa(int(low))
	}
	return fmt.Sprintf("%d-%d", low, high)
}

func protocolText(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "ipv6-icmp"
	case 132:
		return "sctp"
	case 136:
		return "udplite"
	}
	return strconv.Itoa(int(p))
}

func stateText(bits uint16) string {
	var out []string
	for _, s := range []struct {
		bit  uint16
		name string
	}{{StateInvalid, "invalid"}, {StateEstablished, "established"}, {StateRelated, "related"}, {StateNew, "new"}, {StateUntracked, "untracked"}} {
		if bits&s.bit != 0 {
			out = append(out, s.name)
		}
	}
	return strings.Join(out, ",")
}

// String is the hook as nft writes it.
func (h Hook) String() string {
	return [...]string{"prerouting", "input", "forward", "output", "postrouting"}[h]
}

// String is the type as nft writes it.
func (t ChainType) String() string { return [...]string{"filter", "nat"}[t] }

// String is the line that nft writes of a base chain.
func (b Base) String() string {
	priority := strconv.Itoa(int(b.Priority))
	if b.Hook == Postrouting && b.Priority == PrioritySourceNAT {
		priority = "srcnat"
	}
	if b.Hook == Prerouting && b.Priority == PriorityDestinationNAT {
		priority = "dstnat"
	}
	return fmt.Sprintf("type %v hook %v priority %s", b.Type, b.Hook, priority)
}

// String is the chain as nft writes it, several lines.
func (c Chain) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "chain %s {\n", c.Name)
	if c.Base != nil {
		fmt.Fprintf(&b, "\t%v; policy accept;\n", *c.Base)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "\t%v\n", r)
	}
	b.WriteString("}\n")
	return b.String()
}

// String is the type as nft writes it.
func (t SetType) String() string {
	return [...]string{
		"addr", "addr; flags interval", "inet_service; flags interval", "addr . inet_proto . inet_service", "ifname . addr",
		"ifname . addr; flags interval", "ifname", "ifname : ifname", "ifname : verdict",
		"addr . addr . inet_proto . inet_service . inet_service; flags timeout",
	}[t]
}

// String is the set as nft writes it, without what is in it.
func (s Set) String() string { return fmt.Sprintf("%s %s { type %v }", s.Type.word(), s.Name, s.Type) }

func (t SetType) word() string {
	if t == MapClasses || t == MapChains {
		return "map"
	}
	return "set"
}

// text is a member as nft writes it.
func (m Member) text(t SetType, v6 bool) string {
	switch t {
	case SetPorts:
		return rangeText(m.port, m.last)
	case SetAddrPorts:
		return fmt.Sprintf("%v . %s . %d", m.Net(v6).Addr(), protocolText(m.proto), m.port)
	}
	return netText(m.Net(v6))
}

// String is the element as nft writes it.
func (e Element) String() string {
	out := strconv.Quote(e.Link)
	if e.Net.IsValid() {
		out += " . " + netText(e.Net)
	}
	if e.Value != "" {
		out += " : " + e.Value
	}
	return out
}

// Text is the table as nft would list it, sets first, all in order of their names.
func (t Table) Text(v6 bool) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		s := t.Sets[name]
		fmt.Fprintf(&b, "%s %s {\n\ttype %v\n", s.Type.word(), name, s.Type)
		for _, m := range slices.SortedFunc(maps.Keys(s.Members), Member.Compare) {
			fmt.Fprintf(&b, "\t%s\n", m.text(s.Type, v6))
		}
		elements := make([]string, 0, len(s.Elements))
		for e := range s.Elements {
			elements = append(elements, "\t"+e.String()+"\n")
		}
		slices.Sort(elements)
		b.WriteString(strings.Join(elements, "") + "}\n")
	}
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		b.WriteString(t.Chains[name].String())
	}
	return b.String()
}

// DiffTables says how got differs from want: a line for each set, member, element and
// chain, with - (missing), + (too much), and both for a chain that has other rules;
// sorted; empty when they are equal.
func DiffTables(want, got Table, v6 bool) string { return diffLines(want.lines(v6), got.lines(v6)) }

// DiffFilters is DiffTables of both families, each line with its family.
func DiffFilters(want, got Filter) string {
	lines := func(f Filter) map[string]bool {
		out := map[string]bool{}
		for l := range f.V4.lines(false) {
			out["ip "+l] = true
		}
		for l := range f.V6.lines(true) {
			out["ip6 "+l] = true
		}
		return out
	}
	return diffLines(lines(want), lines(got))
}

// lines are the objects of t, a line each. Rules are lines that say where in their
// chain they stand.
func (t Table) lines(v6 bool) map[string]bool {
	out := map[string]bool{}
	for name, s := range t.Sets {
		out[s.Set.String()] = true
		for m := range s.Members {
			out[fmt.Sprintf("element %s { %s }", name, m.text(s.Type, v6))] = true
		}
		for e := range s.Elements {
			out[fmt.Sprintf("element %s { %v }", name, e)] = true
		}
	}
	for name, c := range t.Chains {
		head := "chain " + name
		if c.Base != nil {
			head += " " + c.Base.String()
		}
		out[head] = true
		for i, r := range c.Rules {
			out[fmt.Sprintf("rule %s %d: %v", name, i, r)] = true
		}
	}
	return out
}
