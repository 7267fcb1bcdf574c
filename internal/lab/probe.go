package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// errNoAnswer says that an echo request went out and nothing came back.
var errNoAnswer = errors.New("no answer")

// icmp is what differs between ICMP (RFC 792) and ICMPv6 (RFC 4443).
type icmp struct {
	network      string // of package net
	request      byte
	reply        byte
	unreachable  byte
	innerDst     int // offset of the destination in an error's message
	addressBytes int
}

func icmpFor(a netip.Addr) icmp {
	if a.Is4() {
		return icmp{"ip4:icmp", 8, 0, 3, 8 + 16, 4}
	}
	return icmp{"ip6:ipv6-icmp", 128, 129, 1, 8 + 24, 16}
}

// echo sends one ICMP echo request from ns to dst, with the mark in its data, and waits
// for the answer. It returns the round trip. The error says why there was none: errNoAnswer, the
// kernel's refusal to send, or what a router on the way answered.
func echo(ctx context.Context, ns *namespace, dst netip.Addr, wait time.Duration, mark uint64) (time.Duration, error) {
	proto := icmpFor(dst)
	var conn net.PacketConn
	err := ns.open(func() (err error) {
		conn, err = net.ListenPacket(proto.network, "")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("probe: socket: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	start := time.Now()
	_ = conn.SetDeadline(start.Add(wait))
	if _, err := conn.WriteTo(proto.message(mark, echoBytes), &net.IPAddr{IP: dst.AsSlice()}); err != nil {
		return 0, refusal(ctx, err)
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			return 0, errNoAnswer
		}
		switch {
		case proto.answers(buf[:n], mark):
			return time.Since(start), nil
		case proto.refuses(buf[:n], dst):
			return 0, fmt.Errorf("unreachable, says %v", from)
		}
	}
}

// echoBytes is the length of an echo request that is not to be of a certain one.
const echoBytes = 16

// message is an echo request of that many bytes, 16 at least. The id stands in the
// data: the 16 bits of the header are few, and other probes run at the same time.
func (p icmp) message(id uint64, size int) []byte {
	m := make([]byte, size)
	m[0] = p.request
	binary.BigEndian.PutUint16(m[4:], uint16(id))
	binary.BigEndian.PutUint64(m[8:], id)
	if p.addressBytes == 4 { // the kernel does it for ICMPv6
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	return m
}

func (p icmp) answers(m []byte, id uint64) bool {
	return len(m) >= 16 && m[0] == p.reply && binary.BigEndian.Uint64(m[8:]) == id
}

// refuses reports an error about a packet to dst, but not one of its size.
func (p icmp) refuses(m []byte, dst netip.Addr) bool {
	const tooBig = 4 // the code in ICMP; ICMPv6 has a type for it
	if len(m) < p.innerDst+p.addressBytes || m[0] != p.unreachable || p.addressBytes == 4 && m[1] == tooBig {
		return false
	}
	about, _ := netip.AddrFromSlice(m[p.innerDst : p.innerDst+p.addressBytes])
	return about == dst
}

// checksum is that of RFC 1071.
func checksum(m []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	if len(m)%2 == 1 {
		sum += uint32(m[len(m)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// refusal is why the kernel did not send: the end of the time, if that is it.
func refusal(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return cause(err)
}

// cause takes the addresses off a network error.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}
