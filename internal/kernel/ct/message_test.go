package ct

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// tuple reads "PROTOCOL SRC > DST" as [Tuple.String] writes it, and "1 SRC > DST
// ID/TYPE/CODE" of ICMP.
func tuple(t testing.TB, s string) Tuple {
	t.Helper()
	var out Tuple
	proto, rest, _ := strings.Cut(s, " ")
	src, dst, ok := strings.Cut(rest, " > ")
	dst, icmp, isICMP := strings.Cut(dst, " ")
	_, err := fmt.Sscan(proto, &out.Protocol)
	if err != nil || !ok {
		t.Fatalf("tuple %q: want PROTOCOL SRC > DST", s)
	}
	if isICMP {
		if _, err := fmt.Sscanf(icmp, "%d/%d/%d", &out.ICMPID, &out.ICMPType, &out.ICMPCode); err != nil {
			t.Fatalf("tuple %q: %v", s, err)
		}
	}
	if !out.HasPorts() {
		out.Src, out.Dst = netip.MustParseAddr(src), netip.MustParseAddr(dst)
		return out
	}
	a, b := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	out.Src, out.SrcPort, out.Dst, out.DstPort = a.Addr(), a.Port(), b.Addr(), b.Port()
	return out
}

// reversed is the tuple of the answers to t when nobody translates addresses.
func reversed(t Tuple) Tuple {
	t.Src, t.Dst, t.SrcPort, t.DstPort = t.Dst, t.Src, t.DstPort, t.SrcPort
	switch t.ICMPType {
	case 8:
		t.ICMPType = 0
	case 128:
		t.ICMPType = 129
	}
	return t
}

// appendFlow adds what a message about f has behind its header, as the kernel
// writes it.
func (f *Flow) appendFlow(b []byte) []byte {
	b = f.appendDelete(b) // orig, ID and zone
	for _, part := range []struct {
		typ uint16
		t   *Tuple
	}{{attrReply, &f.Reply}, {attrMaster, &f.Master}} {
		if !part.t.whole() {
			continue
		}
		start := len(b)
		b = netlink.OpenNest(b, part.typ)
		b = part.t.appendTo(b)
		netlink.CloseNest(b, start)
	}
	b = netlink.AppendAttrBE32(b, attrStatus, uint32(f.Status))
	b = netlink.AppendAttrBE32(b, attrTimeout, f.Timeout)
	return netlink.AppendAttrBE32(b, attrMark, f.Mark)
}

func TestWire(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]Flow{
		"TCP":        {Orig: tuple(t, "6 10.0.0.1:40000 > 10.96.0.1:80"), Reply: tuple(t, "6 10.0.0.2:8080 > 10.0.0.1:40000"), Status: SeenReply | Assured | Confirmed | DestNAT, ID: 7, Timeout: 432000},
		"UDP v6":     {Orig: tuple(t, "17 [fd00::1]:4000 > [fd00::2]:53"), Reply: tuple(t, "17 [fd00::2]:53 > [fd00::1]:4000"), Mark: 5},
		"ICMP":       {Orig: tuple(t, "1 10.0.0.1 > 10.0.0.2 77/8/0"), Reply: tuple(t, "1 10.0.0.2 > 10.0.0.1 77/0/0")},
		"ICMPv6":     {Orig: tuple(t, "58 fd00::1 > fd00::2 77/128/0"), Reply: tuple(t, "58 fd00::2 > fd00::1 77/129/0")},
		"ESP":        {Orig: tuple(t, "50 10.0.0.1 > 10.0.0.2"), Reply: tuple(t, "50 10.0.0.2 > 10.0.0.1")},
		"zone":       {Orig: tuple(t, "6 10.0.0.1:1 > 10.0.0.2:2"), Reply: tuple(t, "6 10.0.0.2:2 > 10.0.0.1:1"), Zone: 9},
		"zone, orig": {Orig: tuple(t, "6 10.0.0.1:1 > 10.0.0.2:2"), Reply: tuple(t, "6 10.0.0.2:2 > 10.0.0.1:1"), Zone: 9, oneWay: true},
		"related":    {Orig: tuple(t, "6 10.0.0.1:1 > 10.0.0.2:2"), Reply: tuple(t, "6 10.0.0.2:2 > 10.0.0.1:1"), Master: tuple(t, "6 10.0.0.1:3 > 10.0.0.2:21"), Status: Expected},
	} {
		var got Flow
		if !got.parse(f.appendFlow(nil)) || got != f {
			t.Errorf("%s: read back as\n%+v, want\n%+v", name, got, f)
		}
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	f := Flow{Orig: tuple(t, "6 10.0.0.1:1 > 10.0.0.2:2"), Mark: 0x13, Zone: 2}
	for name, tt := range map[string]struct {
		filter Filter
		want   bool
	}{
		"all":          {Filter{}, true},
		"family":       {Filter{Family: unix.AF_INET}, true},
		"other family": {Filter{Family: unix.AF_INET6}, false},
		"mark":         {Filter{Mark: 0x3, MarkMask: 0xf}, true},
		"other mark":   {Filter{Mark: 0x4, MarkMask: 0xf}, false},
		"zone":         {Filter{Zoned: true, Zone: 2}, true},
		"zone 0":       {Filter{Zoned: true}, false},
	} {
		if got := tt.filter.has(&f); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"6 10.0.0.1:1 > 10.0.0.2:2", "58 fd00::1 > fd00::2 77/128/0"} {
		flow := Flow{Orig: tuple(f, s), Reply: reversed(tuple(f, s)), ID: 7, Zone: 1}
		f.Add(flow.appendFlow(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var flow Flow
		if flow.parse(b) {
			_ = flow.appendDelete(nil)
			_ = flow.Orig.String()
		}
	})
}
