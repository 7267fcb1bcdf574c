package ct

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// The wire format of ctnetlink (linux/netfilter/nfnetlink_conntrack.h). Numbers are
// in network byte order.
const (
	msgGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	msgStats = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5 // IPCTNL_MSG_CT_GET_STATS

	attrEntries = 1 // CTA_STATS_GLOBAL_ENTRIES

	genBytes = 4 // struct nfgenmsg: family, version, resource

	attrOrig     = 1  // CTA_TUPLE_ORIG
	attrReply    = 2  // CTA_TUPLE_REPLY
	attrStatus   = 3  // CTA_STATUS
	attrTimeout  = 7  // CTA_TIMEOUT
	attrMark     = 8  // CTA_MARK
	attrID       = 12 // CTA_ID
	attrMaster   = 14 // CTA_TUPLE_MASTER
	attrZone     = 18 // CTA_ZONE
	attrMarkMask = 21 // CTA_MARK_MASK

	tupleIP    = 1 // CTA_TUPLE_IP
	tupleProto = 2 // CTA_TUPLE_PROTO
	tupleZone  = 3 // CTA_TUPLE_ZONE

	ipV4Src = 1 // CTA_IP_V4_SRC, followed by V4_DST
	ipV6Src = 3 // CTA_IP_V6_SRC, followed by V6_DST

	protoNum     = 1 // CTA_PROTO_NUM
	protoSrcPort = 2
	protoDstPort = 3
	protoICMP    = 4 // CTA_PROTO_ICMP_ID, followed by TYPE and CODE
	protoICMPv6  = 7 // CTA_PROTO_ICMPV6_ID, followed by TYPE and CODE
)

// parse reads the body of a message about a flow into f. It reports whether the
// message tells of one, whole: bytes of any kind do not make it panic.
func (f *Flow) parse(b []byte) bool {
	if len(b) < genBytes {
		return false
	}
	*f = Flow{}
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		switch typ {
		case attrOrig:
			var zone uint16
			if zone, f.oneWay = f.Orig.parse(v); f.oneWay {
				f.Zone = zone
			}
		case attrReply:
			f.Reply.parse(v)
		case attrMaster:
			f.Master.parse(v)
		case attrStatus:
			f.Status = Status(netlink.BE32(v))
		case attrTimeout:
			f.Timeout = netlink.BE32(v)
		case attrMark:
			f.Mark = netlink.BE32(v)
		case attrID:
			f.ID = netlink.BE32(v)
		case attrZone:
			f.Zone = be16(v)
		}
	}
	return f.Orig.whole() && f.Reply.whole()
}

func (t *Tuple) whole() bool { return t.Src.IsValid() && t.Src.BitLen() == t.Dst.BitLen() }

// parse reads a nested tuple, and the zone of its direction if it has one.
func (t *Tuple) parse(b []byte) (zone uint16, zoned bool) {
	for typ, v := range netlink.Attributes(b) {
		switch typ {
		case tupleIP:
			t.parseAddrs(v)
		case tupleProto:
			t.parseProtocol(v)
		case tupleZone:
			zone, zoned = be16(v), true
		}
	}
	return zone, zoned
}

func (t *Tuple) parseAddrs(b []byte) {
	for typ, v := range netlink.Attributes(b) {
		addr, ok := netip.AddrFromSlice(v)
		switch {
		case !ok:
		case typ == ipV4Src, typ == ipV6Src:
			t.Src = addr.Unmap()
		case typ == ipV4Src+1, typ == ipV6Src+1:
			t.Dst = addr.Unmap()
		}
	}
}

func (t *Tuple) parseProtocol(b []byte) {
	for typ, v := range netlink.Attributes(b) {
		if len(v) == 0 {
			continue
		}
		switch typ {
		case protoNum:
			t.Protocol = v[0]
		case protoSrcPort:
			t.SrcPort = be16(v)
		case protoDstPort:
			t.DstPort = be16(v)
		case protoICMP, protoICMPv6:
			t.ICMPID = be16(v)
		case protoICMP + 1, protoICMPv6 + 1:
			t.ICMPType = v[0]
		case protoICMP + 2, protoICMPv6 + 2:
			t.ICMPCode = v[0]
		}
	}
}

// appendRequest adds what a request to list the flows of f has behind its header.
// Kernels that do not know a filter ignore it.
func (f Filter) appendRequest(b []byte) []byte {
	b = appendGen(b, f.Family)
	if f.MarkMask != 0 {
		b = netlink.AppendAttrBE32(b, attrMark, f.Mark)
		b = netlink.AppendAttrBE32(b, attrMarkMask, f.MarkMask)
	}
	if f.Zoned {
		b = appendBE16(b, attrZone, f.Zone) // since Linux 6.8
	}
	return b
}

// appendDelete adds what a request to delete f has behind its header.
func (f *Flow) appendDelete(b []byte) []byte {
	b = appendGen(b, family(f.Orig.Src))
	start := len(b)
	b = netlink.OpenNest(b, attrOrig)
	b = f.Orig.appendTo(b)
	if f.oneWay {
		b = appendBE16(b, tupleZone, f.Zone)
	}
	netlink.CloseNest(b, start)
	b = netlink.AppendAttrBE32(b, attrID, f.ID)
	if f.Zone != 0 && !f.oneWay {
		b = appendBE16(b, attrZone, f.Zone)
	}
	return b
}

func (t *Tuple) appendTo(b []byte) []byte {
	start := len(b)
	b = netlink.OpenNest(b, tupleIP)
	if t.Src.Is4() {
		src, dst := t.Src.As4(), t.Dst.As4()
		b = netlink.AppendAttr(b, ipV4Src, src[:])
		b = netlink.AppendAttr(b, ipV4Src+1, dst[:])
	} else {
		src, dst := t.Src.As16(), t.Dst.As16()
		b = netlink.AppendAttr(b, ipV6Src, src[:])
		b = netlink.AppendAttr(b, ipV6Src+1, dst[:])
	}
	netlink.CloseNest(b, start)

	start = len(b)
	b = netlink.OpenNest(b, tupleProto)
	b = append8(b, protoNum, t.Protocol)
	switch icmp := uint16(protoICMP); {
	case t.HasPorts():
		b = appendBE16(b, protoSrcPort, t.SrcPort)
		b = appendBE16(b, protoDstPort, t.DstPort)
	case t.Protocol == unix.IPPROTO_ICMPV6:
		icmp = protoICMPv6
		fallthrough
	case t.Protocol == unix.IPPROTO_ICMP:
		b = appendBE16(b, icmp, t.ICMPID)
		b = append8(b, icmp+1, t.ICMPType)
		b = append8(b, icmp+2, t.ICMPCode)
	}
	netlink.CloseNest(b, start)
	return b
}

func appendGen(b []byte, family uint8) []byte {
	return append(b, family, unix.NFNETLINK_V0, 0, 0)
}

func append8(b []byte, typ uint16, v uint8) []byte { return netlink.AppendAttr(b, typ, []byte{v}) }

func appendBE16(b []byte, typ, v uint16) []byte {
	return netlink.AppendAttr(b, typ, []byte{byte(v >> 8), byte(v)})
}

func be16(v []byte) uint16 {
	if len(v) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(v)
}
