package qos

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// link is a link as the kernel tells it.
type link struct {
	name, kind string
	index      int32
	mtu        uint32
	up         bool
	root       qdisc
	ingress    string // kind of the qdisc of what comes in; empty: none
}

// qdisc is the root of a link's queues.
type qdisc struct {
	handle uint32 // 0: the kernel's default
	kind   string
	bucket bucket // of tbf
	ticks  [2]uint32
}

func (q *qdisc) ours() bool { return q.handle == ourHandle && q.kind == "tbf" }

// state is what the kernel has.
type state struct {
	byName  map[string]*link
	byIndex map[int32]*link
}

// ifbPrefix starts the names of our ifb devices; what follows is of a hash of the link
// that it is for.
const ifbPrefix = "weftq"

// ifbFor is the name of the ifb device of a link, 15 bytes.
func ifbFor(link string) string {
	sum := sha256.Sum256([]byte(link))
	return ifbPrefix + hex.EncodeToString(sum[:5])
}

func (l *link) isIFB() bool {
	return l.kind == "ifb" && strings.HasPrefix(l.name, ifbPrefix) && len(l.name) == 15
}

// read reads all links and their queues.
func (q *QoS) read() (*state, error) {
	for range 10 {
		s, err := q.readOnce()
		if err == nil || !errors.Is(err, netlink.ErrInterrupted) {
			return s, err
		}
	}
	return nil, fmt.Errorf("qos: read links: %w ten times in a row", netlink.ErrInterrupted)
}

func (q *QoS) readOnce() (*state, error) {
	s := &state{map[string]*link{}, map[int32]*link{}}
	const skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	all := netlink.AppendAttr32(make([]byte, linkInfoBytes), unix.IFLA_EXT_MASK, skipStatistics)
	err := q.socket.Dump(unix.RTM_GETLINK, all, func(_ uint16, body []byte) {
		if l, ok := parseLink(body); ok {
			s.byName[l.name], s.byIndex[l.index] = &l, &l
		}
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("qos: read links: %w", err)
	}
	err = q.socket.Dump(unix.RTM_GETQDISC, make([]byte, tcBytes), func(_ uint16, body []byte) { s.addQdisc(body) }, nil)
	if err != nil {
		return nil, fmt.Errorf("qos: read queues: %w", err)
	}
	return s, nil
}

func parseLink(b []byte) (l link, ok bool) {
	if len(b) < linkInfoBytes || b[0] != unix.AF_UNSPEC {
		return l, false
	}
	l.index = int32(netlink.Native.Uint32(b[4:]))
	l.up = netlink.Native.Uint32(b[8:])&unix.IFF_UP != 0
	for typ, v := range netlink.Attributes(b[linkInfoBytes:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = text(v)
		case unix.IFLA_MTU:
			l.mtu = netlink.Uint32(v)
		case unix.IFLA_LINKINFO:
			for typ, v := range netlink.Attributes(v) {
				if typ == unix.IFLA_INFO_KIND {
					l.kind = text(v)
				}
			}
		}
	}
	return l, l.name != ""
}

func text(v []byte) string { return strings.TrimRight(string(v), "\x00") }

func (s *state) addQdisc(b []byte) {
	if len(b) < tcBytes {
		return
	}
	n := netlink.Native
	l := s.byIndex[int32(n.Uint32(b[4:]))]
	if l == nil {
		return
	}
	d := qdisc{handle: n.Uint32(b[8:])}
	for typ, v := range netlink.Attributes(b[tcBytes:]) {
		switch typ {
		case unix.TCA_KIND:
			d.kind = text(v)
		case unix.TCA_OPTIONS:
			if d.kind == "tbf" {
				d.parseTBF(v)
			}
		}
	}
	switch n.Uint32(b[12:]) {
	case parentRoot:
		l.root = d
	case parentIngress:
		l.ingress = d.kind
	}
}

func (d *qdisc) parseTBF(options []byte) {
	n := netlink.Native
	var rate64, peak64 uint64
	for typ, v := range netlink.Attributes(options) {
		switch {
		case typ == tbfParms && len(v) >= tbfBytes:
			d.bucket.rate, d.bucket.peak = uint64(n.Uint32(v[8:])), uint64(n.Uint32(v[ratespecBytes+8:]))
			d.bucket.limit = n.Uint32(v[2*ratespecBytes:])
			d.ticks = [2]uint32{n.Uint32(v[2*ratespecBytes+4:]), n.Uint32(v[2*ratespecBytes+8:])}
		case typ == tbfRate64 && len(v) >= 8:
			rate64 = n.Uint64(v)
		case typ == tbfPeak64 && len(v) >= 8:
			peak64 = n.Uint64(v)
		}
	}
	if rate64 != 0 {
		d.bucket.rate = rate64
	}
	if peak64 != 0 {
		d.bucket.peak = peak64
	}
}

// redirect finds our filter on what comes in by a link: to is where it leads; there says
// whether there is one; others, whether there are filters of somebody else.
func (q *QoS) redirect(index int32) (to int32, there, others bool, err error) {
	err = q.socket.Dump(unix.RTM_GETTFILTER, tcHeader(index, 0, blockIngress, 0), func(_ uint16, b []byte) {
		if len(b) < tcBytes {
			return
		}
		if netlink.Native.Uint32(b[16:])>>16 != ourPreference {
			others = true
			return
		}
		there = true
		if i := mirredTo(b[tcBytes:]); i != 0 {
			to = i
		}
	}, nil)
	if err != nil && !errors.Is(err, unix.EINVAL) { // which says that the qdisc has gone
		return 0, false, false, fmt.Errorf("read filters: %w", err)
	}
	return to, there, others, nil
}

// mirredTo is the device to which a filter sends packets; 0: it does not.
func mirredTo(attrs []byte) int32 {
	find := func(b []byte, want uint16) []byte {
		for typ, v := range netlink.Attributes(b) {
			if typ == want {
				return v
			}
		}
		return nil
	}
	first := find(find(find(attrs, unix.TCA_OPTIONS), u32Actions), 1)
	if text(find(first, actKind)) != "mirred" {
		return 0
	}
	if m := find(find(first, actOptions), mirredParms); len(m) >= mirredBytes {
		return int32(netlink.Native.Uint32(m[24:]))
	}
	return 0
}
