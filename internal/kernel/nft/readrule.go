package nft

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// kernelRule is a rule as a message tells it.
type kernelRule struct {
	table, chain []byte
	handle       uint64
	body         body // with counters at zero
}

// parseRule reads a message of a rule, in which it sets counters to zero.
func parseRule(b []byte) (r kernelRule, ok bool) {
	if len(b) < 4 {
		return r, false
	}
	return parseRuleAttrs(b[4:])
}

func parseRuleAttrs(b []byte) (r kernelRule, ok bool) {
	at := 0
	for a, v := range netlink.Attributes(b) {
		start := at
		at += netlink.Align(4 + len(v))
		switch a {
		case unix.NFTA_RULE_TABLE:
			r.table = cString(v)
		case unix.NFTA_RULE_CHAIN:
			r.chain = cString(v)
		case unix.NFTA_RULE_HANDLE:
			r.handle = netlink.BE64(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			blankCounters(v)
			r.body = body(b[start:])
		case unix.NFTA_RULE_USERDATA:
			if r.body == nil {
				r.body = body(b[start:])
			}
		}
	}
	return r, r.handle != 0
}

// blankCounters sets the counters in a list of expressions to zero.
func blankCounters(list []byte) {
	forCounters(list, func(v []byte) { clear(v) })
}

// forCounters calls f with the values of the counters in a list of expressions: bytes
// and packets, in turn.
func forCounters(list []byte, f func(v []byte)) {
	for _, expr := range netlink.Attributes(list) {
		counter := false
		for a, v := range netlink.Attributes(expr) {
			switch a {
			case unix.NFTA_EXPR_NAME:
				counter = string(cString(v)) == "counter"
			case unix.NFTA_EXPR_DATA:
				if !counter {
					continue
				}
				for _, v := range netlink.Attributes(v) {
					f(v)
				}
			}
		}
	}
}

func (n *NFT) readRules(t *table) error {
	clear := func() {
		for _, c := range t.chains {
			c.scan = c.scan[:0]
		}
	}
	err := n.dump(t, unix.NFT_MSG_GETRULE, nameAttrs(unix.NFTA_RULE_TABLE, tableName), clear, func(b []byte) {
		r, ok := parseRuleAttrs(b)
		if c := t.chains[string(r.chain)]; ok && c != nil && string(r.table) == tableName {
			c.ruleMet(&r)
		}
	})
	if err != nil {
		return err
	}
	for _, c := range t.chains {
		if c.there {
			c.scanned()
		}
	}
	return nil
}

// readChain reads the rules of one chain, whose handles are not known.
func (n *NFT) readChain(c *chain) error {
	attrs := nameAttrs(unix.NFTA_RULE_TABLE, tableName, c.name)
	err := n.dump(c.t, unix.NFT_MSG_GETRULE, attrs, func() { c.scan = c.scan[:0] }, func(b []byte) {
		if r, ok := parseRuleAttrs(b); ok && string(r.chain) == c.name && string(r.table) == tableName {
			c.ruleMet(&r)
		}
	})
	if err != nil {
		return fmt.Errorf("read chain %s of %s: %w", c.name, c.t, err)
	}
	c.scanned()
	return nil
}

// ruleMet takes in the next rule of c. It keeps what it has in place of equal bytes.
func (c *chain) ruleMet(k *kernelRule) {
	i := len(c.scan)
	r := rule{handle: k.handle}
	switch {
	case i < len(c.actual) && c.actual[i].is(k.body):
		r.body, r.dumped = c.actual[i].body, c.actual[i].dumped
	case i < len(c.rules) && bytes.Equal(c.rules[i], k.body):
		r.body = c.rules[i]
	case i < len(c.actual) && c.actual[i].handle == 0 && c.epoch == c.t.epoch:
		// Ours, and nobody else was here: so this is how the kernel puts it.
		r.body, r.dumped = c.actual[i].body, slices.Clone(k.body)
	default:
		r.body = slices.Clone(k.body)
	}
	c.scan = append(c.scan, r)
}

// is reports whether the kernel's form b is that of r.
func (r *rule) is(b body) bool {
	return bytes.Equal(r.body, b) || r.dumped != nil && bytes.Equal(r.dumped, b)
}

// scanned takes in all rules of c.
func (c *chain) scanned() {
	c.actual = append(c.actual[:0], c.scan...)
	c.known, c.epoch = true, c.t.epoch
	if !c.want || !c.asWanted() {
		c.t.touchChain(c)
	}
}

// asWanted reports whether the rules in the kernel are those that are wanted.
func (c *chain) asWanted() bool {
	return slices.EqualFunc(c.actual, c.rules, func(r rule, b body) bool { return bytes.Equal(r.body, b) })
}
