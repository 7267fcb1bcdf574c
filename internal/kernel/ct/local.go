package ct

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// addrBytes is the length of struct ifaddrmsg.
const addrBytes = 8

// Local is the addresses of the node itself.
func (t *Table) Local() (map[netip.Addr]bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	local := map[netip.Addr]bool{}
	err := t.routes.Dump(unix.RTM_GETADDR, make([]byte, addrBytes), func(typ uint16, body []byte) {
		if a := addrOf(body); typ == unix.RTM_NEWADDR && a.IsValid() {
			local[a] = true
		}
	}, nil)
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return nil, fmt.Errorf("ct: list addresses: %w", err)
	}
	return local, nil
}

// addrOf is the address that a message tells of: of a point-to-point link this end's.
func addrOf(b []byte) (addr netip.Addr) {
	if len(b) < addrBytes {
		return addr
	}
	for typ, v := range netlink.Attributes(b[addrBytes:]) {
		switch a, ok := netip.AddrFromSlice(v); {
		case !ok:
		case typ == unix.IFA_LOCAL, typ == unix.IFA_ADDRESS && !addr.IsValid():
			addr = a.Unmap()
		}
	}
	return addr
}
