package fib

import (
	"bytes"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// Scout looks at what forwarding there is in a network namespace, whoever made it: for
// who has to doubt what he is told. It is safe for concurrent use.
type Scout struct {
	opts   Options
	mu     sync.Mutex
	socket *netlink.Socket
}

// Sighting is what a [Scout] found in the main table.
type Sighting struct {
	// Workloads are the links of workloads that have a route to one address.
	Workloads int
	// Blocks are the routes of the cluster to more than one address.
	Blocks int
}

// OpenScout opens the socket in the network namespace of the calling thread. Close it.
func OpenScout(opts Options) (*Scout, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	return &Scout{opts: opts.withDefaults(), socket: s}, nil
}

// Close ends the scout.
func (s *Scout) Close() error { return s.socket.Close() }

// Look reads the kernel's links and routes.
func (s *Scout) Look() (Sighting, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := blank(s.opts)
	links := map[int32]bool{}
	err := dumpAll(s.socket, unix.RTM_GETLINK, make([]byte, linkBytes), func(typ uint16, body []byte) {
		if typ == unix.RTM_NEWLINK && len(body) >= linkBytes && f.ours(linkName(body)) {
			links[int32(netlink.Native.Uint32(body[4:]))] = true
		}
	}, func() {})
	if err != nil {
		return Sighting{}, fmt.Errorf("fib: read links: %w", err)
	}
	var out Sighting
	busy := map[int32]bool{}
	var r route
	for _, v6 := range []bool{false, true} {
		body := make([]byte, routeBytes)
		body[0], body[4] = netlink.Family(v6), unix.RT_TABLE_MAIN
		err := dumpAll(s.socket, unix.RTM_GETROUTE, body, func(typ uint16, body []byte) {
			if typ != unix.RTM_NEWROUTE || !r.parse(body) || r.cloned || r.key.table != plan.TableMain {
				return
			}
			index := r.device()
			switch {
			case r.key.host() && links[index] && r.proto != unix.RTPROT_KERNEL:
				busy[index] = true
			case !r.key.host() && r.proto != s.opts.DeviceProtocol && f.owns(&r):
				out.Blocks++
			}
		}, func() {})
		if err != nil {
			return Sighting{}, fmt.Errorf("fib: read routes: %w", err)
		}
	}
	out.Workloads = len(busy)
	return out, nil
}

// linkName is the name in the body of a link message; empty: it has none.
func linkName(b []byte) string {
	for typ, v := range netlink.Attributes(b[linkBytes:]) {
		if typ == unix.IFLA_IFNAME {
			return string(bytes.TrimRight(v, "\x00"))
		}
	}
	return ""
}
