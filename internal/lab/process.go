package lab

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// processes starts the holder's children and reaps them, and whatever else dies
// in the PID namespace: the holder is its init, and orphans come to it. So
// nothing here may use [exec.Cmd.Wait].
type processes struct {
	mu      sync.Mutex
	running map[int]*process
}

// process is a child of the holder.
type process struct {
	pid    int           // in the lab's PID namespace
	done   chan struct{} // closed when it has ended
	status unix.WaitStatus
}

// newProcesses starts reaping; it goes on until the holder ends.
func newProcesses() *processes {
	ps := &processes{running: map[int]*process{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			ps.reap()
		}
	}()
	return ps
}

func (ps *processes) reap() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := ps.running[pid]; p != nil {
			delete(ps.running, pid)
			p.status = status
			close(p.done)
		}
	}
}

// start runs cmd in ns, in a process group of its own. Its streams must be files.
func (ps *processes) start(ns *namespace, cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	ps.mu.Lock() // held until the child is known, so that it cannot be reaped as a stranger
	defer ps.mu.Unlock()
	if err := ns.do(cmd.Start); err != nil {
		return nil, err
	}
	p := &process{pid: cmd.Process.Pid, done: make(chan struct{})}
	ps.running[p.pid] = p
	_ = cmd.Process.Release()
	return p, nil
}

// signal sends s to the process and what it started.
func (p *process) signal(s unix.Signal) { _ = unix.Kill(-p.pid, s) }

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// exitCode is that of an ended process, in a shell's convention: 128 and the
// signal's number for one that was killed.
func (p *process) exitCode() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// how says how a process ended, for messages.
func (p *process) how() string {
	if p.status.Signaled() {
		return "killed by " + unix.SignalName(p.status.Signal())
	}
	return fmt.Sprintf("exit status %d", p.status.ExitStatus())
}

// output runs cmd in ns and returns what it wrote to its standard output; the
// error has the last line of what it wrote to the other. It ends with stop.
func (ps *processes) output(ns *namespace, stop <-chan struct{}, cmd *exec.Cmd) ([]byte, error) {
	out, err := inMemory("stdout", nil)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	errs, err := inMemory("stderr", nil)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	p, err := ps.start(ns, cmd)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
	case <-stop:
		p.signal(unix.SIGKILL)
		<-p.done
	}
	body, err := written(out)
	if err != nil {
		return nil, err
	}
	if p.exitCode() != 0 {
		said, err := written(errs)
		if err != nil {
			return nil, err
		}
		return body, fmt.Errorf("%s: %s: %s", filepath.Base(cmd.Args[0]), p.how(), lastLine(said))
	}
	return body, nil
}

// lastLineOf is the last line of a log, for messages.
func lastLineOf(path string) string {
	body, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return lastLine(body)
}

// lastLine is the last line that is not empty, shortened.
func lastLine(body []byte) string {
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return "it said nothing"
	}
	const most = 400
	if len(last) > most {
		last = last[:most] + "…"
	}
	return last
}
