package sysctl

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// confined runs f with a /proc/sys that is read-only, as runtimes mount it, in a
// mount and a network namespace of its own.
func confined(t *testing.T, f func() error) {
	t.Helper()
	testenv.NeedRoot(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespaces
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			for _, m := range []struct {
				source, target string
				flags          uintptr
			}{
				{"", "/", unix.MS_REC | unix.MS_PRIVATE},
				{"/proc/sys", "/proc/sys", unix.MS_BIND},
				{"", "/proc/sys", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
			} {
				if err := unix.Mount(m.source, m.target, "", m.flags, ""); err != nil {
					return fmt.Errorf("mount %s: %w", m.target, err)
				}
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func write(path string) error { return os.WriteFile(path, []byte("1"), 0) }

// TestUnlock: the network's settings become writable, and no others.
func TestUnlock(t *testing.T) {
	t.Parallel()
	const setting = dir + "/ipv4/ip_forward"
	confined(t, func() error {
		if err := write(setting); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("before: write %s: got %w, want a read-only file system", setting, err)
		}
		if err := errors.Join(Unlock(), Unlock()); err != nil {
			return err
		}
		if err := write(setting); err != nil {
			return fmt.Errorf("after: %w", err)
		}
		const other = "/proc/sys/kernel/printk_ratelimit"
		if err := write(other); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("write %s: got %w, want a read-only file system", other, err)
		}
		return nil
	})
}

// TestUnlockPlain: where all is writable, nothing is mounted.
func TestUnlockPlain(t *testing.T) {
	t.Parallel()
	mounts := func() string {
		b, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := mounts()
	if err := Unlock(); err != nil {
		testenv.Skip(t, "%v", err)
	}
	if after := mounts(); after != before {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
}
