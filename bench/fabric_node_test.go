package bench

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/kernel/ipip"
	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/testenv"
	"github.com/weft-net/weft/internal/wireguard"
)

// carried is what of a node's agent has to do with packets: the deciders about routes,
// tunnels, encryption, NAT and policy, and the doors to the kernel, as package agent joins
// them. Its methods are for one goroutine.
type carried struct {
	b      *testing.B
	routes *route.Graph
	crypt  *wireguard.Graph
	edge   *edge.Graph
	guard  *policy.Graph

	fib     *fib.FIB
	devices *device.Devices
	table   *nft.NFT // nil: no packet filter

	stop func() // ends the doors, and leaves the kernel as it is

	mu     sync.Mutex
	told   []plan.Delta // for a tunnel in user space that is opened later
	tunnel *ipip.Tunnel // nil: the kernel does it
}

// carry starts the node of that name in ns, without its packet filter unless filtered.
func carry(b *testing.B, ns *testenv.Namespace, name string, filtered bool) *carried {
	b.Helper()
	c := &carried{
		b: b, routes: route.NewGraph(route.Options{Node: name}), crypt: wireguard.NewGraph(wireguard.Options{Node: name}),
		edge: edge.NewGraph(edge.Options{Node: name}), guard: policy.NewGraph(name),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var doors sync.WaitGroup
	c.stop = sync.OnceFunc(func() { cancel(); doors.Wait() })
	b.Cleanup(c.stop)
	run := func(f func(context.Context) error) {
		doors.Go(func() { _ = ns.Do(func() error { return f(ctx) }) })
	}
	open := func() error {
		t, err := ipip.Open(ipip.Options{})
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, d := range c.told {
			t.Apply(d)
		}
		c.tunnel = t
		run(func(ctx context.Context) error {
			defer func() { _ = t.Close() }()
			return t.Run(ctx)
		})
		return nil
	}
	ns.MustDo(func() (err error) {
		if c.fib, err = fib.New(fib.Options{RemoveExternalRoutes: true}); err != nil {
			return err
		}
		if c.devices, err = device.New(device.Options{UserIPIP: open}); err != nil || !filtered {
			return err
		}
		c.table, err = nft.New(nft.Options{})
		return err
	})
	run(c.fib.Run)
	run(c.devices.Run)
	if filtered {
		run(c.table.Run)
	}
	c.apply(c.routes.SetUnderlay(route.Underlay{MTU: underlayMTU}))
	c.apply(c.crypt.SetUnderlay(underlayMTU))
	return c
}

func (c *carried) apply(d plan.Delta) {
	if d.Empty() {
		return
	}
	c.devices.Apply(d)
	c.fib.Apply(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, d)
	if c.tunnel != nil {
		c.tunnel.Apply(d)
	}
}

// step takes in a batch of the datastore, as the agent's engine does, and returns the
// routes that are new.
func (c *carried) step(batch model.Batch) (put []plan.RouteKey) {
	d := c.routes.Step(batch)
	c.apply(d)
	c.apply(c.crypt.Step(batch))
	if c.table != nil {
		c.table.Apply(c.guard.Step(batch))
		c.table.Apply(c.edge.Step(batch))
		c.table.Apply(c.crypt.Filter())
	}
	if batch.Synced {
		c.devices.Synced()
		c.fib.Synced()
		if c.table != nil {
			c.table.Synced()
		}
	}
	for _, r := range d.PutRoutes {
		put = append(put, r.RouteKey)
	}
	return put
}

// learn takes in a route of BGP and waits for it.
func (c *carried) learn(block netip.Prefix, node netip.Addr) {
	d := c.routes.Learn(bgp.LearnedBatch{Puts: []bgp.Learned{{Prefix: block, NextHops: []netip.Addr{node}}}, Synced: true})
	c.apply(d)
	for _, r := range d.PutRoutes {
		c.wait(r.RouteKey)
	}
}

// wait returns when the kernel has acknowledged everything that the doors were told, the
// given routes among it.
func (c *carried) wait(routes ...plan.RouteKey) {
	c.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.devices.WaitApplied(ctx); err != nil {
		c.b.Fatal(err)
	}
	if err := c.fib.WaitApplied(ctx, "", routes...); err != nil {
		c.b.Fatal(err)
	}
	if c.table != nil {
		if err := c.table.WaitApplied(ctx); err != nil {
			c.b.Fatal(err)
		}
	}
}
