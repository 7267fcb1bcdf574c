package nflog

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// ip4 is an IPv4 packet from 10.0.0.1 to 10.0.0.2 of 1500 bytes, cut.
func ip4(protocol uint8, fragment uint16, options int, payload ...byte) []byte {
	b := make([]byte, v4Bytes+options)
	b[0], b[9] = 0x40|uint8(5+options/4), protocol
	binary.BigEndian.PutUint16(b[2:], 1500)
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return append(b, payload...)
}

// ip6 is an IPv6 packet from fd00::1 to fd00::2 of 1400 bytes behind the header, cut.
func ip6(next uint8, payload ...byte) []byte {
	b := make([]byte, v6Bytes)
	b[0], b[6] = 0x60, next
	binary.BigEndian.PutUint16(b[4:], 1400)
	src, dst := netip.MustParseAddr("fd00::1").As16(), netip.MustParseAddr("fd00::2").As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, payload...)
}

func TestPacket(t *testing.T) {
	t.Parallel()
	ports := []byte{0x9c, 0x40, 0, 80}
	hop := func(next uint8) []byte { return []byte{next, 0, 0, 0, 0, 0, 0, 0} }
	long := func(next uint8) []byte { return append([]byte{next, 1}, make([]byte, 14)...) }
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for name, tt := range map[string]struct {
		bytes []byte
		want  string
	}{
		"TCP":                {ip4(6, 0, 0, ports...), "10.0.0.1 > 10.0.0.2 6 40000 > 80, icmp 0/0, 1500"},
		"options":            {ip4(17, 0, 8, ports...), "10.0.0.1 > 10.0.0.2 17 40000 > 80, icmp 0/0, 1500"},
		"first fragment":     {ip4(17, 0x2000, 0, ports...), "10.0.0.1 > 10.0.0.2 17 40000 > 80, icmp 0/0, 1500"},
		"later fragment":     {ip4(17, 0x2001, 0, ports...), "10.0.0.1 > 10.0.0.2 17 0 > 0, icmp 0/0, 1500"},
		"ping":               {ip4(1, 0, 0, 8, 3, 0, 0), "10.0.0.1 > 10.0.0.2 1 0 > 0, icmp 8/3, 1500"},
		"ICMPv6 in IPv4":     {ip4(58, 0, 0, 8, 3, 0, 0), "10.0.0.1 > 10.0.0.2 58 0 > 0, icmp 0/0, 1500"},
		"GRE":                {ip4(47, 0, 0, ports...), "10.0.0.1 > 10.0.0.2 47 0 > 0, icmp 0/0, 1500"},
		"cut in the ports":   {ip4(6, 0, 0, 1, 2, 3), "10.0.0.1 > 10.0.0.2 6 0 > 0, icmp 0/0, 1500"},
		"cut in the options": {ip4(6, 0, 8)[:24], "10.0.0.1 > 10.0.0.2 6 0 > 0, icmp 0/0, 1500"},
		"cut in the header":  {ip4(6, 0, 0)[:19], "invalid IP > invalid IP 0 0 > 0, icmp 0/0, 0"},
		"header too short":   {append([]byte{0x44}, ip4(6, 0, 0, ports...)[1:]...), "10.0.0.1 > 10.0.0.2 6 0 > 0, icmp 0/0, 1500"},
		"nothing":            {nil, "invalid IP > invalid IP 0 0 > 0, icmp 0/0, 0"},
		"ARP":                {[]byte{0, 1, 8, 0, 6, 4}, "invalid IP > invalid IP 0 0 > 0, icmp 0/0, 0"},

		"TCP v6":            {ip6(6, ports...), "fd00::1 > fd00::2 6 40000 > 80, icmp 0/0, 1440"},
		"ping v6":           {ip6(58, 128, 0, 1, 2), "fd00::1 > fd00::2 58 0 > 0, icmp 128/0, 1440"},
		"ICMP in IPv6":      {ip6(1, 8, 3, 1, 2), "fd00::1 > fd00::2 1 0 > 0, icmp 0/0, 1440"},
		"hop by hop":        {ip6(0, join(hop(60), long(6), ports)...), "fd00::1 > fd00::2 6 40000 > 80, icmp 0/0, 1440"},
		"authentication":    {ip6(51, join([]byte{17, 4}, make([]byte, 22), ports)...), "fd00::1 > fd00::2 17 40000 > 80, icmp 0/0, 1440"},
		"first fragment v6": {ip6(44, join([]byte{17, 9, 0, 1, 0, 0, 0, 0}, ports)...), "fd00::1 > fd00::2 17 40000 > 80, icmp 0/0, 1440"},
		"later fragment v6": {ip6(44, join([]byte{17, 0, 0, 9, 0, 0, 0, 0}, ports)...), "fd00::1 > fd00::2 17 0 > 0, icmp 0/0, 1440"},
		"no next header":    {ip6(59, ports...), "fd00::1 > fd00::2 59 0 > 0, icmp 0/0, 1440"},
		"cut in extensions": {ip6(0, 60, 9, 0, 0, 0, 0, 0, 0, 0), "fd00::1 > fd00::2 60 0 > 0, icmp 0/0, 1440"},
		"many extensions":   {ip6(0, join(hop(0), hop(0), hop(0), hop(0), hop(0), hop(0), hop(0), hop(0), hop(6), ports)...), "fd00::1 > fd00::2 0 0 > 0, icmp 0/0, 1440"},
	} {
		p, n := packet(tt.bytes)
		got := fmt.Sprintf("%v > %v %d %d > %d, icmp %d/%d, %d", p.Src, p.Dst, p.Protocol, p.SrcPort, p.DstPort, p.ICMPType, p.ICMPCode, n)
		if got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tt.want)
		}
	}
}

// message is a body as the kernel writes it.
func message(payload []byte) []byte {
	b := []byte{unix.AF_INET, 0, 0, 7}
	b = netlink.AppendAttr(b, packetHeader, []byte{8, 0, 2, 0})
	b = netlink.AppendAttrBE32(b, packetMark, 5)
	b = netlink.AppendAttr(b, packetTime, []byte{0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1})
	b = netlink.AppendAttrBE32(b, packetInDevice, 3)
	b = netlink.AppendAttrBE32(b, packetNumber, 11)
	b = netlink.AppendAttrString(b, packetPrefix, "rule 1")
	return netlink.AppendAttr(b, packetPayload, payload)
}

func TestRecord(t *testing.T) {
	t.Parallel()
	var r record
	if !r.parse(message(ip4(6, 0, 0, 1, 2, 3, 4))) || r.group != 7 || r.seq != 11 || !r.numbered {
		t.Fatalf("got %+v", r)
	}
	e := r.event(func(index uint32) string { return map[uint32]string{0: "", 3: "cali3"}[index] })
	if e.Prefix != "rule 1" || e.Hook != plan.Forward || e.Mark != 5 || e.Time.UnixMicro() != 9_000_001 || e.Packet.InLink != "cali3" || e.Packet.SrcPort != 0x102 {
		t.Errorf("got %+v", e)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(message(ip4(6, 0, 4, 1, 2, 3, 4)))
	f.Add(message(ip6(0, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4)))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var r record
		if r.parse(b) {
			_ = r.event(func(uint32) string { return "" })
		}
		packet(b)
	})
}

// BenchmarkEvent is the work for one packet, without what the kernel does.
func BenchmarkEvent(b *testing.B) {
	body := message(ip4(6, 0, 0, 1, 2, 3, 4))
	b.ReportAllocs()
	for b.Loop() {
		var r record
		if !r.parse(body) || r.event(func(uint32) string { return "cali3" }).Packet.SrcPort != 0x102 {
			b.Fatal("not read")
		}
	}
}
