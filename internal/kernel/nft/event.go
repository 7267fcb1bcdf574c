package nft

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// warnEvery is the least time between two warnings that somebody changes our tables.
const warnEvery = 10 * time.Second

// listen takes in what others do to our tables, until the socket is closed.
func (n *NFT) listen() error {
	for {
		datagram, err := n.events.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun):
			n.mu.Lock()
			n.stats.Overruns++
			n.mu.Unlock()
			n.loop.Resync()
			continue
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("nft: read events: %w", err)
		}
		if n.heard(datagram) {
			n.loop.Kick()
		}
	}
}

// heard takes in a datagram of events, and reports whether our tables are concerned.
func (n *NFT) heard(datagram []byte) (ours bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for m := range netlink.Messages(datagram) {
		if m.Type&^0xff != subsystem || len(m.Body) < 4 {
			continue
		}
		if m.Type == subsystem|unix.NFT_MSG_NEWGEN {
			if n.hit && n.read && time.Since(n.warned) > warnEvery {
				process, pid := parseGeneration(m.Body[4:])
				n.opts.Log.Warn("another program changed our packet filter; it is being put back", "process", process, "pid", pid)
				n.warned = time.Now()
			}
			n.hit = false
			continue
		}
		for _, t := range n.tables {
			if t.family == m.Body[0] && namesOurs(m.Body[4:]) {
				t.stale, t.early, ours, n.hit = true, false, true, true
				t.epoch++
				n.stats.Events++
			}
		}
	}
	return ours
}

// namesOurs reports whether an object is of a table of our name. Objects of all kinds
// begin with the table's.
func namesOurs(b []byte) bool {
	for a, v := range netlink.Attributes(b) {
		return a == unix.NFTA_TABLE_NAME && isOurs(v)
	}
	return false
}

// parseGeneration reads who made a transaction.
func parseGeneration(b []byte) (process string, pid uint32) {
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_GEN_PROC_NAME:
			process = string(cString(v))
		case unix.NFTA_GEN_PROC_PID:
			pid = netlink.BE32(v)
		}
	}
	return process, pid
}
