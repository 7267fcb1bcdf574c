package remnant

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// The wire formats of linux/netfilter/nf_tables.h and linux/netfilter/ipset/ip_set.h.
const (
	nft         = unix.NFNL_SUBSYS_NFTABLES << 8
	msgNewTable = nft | unix.NFT_MSG_NEWTABLE
	msgGetTable = nft | unix.NFT_MSG_GETTABLE
	msgDelTable = nft | unix.NFT_MSG_DELTABLE
	msgNewChain = nft | unix.NFT_MSG_NEWCHAIN
	msgGetChain = nft | unix.NFT_MSG_GETCHAIN
	msgDelChain = nft | unix.NFT_MSG_DELCHAIN
	msgNewRule  = nft | unix.NFT_MSG_NEWRULE
	msgGetRule  = nft | unix.NFT_MSG_GETRULE
	msgDelRule  = nft | unix.NFT_MSG_DELRULE

	ipset           = unix.NFNL_SUBSYS_IPSET << 8
	msgDestroySet   = ipset | 3 // IPSET_CMD_DESTROY
	msgListSets     = ipset | 7 // IPSET_CMD_LIST
	attrProtocol    = 1         // IPSET_ATTR_PROTOCOL
	attrSetName     = 2         // IPSET_ATTR_SETNAME
	attrFlags       = 6         // IPSET_ATTR_FLAGS
	flagNamesOnly   = 1 << 1    // IPSET_FLAG_LIST_SETNAME
	ipsetProtocol   = 6         // the oldest that kernels take
	netByteOrder    = 1 << 14   // NLA_F_NET_BYTEORDER
	genBytes        = 4         // struct nfgenmsg
	ruleCommentData = 0         // NFTNL_UDATA_RULE_COMMENT
)

// setPrefixes are those of Calico's ipsets, of IPv4 and IPv6.
func setPrefixes() [2]string { return [2]string{"cali40", "cali60"} }

// key begins the body of a message about the rules of t.
func (t *table) key(b []byte) []byte {
	return netlink.AppendAttrString(append(b, t.family, unix.NFNETLINK_V0, 0, 0), unix.NFTA_RULE_TABLE, t.name)
}

// batchEdge adds the message that begins or ends a batch.
func batchEdge(b []byte, typ uint16, seq uint32) []byte {
	start := len(b)
	b = netlink.AppendHeader(b, typ, unix.NLM_F_REQUEST, seq)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	netlink.EndMessage(b, start)
	return b
}

func appendBE64(b []byte, typ uint16, v uint64) []byte {
	return netlink.AppendAttr(b, typ, binary.BigEndian.AppendUint64(nil, v))
}

// chainOf reads two texts of a message: of a table and a chain, by their attributes.
func chainOf(b []byte, tableAttr, chainAttr uint16) (table, chain string) {
	if len(b) < genBytes {
		return "", ""
	}
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		switch typ {
		case tableAttr:
			table = text(v)
		case chainAttr:
			chain = text(v)
		}
	}
	return table, chain
}

// calicoRule reads a rule; ok: it leads to a chain of Calico, or has a note of its.
func calicoRule(b []byte) (handle uint64, ok bool) {
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		switch typ {
		case unix.NFTA_RULE_HANDLE:
			if len(v) >= 8 {
				handle = netlink.BE64(v)
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, expr := range netlink.Attributes(v) {
				ok = ok || calicoExpression(expr)
			}
		case unix.NFTA_RULE_USERDATA:
			ok = ok || strings.HasPrefix(userComment(v), notePrefix)
		}
	}
	return handle, ok && handle != 0
}

func calicoExpression(b []byte) bool {
	var name string
	var data []byte
	for typ, v := range netlink.Attributes(b) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = text(v)
		case unix.NFTA_EXPR_DATA:
			data = v
		}
	}
	switch name {
	case "immediate":
		return strings.HasPrefix(verdictChain(data), chainPrefix)
	case "match":
		match, info := "", []byte(nil)
		for typ, v := range netlink.Attributes(data) {
			switch typ {
			case unix.NFTA_MATCH_NAME:
				match = text(v)
			case unix.NFTA_MATCH_INFO:
				info = v
			}
		}
		return match == "comment" && strings.HasPrefix(text(info), notePrefix)
	}
	return false
}

// verdictChain is the chain to which an immediate expression leads; empty: to none.
func verdictChain(b []byte) string {
	for _, path := range []uint16{unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN} {
		var inner []byte
		for typ, v := range netlink.Attributes(b) {
			if typ == path {
				inner = v
			}
		}
		b = inner
	}
	return text(b)
}

// userComment is the comment in a rule's user data: type, length, bytes, repeated.
func userComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == ruleCommentData {
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

// sets are the names of Calico's ipsets. A kernel without ipset has none.
func (r *Remnants) sets() ([]string, error) {
	body := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}
	body = netlink.AppendAttr(body, attrProtocol, []byte{ipsetProtocol})
	body = netlink.AppendAttr(body, attrFlags|netByteOrder, binary.BigEndian.AppendUint32(nil, flagNamesOnly))
	var out []string
	err := r.socket.Dump(msgListSets, body, func(typ uint16, body []byte) {
		name, _ := chainOf(body, attrSetName, 0)
		if typ != msgListSets {
			return
		}
		for _, p := range setPrefixes() {
			if strings.HasPrefix(name, p) {
				out = append(out, name)
			}
		}
	}, nil)
	if err == unix.EINVAL || err == unix.EOPNOTSUPP { // no such subsystem
		return nil, nil
	}
	if err != nil {
		return out, fmt.Errorf("remnant: list ipsets: %w", err)
	}
	return out, nil
}

// destroy deletes an ipset, which no rule may refer to.
func (r *Remnants) destroy(name string) error {
	seq := r.socket.Next()
	b := netlink.AppendHeader(nil, msgDestroySet, unix.NLM_F_REQUEST|unix.NLM_F_ACK, seq)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	b = netlink.AppendAttr(b, attrProtocol, []byte{ipsetProtocol})
	b = netlink.AppendAttrString(b, attrSetName, name)
	netlink.EndMessage(b, 0)
	var refused unix.Errno
	if err := r.socket.Exchange(b, seq, func(_ uint32, errno unix.Errno) { refused = errno }); err != nil {
		return err
	}
	if refused != 0 && refused != unix.ENOENT {
		return refused
	}
	return nil
}
