package policy_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// wire is an interface of the ground, seen from outside: a TUN device or, where those
// are for root only, the other end of a veth pair.
type wire struct {
	fd  int
	to  net.HardwareAddr // of a veth pair: the ground's end
	dev int              // of a veth pair: index of the other end
}

// wires makes the interfaces.
func (g *ground) wires(t *testing.T, names []string) {
	var far *testenv.Namespace
	for _, name := range names {
		var w wire
		var err error
		if far == nil {
			err = g.ns.Do(func() (err error) { w.fd, err = tun(name); return err })
		}
		if far == nil && err != nil {
			t.Logf("veth pairs instead of TUN devices: %v", err)
			far = testenv.Netns(t)
		}
		if far != nil {
			testenv.Veth(t, g.ns, name, nil, far, name, nil)
			g.ns.MustDo(func() (err error) { w.to, err = withoutNeighbours(name); return err })
			far.MustDo(func() (err error) { w.fd, w.dev, err = tap(name); return err })
		}
		t.Cleanup(func() { _ = unix.Close(w.fd) })
		g.links[name] = w
	}
}

// tun makes a TUN device that is up.
func tun(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("/dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("tun %s: %w", name, err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return fd, netlink.LinkSetUp(l)
}

// withoutNeighbours makes a link send without asking for neighbours, and returns its
// address.
func withoutNeighbours(name string) (net.HardwareAddr, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	return l.Attrs().HardwareAddr, netlink.LinkSetARPOff(l)
}

// tap reads what comes in on a link, whomever it is for.
func tap(name string) (fd, dev int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, 0, err
	}
	all := bigEndian(unix.ETH_P_ALL)
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all)); err != nil {
		return 0, 0, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return 0, 0, fmt.Errorf("packet socket: %w", err)
	}
	return fd, l.Attrs().Index, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index})
}

// write sends a packet into the ground.
func (w wire) write(data []byte) error {
	if w.to == nil {
		_, err := unix.Write(w.fd, data)
		return err
	}
	a := unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: w.dev, Halen: 6}
	if data[0]>>4 == 6 {
		a.Protocol = bigEndian(unix.ETH_P_IPV6)
	}
	copy(a.Addr[:], w.to)
	return unix.Sendto(w.fd, data, 0, &a)
}

// bigEndian is v as the kernel wants it in a struct.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
