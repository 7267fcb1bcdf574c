package e2e_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/testenv"
)

// wrap sends UDP packets inside of others; each line of in asks for one:
//
//	ipip NODE SOURCE ADDRESS PORT WORD       in protocol 4 to NODE
//	vxlan NODE MAC SOURCE ADDRESS PORT WORD  in VXLAN to NODE, whose device has that MAC
func wrap(in io.Reader, out io.Writer) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		said := "sent"
		if err := wrapOne(strings.Fields(lines.Text())); err != nil {
			said = err.Error()
		}
		fmt.Fprintln(out, said)
	}
	return nil
}

func wrapOne(f []string) error {
	network, to, prefix := "ip4:4", "", []byte(nil)
	switch {
	case len(f) == 6 && f[0] == "ipip":
		to, f = f[1], f[2:]
	case len(f) == 7 && f[0] == "vxlan":
		mac, err := net.ParseMAC(f[2])
		if err != nil {
			return err
		}
		network, to = "udp", net.JoinHostPort(f[1], "4789")
		prefix = binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, model.DefaultVNI<<8) // RFC 7348 section 5
		prefix = append(append(prefix, mac...), 2, 0, 0, 0, 0, 1)
		ethertype := uint16(unix.ETH_P_IP)
		if strings.Contains(f[3], ":") {
			ethertype = unix.ETH_P_IPV6
		}
		prefix, f = binary.BigEndian.AppendUint16(prefix, ethertype), f[3:]
	default:
		return errors.New("unknown")
	}
	src, err := netip.ParseAddr(f[0])
	dst, err2 := netip.ParseAddr(f[1])
	var port uint16
	_, err3 := fmt.Sscan(f[2], &port)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	c, err := net.Dial(network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(append(prefix, udpPacket(src, dst, port, f[3])...))
	return err
}

// udpPacket is a whole UDP packet; in IPv4 the checksum of UDP is left out.
func udpPacket(src, dst netip.Addr, port uint16, word string) []byte {
	udp := make([]byte, 8, 8+len(word))
	binary.BigEndian.PutUint16(udp, 40000)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(word)))
	udp = append(udp, word...)
	if src.Is6() {
		binary.BigEndian.PutUint16(udp[6:], sum6(src, dst, udp))
		head := []byte{0x60, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64}
		return append(append(append(head, src.AsSlice()...), dst.AsSlice()...), udp...)
	}
	head := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	head = append(append(head, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(head, udp...)
}

// TestTunnelStrangers: packets in IPIP and VXLAN with addresses of pods inside are taken
// from nodes, those that join too, and from externalNodesList; from nobody else.
func TestTunnelStrangers(t *testing.T) {
	t.Parallel()
	strangers(t)
}

// TestVMTunnelStrangers does the same with the kernel's IPIP.
func TestVMTunnelStrangers(t *testing.T) {
	testenv.VM(t)
	strangers(t)
}

func strangers(t *testing.T) {
	c := newCluster(t)
	var pools []mixedPool
	for _, p := range mixedPools() {
		if p.mode.tunnel != "" && !p.mode.cross {
			pools = append(pools, p)
		}
	}
	c.must("lab", "up", "-f", c.file(mixed(pools)))
	c.refresh()
	// The fabric is a machine of the rack, and no node.
	stranger, node := c.help("fabric", "wrap"), c.help("a", "wrap")
	type way struct {
		pool mixedPool
		ear  *ear
		from string // pod of node a
	}
	var ways []way
	for _, p := range pools {
		pod := p.name + "-b"
		c.reach("pod/default/"+p.name+"-a", c.addr(pod))
		ways = append(ways, way{p, c.listen("pod/default/"+pod, c.addr(pod)), c.addr(p.name + "-a")})
	}
	n := 0
	send := func(from *process, w way, word string) {
		t.Helper()
		family := 0
		if w.pool.v6() {
			family = 1
		}
		to := stations()[1].addr[family]
		if w.pool.mode.tunnel == "vxlan" {
			to += " " + c.mac("b", w.pool.mode.device(w.pool.v6()))
		}
		if got := from.ask(fmt.Sprintf("%s %s %s %s 9 %s", w.pool.mode.tunnel, to, w.from, w.ear.addr, word)); got != "sent" {
			t.Fatalf("%s: %s", w.pool.name, got)
		}
	}
	// comes reports whether a stranger's packet comes before one of a node that goes after it.
	comes := func(w way) bool {
		t.Helper()
		n++
		word, mark := fmt.Sprintf("word-%d", n), fmt.Sprintf("mark-%d", n)
		send(stranger, w, word)
		send(node, w, mark)
		for heard := false; ; {
			line := w.ear.read()
			heard = heard || strings.HasSuffix(line, " "+word)
			if strings.HasSuffix(line, " "+mark) {
				return heard
			}
		}
	}
	are := func(what string, want bool) {
		t.Helper()
		for _, w := range ways {
			eventually(t, fmt.Sprintf("%s: packets of pool %s", what, w.pool.name), func() error {
				if comes(w) != want {
					return fmt.Errorf("taken: %v, want %v", !want, want)
				}
				return nil
			})
		}
	}
	for _, w := range ways {
		if comes(w) {
			t.Errorf("pool %s: what no node sent was taken", w.pool.name)
		}
	}
	put(t, c.st(), `{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "joins"},
		"spec": {"bgp": {"ipv4Address": "10.1.0.1/24", "ipv6Address": "fd00:1::1/64"}}}`)
	are("a node that joins", true)
	take(t, c.st(), model.Node{Name: "joins"}.Key())
	are("a node that left", false)
	put(t, c.st(), felix(`"externalNodesList": ["10.1.0.1"]`)) // of IPv4 only, as Calico has it
	both := ways
	ways = slices.DeleteFunc(slices.Clone(both), func(w way) bool { return w.pool.v6() })
	are("externalNodesList", true)
	ways = both
	put(t, c.st(), felix(``))
	are("without externalNodesList", false)
}
