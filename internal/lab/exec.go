package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Command is what [Dir.Exec] runs.
type Command struct {
	Target  string // a node, a router, pod/NAMESPACE/NAME, or fabric
	Argv    []string
	Cwd     string
	Environ []string
	// The streams are handed to the command. If Stdin and Stdout are a terminal, it
	// gets a terminal of its own behind it, as with ssh.
	Stdin, Stdout, Stderr *os.File
}

// Exec runs a command inside the lab and returns its exit code. When ctx ends,
// the command is killed.
func (d Dir) Exec(ctx context.Context, c Command) (int, error) {
	r := request{Verb: verbExec, Exec: &execRequest{Target: c.Target, Argv: c.Argv, Cwd: c.Cwd, Environ: c.Environ}}
	streams := []*os.File{c.Stdin, c.Stdout, c.Stderr}
	if term.IsTerminal(int(c.Stdin.Fd())) && term.IsTerminal(int(c.Stdout.Fd())) {
		return d.execTTY(ctx, c, r)
	}
	answer, err := d.call(ctx, r, nil, streams...)
	if err != nil || answer.Exit == nil {
		return 1, err
	}
	return *answer.Exit, nil
}

// execTTY runs a command on a terminal made for it. Ours is raw meanwhile: every
// key, Ctrl-C too, goes to the command's.
func (d Dir) execTTY(ctx context.Context, c Command, r request) (int, error) {
	master, slave, err := openTTY()
	if err != nil {
		return 1, fmt.Errorf("lab: terminal: %w", err)
	}
	defer master.Close()
	ours := int(c.Stdin.Fd())
	was, err := term.MakeRaw(ours)
	if err != nil {
		return 1, fmt.Errorf("lab: terminal: %w", err)
	}
	defer func() { _ = term.Restore(ours, was) }()

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	resized <- unix.SIGWINCH // the first size
	go func() {
		for range resized {
			if size, err := unix.IoctlGetWinsize(ours, unix.TIOCGWINSZ); err == nil {
				_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, size)
			}
		}
	}()
	go func() { _, _ = io.Copy(master, c.Stdin) }() // ends with this process
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(c.Stdout, master) // ends when the last slave is closed
	}()
	r.Exec.TTY = true
	conn, err := d.dial()
	if err != nil {
		return 1, err
	}
	defer conn.close()
	defer context.AfterFunc(ctx, conn.close)()
	if err := conn.ask(r, slave, slave, slave); err != nil {
		return 1, fmt.Errorf("lab: %w", err)
	}
	slave.Close()
	answer, err := conn.replies(nil)
	if err != nil || answer.Exit == nil {
		return 1, err
	}
	<-shown
	return *answer.Exit, nil
}

// openTTY makes a pair of pseudo-terminals (pty(7)).
func openTTY() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	if slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
