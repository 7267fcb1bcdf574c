package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/topology"
	"github.com/weft-net/weft/internal/store"
)

// holder is the process that owns a lab.
type holder struct {
	upRequest
	topo     *topology.Topology
	ps       *processes
	store    store.Store
	nodes    []*machine
	routers  []*machine
	pods     []*pod
	outside  []*outside
	end      chan struct{} // closed when the lab is to go down
	endOnce  sync.Once
	portsMu  sync.Mutex
	ports    map[port]bool // at which the lab answers
	progress func(format string, args ...any)
}

// Hold is the life of the holder: it serves the lab until it is told to end, then
// ends every process and removes the directory. It must be the first process of a
// PID namespace, with mount and network namespaces of its own; socket is the
// connection to whoever started it, lock the locked directory.
func Hold(socket, lock *os.File) error {
	if os.Getpid() != 1 {
		return errors.New("lab: hold: this is a part of `weft lab up`, and not for use by hand")
	}
	defer lock.Close()
	starter, err := linkOf(socket)
	if err != nil {
		return fmt.Errorf("lab: hold: %w", err)
	}
	r, _, err := starter.accept()
	if err != nil || r.Up == nil {
		return fmt.Errorf("lab: hold: no request: %w", err)
	}
	h := &holder{upRequest: *r.Up, ps: newProcesses(), end: make(chan struct{})}
	h.progress = func(format string, args ...any) { _ = starter.send(reply{Step: fmt.Sprintf(format, args...)}) }
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM)
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	go func() { <-asked; h.goDown() }()

	defer h.sweep()
	kept, gone := starter.keptOrClosed()
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		select {
		case <-gone:
			cancel(errors.New("lab: whoever asked for it has gone"))
		case <-h.end:
			cancel(errors.New("lab: told to end"))
		}
	}()
	listener, err := h.bringUp(ctx)
	if err != nil {
		_ = starter.send(reply{Error: err.Error(), End: true})
		return err
	}
	defer listener.Close()
	status := h.status()
	_ = starter.send(reply{Status: &status, End: true})
	go h.serve(listener)
	select {
	case <-gone:
	case <-kept: // never with a lease
		starter.close()
		<-gone
	case <-h.end:
		return nil
	}
	select {
	case <-kept:
		<-h.end
	default: // the lease is over, or nobody wants the lab any more
	}
	return nil
}

func (h *holder) goDown() { h.endOnce.Do(func() { close(h.end) }) }

// sweep ends all processes and removes all files. The kernel would do the former
// in any case.
func (h *holder) sweep() {
	_ = unix.Kill(-1, unix.SIGKILL)
	for _, mount := range []string{h.Dir.netns(), h.Dir.store()} {
		_ = unix.Unmount(mount, unix.MNT_DETACH)
	}
	_ = os.RemoveAll(string(h.Dir))
	_ = os.Remove(filepath.Dir(string(h.Dir))) // if it was the last lab
}

// bringUp makes everything that the topology names. It returns the listener of
// the control socket when all nodes serve and all pods are attached.
func (h *holder) bringUp(ctx context.Context) (net.Listener, error) {
	var err error
	if h.topo, err = topology.Parse(h.File, h.Topology); err != nil {
		return nil, err
	}
	if err := needs(h.topo); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", h.File, err)
	}
	if err := h.mount(); err != nil {
		return nil, err
	}
	h.progress("starting the store")
	etcd, err := h.startStore()
	if err != nil {
		return nil, err
	}
	if err := buildFabric(h.topo); err != nil {
		return nil, err
	}
	if err := h.makeMachines(); err != nil {
		return nil, err
	}
	if h.store, err = h.openStore(ctx, etcd); err != nil {
		return nil, err
	}
	if err := h.applyResources(ctx); err != nil {
		return nil, err
	}
	if err := h.startRouters(ctx); err != nil {
		return nil, err
	}
	if err := h.startNodes(ctx); err != nil {
		return nil, err
	}
	return h.listen()
}

// startRouters starts the routers, all at once.
func (h *holder) startRouters(ctx context.Context) error {
	return each(ctx, h.routers, func(ctx context.Context, r *machine) error {
		if err := h.startMachine(r); err != nil {
			return err
		}
		return r.awaitReady(ctx, h.patient(readyWithin))
	})
}

// startNodes starts the node agents, all at once, and attaches each one's pods as
// soon as it serves.
func (h *holder) startNodes(ctx context.Context) error {
	h.progress("starting %d nodes", len(h.nodes))
	count := counter{what: "pods attached", of: len(h.pods), say: h.progress}
	return each(ctx, h.nodes, func(ctx context.Context, n *machine) error {
		if err := h.startMachine(n); err != nil {
			return err
		}
		if err := n.awaitReady(ctx, h.patient(readyWithin)); err != nil {
			return err
		}
		var mine []*pod
		for _, p := range h.pods {
			if p.node == n {
				mine = append(mine, p)
			}
		}
		return each(ctx, mine, func(ctx context.Context, p *pod) error {
			defer count.one()
			return h.attach(ctx, p)
		})
	})
}

// counter says how many of many things are done.
type counter struct {
	what string
	of   int
	say  func(format string, args ...any)

	mu   sync.Mutex
	done int
}

func (c *counter) one() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	c.say("%d of %d %s", c.done, c.of, c.what)
}

// each runs f for all of them at once. The first error ends the others, and is
// the one that is returned: the rest are likely of the same cause.
func each[T any](ctx context.Context, all []T, f func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var failed sync.Once
	var first error
	var wait sync.WaitGroup
	for _, x := range all {
		wait.Go(func() {
			if err := f(ctx, x); err != nil {
				failed.Do(func() { first = err; cancel(err) })
			}
		})
	}
	wait.Wait()
	return first
}

// mount gives the lab its own view of files: a /proc of its PID namespace, memory
// for the store (its fsync costs nothing, and nothing is left), and a place for
// namespaces.
func (h *holder) mount() error {
	fail := func(what string, err error) error { return fmt.Errorf("lab: mount %s: %w", what, err) }
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fail("/ private", err)
	}
	// Shared among the lab's own processes, so that they see the namespaces of pods.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fail("/ shared", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fail("/proc", err)
	}
	for _, dir := range []string{h.Dir.netns(), h.Dir.store()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fail(dir, err)
		}
	}
	return nil
}

// listen makes the control socket.
func (h *holder) listen() (net.Listener, error) {
	l, err := net.Listen("unix", h.Dir.control())
	if err != nil {
		return nil, fmt.Errorf("lab: listen: %w", err)
	}
	return l, nil
}
