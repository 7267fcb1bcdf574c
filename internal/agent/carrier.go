package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/ipip"
	"github.com/weft-net/weft/internal/plan"
)

// carrier does in user space what the kernel's IPIP would, from the moment on at which
// somebody finds out that the kernel has none. It is safe for concurrent use.
type carrier struct {
	log    *slog.Logger
	opened chan *ipip.Tunnel // room for one

	mu     sync.Mutex
	routes map[plan.RouteKey]plan.Route // those through the tunnel
	device plan.Delta                   // how the device was put last
	tunnel *ipip.Tunnel                 // nil: not needed, as far as is known
}

func newCarrier(log *slog.Logger) *carrier {
	return &carrier{log: log, opened: make(chan *ipip.Tunnel, 1), routes: map[plan.RouteKey]plan.Route{}}
}

// apply notes the routes through the tunnel, and tells a tunnel that is open.
func (c *carrier) apply(d plan.Delta) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range d.PutRoutes {
		if r.Link == plan.IPIPDevice {
			c.routes[r.RouteKey] = r
		} else {
			delete(c.routes, r.RouteKey)
		}
	}
	for _, k := range d.DeleteRoutes {
		delete(c.routes, k)
	}
	for _, dev := range d.PutDevices {
		if dev.Name == plan.IPIPDevice {
			c.device = plan.Delta{PutDevices: []plan.Device{dev}}
		}
	}
	if slices.Contains(d.DeleteDevices, plan.IPIPDevice) {
		c.device = plan.Delta{}
	}
	if c.tunnel != nil {
		c.tunnel.Apply(d)
	}
}

// open makes the tunnel's device, or takes over the one that an earlier agent left, and
// has packets carried. It must be called in the node's network namespace. A tunnel that
// was turned off holds its device still, and goes on.
func (c *carrier) open() error {
	t, err := ipip.Open(ipip.Options{Log: c.log})
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, unix.EBUSY) && c.tunnel != nil {
		return nil
	}
	if err != nil {
		return err
	}
	all := c.device
	all.PutRoutes = slices.Collect(maps.Values(c.routes))
	t.Apply(all)
	c.tunnel = t
	select {
	case unused := <-c.opened: // its device is gone already
		_ = unused.Close()
	default:
	}
	c.opened <- t
	return nil
}

// run carries packets until ctx ends. A device that somebody deletes is made again by
// whoever looks after devices.
func (c *carrier) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case t := <-c.opened:
			err := t.Run(ctx)
			c.mu.Lock()
			if c.tunnel == t {
				c.tunnel = nil
			}
			c.mu.Unlock()
			if cause := t.Close(); ctx.Err() == nil {
				c.log.Warn("IP in IP in user space stopped; the device is made again", "err", err, "close", cause)
			}
		}
	}
}
