package ipip

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bytesAt is what an element of a message points to.
func bytesAt(v unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) }

// nowhere is a device that takes everything.
func nowhere(t testing.TB) *device {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d := &device{file: f}
	if d.raw, err = f.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	return d
}
