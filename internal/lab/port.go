package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/topology"
)

// port is a port of a namespace at which the lab answers.
type port struct {
	ns       string // path
	protocol string
	number   uint16
}

// ask sends what the way is about, once, and waits for the answer; ICMP and UDP carry
// the mark. The error says why there was none.
func (w way) ask(ctx context.Context, wait time.Duration, mark uint64) error {
	if w.protocol == "icmp" {
		_, err := echo(ctx, w.ns, w.addr, wait, mark)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var conn net.Conn
	err := w.ns.open(func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, w.protocol, netip.AddrPortFrom(w.addr, w.port).String())
		return err
	})
	if errors.Is(err, unix.ECONNREFUSED) {
		return errors.New("refused")
	}
	if err != nil {
		return errNoAnswer
	}
	defer conn.Close()
	if w.protocol == "tcp" {
		return nil // it is connected, which takes an answer
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	word := binary.BigEndian.AppendUint64(nil, mark)
	if _, err := conn.Write(word); err != nil {
		return cause(err)
	}
	if _, err := io.ReadFull(conn, word); err != nil {
		return errNoAnswer
	}
	return nil
}

// listenAt makes sure that something answers at the ports that ways lead to.
// What a target itself has there is left alone.
func (h *holder) listenAt(ways []way) error {
	for _, w := range ways {
		to := w.to
		if to.Kind == topology.ToAddress {
			to = h.holderOf(to)
		}
		if w.port == 0 || to.Kind == topology.ToAddress || to.Kind == topology.ToFabric {
			continue
		}
		ns, _ := h.place(to)
		if err := h.listenOn(ns, port{ns.path, w.protocol, w.port}); err != nil {
			return fmt.Errorf("%v: port %d: %w", w.to, w.port, err)
		}
	}
	return nil
}

// holderOf is the pod, node, router or host that has an address; else the address itself.
func (h *holder) holderOf(t topology.Target) topology.Target {
	var all []topology.Target
	for _, p := range h.pods {
		all = append(all, p.Target())
	}
	for _, m := range slices.Concat(h.nodes, h.routers) {
		all = append(all, m.target)
	}
	for _, o := range h.outside {
		all = append(all, o.target)
	}
	for _, c := range all {
		if _, addrs := h.place(c); slices.Contains(addrs, t.Addr) {
			return c
		}
	}
	return t
}

// listenOn opens a port for as long as the lab is up.
func (h *holder) listenOn(ns *namespace, at port) error {
	h.portsMu.Lock()
	defer h.portsMu.Unlock()
	if h.ports[at] {
		return nil
	}
	err := ns.open(func() error {
		where := fmt.Sprintf(":%d", at.number)
		if at.protocol == "tcp" {
			l, err := net.Listen("tcp", where)
			if err == nil {
				go accept(l)
			}
			return err
		}
		c, err := net.ListenPacket("udp", where)
		if err == nil {
			go reflect(c)
		}
		return err
	})
	if err != nil && !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	if h.ports == nil {
		h.ports = map[port]bool{}
	}
	h.ports[at] = true
	return nil
}

// accept takes connections and closes them, until the lab goes down.
func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// reflect sends every datagram back, until the lab goes down.
func reflect(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}
