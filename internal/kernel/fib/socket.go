package fib

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// openSocket opens a socket that listens to the given multicast groups.
func openSocket(groups ...int) (*netlink.Socket, error) {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE, Groups: groups, Strict: true})
	if err != nil {
		return nil, fmt.Errorf("fib: %w", err)
	}
	return s, nil
}

// dumpAll is Socket.Dump for what may change meanwhile: events of the change
// come as well.
func dumpAll(s *netlink.Socket, typ uint16, body []byte, each func(typ uint16, body []byte), pause func()) error {
	err := s.Dump(typ, body, each, pause)
	if errors.Is(err, netlink.ErrInterrupted) {
		return nil
	}
	return err
}
