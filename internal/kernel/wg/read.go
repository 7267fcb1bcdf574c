package wg

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// kernel is where devices are.
type kernel interface {
	// read reads all of a device. The error wraps unix.ENODEV when there is none,
	// unix.EOPNOTSUPP when it is something else.
	read(name string) (*state, error)
	// set writes the attributes that attrs appends to those of a device.
	set(index int32, attrs func([]byte) []byte) error
	close()
}

// generic is the real one, by generic netlink.
type generic struct {
	socket *netlink.Socket
	family uint16 // the kernel's number of WireGuard; 0: not known yet
}

func (g *generic) close() { g.socket.Close() }

// errNoKernel says that the kernel has no WireGuard.
var errNoKernel = errors.New("the kernel has no WireGuard (module wireguard, Linux 5.6 or later)")

// findFamily asks for the number of WireGuard among the families of generic netlink. The
// kernel loads its module for that, if it may.
func findFamily(s *netlink.Socket) (uint16, error) {
	seq := s.Next()
	b := netlink.AppendHeader(nil, unix.GENL_ID_CTRL, unix.NLM_F_REQUEST|unix.NLM_F_ACK, seq)
	b = append(b, unix.CTRL_CMD_GETFAMILY, 1, 0, 0)
	b = netlink.AppendAttrString(b, unix.CTRL_ATTR_FAMILY_NAME, unix.WG_GENL_NAME)
	netlink.EndMessage(b, 0)
	if err := s.Send(b); err != nil {
		return 0, err
	}
	var family uint16
	for {
		datagram, err := s.Read()
		if err != nil {
			return 0, err
		}
		for m := range netlink.Messages(datagram) {
			switch {
			case m.Seq != seq:
			case m.Type == unix.GENL_ID_CTRL && len(m.Body) >= genlBytes:
				for typ, v := range netlink.Attributes(m.Body[genlBytes:]) {
					if typ == unix.CTRL_ATTR_FAMILY_ID && len(v) >= 2 {
						family = netlink.Native.Uint16(v)
					}
				}
			case m.Type == unix.NLMSG_ERROR:
				if errno := m.Errno(); errno != 0 && errno != unix.ENOENT {
					return 0, errno
				}
				if family == 0 {
					return 0, errNoKernel
				}
				return family, nil
			}
		}
	}
}

func (g *generic) read(name string) (*state, error) {
	if g.family == 0 {
		family, err := findFamily(g.socket)
		if err != nil {
			return nil, err
		}
		g.family = family
	}
	body := []byte{unix.WG_CMD_GET_DEVICE, unix.WG_GENL_VERSION, 0, 0}
	body = netlink.AppendAttrString(body, unix.WGDEVICE_A_IFNAME, name)
	for range 3 { // nobody else writes, as a rule, so a torn dump is rare
		have := newState()
		err := g.socket.Dump(g.family, body, func(_ uint16, body []byte) {
			have.parse(body)
			clear(body) // it has the private key
		}, nil)
		if errors.Is(err, netlink.ErrInterrupted) {
			continue
		}
		if err == nil && have.index == 0 {
			err = unix.ENODEV
		}
		return have, err
	}
	return nil, fmt.Errorf("%w three times", netlink.ErrInterrupted)
}

func (g *generic) set(index int32, attrs func([]byte) []byte) error {
	seq := g.socket.Next()
	b := netlink.AppendHeader(make([]byte, 0, 256), g.family, unix.NLM_F_REQUEST|unix.NLM_F_ACK, seq)
	b = append(b, unix.WG_CMD_SET_DEVICE, unix.WG_GENL_VERSION, 0, 0)
	b = attrs(netlink.AppendAttr32(b, unix.WGDEVICE_A_IFINDEX, uint32(index)))
	defer clear(b) // there may be a private key in it
	netlink.EndMessage(b, 0)
	var refused error
	err := g.socket.Exchange(b, seq, func(_ uint32, errno unix.Errno) { refused = errno })
	return errors.Join(err, refused)
}

// parse takes in one message of a dump. A peer whose prefixes do not fit one message
// goes on in the next.
func (s *state) parse(body []byte) {
	if len(body) < genlBytes {
		return
	}
	for typ, v := range netlink.Attributes(body[genlBytes:]) {
		switch {
		case typ == unix.WGDEVICE_A_IFINDEX:
			s.index = int32(netlink.Uint32(v))
		case typ == unix.WGDEVICE_A_PUBLIC_KEY && len(v) == len(s.public):
			s.public = plan.PublicKey(v)
		case typ == unix.WGDEVICE_A_LISTEN_PORT && len(v) >= 2:
			s.port = netlink.Native.Uint16(v)
		case typ == unix.WGDEVICE_A_FWMARK:
			s.mark = netlink.Uint32(v)
		case typ == unix.WGDEVICE_A_PEERS:
			for _, p := range netlink.Attributes(v) {
				s.parsePeer(p)
			}
		}
	}
}

func (s *state) parsePeer(b []byte) {
	var key plan.PublicKey
	var p *peer // the key comes first
	for typ, v := range netlink.Attributes(b) {
		switch {
		case typ == unix.WGPEER_A_PUBLIC_KEY && len(v) == len(key):
			key = plan.PublicKey(v)
			if p = s.peers[key]; p == nil {
				p = &peer{allowed: map[netip.Prefix]struct{}{}}
				s.peers[key] = p
			}
		case p == nil:
		case typ == unix.WGPEER_A_ENDPOINT:
			p.endpoint = parseSockaddr(v)
		case typ == unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL && len(v) >= 2:
			p.keepalive = time.Duration(netlink.Native.Uint16(v)) * time.Second
		case typ == unix.WGPEER_A_ALLOWEDIPS:
			for _, a := range netlink.Attributes(v) {
				if prefix := parseAllowed(a); prefix.IsValid() {
					s.allow(prefix, key)
				}
			}
		}
	}
}

func parseAllowed(b []byte) netip.Prefix {
	var addr netip.Addr
	bits := -1
	for typ, v := range netlink.Attributes(b) {
		switch {
		case typ == unix.WGALLOWEDIP_A_IPADDR:
			addr, _ = netip.AddrFromSlice(v)
		case typ == unix.WGALLOWEDIP_A_CIDR_MASK && len(v) > 0:
			bits = int(v[0])
		}
	}
	return netip.PrefixFrom(addr, bits)
}

// parseLink reads name and index of an event about a link.
func parseLink(m netlink.Message) (name string, index int32, ok bool) {
	if m.Type != unix.RTM_NEWLINK && m.Type != unix.RTM_DELLINK || len(m.Body) < unix.SizeofIfInfomsg || m.Body[0] == unix.AF_BRIDGE {
		return "", 0, false
	}
	index = int32(netlink.Uint32(m.Body[4:]))
	for typ, v := range netlink.Attributes(m.Body[unix.SizeofIfInfomsg:]) {
		if typ == unix.IFLA_IFNAME && len(v) > 0 {
			name = string(v[:len(v)-1])
		}
	}
	return name, index, name != ""
}
