package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace of the lab. The path is valid inside of the
// lab only.
type namespace struct {
	path string // bind mount; empty: the holder's own, which is the fabric
}

// newNamespace makes one, with its loopback up, and binds it to path.
func newNamespace(path string) (*namespace, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lab: namespace: %w", err)
	}
	mount, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o400)
	if err != nil {
		return nil, fmt.Errorf("lab: namespace: %w", err)
	}
	_ = mount.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		return linkUp("lo")
	})
	if err != nil {
		return nil, fmt.Errorf("lab: namespace %s: %w", filepath.Base(path), err)
	}
	return &namespace{path}, nil
}

// do runs f inside ns, on a thread of its own. Processes that f starts see a
// /sys that shows ns. Goroutines that it starts are not inside.
func (ns *namespace) do(f func() error) error {
	return onThread(func() error {
		if ns.path == "" {
			return f()
		}
		if err := ns.enter(); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("lab: namespace: mounts: %w", err)
		}
		// Mounts that the holder makes later, namespaces of pods, are to appear.
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("lab: namespace: mounts: %w", err)
		}
		// Without it programs see the interfaces of the machine in /sys/class/net; a
		// container that hides parts of /sys forbids it, and few programs look there.
		_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		return f()
	})
}

// open runs f inside ns as do does, but without a view of files of its own: for
// sockets and settings.
func (ns *namespace) open(f func() error) error {
	return onThread(func() error {
		if err := ns.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread.
func (ns *namespace) enter() error {
	if ns.path == "" {
		return nil
	}
	fd, err := unix.Open(ns.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lab: namespace %s: %w", ns.path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("lab: namespace %s: enter: %w", ns.path, err)
	}
	return nil
}

// onThread runs f on a goroutine whose thread dies with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is in another namespace
		done <- f()
	}()
	return <-done
}

func linkUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("link %s: up: %w", name, err)
	}
	return nil
}

// setting writes a net.* sysctl of the calling thread's namespace.
func setting(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
}
