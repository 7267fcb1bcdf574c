package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/lab/topology"
)

// machine is a node or a router: a namespace in a rack, and one program in it.
type machine struct {
	target  topology.Target
	ports   []string // the fabric's ends of its links
	dir     string   // logs and sockets
	ns      *namespace
	argv    []string
	environ []string
	ready   func(context.Context) error // nil when the program serves

	mu      sync.Mutex
	proc    *process // nil: never started
	stopped bool     // it was asked to end
	served  bool     // it was ready once since the start
}

func (m *machine) log() string { return filepath.Join(m.dir, "log") }

// Times of a start and of an end.
const (
	readyWithin = 60 * time.Second
	endsWithin  = 10 * time.Second
	pollEvery   = 10 * time.Millisecond
)

// makeMachines makes the namespaces of all nodes and routers and joins them to
// their racks. Nothing is started.
func (h *holder) makeMachines() error {
	if err := errors.Join(h.linkCNI(), h.writeSecrets()); err != nil {
		return err
	}
	for i := range h.topo.Nodes {
		n := &h.topo.Nodes[i]
		m := h.newNode(i, n)
		h.nodes = append(h.nodes, m)
		if err := h.makeMachine(m, h.plugs(i, n)...); err != nil {
			return fmt.Errorf("lab: node %s: %w", n.Name, err)
		}
	}
	for i := range h.topo.Routers {
		r := &h.topo.Routers[i]
		m := h.newRouter(i, r)
		h.routers = append(h.routers, m)
		at := plug{port: fmt.Sprintf("router%d", i+1), link: "eth0", rack: h.topo.Rack(r.Rack), addrs: r.Addresses}
		if err := h.makeMachine(m, at); err != nil {
			return fmt.Errorf("lab: router %s: %w", r.Name, err)
		}
		if err := h.configureRouter(m, r); err != nil {
			return fmt.Errorf("lab: router %s: %w", r.Name, err)
		}
	}
	for i := range h.topo.Outside {
		if err := h.makeOutside(i, &h.topo.Outside[i]); err != nil {
			return fmt.Errorf("lab: outside %s: %w", h.topo.Outside[i].Name, err)
		}
	}
	for i := range h.topo.Pods {
		h.pods = append(h.pods, h.newPod(&h.topo.Pods[i]))
	}
	return nil
}

// plugs are the places of the i-th node: eth0 at port node1, eth1 at node1-eth1.
func (h *holder) plugs(i int, n *topology.Node) []plug {
	var out []plug
	for j, at := range n.Interfaces() {
		port := fmt.Sprintf("node%d", i+1)
		if j > 0 {
			port += "-" + at.Name
		}
		out = append(out, plug{port: port, link: at.Name, rack: h.topo.Rack(at.Rack), addrs: at.Addresses, noDefaultRoute: j > 0 || n.NoDefaultRoute})
	}
	return out
}

func (h *holder) makeMachine(m *machine, at ...plug) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	var err error
	if m.ns, err = newNamespace(filepath.Join(h.Dir.netns(), "machine", m.target.Name)); err != nil {
		return err
	}
	// A new namespace takes this setting from the machine. A node agent that does
	// not ask for forwarding itself is to be found out here.
	err = m.ns.open(func() error { return setting("ipv4/ip_forward", "0") })
	for _, p := range at {
		p.bridge = bridgeName(slices.IndexFunc(h.topo.Racks, func(r topology.Rack) bool { return r.Name == p.rack.Name }))
		m.ports = append(m.ports, p.port)
		err = errors.Join(err, m.ns.connect(p))
	}
	return err
}

// newNode describes a node and the agent on it.
func (h *holder) newNode(i int, n *topology.Node) *machine {
	dir := h.Dir.node(i)
	m := &machine{target: n.Target(), dir: dir, argv: []string{h.Executable, "node", "run"}}
	at := func(name string) string { return filepath.Join(dir, name) }
	// Nothing of the machine's own node agent, if there is one, is touched or read.
	settings := map[string]string{
		"DATASTORE_TYPE": "etcdv3",
		"ETCD_ENDPOINTS": h.Dir.Endpoint(),
		"NODENAME":       n.Name,
		"IP":             "autodetect",
		"IP6":            "none",
		// As Calico's stock manifest has it: pods reach their own node.
		"FELIX_DEFAULTENDPOINTTOHOSTACTION": "ACCEPT",
		"CALICO_NODENAME_FILE":              at("nodename"),
		"FELIX_FELIXCONFIGFILE":             at("felix.cfg"),
		"WEFT_AGENT_SOCKET":                 at("agent.sock"),
		"WEFT_STATUS_SOCKET":                at("status.sock"),
		"WEFT_CNI_QUEUE":                    at("queue"),
		"WEFT_SECRETS_DIR":                  h.Dir.secrets(),
	}
	rack := h.topo.Rack(n.Rack)
	if rack.Has(true) {
		settings["IP6"] = "autodetect"
	}
	if !rack.Has(false) {
		settings["IP"] = "none"
	}
	for _, env := range []map[string]string{h.topo.Env, n.Env} {
		for k, v := range env {
			settings[k] = v
		}
	}
	m.environ = h.environ(settings)
	m.ready = func(ctx context.Context) error {
		return rpc.Client{Socket: settings["WEFT_AGENT_SOCKET"]}.Status(ctx, rpc.StatusRequest{Node: n.Name})
	}
	return m
}

// environ is the environment of a program in the lab: the settings, sorted, after
// what the lab itself was given.
func (h *holder) environ(settings map[string]string) []string {
	out := slices.Clone(h.Environ)
	var own []string
	for k, v := range settings {
		own = append(own, k+"="+v)
	}
	slices.Sort(own)
	return append(out, own...)
}

// startMachine starts the program of m; it must not be running.
func (h *holder) startMachine(m *machine) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc != nil && !m.proc.ended() {
		return fmt.Errorf("lab: %v: runs already, with PID %d", m.target, m.proc.pid)
	}
	p, err := h.startLogged(m.ns, m.log(), m.argv, m.environ)
	if err != nil {
		return fmt.Errorf("lab: %v: %w", m.target, err)
	}
	m.proc, m.stopped, m.served = p, false, false
	return nil
}

// startLogged starts a program whose output goes to the end of a file.
func (h *holder) startLogged(ns *namespace, log string, argv, environ []string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = environ, filepath.Dir(log)
	cmd.Stdout, cmd.Stderr = out, out
	return h.ps.start(ns, cmd)
}

// awaitReady waits until m's program serves, for a time. The error has the last line of
// its log.
func (m *machine) awaitReady(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := m.ready(ctx)
		if err == nil {
			m.mu.Lock()
			m.served = true
			m.mu.Unlock()
			return nil
		}
		select {
		case <-m.process().done:
			return fmt.Errorf("lab: %v: it ended (%s): %s", m.target, m.process().how(), lastLineOf(m.log()))
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return fmt.Errorf("lab: %v: not ready after %v: %w; its log: %s", m.target, within, err, lastLineOf(m.log()))
			}
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (m *machine) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}

// stop ends m's program and waits for its end; one that does not end by itself is
// killed after a time.
func (m *machine) stop(kill bool, within time.Duration) error {
	m.mu.Lock()
	p := m.proc
	m.stopped = true
	m.mu.Unlock()
	if p == nil || p.ended() {
		return fmt.Errorf("lab: %v: does not run", m.target)
	}
	if !kill {
		p.signal(unix.SIGTERM)
		select {
		case <-p.done:
			return nil
		case <-time.After(within):
		}
	}
	p.signal(unix.SIGKILL)
	<-p.done
	return nil
}

// state gives what Status shows: the state and, while it runs, the PID.
func (m *machine) state() (string, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.proc == nil:
		return StateStopped, 0
	case m.proc.ended() && m.stopped:
		return StateStopped, 0
	case m.proc.ended():
		return StateFailed, 0
	case !m.served:
		return StateStarting, m.proc.pid
	default:
		return StateReady, m.proc.pid
	}
}

// machine finds a node or router by name.
func (h *holder) machine(name string) (*machine, error) {
	var names []string
	for _, m := range slices.Concat(h.nodes, h.routers) {
		if m.target.Name == name {
			return m, nil
		}
		names = append(names, m.target.Name)
	}
	return nil, fmt.Errorf("lab: %q: no such node or router: must be %s", name, strings.Join(names, ", "))
}
