package startup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// WatchLinks calls each with the links of this machine, and again whenever one of them
// changes in what [Link] has, until ctx ends; it returns then, or when the kernel can't be
// asked. Links that skip names, of which there may be thousands that come and go, are left
// out. The machine is the network namespace of the caller's thread.
func WatchLinks(ctx context.Context, skip func(name string) bool, each func([]Link)) error {
	s, err := netlink.Open(netlink.Options{
		Protocol: unix.NETLINK_ROUTE,
		Groups:   []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR},
	})
	if err != nil {
		return fmt.Errorf("startup: watch links: %w", err)
	}
	defer func() { _ = s.Close() }()
	reader, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE})
	if err != nil {
		return fmt.Errorf("startup: watch links: %w", err)
	}
	defer func() { _ = reader.Close() }()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	w := linkWatch{skip: skip}
	for err = netlink.ErrOverrun; ctx.Err() == nil; {
		switch {
		case errors.Is(err, netlink.ErrOverrun), errors.Is(err, netlink.ErrInterrupted):
			// What happened meanwhile is read as events after this, once more.
			if err = w.read(reader); err == nil {
				each(w.list())
			}
			continue
		case err != nil:
			return fmt.Errorf("startup: watch links: %w", err)
		}
		var datagram []byte
		if datagram, err = s.Read(); err == nil && w.take(datagram) {
			each(w.list())
		}
	}
	return context.Cause(ctx)
}

// linkWatch is the links as the events so far leave them.
type linkWatch struct {
	skip  func(name string) bool
	links map[int32]*Link
}

func (w *linkWatch) read(s *netlink.Socket) error {
	links, err := readLinks(s)
	if err != nil {
		return err
	}
	maps.DeleteFunc(links, func(_ int32, l *Link) bool { return w.skip(l.Name) })
	w.links = links
	return nil
}

// take applies the messages of a datagram and reports whether they changed anything.
func (w *linkWatch) take(datagram []byte) bool {
	changed := false
	for m := range netlink.Messages(datagram) {
		switch m.Type {
		case unix.RTM_NEWLINK:
			if index, l, ok := parseLink(m.Body); ok {
				changed = w.put(index, l) || changed
			}
		case unix.RTM_DELLINK:
			if index, _, ok := parseLink(m.Body); ok && w.links[index] != nil {
				delete(w.links, index)
				changed = true
			}
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			if index, p, ok := parseAddr(m.Body); ok && w.links[index] != nil {
				changed = w.address(w.links[index], p, m.Type == unix.RTM_NEWADDR) || changed
			}
		}
	}
	return changed
}

func (w *linkWatch) put(index int32, l Link) bool {
	old, known := w.links[index]
	if w.skip(l.Name) { // it may have had another name
		delete(w.links, index)
		return known
	}
	if !known {
		w.links[index] = &l
		return true
	}
	changed := old.Name != l.Name || old.Up != l.Up || old.MTU != l.MTU
	old.Name, old.Up, old.MTU = l.Name, l.Up, l.MTU
	return changed
}

func (w *linkWatch) address(l *Link, p netip.Prefix, added bool) bool {
	i := slices.Index(l.Addrs, p)
	switch {
	case added && i < 0:
		l.Addrs = append(slices.Clip(l.Addrs), p)
	case !added && i >= 0:
		l.Addrs = slices.Delete(slices.Clone(l.Addrs), i, i+1)
	default:
		return false
	}
	return true
}

func (w *linkWatch) list() []Link {
	out := make([]Link, 0, len(w.links))
	for _, index := range slices.Sorted(maps.Keys(w.links)) {
		out = append(out, *w.links[index])
	}
	return out
}
