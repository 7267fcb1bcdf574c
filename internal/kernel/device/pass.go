package device

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// alias is what marks a device as ours.
const alias = "weft"

// pass is one turn of the loop.
func (d *Devices) pass(_ context.Context, cause reconcile.Cause) error {
	full, names, gone := d.begin(cause)
	var errs []error
	for _, name := range names {
		d.look(name)
	}
	for _, name := range gone {
		if err := d.remove(name); err != nil {
			errs = append(errs, fmt.Errorf("device: %s: remove: %w", name, err))
			d.mu.Lock()
			if _, again := d.want[name]; !again {
				d.gone[name] = true
			}
			d.mu.Unlock()
		}
	}
	if full {
		errs = append(errs, d.sweep())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.ends)) {
		d.writeEnds(name)
	}
	if d.fault == nil {
		d.fault = errors.Join(errs...)
	}
	d.passing = false
	d.wake()
	return d.problems()
}

// begin takes the work of a pass.
func (d *Devices) begin(cause reconcile.Cause) (full bool, names, gone []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.passing = nil, true
	full = d.full || cause == reconcile.Resync
	d.full = false
	for name, l := range d.links {
		if full || len(l.errs) > 0 && cause == reconcile.Retry {
			d.dirty[name] = true
		}
	}
	for _, e := range d.ends {
		e.read = e.read || full
		if cause != reconcile.Kick {
			e.again()
		}
	}
	if full {
		d.stats.Dumps++
	}
	names, gone = slices.Sorted(maps.Keys(d.dirty)), slices.Sorted(maps.Keys(d.gone))
	clear(d.dirty)
	clear(d.gone)
	return full, names, gone
}

// writeEnds reads, if needed, and writes the entries of a VXLAN. The lock is held.
func (d *Devices) writeEnds(name string) {
	e := d.ends[name]
	if !d.usable(name) || !e.pending() {
		return
	}
	index := d.links[name].index
	if e.read {
		d.mu.Unlock()
		err := d.readEnds(e, index)
		d.mu.Lock()
		if err != nil {
			d.fault = fmt.Errorf("%s: %w", name, err)
			return
		}
		if l := d.links[name]; l == nil || l.index != index {
			return // it went meanwhile
		}
	}
	d.flush(e, index)
}

// problems is what a retry, or a person, must cure.
func (d *Devices) problems() error {
	errs := []error{d.fault}
	for _, name := range slices.Sorted(maps.Keys(d.links)) {
		for _, err := range d.links[name].errs {
			errs = append(errs, fmt.Errorf("device: %s: %w", name, err))
		}
		if e := d.ends[name]; e != nil && d.usable(name) {
			if err := e.problem(); err != nil {
				errs = append(errs, fmt.Errorf("device: %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// look makes one device as wanted, and keeps what came of it.
func (d *Devices) look(name string) {
	d.mu.Lock()
	v, wanted := d.want[name]
	l := d.links[name]
	synced := d.synced
	d.mu.Unlock()
	if !wanted {
		return
	}
	k, errs := d.ensure(&v, l, synced)

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links[name] != l {
		return // deleted meanwhile
	}
	l.errs = errs
	if k.index != l.index {
		delete(d.byIndex, l.index)
		d.endsOf(name).lost()
	} else if !l.up && k.up {
		d.endsOf(name).read = true // the kernel drops neighbours with the state
	}
	l.index, l.up = k.index, k.up
	if k.index != 0 {
		d.byIndex[k.index] = name
	}
}

// ensure makes the device of v, or changes it, and returns it as it is then; its index is
// 0 when there is none that may be used.
func (d *Devices) ensure(v *plan.Device, l *link, synced bool) (k kernelLink, errs []error) {
	k, err := d.existing(v, l)
	if err != nil {
		return kernelLink{}, []error{err}
	}
	try := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if !k.ours() {
		try(d.claim(&k))
	}
	try(d.setMAC(v, &k))
	try(d.setMTU(v, &k))
	try(d.setAddrs(v, &k, synced))
	try(d.setOffload(v, &k, l))
	try(tune(v, k.index))
	if !k.up {
		if err := d.setLink(k.index, unix.IFF_UP, unix.IFF_UP, nil); err != nil {
			try(upError(v, err))
		} else {
			k.up = true
		}
	}
	return k, errs
}

// claim marks a device as ours.
func (d *Devices) claim(k *kernelLink) error {
	err := d.setLink(k.index, 0, 0, func(b []byte) []byte { return netlink.AppendAttr(b, unix.IFLA_IFALIAS, []byte(alias)) })
	if err != nil {
		return fmt.Errorf("set alias %s: %w", alias, err)
	}
	k.alias = alias
	return nil
}

// existing gives the device of v, which it makes, or makes again, where needed.
func (d *Devices) existing(v *plan.Device, l *link) (kernelLink, error) {
	k, err := d.readLink(v.Name)
	if errors.Is(err, unix.ENODEV) {
		return d.create(v, l)
	}
	if err != nil {
		return k, fmt.Errorf("read: %w", err)
	}
	if v.Kind == plan.IPIP && k.kind == "tun" && d.opts.UserIPIP != nil && (k.ours() || k.alias == "") {
		return d.userIPIP(v, l, k.index)
	}
	diff := differences(v, &k)
	switch {
	case diff == "":
		return k, nil
	case !k.ours():
		return k, fmt.Errorf("somebody else made it with other settings: %s; if nobody needs it, remove it: ip link delete %s", diff, v.Name)
	}
	if err := d.deleteLink(k.index); err != nil {
		return k, fmt.Errorf("remove, to make it with other settings (%s): %w", diff, err)
	}
	return d.create(v, l)
}

// create makes the device of v.
func (d *Devices) create(v *plan.Device, l *link) (kernelLink, error) {
	err := d.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(b []byte) []byte { return appendNew(b, v) })
	made := err == nil
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && v.Kind == plan.IPIP && d.opts.UserIPIP != nil:
		return d.userIPIP(v, l, 0)
	case errors.Is(err, unix.EEXIST):
		// tunl0 comes with the kernel's module, which our request loads.
	case err != nil:
		return kernelLink{}, d.createError(v, err)
	}
	k, readErr := d.readLink(v.Name)
	if errors.Is(readErr, unix.ENODEV) && err != nil {
		return k, d.createError(v, err)
	}
	if readErr != nil {
		return k, fmt.Errorf("read: %w", readErr)
	}
	if diff := differences(v, &k); diff != "" {
		return k, fmt.Errorf("the kernel made it with other settings: %s", diff)
	}
	if made {
		if err := d.claim(&k); err != nil {
			return k, err
		}
		if v.Kind == plan.VXLAN {
			_ = d.setLink(k.index, 0, 0, appendGenMode) // the kernel may have no IPv6
		}
	}
	return k, nil
}

// userIPIP has the device made in user space, unless it is the one that was.
func (d *Devices) userIPIP(v *plan.Device, l *link, index int32) (kernelLink, error) {
	if index == 0 || index != l.tun {
		if err := d.opts.UserIPIP(); err != nil {
			return kernelLink{}, fmt.Errorf("the kernel has no IPIP; in user space: %w", err)
		}
		d.notice(Problem{v.Name, "the kernel has no IPIP (module ipip); the agent does it in user space, which is slower"})
	}
	k, err := d.readLink(v.Name)
	if err != nil {
		return k, fmt.Errorf("read: %w", err)
	}
	l.tun = k.index
	return k, nil
}

// remove removes a device that is wanted no more, if it is ours.
func (d *Devices) remove(name string) error {
	k, err := d.readLink(name)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil || !k.ours() {
		return err
	}
	return d.release(&k)
}

// release removes a device of ours; of tunl0, as Calico does, only the address.
func (d *Devices) release(k *kernelLink) error {
	switch k.kind {
	case plan.VXLAN.String(), plan.WireGuard.String():
		return d.deleteLink(k.index)
	case plan.IPIP.String(), "tun":
		return d.setAddrs(&plan.Device{Name: k.name}, k, true)
	}
	return nil
}

// sweep removes devices of an earlier run that nobody wants.
func (d *Devices) sweep() error {
	d.mu.Lock()
	synced := d.synced
	d.mu.Unlock()
	if !synced {
		return nil
	}
	var stale []kernelLink
	err := d.dump(unix.RTM_GETLINK, make([]byte, linkBytes), func(b []byte) {
		k, ok := parseLink(b)
		if !ok || !k.ours() {
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, wanted := d.want[k.name]; !wanted {
			k.data = nil
			stale = append(stale, k)
		}
	})
	errs := []error{err}
	for i := range stale {
		if err := d.release(&stale[i]); err != nil {
			errs = append(errs, fmt.Errorf("device: %s: remove: %w", stale[i].name, err))
		}
	}
	return errors.Join(errs...)
}
