package nft

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

const (
	maxName    = 63  // of sets and chains, as the plan says; the kernel takes 255
	maxComment = 120 // nft(8) takes 128 bytes
	maxPrefix  = 120 // of a log; the kernel takes 127

	udataComment = 0 // NFTNL_UDATA_RULE_COMMENT

	icmpAdminProhibited   = 13 // RFC 1812 section 5.2.7.1
	icmpv6AdminProhibited = 1  // RFC 4443 section 3.1

	protoTCP = 6

	dynsetUpdate = 1 // NFT_DYNSET_OP_UPDATE

	// logCopyBytes of a logged packet reach user space.
	logCopyBytes = 128
)

// body is a kernel rule as a message and a dump have it: the attributes
// NFTA_RULE_EXPRESSIONS and, for a comment, NFTA_RULE_USERDATA.
type body []byte

// rules encodes a rule of the plan: one kernel rule, or up to three. A log that has
// a limit stands in a rule of its own, since a packet above the limit fits no further;
// TCP is rejected otherwise than the rest.
func (r *ruler) rules(p *plan.Rule, out []body) ([]body, error) {
	if len(p.Comment) > maxComment {
		return out, fmt.Errorf("comment of %d bytes: want at most %d", len(p.Comment), maxComment)
	}
	rest := *p
	if p.Log != nil && p.Log.Rate > 0 {
		b, err := r.rule(p, func() error { return r.log(p.Log) })
		if err != nil {
			return out, err
		}
		out = append(out, b)
		if rest.Log = nil; !judges(&rest) {
			return out, nil
		}
	}
	if rest.Verdict == plan.Reject && rest.Dispatch == nil {
		return r.rejects(&rest, out)
	}
	b, err := r.rule(&rest, func() error { return r.actions(&rest) })
	return append(out, b), err
}

// judges reports whether p does anything but log.
func judges(p *plan.Rule) bool {
	return p.Count || p.Update != "" || p.SetMark|p.ClearMark != 0 || p.Track || p.SetDSCP || p.Verdict != plan.Continue || p.Dispatch != nil
}

// rejects encodes a rule that rejects: for TCP, and for the others, as far as the
// rule has not said which it is.
func (r *ruler) rejects(p *plan.Rule, out []body) ([]body, error) {
	one := protocolOf(p)
	if one < 0 || one == protoTCP {
		r.reset = true
		b, err := r.rule(p, func() error {
			if one < 0 {
				r.meta(unix.NFT_META_L4PROTO, 0)
				r.equal(false, []byte{protoTCP})
			}
			return r.actions(p)
		})
		r.reset = false
		if err != nil {
			return out, err
		}
		out = append(out, b)
	}
	if one == protoTCP {
		return out, nil
	}
	b, err := r.rule(p, func() error { return r.actions(p) })
	return append(out, b), err
}

// protocolOf is the one protocol whose packets fit p; -1: several.
func protocolOf(p *plan.Rule) int {
	for _, m := range p.Match {
		if m.Kind == plan.MatchProtocol && !m.Not {
			return int(m.Low)
		}
	}
	return -1
}

// rule encodes a kernel rule: the matches of p, and what do adds.
func (r *ruler) rule(p *plan.Rule, do func() error) (body, error) {
	r.b = r.b[:0]
	r.proto, r.guided, r.named = -1, false, false
	list := r.open(unix.NFTA_RULE_EXPRESSIONS)
	// What the packet must be of is said before what stands in its header.
	var errs []error
	for pass := range 2 {
		for i := range p.Match {
			m := &p.Match[i]
			if sure := m.Kind == plan.MatchProtocol && !m.Not; sure == (pass == 0) {
				if err := r.match(m); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	if err := do(); err != nil {
		errs = append(errs, err)
	}
	if len(r.b)-list > 0xffff {
		errs = append(errs, fmt.Errorf("%d matches: are too many for one rule", len(p.Match)))
	}
	r.close(list)
	comment := p.Comment
	if comment == "" && p.Dispatch != nil {
		comment = dispatchComment(p.Dispatch)
	}
	if comment != "" {
		text := append([]byte{udataComment, uint8(len(comment) + 1)}, comment...)
		r.bytes(unix.NFTA_RULE_USERDATA, append(text, 0))
	}
	return body(slices.Clone(r.b)), errors.Join(errs...)
}

// actions encodes what p does, in the order of the plan.
func (r *ruler) actions(p *plan.Rule) error {
	var errs []error
	if p.Count {
		r.counter()
	}
	if p.Log != nil {
		errs = append(errs, r.log(p.Log))
	}
	if p.Update != "" {
		r.flow()
		r.expr("dynset", func() {
			r.u32(unix.NFTA_DYNSET_SREG_KEY, reg(0))
			r.u32(unix.NFTA_DYNSET_OP, dynsetUpdate)
			r.str(unix.NFTA_DYNSET_SET_NAME, p.Update)
			r.u64(unix.NFTA_DYNSET_TIMEOUT, 0)
			r.u32(nftaDynsetFlags, 0)
		})
		errs = append(errs, r.checkSet(p.Update, plan.SetFlows))
	}
	if p.SetMark|p.ClearMark != 0 {
		r.meta(unix.NFT_META_MARK, 0)
		r.bitwise(native32(^(p.SetMark | p.ClearMark)), native32(p.SetMark))
		r.setMeta(unix.NFT_META_MARK, 0)
	}
	if p.Track {
		r.expr("notrack", nil)
	}
	if p.SetDSCP {
		errs = append(errs, r.setDSCP(p.DSCP))
	}
	if p.Dispatch != nil {
		r.dispatch(p.Dispatch)
		errs = append(errs, r.checkSet(p.Dispatch.Classes, plan.MapClasses), r.checkSet(p.Dispatch.Chains, plan.MapChains))
		return errors.Join(errs...)
	}
	errs = append(errs, r.judge(p))
	return errors.Join(errs...)
}

func (r *ruler) judge(p *plan.Rule) error {
	switch p.Verdict {
	case plan.Continue:
	case plan.Accept:
		r.verdict(1, "") // NF_ACCEPT
	case plan.Drop:
		r.verdict(0, "") // NF_DROP
	case plan.Return:
		r.verdict(unix.NFT_RETURN, "")
	case plan.Jump, plan.Goto:
		if p.Target == "" || len(p.Target) > maxName {
			return fmt.Errorf("chain %q: want 1 to %d bytes", p.Target, maxName)
		}
		code := int32(unix.NFT_JUMP)
		if p.Verdict == plan.Goto {
			code = unix.NFT_GOTO
		}
		r.verdict(code, p.Target)
	case plan.Reject:
		r.reject()
	case plan.Masquerade, plan.SNAT, plan.DNAT:
		return r.nat(p)
	default:
		return fmt.Errorf("verdict %d: is not known", p.Verdict)
	}
	return nil
}

func (r *ruler) reject() {
	r.expr("reject", func() {
		switch {
		case r.reset:
			r.u32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST)
		case r.v6:
			r.u32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMP_UNREACH)
			r.u8(unix.NFTA_REJECT_ICMP_CODE, icmpv6AdminProhibited)
		default:
			r.u32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMP_UNREACH)
			r.u8(unix.NFTA_REJECT_ICMP_CODE, icmpAdminProhibited)
		}
	})
}

// dispatch looks up the class of the interface, and the chain of the class. nft(8)
// 1.0.6 cannot print a lookup of what a lookup found: it aborts, and so prints nothing
// of the whole ruleset. Therefore the class is found at the end of a value that begins
// a word before register 2, where nft believes the interface to be: it prints
// `iifname vmap @CHAINS`, and the comment says how it is.
func (r *ruler) dispatch(d *plan.Dispatch) {
	key := uint32(unix.NFT_META_IIFNAME)
	if d.Out {
		key = unix.NFT_META_OIFNAME
	}
	const second = linkBytes / 4
	r.meta(key, 0)
	r.meta(key, second)
	r.mapTo(d.Classes, 0, reg(second-classPad/4))
	r.mapTo(d.Chains, second, unix.NFT_REG_VERDICT)
}

// dispatchComment is what nft(8) is to list with a rule that has no comment.
func dispatchComment(d *plan.Dispatch) string {
	by := "iifname"
	if d.Out {
		by = "oifname"
	}
	text := by + " map @" + d.Classes + " vmap @" + d.Chains
	return text[:min(len(text), maxComment)]
}

func (r *ruler) log(l *plan.NFLog) error {
	if len(l.Prefix) > maxPrefix {
		return fmt.Errorf("log prefix of %d bytes: want at most %d", len(l.Prefix), maxPrefix)
	}
	if l.Rate > 0 {
		r.expr("limit", func() {
			r.u64(unix.NFTA_LIMIT_RATE, uint64(l.Rate))
			r.u64(unix.NFTA_LIMIT_UNIT, uint64(max(l.PerSeconds, 1)))
			r.u32(unix.NFTA_LIMIT_BURST, max(l.Burst, 1))
			r.u32(unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS)
			r.u32(unix.NFTA_LIMIT_FLAGS, 0)
		})
	}
	r.expr("log", func() {
		if l.Prefix != "" {
			r.str(unix.NFTA_LOG_PREFIX, l.Prefix)
		}
		r.u16(unix.NFTA_LOG_GROUP, l.Group)
		r.u32(unix.NFTA_LOG_SNAPLEN, logCopyBytes)
	})
	return nil
}
