// Package wire looks at packets on links, to say how those of a probe are carried.
//
//	link ── Capture ── Drain ──► bytes ── Watch.See ──► Watch.Verdict
//
// A [Capture] is a packet socket (packet(7)) and holds what passes a link. A [Watch] is
// told of what passed the ports of the two nodes at a probe's ends and judges: whether all
// of the probe has the form that it is to have, in both directions, between the addresses
// of these nodes, and, where that form is encryption, whether anything was in clear.
//
// A probe is known by a mark in its payload, and by the target's port where it has no
// payload. Nobody else's packets are taken for it, but for what is encrypted: that is
// taken for the probe's if it is between its nodes.
//
// Invariant: a Watch holds only if it has seen the probe go and its answer come.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Capture is an open packet socket: it holds what passes a link from its
// opening until it is drained. What a probe did is all there when its answer is, since
// packets pass capture before they arrive.
type Capture struct {
	fd   int
	link string // empty: all of the namespace
	buf  []byte
}

// Packet is one that has passed.
type Packet struct {
	Bytes    []byte // from its IP header on
	Outgoing bool   // as seen from the namespace of the socket
}

// captureBuffer holds a second of a lab's traffic, where the kernel allows so much;
// snapBytes is what is kept of a packet.
const (
	captureBuffer = 4 << 20
	snapBytes     = 1 << 16
)

// NewCapture opens one on a link of the calling thread's namespace, or on all of them
// for an empty name. It must be closed.
func NewCapture(link string) (*Capture, error) {
	c := &Capture{fd: -1, link: link, buf: make([]byte, snapBytes)}
	if err := c.open(); err != nil {
		c.Close()
		return nil, fmt.Errorf("capture on %s: %w", c.where(), err)
	}
	return c, nil
}

func (c *Capture) open() error {
	index := 0
	if c.link != "" {
		l, err := net.InterfaceByName(c.link)
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
}

// networkOrder is v as the kernel wants it in a field of network byte order.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (c *Capture) where() string {
	if c.link == "" {
		return "all links"
	}
	return c.link
}

// Drain gives each packet that has passed, of IP only. Its bytes are valid within the
// call. The error says that some were lost.
func (c *Capture) Drain(each func(Packet)) error {
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
		each(Packet{Bytes: c.buf[:n], Outgoing: ll.Pkttype == unix.PACKET_OUTGOING})
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

// Close ends it.
func (c *Capture) Close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
}
