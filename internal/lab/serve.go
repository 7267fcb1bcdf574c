package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/topology"
)

// serve answers requests until l is closed.
func (h *holder) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		u, ok := c.(*net.UnixConn)
		if !ok {
			c.Close()
			continue
		}
		go func() {
			conn := newLink(u)
			defer conn.close()
			r, files, err := conn.accept()
			defer func() {
				for _, f := range files {
					f.Close()
				}
			}()
			if err != nil {
				return
			}
			answer := h.answer(conn, r, files)
			answer.End = true
			_ = conn.send(answer)
		}()
	}
}

// answer does what r asks for.
func (h *holder) answer(conn *link, r request, files []*os.File) reply {
	fail := func(err error) reply { return reply{Error: err.Error()} }
	switch r.Verb {
	case verbStatus:
		status := h.status()
		return reply{Status: &status}
	case verbCheck:
		ctx, cancel := whileOpen(conn)
		defer cancel()
		report := h.check(ctx, func(format string, args ...any) { _ = conn.send(reply{Step: fmt.Sprintf(format, args...)}) })
		return reply{Report: report}
	case verbExec:
		code, err := h.exec(conn, r.Exec, files)
		if err != nil {
			return fail(err)
		}
		return reply{Exit: &code}
	case verbStop, verbStart:
		ctx, cancel := whileOpen(conn)
		defer cancel()
		if err := h.stopOrStart(ctx, r); err != nil {
			return fail(err)
		}
		status := h.status()
		return reply{Status: &status}
	case verbDown:
		h.goDown()
		return reply{}
	}
	return fail(fmt.Errorf("lab: %q: no such request", r.Verb))
}

// whileOpen is a context that ends when the client goes.
func whileOpen(conn *link) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	gone := conn.closed()
	go func() {
		select {
		case <-gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (h *holder) stopOrStart(ctx context.Context, r request) error {
	m, err := h.machine(r.Name)
	if err != nil {
		return err
	}
	if r.Verb == verbStop {
		return m.stop(r.Kill, h.patient(endsWithin))
	}
	if err := h.startMachine(m); err != nil {
		return err
	}
	return m.awaitReady(ctx, h.patient(readyWithin))
}

// exec runs a command in a target, with the client's own streams, and ends it
// when the client goes.
func (h *holder) exec(conn *link, r *execRequest, files []*os.File) (int, error) {
	if r == nil || len(r.Argv) == 0 || len(files) != 3 {
		return 0, fmt.Errorf("lab: exec: needs a command and three streams, got %d", len(files))
	}
	target, err := h.topo.Target(r.Target)
	if err != nil {
		return 0, fmt.Errorf("lab: exec: %w", err)
	}
	if target.Kind == topology.ToAddress {
		return 0, fmt.Errorf("lab: exec: %v: an address is no place: name a node, a router, a host outside, pod/NAMESPACE/NAME or %s", target, topology.Fabric)
	}
	ns, _ := h.place(target)
	cmd := &exec.Cmd{Path: r.Argv[0], Args: r.Argv, Stdin: files[0], Stdout: files[1], Stderr: files[2]}
	cmd.Env = h.execEnviron(r.Environ, target)
	if cmd.Path, err = lookPath(r.Argv[0], cmd.Env); err != nil {
		return 0, fmt.Errorf("lab: exec: %w", err)
	}
	if info, err := os.Stat(r.Cwd); err == nil && info.IsDir() {
		cmd.Dir = r.Cwd
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.TTY {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	}
	p, err := h.ps.start(ns, cmd)
	if err != nil {
		return 0, fmt.Errorf("lab: exec: %w", err)
	}
	for _, f := range files {
		f.Close() // so that a pipe's reader sees the command's end
	}
	select {
	case <-p.done:
	case <-conn.closed():
		p.signal(unix.SIGHUP)
		p.signal(unix.SIGCONT)
		p.signal(unix.SIGKILL)
		<-p.done
	}
	return p.exitCode(), nil
}

// execEnviron is the client's environment with what reaches the lab's parts: the
// store, and from a node its agent, from a router its BIRD; and with a PATH to
// where Debian keeps daemons, as an ordinary user is root in a lab.
func (h *holder) execEnviron(client []string, t topology.Target) []string {
	out := append(slices.Clone(client), Settings(h.Dir)...)
	out = append(out, "PATH="+pathOf(client)+":/usr/sbin:/sbin")
	for _, m := range h.nodes {
		if m.target == t {
			for _, kv := range m.environ {
				if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "WEFT_") || name == "NODENAME" || name == "CALICO_NODENAME_FILE" {
					out = append(out, kv)
				}
			}
		}
	}
	for _, m := range h.routers {
		if m.target == t {
			out = append(out, "BIRD_SOCKET="+birdSocket(m.dir))
		}
	}
	return out
}

// pathOf is the PATH of an environment.
func pathOf(environ []string) string {
	path := "/usr/bin:/bin"
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	return path
}

// lookPath finds a program by the PATH of an environment.
func lookPath(name string, environ []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(pathOf(environ), ":") {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: no such program in %s", name, pathOf(environ))
}

// Settings are the variables by which etcd clients and weft find the lab's store.
func Settings(d Dir) []string {
	return []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + d.Endpoint()}
}

// status describes the lab as it is now.
func (h *holder) status() Status {
	s := Status{Name: h.Name, Dir: string(h.Dir), Endpoint: h.Dir.Endpoint(), Nodes: []NodeStatus{}, Pods: []PodStatus{}}
	for i, m := range h.nodes {
		n := h.topo.Nodes[i]
		state, pid := m.state()
		var links []LinkStatus
		for _, l := range n.Interfaces()[1:] {
			links = append(links, LinkStatus(l))
		}
		s.Nodes = append(s.Nodes, NodeStatus{
			Name: n.Name, Rack: n.Rack, Addresses: n.Addresses, Links: links, State: state, PID: pid,
			Socket: m.dir + "/agent.sock", Log: m.log(),
		})
	}
	for i, m := range h.routers {
		r := h.topo.Routers[i]
		state, pid := m.state()
		s.Routers = append(s.Routers, RouterStatus{
			Name: r.Name, Rack: r.Rack, Addresses: r.Addresses, ASN: r.ASN, State: state, PID: pid,
			Socket: birdSocket(m.dir), Log: m.log(),
		})
	}
	for _, p := range h.pods {
		p.mu.Lock()
		s.Pods = append(s.Pods, PodStatus{
			Namespace: p.Namespace, Name: p.Name, Node: p.Pod.Node, Addresses: p.addrs, HostLink: p.hostLink, Netns: p.ns.path,
		})
		p.mu.Unlock()
	}
	for _, o := range h.outside {
		s.Outside = append(s.Outside, HostStatus{o.target.Name, o.addrs})
	}
	return s
}
