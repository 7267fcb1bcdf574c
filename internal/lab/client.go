package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrDown says that there is no such lab, or that it is no longer up.
var ErrDown = errors.New("not up")

// Spec is what a lab is made from.
type Spec struct {
	Name       string // of the lab
	Dir        Dir
	File       string // name of the topology, for errors
	Topology   []byte
	Executable string   // weft itself, as an absolute path
	CNI        string   // weft-cni
	Environ    []string // of the caller; a few variables of it are passed on
	// Patience is by what all times that the lab gives are multiplied: those of
	// expectations, of starts and of ends. 0 is the same as 1.
	Patience int
}

// MaxPatience is the largest Patience that ParsePatience takes.
const MaxPatience = 1000

// ParsePatience reads a Patience; empty is 1.
func ParsePatience(text string) (int, error) {
	if text == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxPatience {
		return 0, fmt.Errorf("lab: WEFT_LAB_PATIENCE=%q: must be a whole number from 1 to %d", text, MaxPatience)
	}
	return n, nil
}

// Lab is a lab that is up, as seen from outside of it.
type Lab struct {
	Dir    Dir
	Status Status // as it was when it came up
	lease  *link  // nil: it lives on without us
	holder *exec.Cmd
}

// HoldCommand is the argument list with which weft must call [Hold].
func HoldCommand() []string { return []string{"lab", "hold"} }

// goingDown is the longest that is waited for a lab that is going down.
const goingDown = time.Minute

// Up makes a lab and returns when every node serves and every pod is attached. On
// an error, and when ctx ends first, nothing is left. With lease the lab ends with
// Close, which must be called, or with this process. Progress may be nil.
func Up(ctx context.Context, s Spec, lease bool, progress func(step string)) (*Lab, error) {
	for what, path := range map[string]string{"weft": s.Executable, "the CNI executable": s.CNI} {
		if err := unix.Access(path, unix.X_OK); err != nil {
			return nil, fmt.Errorf("lab: %s: %s: %w: both are made by `make build`, side by side", what, path, err)
		}
	}
	lock, err := s.Dir.claimFree(ctx)
	if errors.Is(err, errBusy) {
		return nil, fmt.Errorf("%w: take it down first (weft lab down), or choose another name (--name)", err)
	} else if err != nil {
		return nil, err
	}
	conn, cmd, err := s.startHolder(lock)
	if err != nil {
		_ = os.RemoveAll(string(s.Dir))
		lock.Close()
		return nil, err
	}
	lock.Close() // the holder has it, and it is free when the holder ends
	l := &Lab{Dir: s.Dir, lease: conn, holder: cmd}
	stop := context.AfterFunc(ctx, conn.close)
	defer stop()
	err = conn.ask(request{Verb: verbUp, Up: &upRequest{
		Name: s.Name, Dir: s.Dir, File: s.File, Topology: s.Topology,
		Executable: s.Executable, CNI: s.CNI, Environ: passedOn(s.Environ), Lease: lease,
		Patience: max(s.Patience, 1),
	}})
	var last reply
	if err == nil {
		last, err = conn.replies(func(r reply) {
			if progress != nil && r.Step != "" {
				progress(r.Step)
			}
		})
	}
	if err == nil && !lease {
		// From now on it stays, and not before: whoever is interrupted until then
		// leaves nothing.
		err = conn.send(request{Verb: verbKeep})
	}
	if err != nil {
		l.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("lab: up: %w", context.Cause(ctx))
		}
		return nil, err
	}
	l.Status = *last.Status
	if !lease {
		conn.close()
		l.lease = nil
	}
	return l, nil
}

// Close takes a leased lab down and waits until it is gone; one without a lease
// stays. Closing twice is the same as once.
func (l *Lab) Close() {
	if l.lease == nil {
		return
	}
	l.lease.close()
	l.lease = nil
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.holder.Wait()
	}()
	select {
	case <-done:
	case <-time.After(goingDown):
		_ = l.holder.Process.Kill()
		<-done
	}
	_, _ = l.Dir.sweep() // if it was killed
}

// passedOn are the variables of the caller that programs in the lab get: settings
// of weft come from the topology only.
func passedOn(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "LANG", "TZ", "GODEBUG", "GOTRACEBACK", "GORACE", "GOCOVERDIR",
			"WAIT_FOR_DATASTORE": // true on a slow machine: its store answers late
			out = append(out, kv)
		}
	}
	return out
}

// startHolder starts the holder in namespaces of its own, connected to us.
func (s Spec) startHolder(lock *os.File) (*link, *exec.Cmd, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("lab: socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "holder")
	defer theirs.Close()
	ours, err := linkOf(os.NewFile(uintptr(fds[0]), "lab"))
	if err != nil {
		return nil, nil, fmt.Errorf("lab: socket pair: %w", err)
	}
	cmd, err := s.spawn(theirs, lock, os.Geteuid() != 0)
	if errors.Is(err, unix.EPERM) && os.Geteuid() == 0 {
		cmd, err = s.spawn(theirs, lock, true) // root without CAP_SYS_ADMIN, in a container
	}
	if err != nil {
		ours.close()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w: run it as root, or allow user namespaces (sysctl user.max_user_namespaces, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns)", err)
		}
		return nil, nil, fmt.Errorf("lab: make namespaces: %w", err)
	}
	return ours, cmd, nil
}

func (s Spec) spawn(socket, lock *os.File, userNamespace bool) (*exec.Cmd, error) {
	cmd := exec.Command(s.Executable, HoldCommand()...)
	cmd.Args[0] = "weft-lab:" + s.Name // what `ps` shows
	cmd.Env, cmd.Dir = passedOn(s.Environ), "/"
	cmd.ExtraFiles = []*os.File{socket, lock}
	cmd.Stderr = os.Stderr
	if log, err := os.OpenFile(string(s.Dir)+"/holder.log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err == nil {
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
	}
	if userNamespace {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		if inner := (*os.PathError)(nil); errors.As(err, &inner) {
			return nil, inner.Err
		}
		return nil, err
	}
	return cmd, nil
}

// HolderFiles are the two files that the holder was started with.
func HolderFiles() (socket, lock *os.File) {
	return os.NewFile(3, "starter"), os.NewFile(4, "lock")
}

// dial connects to a lab. The error wraps ErrDown when there is none.
func (d Dir) dial() (*link, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.control(), Net: "unix"})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("lab: %w in %s: start it with: weft lab up", ErrDown, d)
	} else if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return newLink(c), nil
}

// call sends one request and waits for the end of the answer. It gives up when
// ctx ends.
func (d Dir) call(ctx context.Context, r request, each func(reply), files ...*os.File) (reply, error) {
	conn, err := d.dial()
	if err != nil {
		return reply{}, err
	}
	defer conn.close()
	defer context.AfterFunc(ctx, conn.close)()
	if err := conn.ask(r, files...); err != nil {
		return reply{}, fmt.Errorf("lab: %w", err)
	}
	last, err := conn.replies(each)
	if err != nil && ctx.Err() != nil {
		return last, context.Cause(ctx)
	}
	return last, err
}

// StatusOf asks the lab how it is.
func (d Dir) StatusOf(ctx context.Context) (Status, error) {
	r, err := d.call(ctx, request{Verb: verbStatus}, nil)
	if err != nil || r.Status == nil {
		return Status{}, err
	}
	return *r.Status, nil
}

// Check tries the topology's expectations. Progress may be nil.
func (d Dir) Check(ctx context.Context, progress func(step string)) (*Report, error) {
	r, err := d.call(ctx, request{Verb: verbCheck}, func(r reply) {
		if progress != nil {
			progress(r.Step)
		}
	})
	return r.Report, err
}

// Stop ends the agent of a node, or a router; with kill by SIGKILL.
func (d Dir) Stop(ctx context.Context, name string, kill bool) error {
	_, err := d.call(ctx, request{Verb: verbStop, Name: name, Kill: kill}, nil)
	return err
}

// Start starts what Stop ended, and returns when it serves.
func (d Dir) Start(ctx context.Context, name string) error {
	_, err := d.call(ctx, request{Verb: verbStart, Name: name}, nil)
	return err
}

// Down takes the lab down, or cleans up after one that was killed, and returns
// when it is gone. It reports whether there was anything.
func (d Dir) Down(ctx context.Context) (bool, error) {
	conn, swept, err := d.dialOrSweep(ctx)
	if conn == nil {
		return swept, err
	}
	defer conn.close()
	defer context.AfterFunc(ctx, conn.close)()
	ended, err := pidfdOf(conn)
	if err != nil {
		return false, err
	}
	defer unix.Close(ended)
	if err := conn.ask(request{Verb: verbDown}); err != nil {
		return false, fmt.Errorf("lab: down: %w", err)
	}
	if err := awaitEnd(ctx, ended); err != nil {
		return false, fmt.Errorf("lab: down: %w", err)
	}
	if _, err := d.sweep(); err != nil {
		return false, err
	}
	return true, nil
}

// claimFree is claim, but for a lab that is going down, as after a kill: it has its
// directory still, and does not answer. That is waited for, up to goingDown.
func (d Dir) claimFree(ctx context.Context) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, goingDown)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		lock, err := d.claim()
		if !errors.Is(err, errBusy) {
			return lock, err
		}
		conn, dialErr := d.dial()
		if dialErr == nil {
			conn.close()
		}
		if !errors.Is(dialErr, ErrDown) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// dialOrSweep connects to a lab or, when there is none, removes what it left and
// reports whether that was anything. It waits for a lab that is coming up, or going
// down: such a one has its directory and does not answer.
func (d Dir) dialOrSweep(ctx context.Context) (*link, bool, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		conn, err := d.dial()
		if !errors.Is(err, ErrDown) {
			return conn, false, err
		}
		swept, err := d.sweep()
		if !errors.Is(err, errBusy) {
			return nil, swept, err
		}
		select {
		case <-ctx.Done():
			return nil, false, fmt.Errorf("lab: down: it is coming up or going down: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// pidfdOf is a handle on the process that listens at the other end.
func pidfdOf(conn *link) (int, error) {
	raw, err := conn.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, fdErr := -1, error(nil)
	err = raw.Control(func(s uintptr) {
		var cred *unix.Ucred
		if cred, fdErr = unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED); fdErr == nil {
			fd, fdErr = unix.PidfdOpen(int(cred.Pid), 0)
		}
	})
	if err := errors.Join(err, fdErr); err != nil {
		return 0, fmt.Errorf("lab: find the holder: %w", err)
	}
	return fd, nil
}

// awaitEnd returns when the process behind the handle has ended.
func awaitEnd(ctx context.Context, pidfd int) error {
	for ctx.Err() == nil {
		const step = 100 // ms, between two looks at ctx
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, step)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return context.Cause(ctx)
}
