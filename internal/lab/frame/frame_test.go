package frame

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

var ports = Ports{VXLAN: 4789, WireGuard: [2]uint16{51820, 51821}}

// ip wraps a payload into an IP header, without a checksum, which nothing here reads.
func ip(src, dst string, protocol byte, payload []byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0], b[9] = 0x45, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		copy(b[12:], s.AsSlice())
		copy(b[16:], d.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6] = 0x60, protocol
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], s.AsSlice())
	copy(b[24:], d.AsSlice())
	return append(b, payload...)
}

func udp(src, dst uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	return append(b, payload...)
}

func tcp(src, dst uint16, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[13] = flags
	return b
}

// vxlan wraps a packet into Ethernet and VXLAN.
func vxlan(packet []byte) []byte {
	b := make([]byte, vxlanBytes+ethernetBytes)
	b[0] = 8
	return append(b, packet...)
}

// wireGuard is a message of that type and length.
func wireGuard(kind byte, length int) []byte {
	b := make([]byte, length)
	b[0] = kind
	return b
}

func TestParse(t *testing.T) {
	t.Parallel()
	echo := []byte{8, 0, 0, 0, 0, 0, 0, 0, 'w', 'e', 'f', 't'}
	ping := ip("10.65.0.2", "10.65.1.2", ICMP, echo)
	ping6 := ip("fd65::2", "fd65:1::2", ICMPv6, echo)
	later := ip("10.0.0.1", "10.0.0.2", UDP, udp(1, 4789, vxlan(ping)))
	later[7] = 1
	// Hop-by-hop options of 8 bytes, then a first fragment, then TCP.
	chain := append([]byte{44, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 1, 0, 0, 0, 7}, tcp(1, 80, SYN)...)
	for name, tt := range map[string]struct {
		in   []byte
		want string // empty: no packet
	}{
		"plain":              {ping, "10.65.0.2 > 10.65.1.2 ICMP"},
		"plain, IPv6":        {ping6, "fd65::2 > fd65:1::2 ICMPv6"},
		"TCP":                {ip("10.0.0.1", "10.0.0.2", TCP, tcp(1024, 179, SYN)), "10.0.0.1:1024 > 10.0.0.2:179 TCP"},
		"BGP protocol 89":    {ip("10.0.0.1", "224.0.0.5", 89, nil), "10.0.0.1 > 224.0.0.5 protocol 89"},
		"padding":            {append(ip("10.0.0.1", "10.0.0.2", UDP, udp(1, 2, nil)), 0, 0, 0), "10.0.0.1:1 > 10.0.0.2:2 UDP"},
		"extension headers":  {ip("fd00::1", "fd00::2", 0, chain), "[fd00::1]:1 > [fd00::2]:80 TCP"},
		"ipip":               {ip("10.1.0.11", "10.2.0.11", IPv4, ping), "10.65.0.2 > 10.65.1.2 ICMP in ipip (10.1.0.11 > 10.2.0.11)"},
		"ipip of nonsense":   {ip("10.1.0.11", "10.2.0.11", IPv4, []byte{1}), "10.1.0.11 > 10.2.0.11 protocol 4"},
		"vxlan":              {ip("10.1.0.11", "10.2.0.11", UDP, udp(5, 4789, vxlan(ping))), "10.65.0.2 > 10.65.1.2 ICMP in vxlan (10.1.0.11 > 10.2.0.11)"},
		"vxlan of IPv6":      {ip("10.1.0.11", "10.2.0.11", UDP, udp(5, 4789, vxlan(ping6))), "fd65::2 > fd65:1::2 ICMPv6 in vxlan (10.1.0.11 > 10.2.0.11)"},
		"vxlan over IPv6":    {ip("fd00::b", "fd00::c", UDP, udp(5, 4789, vxlan(ping6))), "fd65::2 > fd65:1::2 ICMPv6 in vxlan (fd00::b > fd00::c)"},
		"vxlan, other port":  {ip("10.1.0.11", "10.2.0.11", UDP, udp(4789, 8472, vxlan(ping))), "10.1.0.11:4789 > 10.2.0.11:8472 UDP"},
		"vxlan, no flag":     {ip("10.1.0.11", "10.2.0.11", UDP, udp(5, 4789, make([]byte, 60))), "10.1.0.11:5 > 10.2.0.11:4789 UDP"},
		"vxlan of ARP":       {ip("10.1.0.11", "10.2.0.11", UDP, udp(5, 4789, vxlan(make([]byte, 28)))), ""},
		"a later fragment":   {later, "10.0.0.1:0 > 10.0.0.2:0 UDP"},
		"wireguard":          {ip("10.1.0.11", "10.2.0.11", UDP, udp(51820, 51820, wireGuard(4, 128))), "wireguard (10.1.0.11:51820 > 10.2.0.11:51820 UDP)"},
		"wireguard, IPv6":    {ip("fd00::b", "fd00::c", UDP, udp(51821, 51821, wireGuard(1, 148))), "wireguard ([fd00::b]:51821 > [fd00::c]:51821 UDP)"},
		"wireguard's port":   {ip("10.1.0.11", "10.2.0.11", UDP, udp(51820, 51820, []byte("plain text"))), "10.1.0.11:51820 > 10.2.0.11:51820 UDP"},
		"nothing":            {nil, ""},
		"ARP":                {make([]byte, 28), ""},
		"torn":               {ping[:19], ""},
		"torn, IPv6":         {ping6[:39], ""},
		"torn behind header": {ping[:22], "10.65.0.2 > 10.65.1.2 ICMP"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ok := Parse(tt.in, ports)
			got := ""
			if ok {
				got = p.String()
			}
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestData: handshakes and keepalives of WireGuard carry nobody's packet.
func TestData(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		message []byte
		want    bool
	}{
		"initiation": {wireGuard(1, 148), false},
		"response":   {wireGuard(2, 92), false},
		"cookie":     {wireGuard(3, 64), false},
		"keepalive":  {wireGuard(4, 32), false},
		"data":       {wireGuard(4, 64), true},
	} {
		if p, _ := Parse(ip("10.1.0.11", "10.2.0.11", UDP, udp(1024, 51820, tt.message)), ports); p.Form != WireGuard || p.Data != tt.want {
			t.Errorf("%s: %v with data %v, want %v", name, p, p.Data, tt.want)
		}
	}
}

// TestPayload: what a probe is known by is found inside of its carrier.
func TestPayload(t *testing.T) {
	t.Parallel()
	inner := ip("10.65.0.2", "10.65.1.2", ICMP, []byte{8, 0, 0, 0, 0, 0, 0, 0, 'w', 'e', 'f', 't'})
	for name, in := range map[string][]byte{
		"plain": inner,
		"ipip":  ip("10.1.0.11", "10.2.0.11", IPv4, inner),
		"vxlan": ip("10.1.0.11", "10.2.0.11", UDP, udp(5, 4789, vxlan(inner))),
	} {
		if p, ok := Parse(in, ports); !ok || string(p.Inner.Payload) != "weft" || p.Inner.Type != 8 {
			t.Errorf("%s: payload %q of type %d, want weft of 8", name, p.Inner.Payload, p.Inner.Type)
		}
	}
}

// FuzzParse: hostile packets do not panic, and say something of themselves.
func FuzzParse(f *testing.F) {
	ping := ip("10.65.0.2", "10.65.1.2", ICMP, make([]byte, 16))
	f.Add(ping)
	f.Add(ip("fd00::1", "fd00::2", 0, []byte{44, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 1, 0, 0, 0, 7}))
	f.Add(ip("10.1.0.11", "10.2.0.11", IPv4, ping))
	f.Add(ip("10.1.0.11", "10.2.0.11", UDP, udp(5, 4789, vxlan(ping))))
	f.Add(ip("10.1.0.11", "10.2.0.11", UDP, udp(5, 51820, wireGuard(4, 64))))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, ok := Parse(in, ports)
		if ok && (!p.Outer.Src.IsValid() || p.String() == "") {
			t.Fatalf("%x: %+v", in, p)
		}
		if p.Form == Plain && p.Outer.String() != p.Inner.String() {
			t.Fatalf("a plain packet has two headers: %+v", p)
		}
	})
}
