package forward

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// The wire format of linux/netfilter/nf_tables.h. Numbers are in network byte order.
const (
	subsystem   = unix.NFNL_SUBSYS_NFTABLES << 8
	msgNewChain = subsystem | unix.NFT_MSG_NEWCHAIN
	msgGetChain = subsystem | unix.NFT_MSG_GETCHAIN
	msgDelChain = subsystem | unix.NFT_MSG_DELCHAIN
	msgNewRule  = subsystem | unix.NFT_MSG_NEWRULE
	msgGetRule  = subsystem | unix.NFT_MSG_GETRULE
	msgDelRule  = subsystem | unix.NFT_MSG_DELRULE

	nfDrop, nfAccept = 0, 1 // NF_DROP, NF_ACCEPT

	genBytes = 4 // struct nfgenmsg: family, version, resource

	// ownTable is the name of the tables that kernel/nft owns.
	ownTable = "weft"
	// comment marks our rules; userComment is the type under which nft and
	// iptables-nft keep comments in a rule's user data.
	comment     = "weft"
	userComment = 0 // NFTNL_UDATA_RULE_COMMENT
)

// chain identifies a chain of nf_tables.
type chain struct {
	family      uint8
	table, name string
}

// baseChain is a chain as the kernel tells of it.
type baseChain struct {
	chain
	base  bool
	hook  uint32
	typ   string
	drops bool // by its policy
}

// own reports whether the chain is one of ours, which are not our business here.
func (c *baseChain) own() bool { return c.table == ownTable }

// forwards reports whether packets that are forwarded pass the chain as a base chain.
func (c *baseChain) forwards() bool {
	switch c.family {
	case unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET:
		return c.base && c.hook == unix.NF_INET_FORWARD && (c.typ == "" || c.typ == "filter")
	}
	return false
}

// parseChain reads the body of a message about a chain.
func parseChain(b []byte) (c baseChain, ok bool) {
	if len(b) < genBytes {
		return c, false
	}
	c.family = b[0]
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			c.table = text(v)
		case unix.NFTA_CHAIN_NAME:
			c.name = text(v)
		case unix.NFTA_CHAIN_TYPE:
			c.typ = text(v)
		case unix.NFTA_CHAIN_POLICY:
			c.drops = len(v) >= 4 && netlink.BE32(v) == nfDrop
		case unix.NFTA_CHAIN_HOOK:
			for typ, v := range netlink.Attributes(v) {
				if typ == unix.NFTA_HOOK_HOOKNUM && len(v) >= 4 {
					c.base, c.hook = true, netlink.BE32(v)
				}
			}
		}
	}
	return c, c.table != "" && c.name != ""
}

// chainOfRule is the chain of the rule that a message is about.
func chainOfRule(b []byte) (c chain) {
	if len(b) < genBytes {
		return c
	}
	c.family = b[0]
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			c.table = text(v)
		case unix.NFTA_RULE_CHAIN:
			c.name = text(v)
			return c
		}
	}
	return c
}

// parseRule reads the body of a message about a rule.
func parseRule(b []byte) (r rule, ok bool) {
	if len(b) < genBytes {
		return r, false
	}
	var exprs, user []byte
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		switch typ {
		case unix.NFTA_RULE_HANDLE:
			r.at = netlink.BE64(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			exprs = v
		case unix.NFTA_RULE_USERDATA:
			user = v
		}
	}
	r.action, r.target = parseAction(exprs)
	note := userCommentOf(user)
	r.gate, r.ours = parseGate(exprs, &note)
	r.ours = r.ours && note == comment
	return r, r.at != 0
}

// parseAction finds what expressions do with every packet.
func parseAction(b []byte) (action, string) {
	for _, expr := range netlink.Attributes(b) {
		name, data := expression(expr)
		switch name {
		case "counter", "log":
		case "match":
			if nameOf(data, unix.NFTA_MATCH_NAME) != "comment" {
				return goesOn, ""
			}
		case "target":
			switch nameOf(data, unix.NFTA_TARGET_NAME) {
			case "REJECT":
				return drops, ""
			case "LOG", "NFLOG":
			default:
				return goesOn, ""
			}
		case "reject":
			return drops, ""
		case "immediate":
			return parseVerdict(data)
		default:
			return goesOn, "" // it may end the rule
		}
	}
	return goesOn, ""
}

// parseVerdict reads an immediate expression.
func parseVerdict(b []byte) (action, string) {
	for typ, v := range netlink.Attributes(b) {
		if typ != unix.NFTA_IMMEDIATE_DATA {
			continue
		}
		for typ, v := range netlink.Attributes(v) {
			if typ != unix.NFTA_DATA_VERDICT {
				continue
			}
			code, target := int32(0), ""
			for typ, v := range netlink.Attributes(v) {
				switch typ {
				case unix.NFTA_VERDICT_CODE:
					code = int32(netlink.BE32(v))
				case unix.NFTA_VERDICT_CHAIN:
					target = text(v)
				}
			}
			return verdict(code), target
		}
	}
	return goesOn, ""
}

func verdict(code int32) action {
	switch code {
	case nfDrop:
		return drops
	case nfAccept:
		return accepts
	case unix.NFT_JUMP:
		return jumps
	case unix.NFT_GOTO:
		return goesTo
	case unix.NFT_RETURN:
		return returns
	}
	return goesOn
}

// parseGate reads expressions that are exactly those of a rule of ours. iptables-nft,
// when it restores what it saved, keeps the comment in one more expression.
func parseGate(b []byte, note *string) (g gate, ok bool) {
	i := 0
	for _, expr := range netlink.Attributes(b) {
		name, data := expression(expr)
		switch {
		case i == 2 && name == "match" && nameOf(data, unix.NFTA_MATCH_NAME) == "comment":
			*note = nameOf(data, unix.NFTA_MATCH_INFO)
			continue
		case i == 0 && name == "meta":
			key := keyOf(data)
			if g.out = key == unix.NFT_META_OIFNAME; !g.out && key != unix.NFT_META_IIFNAME {
				return g, false
			}
		case i == 1 && name == "cmp":
			g.prefix = comparedWith(data)
		case i == 2 && name == "counter":
		case i == 3 && name == "immediate":
			a, _ := parseVerdict(data)
			ok = a == accepts
		default:
			return g, false
		}
		i++
	}
	return g, ok && g.prefix != ""
}

// keyOf is what a meta expression loads.
func keyOf(b []byte) uint32 {
	for typ, v := range netlink.Attributes(b) {
		if typ == unix.NFTA_META_KEY {
			return netlink.BE32(v)
		}
	}
	return 0
}

// comparedWith is the value of a comparison for equality.
func comparedWith(b []byte) (value string) {
	for typ, v := range netlink.Attributes(b) {
		switch typ {
		case unix.NFTA_CMP_OP:
			if netlink.BE32(v) != unix.NFT_CMP_EQ {
				return ""
			}
		case unix.NFTA_CMP_DATA:
			for typ, v := range netlink.Attributes(v) {
				if typ == unix.NFTA_DATA_VALUE {
					value = string(v)
				}
			}
		}
	}
	return value
}

func expression(b []byte) (name string, data []byte) {
	for typ, v := range netlink.Attributes(b) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = text(v)
		case unix.NFTA_EXPR_DATA:
			data = v
		}
	}
	return name, data
}

func nameOf(b []byte, attr uint16) string {
	for typ, v := range netlink.Attributes(b) {
		if typ == attr {
			return text(v)
		}
	}
	return ""
}

// userCommentOf is the comment in a rule's user data: type, length, bytes, repeated.
func userCommentOf(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == userComment {
			return text(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// text is a string without its terminator.
func text(v []byte) string {
	v, _, _ = bytes.Cut(v, []byte{0})
	return string(v)
}

// appendRule adds the body of a message that makes a rule of ours.
func (c chain) appendRule(b []byte, g gate, before uint64) []byte {
	b = c.appendRuleKey(b)
	if before != 0 {
		b = appendBE64(b, unix.NFTA_RULE_POSITION, before)
	}
	start := len(b)
	b = netlink.OpenNest(b, unix.NFTA_RULE_EXPRESSIONS)
	b = g.appendExpressions(b)
	netlink.CloseNest(b, start)
	user := append([]byte{userComment, byte(len(comment) + 1)}, comment...)
	return netlink.AppendAttr(b, unix.NFTA_RULE_USERDATA, append(user, 0))
}

func (c chain) appendRuleKey(b []byte) []byte {
	b = append(b, c.family, unix.NFNETLINK_V0, 0, 0)
	b = netlink.AppendAttrString(b, unix.NFTA_RULE_TABLE, c.table)
	return netlink.AppendAttrString(b, unix.NFTA_RULE_CHAIN, c.name)
}

// appendExpressions adds: load the name of the link, compare, count, accept.
func (g gate) appendExpressions(b []byte) []byte {
	key := uint32(unix.NFT_META_IIFNAME)
	if g.out {
		key = unix.NFT_META_OIFNAME
	}
	b = appendExpression(b, "meta", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_META_KEY, key)
		return netlink.AppendAttrBE32(b, unix.NFTA_META_DREG, unix.NFT_REG_1)
	})
	b = appendExpression(b, "cmp", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		return appendNest(b, unix.NFTA_CMP_DATA, func(b []byte) []byte {
			return netlink.AppendAttr(b, unix.NFTA_DATA_VALUE, []byte(g.prefix))
		})
	})
	b = appendExpression(b, "counter", func(b []byte) []byte { return b })
	return appendExpression(b, "immediate", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		return appendNest(b, unix.NFTA_IMMEDIATE_DATA, func(b []byte) []byte {
			return appendNest(b, unix.NFTA_DATA_VERDICT, func(b []byte) []byte {
				return netlink.AppendAttrBE32(b, unix.NFTA_VERDICT_CODE, nfAccept)
			})
		})
	})
}

func appendExpression(b []byte, name string, data func([]byte) []byte) []byte {
	return appendNest(b, unix.NFTA_LIST_ELEM, func(b []byte) []byte {
		b = netlink.AppendAttrString(b, unix.NFTA_EXPR_NAME, name)
		return appendNest(b, unix.NFTA_EXPR_DATA, data)
	})
}

func appendNest(b []byte, typ uint16, inside func([]byte) []byte) []byte {
	start := len(b)
	b = inside(netlink.OpenNest(b, typ))
	netlink.CloseNest(b, start)
	return b
}

func appendBE64(b []byte, typ uint16, v uint64) []byte {
	return netlink.AppendAttr(b, typ, binary.BigEndian.AppendUint64(nil, v))
}
