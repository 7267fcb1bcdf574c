package qos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// listen kicks the loop when something may have changed that is wanted or ours.
func (q *QoS) listen() error {
	for {
		datagram, err := q.events.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun):
			q.loop.Kick()
			continue
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("qos: read events: %w", err)
		}
		for m := range netlink.Messages(datagram) {
			if q.concerns(m) {
				q.loop.Kick()
				break
			}
		}
	}
}

func (q *QoS) concerns(m netlink.Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.want) == 0 {
		return false
	}
	l, ok := parseLink(m.Body)
	switch {
	case m.Type != unix.RTM_NEWLINK && m.Type != unix.RTM_DELLINK:
		if len(m.Body) < tcBytes {
			return false
		}
		index := int32(netlink.Native.Uint32(m.Body[4:]))
		for _, s := range q.seen {
			if s.index == index {
				return true
			}
		}
		return false
	case !ok:
		return false
	}
	_, wanted := q.want[l.name]
	return wanted && (m.Type == unix.RTM_DELLINK || q.seen[l.name].index != l.index || q.seen[l.name].mtu != l.mtu) || l.isIFB()
}

// pass is one turn of the loop: what the kernel has is read, and what differs is written.
func (q *QoS) pass(_ context.Context, _ reconcile.Cause) error {
	q.mu.Lock()
	want, told, ours := q.want, q.told, q.ours
	q.mu.Unlock()
	if !told || len(want) == 0 && !ours {
		return nil
	}
	have, err := q.read()
	if err != nil {
		return err
	}
	problems, now := map[string]error{}, map[string]seen{}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		l := have.byName[name]
		if l == nil {
			continue // an event will tell of it
		}
		err := q.settle(have, l, want[name])
		if errors.Is(err, unix.ENODEV) {
			continue // it has gone meanwhile
		}
		if err != nil {
			problems[name] = err
		}
		now[name] = seen{l.index, l.mtu, want[name]}
	}
	if err := q.sweep(have, want); err != nil {
		problems[""] = err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.problems, q.seen, q.ours = problems, now, len(want) > 0 || problems[""] != nil
	close(q.changed)
	q.changed = make(chan struct{})
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		errs = append(errs, fmt.Errorf("qos: %s: %w", name, problems[name]))
	}
	return errors.Join(errs...)
}

// settle makes one link as wanted.
func (q *QoS) settle(have *state, l *link, want plan.Shape) error {
	var errs []error
	if err := q.settleRoot(l, bucketFor(want.Ingress, l.mtu)); err != nil {
		errs = append(errs, fmt.Errorf("ingress bandwidth: %w", err))
	}
	out := bucketFor(want.Egress, l.mtu)
	if out == (bucket{}) {
		errs = append(errs, q.release(have, l))
	} else if err := q.settleEgress(have, l, out); err != nil {
		errs = append(errs, fmt.Errorf("egress bandwidth: %w", err))
	}
	return errors.Join(errs...)
}

// settleRoot makes the root of a link's queues the bucket; the zero bucket: none of ours.
func (q *QoS) settleRoot(l *link, want bucket) error {
	switch {
	case want == (bucket{}) && l.root.ours():
		return q.delete(unix.RTM_DELQDISC, tcHeader(l.index, ourHandle, parentRoot, 0), "remove its queue")
	case want == (bucket{}) || want.is(&l.root):
		return nil
	case l.root.handle != 0 && !l.root.ours():
		return fmt.Errorf("the link has a queue that is not ours (qdisc %s %x:): it stays, and limits as it does; remove it with tc qdisc del, and what makes it, such as the CNI plugin bandwidth", l.root.kind, l.root.handle>>16)
	}
	err := q.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, putTBF(l.index, want))
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the kernel has no token bucket (module sch_tbf): %w", err)
	}
	if err != nil {
		return fmt.Errorf("write its queue: %w", err)
	}
	return nil
}

// settleEgress leads what comes from the workload through a device with the bucket: first
// the device, then the way there.
func (q *QoS) settleEgress(have *state, l *link, want bucket) error {
	ifb, err := q.device(have, l)
	if err != nil {
		return err
	}
	if err := q.settleRoot(ifb, want); err != nil {
		return err
	}
	if l.ingress == "" {
		b := tcHeader(l.index, handleIngress, parentIngress, 0)
		b = netlink.AppendAttrString(b, unix.TCA_KIND, "ingress")
		if err := q.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("write its ingress queue (module sch_ingress): %w", err)
		}
		l.ingress = "ingress"
	}
	to, there, _, err := q.redirect(l.index)
	if err != nil || there && to == ifb.index {
		return err
	}
	if there { // to a device that has gone: nothing passes
		if err := q.dropFilter(l); err != nil {
			return err
		}
	}
	if err := q.request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, putFilter(l.index, ifb.index)); err != nil {
		return fmt.Errorf("lead its packets to %s (modules cls_u32, act_mirred): %w", ifb.name, err)
	}
	return nil
}

// device is the ifb device of a link, made if there is none.
func (q *QoS) device(have *state, l *link) (*link, error) {
	name := ifbFor(l.name)
	d := have.byName[name]
	switch {
	case d == nil:
		err := q.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, newIFB(name, l.mtu))
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("the kernel has no ifb devices (module ifb): %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("make device %s: %w", name, err)
		}
		if d, err = q.readLink(name); err != nil {
			return nil, err
		}
		have.byName[name], have.byIndex[d.index] = d, d
	case !d.isIFB():
		return nil, fmt.Errorf("a device %s is in the way: it is of kind %q, not ifb; remove it", name, d.kind)
	case !d.up:
		if err := q.request(unix.RTM_NEWLINK, 0, linkOf(d.index, unix.IFF_UP)); err != nil {
			return nil, fmt.Errorf("device %s up: %w", name, err)
		}
	}
	return d, nil
}

// readLink reads one link.
func (q *QoS) readLink(name string) (*link, error) {
	s, err := q.read()
	if err != nil {
		return nil, err
	}
	if l := s.byName[name]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("device %s: gone as soon as it was made", name)
}

// release undoes settleEgress: the way first, then the device.
func (q *QoS) release(have *state, l *link) error {
	if l.ingress != "" {
		_, there, others, err := q.redirect(l.index)
		if err == nil && there {
			err = q.dropFilter(l)
			if err == nil && !others && l.ingress == "ingress" {
				err = q.delete(unix.RTM_DELQDISC, tcHeader(l.index, handleIngress, parentIngress, 0), "remove its ingress queue")
			}
		}
		if err != nil {
			return err
		}
	}
	if d := have.byName[ifbFor(l.name)]; d != nil && d.isIFB() {
		return q.delete(unix.RTM_DELLINK, linkOf(d.index, 0), "remove device "+d.name)
	}
	return nil
}

func (q *QoS) dropFilter(l *link) error {
	return q.delete(unix.RTM_DELTFILTER, tcHeader(l.index, 0, blockIngress, filterInfo()), "remove the way to its device")
}

// sweep removes what is ours and not wanted.
func (q *QoS) sweep(have *state, want map[string]plan.Shape) error {
	keep := map[string]bool{}
	var errs []error
	for name := range want {
		keep[ifbFor(name)] = true
	}
	for _, name := range slices.Sorted(maps.Keys(have.byName)) {
		l := have.byName[name]
		if _, wanted := want[name]; wanted || l.isIFB() {
			continue
		}
		if err := errors.Join(q.settleRoot(l, bucket{}), q.release(have, l)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			keep[ifbFor(name)] = true // without it nothing would pass
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.byName)) {
		if l := have.byName[name]; l.isIFB() && !keep[name] {
			errs = append(errs, q.delete(unix.RTM_DELLINK, linkOf(l.index, 0), "remove device "+name))
		}
	}
	return errors.Join(errs...)
}

// delete is request for what may be gone already.
func (q *QoS) delete(typ uint16, body []byte, what string) error {
	err := q.request(typ, 0, body)
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) && typ == unix.RTM_DELQDISC {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// request asks for one change, and waits for the kernel's answer.
func (q *QoS) request(typ, flags uint16, body []byte) error {
	seq := q.socket.Next()
	b := netlink.AppendHeader(nil, typ, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, seq)
	b = append(b, body...)
	netlink.EndMessage(b, 0)
	var refused error
	if err := q.socket.Exchange(b, seq, func(_ uint32, errno unix.Errno) { refused = errno }); err != nil {
		return err
	}
	if refused == nil {
		q.mu.Lock()
		q.writes++
		q.mu.Unlock()
	}
	return refused
}
