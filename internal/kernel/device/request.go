package device

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// readLink asks for one link. It is unix.ENODEV if there is none of that name.
func (d *Devices) readLink(name string) (l kernelLink, err error) {
	seq := d.reader.Next()
	b := netlink.AppendHeader(nil, unix.RTM_GETLINK, unix.NLM_F_REQUEST, seq)
	b = appendLink(b, 0, name, 0, 0)
	netlink.EndMessage(b, 0)
	if err := d.reader.Send(b); err != nil {
		return l, err
	}
	for {
		datagram, err := d.reader.Read()
		if err != nil {
			return l, err
		}
		for m := range netlink.Messages(datagram) {
			if m.Seq != seq {
				continue
			}
			if m.Type == unix.NLMSG_ERROR {
				return l, m.Errno()
			}
			if l, ok := parseLink(m.Body); ok {
				l.data = append([]byte(nil), l.data...)
				return l, nil
			}
		}
	}
}

// dump calls each with every message of the answer; one that is torn by a change is
// followed by an event of that change.
func (d *Devices) dump(typ uint16, body []byte, each func([]byte)) error {
	err := d.reader.Dump(typ, body, func(_ uint16, body []byte) { each(body) }, nil)
	if errors.Is(err, netlink.ErrInterrupted) {
		return nil
	}
	return err
}

// readAddrs lists the addresses of a link.
func (d *Devices) readAddrs(index int32) (out []netip.Prefix, err error) {
	body := make([]byte, addrBytes)
	netlink.Native.PutUint32(body[4:], uint32(index))
	err = d.dump(unix.RTM_GETADDR, body, func(b []byte) {
		if i, p, ok := parseAddr(b); ok && i == index {
			out = append(out, p)
		}
	})
	return out, err
}

// request sends one message that changes something, and gives the kernel's answer.
func (d *Devices) request(typ, flags uint16, body func([]byte) []byte) error {
	d.mu.Lock()
	d.stats.Devices++
	d.mu.Unlock()
	seq := d.writer.Next()
	b := netlink.AppendHeader(make([]byte, 0, 256), typ, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags, seq)
	b = body(b)
	netlink.EndMessage(b, 0)
	var refused unix.Errno
	err := d.writer.Exchange(b, seq, func(_ uint32, errno unix.Errno) { refused = errno })
	if err == nil && refused != 0 {
		err = refused
	}
	return err
}

// setLink changes a link.
func (d *Devices) setLink(index int32, flags, mask uint32, attrs func([]byte) []byte) error {
	return d.request(unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		b = appendLink(b, index, "", flags, mask)
		if attrs != nil {
			b = attrs(b)
		}
		return b
	})
}

// deleteLink removes a link. One that is gone is no error.
func (d *Devices) deleteLink(index int32) error {
	err := d.request(unix.RTM_DELLINK, 0, func(b []byte) []byte { return appendLink(b, index, "", 0, 0) })
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
