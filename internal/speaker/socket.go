package speaker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/bgp"
)

// listener is one listening socket and the passwords the kernel checks on it.
type listener struct {
	net.Listener
	family bgp.Families
	keys   map[netip.Addr]bgp.Secret
}

// listenKey is what listening depends on.
type listenKey struct {
	port  uint16
	addrs string // joined by blanks
}

// reconfigureListeners closes the listeners if others are wanted; listen opens them.
func (s *Speaker) reconfigureListeners(c *bgp.Config) {
	want := listenKey{port: c.ListenPort}
	if want.port == 0 {
		want.port = bgp.DefaultPort
	}
	for _, a := range c.ListenAddrs {
		want.addrs += a.String() + " "
	}
	if want == s.listening {
		return
	}
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.listeners, s.listening, s.retry = nil, want, time.Now()
}

// listen opens the listeners when that is due. While it cannot, peers can only
// be dialled; it tries again, and logs the reason when that changes.
func (s *Speaker) listen() {
	if s.retry.IsZero() || time.Now().Before(s.retry) {
		return
	}
	s.retry = time.Time{}
	var errs []error
	addrs := strings.Fields(s.listening.addrs)
	if len(addrs) == 0 {
		addrs = []string{"0.0.0.0", "::"}
	}
	for _, addr := range addrs {
		if slices.ContainsFunc(s.listeners, func(l *listener) bool { return addrOf(l.Addr()).String() == addr }) {
			continue
		}
		l, err := s.open(netip.MustParseAddr(addr))
		switch {
		case err == nil:
			s.listeners = append(s.listeners, l)
			s.tasks.Go(func() { s.serve(l) })
		case !errors.Is(err, unix.EAFNOSUPPORT): // a kernel without IPv6 has no IPv6 peers
			errs = append(errs, fmt.Errorf("speaker: %w", err))
		}
	}
	text := ""
	if err := errors.Join(errs...); err != nil {
		text, s.retry = err.Error(), time.Now().Add(listenRetry)
		if text != s.listenErr {
			s.log.Warn("cannot listen; peers can only be dialled", "err", err)
		}
	}
	s.listenErr = text
}

func (s *Speaker) open(addr netip.Addr) (*listener, error) {
	l := &listener{family: bgp.IPv4, keys: map[netip.Addr]bgp.Secret{}}
	network := "tcp4"
	if addr.Is6() {
		l.family, network = bgp.IPv6, "tcp6" // and IPV6_V6ONLY
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go's default; such a socket has no MD5 keys
	nl, err := config.Listen(s.ctx, network, net.JoinHostPort(addr.String(), strconv.Itoa(int(s.listening.port))))
	if err != nil {
		return nil, err
	}
	l.Listener = nl
	s.mu.Lock()
	peers := s.peers
	s.mu.Unlock()
	l.rekey(s, peers)
	return l, nil
}

func (s *Speaker) serve(l *listener) {
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, or the connection is gone already
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		s.accepted(nc)
	}
}

// rekey makes the listeners check the passwords of peers.
func (s *Speaker) rekey(peers map[netip.Addr]bgp.Peer) {
	for _, l := range s.listeners {
		l.rekey(s, peers)
	}
}

func (l *listener) rekey(s *Speaker, peers map[netip.Addr]bgp.Peer) {
	set := func(addr netip.Addr, key bgp.Secret) {
		if err := control(l.Listener.(*net.TCPListener), func(fd int) error { return setMD5(fd, addr, key) }); err != nil {
			s.log.Error("TCP MD5 key", "peer", addr, "err", err)
			return
		}
		l.keys[addr] = key
		if key == "" {
			delete(l.keys, addr)
		}
	}
	for addr := range l.keys {
		if peers[addr].Password == "" {
			set(addr, "")
		}
	}
	for addr, p := range peers {
		if p.Password != l.keys[addr] && (addr.Is4() == (l.family == bgp.IPv4)) {
			set(addr, p.Password)
		}
	}
}

// dialPeer makes a connection with all options of the peer set before the first packet.
func dialPeer(ctx context.Context, p bgp.Peer) (net.Conn, error) {
	port := p.Port
	if port == 0 {
		port = bgp.DefaultPort
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return raw(c, func(fd int) error {
			if p.Password != "" {
				if err := setMD5(fd, p.Addr, p.Password); err != nil {
					return err
				}
			}
			return setOptions(fd, p)
		})
	}}
	if p.Local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Local, 0))
	}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(p.Addr, port).String())
}

// setPeerOptions sets what an accepted connection needs.
func setPeerOptions(nc net.Conn, p bgp.Peer) error {
	return control(nc.(*net.TCPConn), func(fd int) error { return setOptions(fd, p) })
}

// setOptions sets the priority of routing traffic (CS6) and, if asked for, the
// TTL check of RFC 5082.
func setOptions(fd int, p bgp.Peer) error {
	level, tos, ttl, least := unix.IPPROTO_IP, unix.IP_TOS, unix.IP_TTL, unix.IP_MINTTL
	if p.Addr.Is6() {
		level, tos, ttl, least = unix.IPPROTO_IPV6, unix.IPV6_TCLASS, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT
	}
	if err := unix.SetsockoptInt(fd, level, tos, 0xc0); err != nil {
		return fmt.Errorf("set traffic class: %w", err)
	}
	if p.TTLSecurity == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, level, ttl, 255); err != nil {
		return fmt.Errorf("set TTL: %w", err)
	}
	if err := unix.SetsockoptInt(fd, level, least, 256-int(p.TTLSecurity)); err != nil {
		return fmt.Errorf("set least TTL: %w", err)
	}
	return nil
}

// setMD5 sets the key that TCP uses with a peer (RFC 2385); "" removes it. The
// argument is Linux's struct tcp_md5sig: address (128 bytes), flags, prefix
// length, key length, interface, key (80 bytes).
func setMD5(fd int, addr netip.Addr, key bgp.Secret) error {
	var sig [216]byte
	if addr.Is4() {
		binary.NativeEndian.PutUint16(sig[0:], unix.AF_INET)
		copy(sig[4:], addr.AsSlice())
	} else {
		binary.NativeEndian.PutUint16(sig[0:], unix.AF_INET6)
		copy(sig[8:], addr.AsSlice())
	}
	binary.NativeEndian.PutUint16(sig[130:], uint16(len(key)))
	copy(sig[136:], key)
	err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, string(sig[:]))
	if key == "" && errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("set TCP MD5 key for %v: %w", addr, err)
	}
	return nil
}

func control(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw(rc, f)
}

func raw(c syscall.RawConn, f func(fd int) error) error {
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
