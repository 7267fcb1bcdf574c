package cni

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// codeInvalidNetns is the CNI code for a namespace that cannot be used.
const codeInvalidNetns uint = 8

// errNotNetns is wrapped by the error for a path that is no network namespace.
var errNotNetns = &rpc.Error{Code: codeInvalidNetns, Msg: "not a network namespace"}

// errNoNetns is wrapped by the error for a path that can't be opened.
var errNoNetns = &rpc.Error{Code: codeInvalidNetns, Msg: "no network namespace there"}

// netnsGone reports whether err of openNetns means that the namespace does not
// exist any more. Of a namespace that was unmounted an ordinary file stays.
func netnsGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, errNotNetns)
}

// podNetns is the open network namespace of a container.
type podNetns struct {
	path string
	fd   netns.NsHandle
}

// openNetns opens the namespace at path. It must be one, and not our own.
func openNetns(path string) (podNetns, error) {
	fd, err := netns.GetFromPath(path)
	if err != nil {
		return podNetns{}, fmt.Errorf("netns %s: %w: %w", path, errNoNetns, err)
	}
	p := podNetns{path: path, fd: fd}
	kind, err := unix.IoctlRetInt(int(fd), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		p.close()
		return podNetns{}, fmt.Errorf("netns %s: %w", path, errNotNetns)
	}
	own, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		p.close()
		return podNetns{}, fmt.Errorf("netns: own: %w", err)
	}
	defer own.Close()
	if own.Equal(fd) {
		p.close()
		return podNetns{}, &rpc.Error{Code: codeInvalidNetns, Msg: fmt.Sprintf("netns %s: is the node's own namespace", path)}
	}
	return p, nil
}

func (p podNetns) close() { _ = p.fd.Close() }

// do runs f inside the namespace, on a thread of its own that dies afterwards.
func (p podNetns) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread stays in the namespace
		if err := netns.Set(p.fd); err != nil {
			done <- fmt.Errorf("netns %s: enter: %w", p.path, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// doNL is do with a netlink handle of the namespace.
func (p podNetns) doNL(f func(nl *netlink.Handle) error) error {
	return p.do(func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netns %s: netlink: %w", p.path, err)
		}
		defer nl.Close()
		return f(nl)
	})
}
