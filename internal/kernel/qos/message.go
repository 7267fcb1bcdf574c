package qos

import (
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// Of linux/pkt_sched.h, pkt_cls.h and tc_act/tc_mirred.h, which x/sys does not have.
const (
	tcBytes       = 20 // struct tcmsg
	linkInfoBytes = 16 // struct ifinfomsg

	parentRoot    = 0xffffffff // TC_H_ROOT
	parentIngress = 0xfffffff1 // TC_H_INGRESS
	handleIngress = 0xffff0000
	blockIngress  = 0xfffffff2 // what comes in, of both ingress and clsact

	tbfParms, tbfRate64, tbfPeak64, tbfBurst, tbfPeakBurst = 1, 4, 5, 6, 7 // TCA_TBF_…
	ratespecBytes                                          = 12            // struct tc_ratespec
	tbfBytes                                               = 2*ratespecBytes + 12
	linkEthernet                                           = 1 // TC_LINKLAYER_ETHERNET
	tickNanoseconds                                        = 64

	u32Selector, u32Actions = 5, 7 // TCA_U32_…
	u32Terminal             = 1    // TC_U32_TERMINAL
	actKind, actOptions     = 1, 2 // TCA_ACT_…
	mirredParms             = 2    // TCA_MIRRED_PARMS
	mirredBytes             = 28   // struct tc_mirred
	actStolen, redirectOut  = 4, 1 // TC_ACT_STOLEN, TCA_EGRESS_REDIR
)

// Marks of what is ours.
const (
	ourHandle     = 0xca71 << 16
	ourPreference = 0xca71
)

// tcHeader is the head of a message about queues of a link.
func tcHeader(index int32, handle, parent, info uint32) []byte {
	b := make([]byte, tcBytes, 256)
	n := netlink.Native
	n.PutUint32(b[4:], uint32(index))
	n.PutUint32(b[8:], handle)
	n.PutUint32(b[12:], parent)
	n.PutUint32(b[16:], info)
	return b
}

// putTBF asks for a token bucket as the root of a link's queues.
func putTBF(index int32, want bucket) []byte {
	b := tcHeader(index, ourHandle, parentRoot, 0)
	b = netlink.AppendAttrString(b, unix.TCA_KIND, "tbf")
	options := len(b)
	b = netlink.OpenNest(b, unix.TCA_OPTIONS)
	parms := make([]byte, tbfBytes)
	putRate(parms, want.rate)
	putRate(parms[ratespecBytes:], want.peak)
	n := netlink.Native
	n.PutUint32(parms[2*ratespecBytes:], want.limit)
	// The kernel makes buffer and mtu, in ticks, of the attributes in bytes below.
	b = netlink.AppendAttr(b, tbfParms, parms)
	b = netlink.AppendAttr32(b, tbfBurst, want.burst)
	if want.rate>>32 != 0 {
		b = netlink.AppendAttr(b, tbfRate64, n.AppendUint64(nil, want.rate))
	}
	if want.peak != 0 {
		b = netlink.AppendAttr32(b, tbfPeakBurst, want.peakBurst)
		if want.peak>>32 != 0 {
			b = netlink.AppendAttr(b, tbfPeak64, n.AppendUint64(nil, want.peak))
		}
	}
	netlink.CloseNest(b, options)
	return b
}

// putRate writes a struct tc_ratespec; bytes per second that do not fit are in an
// attribute of their own.
func putRate(b []byte, rate uint64) {
	if rate == 0 {
		return
	}
	b[1] = linkEthernet
	netlink.Native.PutUint32(b[8:], uint32(min(rate, 1<<32-1)))
}

// putFilter asks for all that comes in by a link to go to another device.
func putFilter(index, to int32) []byte {
	b := tcHeader(index, 0, blockIngress, filterInfo())
	b = netlink.AppendAttrString(b, unix.TCA_KIND, "u32")
	options := len(b)
	b = netlink.OpenNest(b, unix.TCA_OPTIONS)
	selector := make([]byte, 32) // one key, with a mask of nothing: every packet
	selector[0], selector[2] = u32Terminal, 1
	b = netlink.AppendAttr(b, u32Selector, selector)
	actions := len(b)
	b = netlink.OpenNest(b, u32Actions)
	first := len(b)
	b = netlink.OpenNest(b, 1)
	b = netlink.AppendAttrString(b, actKind, "mirred")
	inner := len(b)
	b = netlink.OpenNest(b, actOptions)
	mirred := make([]byte, mirredBytes)
	n := netlink.Native
	n.PutUint32(mirred[8:], actStolen)
	n.PutUint32(mirred[20:], redirectOut)
	n.PutUint32(mirred[24:], uint32(to))
	b = netlink.AppendAttr(b, mirredParms, mirred)
	netlink.CloseNest(b, inner)
	netlink.CloseNest(b, first)
	netlink.CloseNest(b, actions)
	netlink.CloseNest(b, options)
	return b
}

// filterInfo is preference and protocol (all of them) of our filters.
func filterInfo() uint32 {
	all := netlink.Native.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL}) // big-endian
	return ourPreference<<16 | uint32(all)
}

// newIFB asks for an ifb device, up.
func newIFB(name string, mtu uint32) []byte {
	b := make([]byte, linkInfoBytes, 128)
	netlink.Native.PutUint32(b[8:], unix.IFF_UP)
	netlink.Native.PutUint32(b[12:], unix.IFF_UP)
	b = netlink.AppendAttrString(b, unix.IFLA_IFNAME, name)
	b = netlink.AppendAttr32(b, unix.IFLA_MTU, mtu)
	info := len(b)
	b = netlink.OpenNest(b, unix.IFLA_LINKINFO)
	b = netlink.AppendAttrString(b, unix.IFLA_INFO_KIND, "ifb")
	netlink.CloseNest(b, info)
	return b
}

// linkOf is the body of a request about a link.
func linkOf(index int32, flags uint32) []byte {
	b := make([]byte, linkInfoBytes)
	netlink.Native.PutUint32(b[4:], uint32(index))
	netlink.Native.PutUint32(b[8:], flags)
	netlink.Native.PutUint32(b[12:], flags)
	return b
}
