package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/topology"
)

// largest checks, for every way, that a packet of that size which may not be fragmented
// arrives and is answered, and that of one byte more its sender is told so.
func (h *holder) largest(ctx context.Context, l topology.Largest) error {
	p := topology.Pair{From: l.From, To: l.To, Protocol: "icmp"}
	return h.eachPair(ctx, p, atOnce, func(ctx context.Context, w way) error {
		return persist(ctx, func() error { return w.fits(ctx, int(l.Bytes)) })
	})
}

// Path MTU discovery of a socket (ip(7), ipv6(7)): nothing is fragmented in both; with
// the first what the kernel has learned of the path does not count, with the second a
// packet larger than that is refused.
const (
	unlearned = unix.IP_PMTUDISC_PROBE
	learned   = unix.IP_PMTUDISC_DO
)

// fits is one try of what largest says.
func (w way) fits(ctx context.Context, size int) error {
	switch is := w.sized(ctx, size, unlearned); {
	case is.err != nil:
		return fmt.Errorf("%d bytes: %w", size, is.err)
	case is.most != 0:
		return fmt.Errorf("%d bytes: %v says that no more than %d fit", size, is.by, is.most)
	case is.local:
		return fmt.Errorf("%d bytes: too much for the sender itself, whose path takes %s", size, w.pathMTU())
	}
	is := w.sized(ctx, size+1, unlearned)
	if is.err == nil && is.most == 0 && !is.local { // what a route says does not count for it
		is = w.sized(ctx, size+1, learned)
		if path := w.pathMTU(); is.local && path != fmt.Sprint(size) {
			return fmt.Errorf("%d bytes: more fit, but the sender's path takes %s", size+1, path)
		}
	}
	switch {
	case errors.Is(is.err, errNoAnswer):
		return fmt.Errorf("%d bytes: %w, and no error: a black hole", size+1, is.err)
	case is.err != nil:
		return fmt.Errorf("%d bytes: %w", size+1, is.err)
	case is.most != 0 && is.most != size:
		return fmt.Errorf("%d bytes: %v says that no more than %d fit", size+1, is.by, is.most)
	case is.most == 0 && !is.local:
		return fmt.Errorf("%d bytes: they arrive too", size+1)
	}
	return nil
}

// sizedResult is what became of a packet: it was answered, unless one of the fields
// says otherwise.
type sizedResult struct {
	err   error    // none of what follows
	local bool     // the sender's kernel refused it as too large
	most  int      // what a router on the way says would fit, bytes; 0: nothing
	by    net.Addr // that router
}

// sized sends one echo request of that many bytes, with all headers, and waits.
func (w way) sized(ctx context.Context, size, discovery int) sizedResult {
	proto := icmpFor(w.addr)
	header := 20
	if w.addr.Is6() {
		header = 40
	}
	var conn *net.IPConn
	err := w.ns.open(func() (err error) {
		conn, err = net.ListenIP(proto.network, nil)
		return err
	})
	if err != nil {
		return sizedResult{err: fmt.Errorf("probe: socket: %w", err)}
	}
	defer conn.Close()
	if err := unfragmented(conn, w.addr, discovery); err != nil {
		return sizedResult{err: fmt.Errorf("probe: socket: %w", err)}
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.SetDeadline(time.Now().Add(probeWait))
	mark := rand.Uint64()
	request := proto.message(mark, max(size-header, echoBytes))
	_, err = conn.WriteTo(request, &net.IPAddr{IP: w.addr.AsSlice()})
	if errors.Is(err, unix.EMSGSIZE) {
		return sizedResult{local: true}
	}
	if err != nil {
		return sizedResult{err: refusal(ctx, err)}
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return sizedResult{err: context.Cause(ctx)}
		case err != nil:
			return sizedResult{err: errNoAnswer}
		case proto.answers(buf[:n], mark):
			return sizedResult{}
		case proto.refuses(buf[:n], w.addr):
			return sizedResult{err: fmt.Errorf("unreachable, says %v", from)}
		}
		if most, ok := proto.tooBig(buf[:n], w.addr, uint16(mark)); ok {
			return sizedResult{most: most, by: from}
		}
	}
}

// unfragmented has conn send with DF, or in IPv6 whole.
func unfragmented(conn *net.IPConn, to netip.Addr, discovery int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		if to.Is4() {
			setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discovery)
			return
		}
		// The values are those of IPv4.
		setErr = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, discovery),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1))
	})
	return errors.Join(err, setErr)
}

// pathMTU is what the kernel of the sender takes the path for, in bytes.
func (w way) pathMTU() string {
	text := "an unknown size"
	_ = w.ns.open(func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(w.addr, 9).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		return raw.Control(func(fd uintptr) {
			level, option := unix.IPPROTO_IP, unix.IP_MTU
			if w.addr.Is6() {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
			}
			if n, err := unix.GetsockoptInt(int(fd), level, option); err == nil {
				text = fmt.Sprint(n)
			}
		})
	})
	return text
}

// tooBig reads the answer of a router that could not pass on the request with that id
// to dst: type 3 code 4 of ICMP (RFC 1191), type 2 of ICMPv6 (RFC 4443).
func (p icmp) tooBig(m []byte, dst netip.Addr, id uint16) (int, bool) {
	idAt := p.innerDst + p.addressBytes + 4 // behind type, code and checksum
	if len(m) < idAt+2 {
		return 0, false
	}
	about, _ := netip.AddrFromSlice(m[p.innerDst : p.innerDst+p.addressBytes])
	if about != dst || binary.BigEndian.Uint16(m[idAt:]) != id {
		return 0, false
	}
	switch {
	case p.addressBytes == 4 && m[0] == 3 && m[1] == 4:
		return int(binary.BigEndian.Uint16(m[6:])), true
	case p.addressBytes == 16 && m[0] == 2:
		return int(binary.BigEndian.Uint32(m[4:])), true
	}
	return 0, false
}
