package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// capture is an open packet socket (packet(7)): it holds what passes a link from its
// opening until it is drained. What a probe did is all there when its answer is, since
// packets pass capture before they arrive.
type capture struct {
	fd   int
	link string // empty: all of the namespace
	buf  []byte
}

// captured is a packet with its IP header.
type captured struct {
	bytes    []byte
	outgoing bool // as seen from the namespace of the socket
}

// captureBuffer holds a second of a lab's traffic, where the kernel allows so much;
// snapBytes is what is kept of a packet.
const (
	captureBuffer = 4 << 20
	snapBytes     = 1 << 16
)

// newCapture opens one on a link of ns, or on all of them.
func newCapture(ns *namespace, link string) (*capture, error) {
	c := &capture{fd: -1, link: link, buf: make([]byte, snapBytes)}
	err := ns.open(func() error {
		index := 0
		if link != "" {
			l, err := net.InterfaceByName(link)
			if err != nil {
				return err
			}
			index = l.Index
		}
		var err error
		// With protocol 0 nothing arrives before the socket is bound to the link. Only
		// ETH_P_ALL sees what the namespace sends, too.
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		// Without CAP_NET_ADMIN over the machine net.core.rmem_max is the limit.
		if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer) != nil {
			_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer)
		}
		return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index})
	})
	if err != nil {
		c.close()
		return nil, fmt.Errorf("capture on %s: %w", c.where(), err)
	}
	return c, nil
}

// networkOrder is v as the kernel wants it in a field of network byte order.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (c *capture) where() string {
	if c.link == "" {
		return "all links"
	}
	return c.link
}

// drain gives each packet that has passed, of IP only. Its bytes are valid within the
// call. The error says that some were lost.
func (c *capture) drain(each func(captured)) error {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) { // a link that went, of all
			continue
		}
		if err != nil {
			return fmt.Errorf("capture on %s: %w", c.where(), err)
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok || ll.Protocol != networkOrder(unix.ETH_P_IP) && ll.Protocol != networkOrder(unix.ETH_P_IPV6) {
			continue
		}
		each(captured{bytes: c.buf[:n], outgoing: ll.Pkttype == unix.PACKET_OUTGOING})
	}
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("capture on %s: %w", c.where(), err)
	}
	if stats.Drops > 0 {
		return fmt.Errorf("capture on %s: %d packets were too many for it", c.where(), stats.Drops)
	}
	return nil
}

func (c *capture) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
}
