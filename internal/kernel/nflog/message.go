package nflog

import (
	"bytes"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// The wire format of linux/netfilter/nfnetlink_log.h. Numbers are in network byte
// order.
const (
	msgPacket = unix.NFNL_SUBSYS_ULOG << 8   // NFULNL_MSG_PACKET
	msgConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG

	genBytes = 4 // struct nfgenmsg: family, version, group

	configCommand = 1 // NFULA_CFG_CMD
	configMode    = 2 // NFULA_CFG_MODE
	configBuffer  = 3 // NFULA_CFG_NLBUFSIZ
	configTimeout = 4 // NFULA_CFG_TIMEOUT
	configPackets = 5 // NFULA_CFG_QTHRESH
	configFlags   = 6 // NFULA_CFG_FLAGS

	commandBind = 1 // NFULNL_CFG_CMD_BIND
	copyPacket  = 2 // NFULNL_COPY_PACKET
	flagNumber  = 1 // NFULNL_CFG_F_SEQ

	packetHeader    = 1  // NFULA_PACKET_HDR
	packetMark      = 2  // NFULA_MARK
	packetTime      = 3  // NFULA_TIMESTAMP
	packetInDevice  = 4  // NFULA_IFINDEX_INDEV
	packetOutDevice = 5  // NFULA_IFINDEX_OUTDEV
	packetPayload   = 9  // NFULA_PAYLOAD
	packetPrefix    = 10 // NFULA_PREFIX
	packetNumber    = 12 // NFULA_SEQ
)

// appendBind adds the message that binds a group to the socket that sends it.
func appendBind(b []byte, seq uint32, group uint16) []byte {
	start := len(b)
	b = netlink.AppendHeader(b, msgConfig, unix.NLM_F_REQUEST|unix.NLM_F_ACK, seq)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(group>>8), byte(group))
	b = netlink.AppendAttr(b, configCommand, []byte{commandBind})
	mode := binary.BigEndian.AppendUint32(nil, copyBytes)
	b = netlink.AppendAttr(b, configMode, append(mode, copyPacket, 0))
	b = netlink.AppendAttrBE32(b, configBuffer, bufferBytes)
	b = netlink.AppendAttrBE32(b, configTimeout, gatherTime)
	b = netlink.AppendAttrBE32(b, configPackets, gatherPackets)
	b = netlink.AppendAttr(b, configFlags, []byte{0, flagNumber})
	netlink.EndMessage(b, start)
	return b
}

// record is a message about a packet. Its bytes belong to the datagram.
type record struct {
	group           uint16
	hook            uint8
	mark            uint32
	in, out         uint32 // indexes of links; 0: none
	seq             uint32
	numbered        bool
	at              time.Time
	prefix, payload []byte
}

// parse reads the body of a message; it reports whether it is whole.
func (r *record) parse(b []byte) bool {
	if len(b) < genBytes {
		return false
	}
	r.group = binary.BigEndian.Uint16(b[2:])
	header := false
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		switch typ {
		case packetHeader: // protocol, hook
			if len(v) >= 3 {
				r.hook, header = v[2], true
			}
		case packetMark:
			r.mark = netlink.BE32(v)
		case packetTime:
			if len(v) >= 16 {
				r.at = time.Unix(int64(netlink.BE64(v)), int64(netlink.BE64(v[8:]))*1000)
			}
		case packetInDevice:
			r.in = netlink.BE32(v)
		case packetOutDevice:
			r.out = netlink.BE32(v)
		case packetPayload:
			r.payload = v
		case packetPrefix:
			r.prefix, _, _ = bytes.Cut(v, []byte{0})
		case packetNumber:
			r.seq, r.numbered = netlink.BE32(v), len(v) >= 4
		}
	}
	return header && r.hook <= uint8(plan.Postrouting)
}

// event is what r tells, with the names of its links.
func (r *record) event(name func(index uint32) string) Event {
	e := Event{Prefix: string(r.prefix), Hook: plan.Hook(r.hook), Mark: r.mark, Time: r.at}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Packet, e.Bytes = packet(r.payload)
	e.Packet.InLink, e.Packet.OutLink = name(r.in), name(r.out)
	return e
}
