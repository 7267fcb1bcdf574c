package wg

import (
	"errors"
	"fmt"
)

// messageBytes is when a message is full. An attribute, and so the list of all peers in
// one, holds 64 KiB at most.
const messageBytes = 24 << 10

// allowedBytes is the most that one allowed prefix takes in a message.
const allowedBytes = 4 + 8 + 20 + 8

// write writes changes of peers, as many in a message as fit. Where the kernel refuses one of
// several, each is written alone, so that one does not hold up others.
func (w *WG) write(name string, d *device, list []change) error {
	w.stats.Peers += uint64(len(list))
	var errs []error
	for len(list) > 0 {
		n := fit(list)
		if n == 1 || w.kernel.set(d.index, func(b []byte) []byte { return appendPeers(b, list[:n]) }) != nil {
			for _, c := range list[:n] {
				errs = append(errs, w.writeOne(name, d, c))
			}
		}
		list = list[n:]
	}
	return errors.Join(errs...)
}

// writeOne writes one peer, in several messages where its prefixes need them.
func (w *WG) writeOne(name string, d *device, c change) error {
	const most = messageBytes / allowedBytes
	for {
		part := c
		part.allowed = c.allowed[:min(len(c.allowed), most)]
		if err := w.kernel.set(d.index, func(b []byte) []byte { return appendPeers(b, []change{part}) }); err != nil {
			return fmt.Errorf("wg: %s: peer at %v: %w", name, c.endpoint, err)
		}
		c.allowed, c.whole = c.allowed[len(part.allowed):], false
		if len(c.allowed) == 0 {
			return nil
		}
	}
}

// fit is how many of list go into one message; 1 also where the first does not.
func fit(list []change) int {
	const fixed = 128 // of a peer, without its prefixes
	size := 0
	for n, c := range list {
		if size += fixed + allowedBytes*len(c.allowed); size > messageBytes {
			return max(n, 1)
		}
	}
	return len(list)
}
