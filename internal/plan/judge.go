package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Judgement is what a table does with a packet at a hook.
type Judgement struct {
	Verdict Verdict // Accept, Drop or Reject
	Rule    string  // Comment of the rule that decided; empty: a base chain's end, or it has none
	Chain   string  // the chain of that rule; empty: a base chain's end
	Mark    uint32  // the packet's mark afterwards
	Untrack bool    // a rule said notrack
	// Hits are the rules that the packet fitted and that count or log, in order.
	Hits []*Rule
}

// Denied reports whether the packet ends here.
func (j Judgement) Denied() bool { return j.Verdict == Drop || j.Verdict == Reject }

// Judge is what t does with p at a hook: all base chains of the hook in order of
// priority, as the kernel would. Who has many packets makes a [Machine].
func (t *Table) Judge(hook Hook, p Packet) Judgement {
	return t.Machine().Judge(hook, p)
}

// Machine is a table made ready to judge many packets. It is for one goroutine at
// a time, and for as long as chains stay and sets neither come nor go; what is in
// sets may change, if its [Source] says so. What it knows of chains it finds out when
// packets come to them.
//
// It is an interpreter of what nftables does with the rules that package plan can
// say: a rule whose match can't be read from the packet (a port of a protocol
// without ports) does not fit, negated or not. What is in SetFlows is not planned,
// so a packet never fits MatchFlow, nor, negated, fails it. It has no past: no rate and
// no number of connections is exceeded. A packet at the forward hook
// whose interface is empty comes from, or goes to, one that is not known: then what a
// Dispatch of it leads to is left out.
type Machine struct {
	source Source
	chains map[string]*program         // met so far; nil: there is none
	base   [Postrouting + 1][]*program // by priority
	nat    [Postrouting + 1][]*program // likewise, of ChainNAT
}

// program is a chain whose names are resolved, once a packet was there.
type program struct {
	chain Chain
	steps []step // by rule; nil: no packet was there
}

// step is what a rule names.
type step struct {
	target *program  // of Jump and Goto; nil: there is none
	sets   []Content // by match; nil: it needs none, or there is none
}

// Machine makes t ready to judge by, as long as it does not change.
func (t *Table) Machine() *Machine { return NewMachine(frozen{t, map[string]*content{}}) }

// NewMachine makes a machine that judges by s.
func NewMachine(s Source) *Machine {
	m := &Machine{source: s, chains: map[string]*program{}}
	for c := range s.Base() {
		switch p := (&program{chain: c}); {
		case int(c.Base.Hook) >= len(m.base):
		case c.Base.Type == ChainNAT:
			m.nat[c.Base.Hook] = append(m.nat[c.Base.Hook], p)
		default:
			m.base[c.Base.Hook] = append(m.base[c.Base.Hook], p)
		}
	}
	for _, list := range append(m.base[:], m.nat[:]...) {
		slices.SortFunc(list, func(a, b *program) int {
			return cmp.Or(cmp.Compare(a.chain.Base.Priority, b.chain.Base.Priority), strings.Compare(a.chain.Name, b.chain.Name))
		})
	}
	return m
}

// program is the chain of that name; nil: there is none.
func (m *Machine) program(name string) *program {
	p, ok := m.chains[name]
	if !ok {
		if c, ok := m.source.Chain(name); ok {
			p = &program{chain: c}
		}
		m.chains[name] = p
	}
	return p
}

func (p *program) resolve(m *Machine) {
	p.steps = make([]step, len(p.chain.Rules))
	for i := range p.chain.Rules {
		r := &p.chain.Rules[i]
		if r.Verdict == Jump || r.Verdict == Goto {
			p.steps[i].target = m.program(r.Target)
		}
		p.steps[i].sets = make([]Content, len(r.Match))
		for j := range r.Match {
			if name := r.Match[j].Set; name != "" {
				p.steps[i].sets[j] = m.source.Set(name)
			}
		}
	}
}

// Judge is what the table does with p at hook.
func (m *Machine) Judge(hook Hook, p Packet) Judgement { return m.judge(hook, &p, true) }

// Verdict is Judge without Hits; it allocates nothing.
func (m *Machine) Verdict(hook Hook, p Packet) Judgement { return m.judge(hook, &p, false) }

func (m *Machine) judge(hook Hook, p *Packet, hits bool) Judgement {
	r := run{m: m, p: p, collect: hits}
	r.out.Verdict = Accept
	for _, base := range m.base[hook] {
		if v := r.chain(base, 0); v == Drop || v == Reject {
			r.out.Verdict = v
			break
		}
	}
	r.out.Mark = p.Mark
	return r.out
}

// NAT is the rule that translates the connection which p opens at that hook; nil: none
// does. The chains that it asks decide nothing else: [Machine.Judge] leaves them out.
func (m *Machine) NAT(hook Hook, p Packet) *Rule {
	r := run{m: m, p: &p}
	for _, base := range m.nat[hook] {
		if v := r.chain(base, 0); v == Masquerade || v == SNAT || v == DNAT {
			return r.translate
		}
	}
	return nil
}

// maxDepth is how deep the kernel lets jumps go (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// run is one packet on its way through a hook.
type run struct {
	m       *Machine
	p       *Packet
	collect bool
	out     Judgement

	translate *Rule // of the verdicts Masquerade, SNAT and DNAT
}

// chain is how a chain ends for the packet: Accept, Drop, Reject, or Return for its
// end. A goto's chain ends as this one would.
func (r *run) chain(c *program, depth int) Verdict {
	if c == nil || depth > maxDepth {
		return Drop // the kernel refuses such a table
	}
	if c.steps == nil {
		c.resolve(r.m)
	}
	for i := range c.chain.Rules {
		rule := &c.chain.Rules[i]
		if !r.fits(rule.Match, c.steps[i].sets) {
			continue
		}
		r.effects(rule)
		v := rule.Verdict
		switch {
		case rule.Dispatch != nil:
			to, known := r.dispatch(rule.Dispatch)
			if !known {
				return Accept
			}
			if to != nil {
				return r.chain(to, depth+1)
			}
			continue
		case v == Continue:
			continue
		case v == Goto:
			return r.chain(c.steps[i].target, depth+1)
		case v == Jump:
			if v = r.chain(c.steps[i].target, depth+1); v == Return {
				continue
			}
			return v
		case v != Return:
			r.out.Rule, r.out.Chain, r.translate = rule.Comment, c.chain.Name, rule
		}
		return v
	}
	return Return
}

// effects are what a rule does beside its verdict.
func (r *run) effects(rule *Rule) {
	r.p.Mark = r.p.Mark&^rule.ClearMark | rule.SetMark
	if rule.Track {
		r.out.Untrack = true
		r.p.State = StateUntracked
	}
	if r.collect && (rule.Count || rule.Log != nil) {
		r.out.Hits = append(r.out.Hits, rule)
	}
}

// dispatch finds the chain of the packet's interface; nil: it has none. A packet whose
// interface is not known is none of the base chain's business.
func (r *run) dispatch(d *Dispatch) (to *program, known bool) {
	link := r.p.InLink
	if d.Out {
		link = r.p.OutLink
	}
	if link == "" {
		return nil, false
	}
	class, ok := r.m.value(d.Classes, link)
	if !ok {
		return nil, true
	}
	name, ok := r.m.value(d.Chains, class)
	if !ok {
		return nil, true
	}
	return r.m.program(name), true
}

// fits reports whether the packet fits every match.
func (r *run) fits(match []Match, sets []Content) bool {
	for i := range match {
		got, known := r.match(&match[i], sets[i])
		if !known || got == match[i].Not {
			return false
		}
	}
	return true
}

// match reports whether the packet is what the match says, without its Not; known is
// false if the packet has nothing that could be compared.
func (r *run) match(x *Match, set Content) (is, known bool) {
	p := r.p
	switch x.Kind {
	case MatchInLink:
		return linkFits(x.Link, p.InLink), true
	case MatchOutLink:
		return linkFits(x.Link, p.OutLink), true
	case MatchInLinkSet:
		return set != nil && set.HasElement(Element{Link: p.InLink}), true
	case MatchOutLinkSet:
		return set != nil && set.HasElement(Element{Link: p.OutLink}), true
	case MatchInSource:
		return hasSource(set, p.InLink, p.Src), true
	case MatchSrcNet:
		return x.Net.Contains(p.Src), true
	case MatchDstNet:
		return x.Net.Contains(p.Dst), true
	case MatchSrcSet:
		return hasAddr(set, p.Src), true
	case MatchDstSet:
		return hasAddr(set, p.Dst), true
	case MatchProtocol:
		return uint16(p.Protocol) == x.Low, true
	case MatchState:
		return p.State&x.Low != 0, true
	case MatchFlow, MatchOverRate, MatchOverConns:
		return false, true
	case MatchDstLocal:
		return p.DstLocal, true
	case MatchMark:
		return p.Mark&x.Mark != 0, true
	case MatchSrcLocal:
		return p.SrcLocal, true
	case MatchSrcLink:
		return p.SrcLink, true
	}
	return r.layer4(x, set)
}

// layer4 is match for what stands behind the IP header.
func (r *run) layer4(x *Match, set Content) (is, known bool) {
	p := r.p
	switch x.Kind {
	case MatchICMPType, MatchICMPCode, MatchICMPTypeCode:
		if p.Protocol != icmpOf(p.Src) {
			return false, false
		}
	default:
		if !hasPorts(p.Protocol) {
			return false, x.Kind == MatchSrcAddrPort || x.Kind == MatchDstAddrPort
		}
	}
	switch x.Kind {
	case MatchSrcPort:
		return x.Low <= p.SrcPort && p.SrcPort <= x.High, true
	case MatchDstPort:
		return x.Low <= p.DstPort && p.DstPort <= x.High, true
	case MatchSrcPortSet:
		return set != nil && set.HasPort(p.SrcPort), true
	case MatchDstPortSet:
		return set != nil && set.HasPort(p.DstPort), true
	case MatchSrcAddrPort:
		return set != nil && set.Has(AddrPortMember(p.Src, p.Protocol, p.SrcPort)), true
	case MatchDstAddrPort:
		return set != nil && set.Has(AddrPortMember(p.Dst, p.Protocol, p.DstPort)), true
	case MatchICMPType:
		return x.Low <= uint16(p.ICMPType) && uint16(p.ICMPType) <= x.High, true
	case MatchICMPCode:
		return uint16(p.ICMPCode) == x.Low, true
	case MatchICMPTypeCode:
		return uint16(p.ICMPType) == x.Low && uint16(p.ICMPCode) == x.High, true
	}
	return false, false
}

func icmpOf(a netip.Addr) uint8 {
	if a.Is4() {
		return 1
	}
	return 58
}

// hasPorts reports whether a protocol has ports: TCP, UDP, SCTP, UDPLite.
func hasPorts(proto uint8) bool { return proto == 6 || proto == 17 || proto == 132 || proto == 136 }

// linkFits reports whether an interface has the name, or begins with it where the
// name ends in a star.
func linkFits(pattern, link string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(link, prefix)
	}
	return pattern == link
}
