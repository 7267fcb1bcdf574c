package device

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// eventGroups are the kernel's events that concern us.
var eventGroups = []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}

// listen takes in the kernel's events until the socket is closed.
func (d *Devices) listen() error {
	for {
		datagram, err := d.events.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun):
			d.mu.Lock()
			d.full = true
			d.mu.Unlock()
			d.loop.Resync()
			continue
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("device: read events: %w", err)
		}
		d.mu.Lock()
		for m := range netlink.Messages(datagram) {
			d.event(m)
		}
		d.kick()
		d.mu.Unlock()
	}
}

// event takes in what somebody else did, and some of what we did ourselves. It only
// marks what to look at.
func (d *Devices) event(m netlink.Message) {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		k, ok := parseLink(m.Body)
		if !ok {
			return
		}
		name, known := d.byIndex[k.index]
		if known {
			d.dirty[name] = true
			d.full = d.full || k.name != name // renamed, it is in the way of another one
		}
		if known && m.Type == unix.RTM_DELLINK {
			delete(d.byIndex, k.index)
			d.links[name].index = 0
			d.endsOf(name).lost()
		}
		if _, wanted := d.want[k.name]; wanted {
			d.dirty[k.name] = true
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		index, _, _ := parseAddr(m.Body)
		if name, ok := d.byIndex[index]; ok {
			d.dirty[name] = true
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		k, ok := parseEntry(m.Body)
		name, known := d.byIndex[k.index]
		e := d.ends[name]
		switch {
		case !ok || !known || e == nil:
		case k.bridge:
			e.forwardEvent(m.Type == unix.RTM_NEWNEIGH, &k, d.synced)
		default:
			e.neighborEvent(m.Type == unix.RTM_NEWNEIGH, &k, d.synced)
		}
	}
}
