package fib

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// A message of a routing rule is struct fib_rule_hdr and attributes (linux/fib_rules.h).
const (
	ruleBytes = 12

	ruleToTable = 1 // FR_ACT_TO_TBL
	ruleInvert  = 2 // FIB_RULE_INVERT

	fraPriority       = 6
	fraMark           = 10
	fraSuppressGroup  = 13
	fraSuppressPrefix = 14
	fraTable          = 15
	fraMask           = 16
	fraPad            = 18
	fraProtocol       = 21
)

// rule is what is known of a routing rule that is wanted.
type rule struct {
	want  plan.RoutingRule
	ok    bool // the kernel has it
	hit   bool // somebody deleted it while a request or a dump was under way
	errno unix.Errno
}

func (r *rule) whyNot() string {
	if r.errno != 0 {
		return "refused: " + r.errno.Error()
	}
	return "is being written"
}

// goneRule is one to delete.
type goneRule struct {
	plan.RoutingRule
	proto uint8 // 0: whoever made it
}

func (f *FIB) putRule(r plan.RoutingRule) {
	if f.rules[r] == nil {
		f.rules[r] = &rule{want: r}
		f.dirtyRules = true
	}
}

// deleteRule removes a rule, also if somebody else had made the same before us.
func (f *FIB) deleteRule(r plan.RoutingRule) {
	if f.rules[r] != nil {
		delete(f.rules, r)
		f.goneRules = append(f.goneRules, goneRule{RoutingRule: r})
	}
}

// flushRules writes the rules that the kernel lacks, then removes those that are
// wanted no more.
func (f *FIB) flushRules() {
	if f.dirtyRules {
		f.dirtyRules = false
		for _, r := range f.rules {
			if !r.ok {
				f.stageRule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, goneRule{r.want, f.opts.Protocols[0]}, op{kind: addRule, rule: r})
			}
		}
		f.exchange()
	}
	gone := f.goneRules
	f.goneRules = nil
	for _, g := range gone {
		if f.rules[g.RoutingRule] == nil { // else it was put again
			f.stageRule(unix.RTM_DELRULE, 0, g, op{kind: deleteRule})
		}
	}
	f.exchange()
}

func (f *FIB) stageRule(typ, flags uint16, r goneRule, o op) {
	if o.rule != nil {
		o.rule.hit = false
	}
	if f.batch.full() {
		f.exchange()
	}
	b := &f.batch
	b.open(typ, flags, o)
	b.buf = appendRule(b.buf, r)
	b.close()
}

func appendRule(b []byte, r goneRule) []byte {
	var table uint8
	if r.Table < 256 {
		table = uint8(r.Table)
	}
	var flags uint32
	if r.Not {
		flags = ruleInvert
	}
	b = append(b, netlink.Family(r.V6), 0, 0, 0, table, 0, 0, ruleToTable)
	b = netlink.Native.AppendUint32(b, flags)
	b = netlink.AppendAttr32(b, fraPriority, r.Priority)
	b = netlink.AppendAttr32(b, fraTable, r.Table)
	if r.Mask != 0 {
		b = netlink.AppendAttr32(b, fraMark, r.Mark)
		b = netlink.AppendAttr32(b, fraMask, r.Mask)
	}
	if r.proto != 0 {
		b = netlink.AppendAttr(b, fraProtocol, []byte{r.proto})
	}
	return b
}

// parseRule reads a rule of the kernel and who made it. It is not ok when it is none
// that we could have made.
func parseRule(b []byte) (r goneRule, ok bool) {
	if len(b) < ruleBytes || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return r, false
	}
	flags := netlink.Native.Uint32(b[8:])
	r.V6, r.Not, r.Table = b[0] == unix.AF_INET6, flags&ruleInvert != 0, uint32(b[4])
	ok = b[1]|b[2]|b[3] == 0 && b[7] == ruleToTable
	for typ, v := range netlink.Attributes(b[ruleBytes:]) {
		switch typ {
		case fraPriority:
			r.Priority = netlink.Uint32(v)
		case fraMark:
			r.Mark = netlink.Uint32(v)
		case fraMask:
			r.Mask = netlink.Uint32(v)
		case fraTable:
			r.Table = netlink.Uint32(v)
		case fraProtocol:
			if len(v) > 0 {
				r.proto = v[0]
			}
		case fraSuppressGroup, fraSuppressPrefix:
			ok = ok && netlink.Uint32(v) == ^uint32(0) // none
		case fraPad:
		default:
			ok = false // another condition
		}
	}
	return r, ok
}

// readRules compares the rules of the kernel with what is wanted.
func (f *FIB) readRules() error {
	there := map[plan.RoutingRule]bool{}
	for _, r := range f.rules {
		r.hit = false
	}
	for _, v6 := range []bool{false, true} {
		body := make([]byte, ruleBytes)
		body[0] = netlink.Family(v6)
		err := f.dump(unix.RTM_GETRULE, body, func(typ uint16, body []byte) {
			r, ok := parseRule(body)
			if typ != unix.RTM_NEWRULE || !ok {
				return
			}
			there[r.RoutingRule] = true
			if f.clusterSynced && r.proto == f.opts.Protocols[0] && f.rules[r.RoutingRule] == nil {
				f.goneRules = append(f.goneRules, r)
			}
		})
		if err != nil {
			return err
		}
	}
	for want, r := range f.rules {
		r.ok = there[want] && !r.hit
		f.dirtyRules = f.dirtyRules || !r.ok
		if r.ok {
			r.errno = 0
		}
	}
	return nil
}

// ruleGone takes in that somebody else deleted a rule.
func (f *FIB) ruleGone(b []byte) {
	g, ok := parseRule(b)
	if r := f.rules[g.RoutingRule]; ok && r != nil {
		r.ok, r.hit = false, true
		f.dirtyRules = true
	}
}

func (f *FIB) settleRule(r *rule, errno unix.Errno) {
	if errno == unix.EEXIST {
		errno = 0 // the same, whoever made it
	}
	r.ok, r.errno = errno == 0 && !r.hit, errno
	f.wake()
}

// ruleProblems are the rules that the kernel refuses.
func (f *FIB) ruleProblems() (errs []error) {
	for want, r := range f.rules {
		if r.errno != 0 {
			errs = append(errs, fmt.Errorf("fib: rule %v: %w", want, r.errno))
		}
	}
	return errs
}
