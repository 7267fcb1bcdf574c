package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/lab/frame"
	"github.com/weft-net/weft/internal/lab/topology"
)

// Packets as they are on a wire, without checksums, which nobody reads here.

func ipv4(src, dst string, protocol byte, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[9] = 0x45, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	return append(b, payload...)
}

func udp(port uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, port)
	binary.BigEndian.PutUint16(b[2:], port)
	return append(b, payload...)
}

// TestWatch judges what is seen of an echo from a pod on a to one on b.
func TestWatch(t *testing.T) {
	t.Parallel()
	const p, q, a, b, other = "192.168.1.1", "192.168.3.1", "10.1.0.11", "10.2.0.11", "10.1.0.12"
	const mark = 0x77656674
	echo := func(src, dst string, kind byte, mark uint64) []byte {
		return ipv4(src, dst, frame.ICMP, binary.BigEndian.AppendUint64([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, mark))
	}
	there, back := echo(p, q, 8, mark), echo(q, p, 0, mark)
	ipip := func(src, dst string, inner []byte) []byte { return ipv4(src, dst, frame.IPv4, inner) }
	vxlan := func(src, dst string, inner []byte) []byte {
		return ipv4(src, dst, frame.UDP, udp(4789, append([]byte{8, 21: 0}, inner...)))
	}
	wireGuard := func(src, dst string, text ...byte) []byte {
		return ipv4(src, dst, frame.UDP, udp(51820, append([]byte{4, 0, 0, 0, 95: 0}, text...)))
	}
	bgp := ipv4(a, b, frame.TCP, append([]byte{0, 179, 0, 179, 19: 0}, 192, 168, 1, 1))
	for name, tt := range map[string]struct {
		want string
		seen [][]byte
		says string
	}{
		"plain":                     {"none", [][]byte{there, back}, ""},
		"plain, not wanted":         {"ipip", [][]byte{there, back}, "carried plain: 192.168.1.1 > 192.168.3.1 ICMP seen on r1"},
		"ipip":                      {"ipip", [][]byte{ipip(a, b, there), ipip(b, a, back)}, ""},
		"ipip, not wanted":          {"none", [][]byte{ipip(a, b, there), ipip(b, a, back)}, "carried in ipip: 192.168.1.1 > 192.168.3.1 ICMP in ipip (10.1.0.11 > 10.2.0.11) seen on r1"},
		"ipip one way":              {"ipip", [][]byte{ipip(a, b, there), back}, "carried plain: 192.168.3.1 > 192.168.1.1 ICMP seen on r1"},
		"ipip, both forms":          {"ipip", [][]byte{ipip(a, b, there), ipip(b, a, back), there}, "carried plain: 192.168.1.1 > 192.168.3.1 ICMP seen on r1"},
		"ipip, no answer":           {"ipip", [][]byte{ipip(a, b, there)}, "not carried in ipip: no packet of the answer was seen on the underlay"},
		"ipip from elsewhere":       {"ipip", [][]byte{ipip(other, b, there), ipip(b, a, back)}, "carried in ipip: 192.168.1.1 > 192.168.3.1 ICMP in ipip (10.1.0.12 > 10.2.0.11) seen on r1, not between addresses of the nodes"},
		"vxlan":                     {"vxlan", [][]byte{vxlan(a, b, there), vxlan(b, a, back)}, ""},
		"vxlan for ipip":            {"ipip", [][]byte{vxlan(a, b, there), vxlan(b, a, back)}, "carried in vxlan: 192.168.1.1 > 192.168.3.1 ICMP in vxlan (10.1.0.11 > 10.2.0.11) seen on r1"},
		"others' packets":           {"none", [][]byte{there, back, ipip(a, b, echo(p, q, 8, mark+1)), wireGuard(a, b), bgp}, ""},
		"nothing":                   {"none", nil, "not carried plain: no packet of the request was seen on the underlay"},
		"wireguard":                 {"wireguard", [][]byte{wireGuard(a, b), wireGuard(b, a)}, ""},
		"wireguard and BGP":         {"wireguard", [][]byte{wireGuard(a, b), wireGuard(b, a), bgp}, ""},
		"wireguard, elsewhere":      {"wireguard", [][]byte{wireGuard(a, other), wireGuard(other, a)}, "not carried in wireguard: no packet of the request was seen on the underlay"},
		"wireguard for ipip":        {"ipip", [][]byte{wireGuard(a, b), wireGuard(b, a)}, "carried in wireguard: wireguard (10.1.0.11:51820 > 10.2.0.11:51820 UDP) seen on r1"},
		"keepalives":                {"wireguard", [][]byte{wireGuard(a, b)[:60], wireGuard(b, a)[:60]}, "not carried in wireguard: no packet of the request was seen on the underlay"},
		"wireguard, in clear":       {"wireguard", [][]byte{wireGuard(a, b), wireGuard(b, a), there}, "carried plain: 192.168.1.1 > 192.168.3.1 ICMP seen on r1"},
		"an address in clear":       {"wireguard", [][]byte{wireGuard(a, b, 192, 168, 3, 1), wireGuard(b, a)}, "in clear: 192.168.3.1 in wireguard (10.1.0.11:51820 > 10.2.0.11:51820 UDP) seen on r1"},
		"payload in clear":          {"wireguard", [][]byte{wireGuard(a, b, 0, 0, 0, 0, 0x77, 0x65, 0x66, 0x74), wireGuard(b, a)}, "in clear: the payload of wireguard (10.1.0.11:51820 > 10.2.0.11:51820 UDP) seen on r1"},
		"somebody else's, in clear": {"wireguard", [][]byte{wireGuard(a, b), wireGuard(b, a), echo("192.168.1.2", q, 8, 1)}, "in clear: 192.168.3.1 in 192.168.1.2 > 192.168.3.1 ICMP seen on r1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := func(name string) topology.Target {
				return topology.Target{Kind: topology.ToPod, Namespace: "default", Name: name}
			}
			w := Watch{
				Probe: Probe{From: target("p"), To: target("q"), Source: netip.MustParseAddr(p), Addr: netip.MustParseAddr(q), Protocol: "icmp", Mark: mark},
				Want:  FormOf(tt.want),
				Here:  topology.Node{Name: "a", Addresses: []netip.Addr{netip.MustParseAddr(a)}},
				There: topology.Node{Name: "b", Links: []topology.Link{{Addresses: []netip.Addr{netip.MustParseAddr(b)}}}},
				Ports: frame.Ports{VXLAN: 4789, WireGuard: [2]uint16{51820, 51821}},
			}
			for _, s := range tt.seen {
				w.See(s, "r1")
			}
			got := ""
			if err := w.Verdict(); err != nil {
				got = err.Error()
			}
			if got != tt.says {
				t.Errorf("got  %s\nwant %s", got, tt.says)
			}
		})
	}
}
