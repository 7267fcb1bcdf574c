package wg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// pass is one turn of the loop.
func (w *WG) pass(_ context.Context, cause reconcile.Cause) error {
	w.mu.Lock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(w.devices)) {
		d := w.devices[name]
		if !d.wanted {
			if len(d.peers) == 0 {
				delete(w.devices, name)
			}
			d.errs = nil
			continue
		}
		if cause == reconcile.Resync {
			d.have = nil
		}
		d.errs = nil
		if err := w.settle(name, d); err != nil {
			d.errs = append(d.errs, err)
			d.have = nil // it is not known how far we came
		}
		errs = append(errs, d.errs...)
	}
	due := w.tell
	w.tell = nil
	w.mu.Unlock()
	for _, t := range due {
		w.opts.Keys(t.link, t.key)
	}
	return errors.Join(errs...)
}

// settle makes one device as wanted, if it is there; if not, an event will tell of it.
func (w *WG) settle(name string, d *device) error {
	err := w.settleKnown(name, d)
	if errors.Is(err, unix.ENODEV) {
		d.index, d.have = 0, nil
		w.tellKey(name, d, plan.PublicKey{})
		return nil
	}
	return err
}

func (w *WG) settleKnown(name string, d *device) error {
	if d.have == nil {
		if err := w.read(name, d); err != nil {
			return err
		}
		if err := tune(name, d.want.Hosts); err != nil {
			d.errs = append(d.errs, err)
		}
	}
	if err := w.configure(name, d); err != nil {
		return err
	}
	w.tellKey(name, d, d.have.public)
	return w.settlePeers(name, d)
}

func (w *WG) read(name string, d *device) error {
	have, err := w.kernel.read(name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("wg: %s: is no WireGuard device; remove it or choose another wireguardInterfaceName", name)
	}
	if err != nil {
		return fmt.Errorf("wg: read %s: %w", name, err)
	}
	w.stats.Dumps++
	d.have, d.index, d.swept = have, have.index, false
	return nil
}

// configure writes what is the device's own.
func (w *WG) configure(name string, d *device) error {
	have, want := d.have, d.want
	c := config{port: want.Port, setPort: have.port != want.Port, mark: want.Mark, setMark: have.mark != want.Mark}
	if have.public == (plan.PublicKey{}) {
		private, public, err := newKey()
		if err != nil {
			return fmt.Errorf("wg: %s: make a key: %w", name, err)
		}
		c.private, c.public = private, public
		defer clear(private[:])
	}
	if !c.setPort && !c.setMark && c.private == nil {
		return nil
	}
	w.stats.Devices++
	if err := w.kernel.set(d.index, func(b []byte) []byte { return appendConfig(b, c) }); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("wg: %s: listen on UDP port %d: %w; stop who has it or choose another wireguardListeningPort", name, want.Port, err)
		}
		return fmt.Errorf("wg: set %s: %w", name, err)
	}
	have.port, have.mark = want.Port, want.Mark
	if c.private != nil {
		have.public = c.public
	}
	return nil
}

// tellKey has Options.Keys told of a key that it does not know yet.
func (w *WG) tellKey(name string, d *device, key plan.PublicKey) {
	if d.key != key {
		d.key = key
		w.tell = append(w.tell, told{name, key})
	}
}

// settlePeers writes what differs: additions, then what must be written as a whole, then
// removals.
func (w *WG) settlePeers(name string, d *device) error {
	work := d.dirty
	if !d.swept {
		work = make(map[plan.PublicKey]struct{}, len(d.peers))
		for k := range d.peers {
			work[k] = struct{}{}
		}
	}
	keys := slices.SortedFunc(maps.Keys(work), comparePublicKeys)
	var add, whole, remove []change
	if self, ok := d.peers[d.have.public]; ok { // of which the kernel makes no peer
		d.errs = append(d.errs, fmt.Errorf("wg: %s: peer at %v has this node's own key; each node must have its own", name, self.Endpoint))
	}
	for _, k := range keys {
		if k == d.have.public {
			continue
		}
		if c, ok := d.have.missing(k, d.peers[k]); ok {
			add = append(add, c)
		}
	}
	err := w.write(name, d, add)
	d.have.added(add)
	for _, k := range keys {
		if c, ok := d.have.excess(k, d.peers[k]); ok && w.synced {
			whole = append(whole, c)
		}
	}
	err = errors.Join(err, w.write(name, d, whole))
	d.have.replaced(whole)
	candidates := d.gone
	if w.synced && !d.swept {
		candidates = map[plan.PublicKey]struct{}{}
		for k := range d.have.peers {
			candidates[k] = struct{}{}
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(candidates), comparePublicKeys) {
		if _, wanted := d.peers[k]; !wanted && d.have.peers[k] != nil {
			remove = append(remove, change{key: k, remove: true})
		}
	}
	err = errors.Join(err, w.write(name, d, remove))
	d.have.removed(remove)
	if err == nil {
		clear(d.dirty)
		clear(d.gone)
		d.swept = true
	}
	return err
}

func comparePublicKeys(a, b plan.PublicKey) int { return strings.Compare(string(a[:]), string(b[:])) }
