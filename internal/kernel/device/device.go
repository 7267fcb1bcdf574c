// Package device keeps the tunnels' network interfaces as the plan says: IPIP, VXLAN
// and WireGuard devices with their settings, their one address, and, of VXLAN, the way to
// every other node. It is the only writer of these.
//
//	plan.Delta ─► Apply ─► want ──┐
//	rtnetlink events ─► dirty ────┼─► pass ─► netlink ─► kernel
//	a dump every 90 s ────────────┘
//
// A pass looks at the devices that changed, one by one, as there are six at most. The
// ends of a VXLAN, one for each node, are written in batches; each is a permanent
// neighbour entry (address to MAC) and a permanent forwarding entry (MAC to node, RFC 7348
// section 4.1 without its learning), so that no packet ever asks by multicast.
//
// Routes through these devices are package fib's; keys and peers of WireGuard are package
// wg's. Where the kernel has no IPIP, Options.UserIPIP makes a TUN device of the same
// name, and address, MTU and state are looked after here all the same.
//
// Ownership: a device whose alias (ip-link(8)) is "weft" is ours. One that somebody else
// made, say Calico, becomes ours if it is what is wanted; if not, it stays, and Problems
// says what to do. Devices of ours are made again when something differs that cannot be
// changed. tunl0 comes and goes with the kernel's module: of it only the address is removed.
//
// Invariant: nothing that an earlier run left is removed before Synced, and what it left
// as we want it is not written again.
package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// Options are what Devices needs beside the plan. The zero value is useful.
type Options struct {
	// UserIPIP makes a TUN device named plan.IPIPDevice and does in user space what the
	// kernel's IPIP would. It is called when the kernel has no IPIP and whenever that
	// device is not the one of the last call, by the goroutine and thread of Run; a device
	// that an earlier run left is to be taken over. Nil: where the kernel has no IPIP, there is none.
	UserIPIP func() error
	// Resync is the time between full comparisons (interfaceRefreshInterval).
	// Default: 90 s; negative: never.
	Resync time.Duration
	// Log gets changes of health, and notices. Default: nothing is logged.
	Log *slog.Logger
}

// Problem is why something is not as wanted.
type Problem struct {
	Object string // name of a device
	Text   string // one line
}

// Devices are the tunnels' devices of one network namespace. Make one with New. All
// methods but Run may be called at any time by any goroutine, and none of them waits for
// the kernel but WaitApplied.
type Devices struct {
	opts   Options
	loop   *reconcile.Loop
	writer *netlink.Socket // requests that change something
	reader *netlink.Socket // all others
	events *netlink.Socket
	ioctl  int // socket for ethtool
	proof  *proof

	mu      sync.Mutex
	want    map[string]plan.Device
	ends    map[string]*ends // of VXLANs, by link
	links   map[string]*link // wanted devices, as last seen
	byIndex map[int32]string
	dirty   map[string]bool // devices to look at
	gone    map[string]bool // devices to remove
	synced  bool
	full    bool // everything is to be compared
	passing bool // a pass is under way
	changed chan struct{}
	awaited bool
	notices []Problem
	fault   error // of the last exchange
	health  reconcile.Health
	stats   Stats

	batch batch // the loop's
}

// Stats count what was done since New.
type Stats struct {
	Devices  uint64 // requests that changed a device: made, set, removed
	Messages uint64 // entries of VXLANs written or removed
	Dumps    uint64 // full comparisons
}

// link is what is known of a wanted device.
type link struct {
	index    int32 // 0: it does not exist, or is somebody else's
	up       bool
	errs     []error
	tun      int32 // index of the device that UserIPIP made last
	quietSum bool  // we turned its checksum offload off
}

// New opens the sockets in the network namespace of the calling thread. Call Run, which
// also closes them.
func New(opts Options) (*Devices, error) {
	if opts.Resync == 0 {
		opts.Resync = 90 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	d := &Devices{
		opts: opts, ioctl: -1, proof: newProof(),
		want: map[string]plan.Device{}, ends: map[string]*ends{}, links: map[string]*link{}, byIndex: map[int32]string{},
		dirty: map[string]bool{}, gone: map[string]bool{}, changed: make(chan struct{}), full: true,
		batch: batch{base: batchBase},
	}
	d.health = reconcile.Health{Log: opts.Log, Good: "tunnel devices are as wanted again", Bad: "tunnel devices are not as wanted"}
	d.loop = reconcile.New(d.pass, reconcile.Options{Resync: max(opts.Resync, 0), Health: d.health.Note})
	if err := d.open(); err != nil {
		d.close()
		return nil, fmt.Errorf("device: %w", err)
	}
	return d, nil
}

func (d *Devices) open() (err error) {
	o := netlink.Options{Protocol: unix.NETLINK_ROUTE, Strict: true}
	if d.writer, err = netlink.Open(o); err != nil {
		return err
	}
	if d.reader, err = netlink.Open(o); err != nil {
		return err
	}
	o.Groups = eventGroups
	if d.events, err = netlink.Open(o); err != nil {
		return err
	}
	if err = d.events.Ignore(d.writer); err != nil {
		return err
	}
	if d.ioctl, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	return nil
}

func (d *Devices) close() {
	for _, s := range []*netlink.Socket{d.writer, d.reader, d.events} {
		if s != nil {
			s.Close()
		}
	}
	if d.ioctl >= 0 {
		unix.Close(d.ioctl)
	}
}

// Busy is how long the pass under way has taken; 0: none is.
func (d *Devices) Busy() time.Duration { return d.loop.Busy() }

// Run keeps the devices as wanted until ctx ends, and returns the cause of that. It
// leaves everything in place. Sysctls are written as seen by the calling goroutine's
// thread, which therefore must be in the same network namespace as the caller of New was.
// It can run once.
func (d *Devices) Run(ctx context.Context) error {
	return d.loop.RunWith(ctx, d.listen, func() {
		d.proof.wait()
		d.close()
	})
}

// Apply changes which devices and ends of VXLANs are wanted, and starts making them. It
// does not wait. Of delta only what concerns devices matters.
func (d *Devices) Apply(delta plan.Delta) {
	d.mu.Lock()
	for _, v := range delta.PutDevices {
		d.put(v)
	}
	for _, v := range delta.PutVTEPs {
		d.endsOf(v.Link).put(v)
	}
	for _, name := range delta.DeleteDevices {
		d.delete(name)
	}
	for _, k := range delta.DeleteVTEPs {
		d.endsOf(k.Link).delete(k.Addr)
	}
	d.kick()
	d.mu.Unlock()
}

func (d *Devices) put(v plan.Device) {
	if old, ok := d.want[v.Name]; ok && old == v {
		return
	}
	d.want[v.Name] = v
	delete(d.gone, v.Name)
	d.dirty[v.Name] = true
	if d.links[v.Name] == nil {
		d.links[v.Name] = &link{}
		d.endsOf(v.Name)
	}
}

func (d *Devices) delete(name string) {
	if _, ok := d.want[name]; !ok {
		return
	}
	delete(d.want, name)
	delete(d.dirty, name)
	if l := d.links[name]; l != nil {
		delete(d.byIndex, l.index)
		delete(d.links, name)
	}
	d.gone[name] = true
	d.endsOf(name).lost()
}

func (d *Devices) endsOf(link string) *ends {
	e := d.ends[link]
	if e == nil {
		e = newEnds()
		d.ends[link] = e
	}
	return e
}

// Synced says that everything that is wanted has been put: what an earlier run left and
// nobody put may go. Further calls do nothing.
func (d *Devices) Synced() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.synced {
		d.synced = true
		d.loop.Resync()
	}
}

// kick wakes the loop if there is anything to do.
func (d *Devices) kick() {
	work := len(d.dirty)+len(d.gone) > 0
	for name, e := range d.ends {
		work = work || e.pending() && d.usable(name)
	}
	if work {
		d.loop.Kick()
	}
}

// usable reports whether entries of the VXLAN of that name can be written.
func (d *Devices) usable(name string) bool {
	l := d.links[name]
	return l != nil && l.index != 0 && l.up && d.want[name].Kind == plan.VXLAN
}

// Problems says what is not as wanted, and why, by name of the device.
func (d *Devices) Problems() []Problem {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Problem
	for name, l := range d.links {
		for _, err := range l.errs {
			out = append(out, Problem{name, err.Error()})
		}
		if e := d.ends[name]; e != nil {
			if err := e.problem(); err != nil {
				out = append(out, Problem{name, err.Error()})
			}
		}
	}
	if d.fault != nil {
		out = append(out, Problem{"netlink", d.fault.Error()})
	}
	slices.SortFunc(out, func(a, b Problem) int { return strings.Compare(a.Object+a.Text, b.Object+b.Text) })
	return out
}

// Notices says what works, but not as one might expect; of an IPIP device while one is
// wanted.
func (d *Devices) Notices() []Problem {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.notices), func(p Problem) bool { return p.Object == plan.IPIPDevice && d.links[p.Object] == nil })
}

// Stats says what was done since New.
func (d *Devices) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// notice keeps and logs a notice, once.
func (d *Devices) notice(p Problem) {
	d.mu.Lock()
	known := slices.Contains(d.notices, p)
	if !known {
		d.notices = append(d.notices, p)
	}
	d.mu.Unlock()
	if !known {
		d.opts.Log.Warn(p.Text, "link", p.Object)
	}
}

// WaitApplied waits until all devices and ends that have been put are in the kernel.
// When ctx ends first, the error wraps its cause and says what is missing.
func (d *Devices) WaitApplied(ctx context.Context) error {
	for {
		d.mu.Lock()
		err, changed := d.missing(), d.changed
		d.awaited = d.awaited || err != nil
		d.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("device: wait: %w: %w", err, context.Cause(ctx))
		}
	}
}

func (d *Devices) missing() error {
	if d.passing { // it has taken its work from the lists below
		return errors.New("devices are being looked at")
	}
	for name, v := range d.want {
		l := d.links[name]
		switch {
		case len(l.errs) > 0:
			return fmt.Errorf("%s: %w", name, errors.Join(l.errs...))
		case d.dirty[name] || l.index == 0 || !l.up:
			return fmt.Errorf("%s: is being made", name)
		}
		if v.Kind == plan.VXLAN {
			if err := d.endsOf(name).missing(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for name := range d.gone {
		return fmt.Errorf("%s: is being removed", name)
	}
	return nil
}

// wake has those who wait look again.
func (d *Devices) wake() {
	if d.awaited {
		close(d.changed)
		d.changed, d.awaited = make(chan struct{}), false
	}
}
