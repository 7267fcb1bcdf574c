package nflog

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// names gives links their names. It asks the kernel each time, which takes less than
// a microsecond: an index may mean another link tomorrow.
type names struct {
	file *os.File // of a socket, which keeps the network namespace
	raw  func(f func(fd uintptr)) error
}

// openNames is for the network namespace of the calling thread.
func openNames() (*names, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "links")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return &names{file, raw.Control}, nil
}

// of is the name of the link with that index; empty for none.
func (n *names) of(index uint32) (name string) {
	if index == 0 {
		return ""
	}
	request, err := unix.NewIfreq("")
	if err != nil {
		return ""
	}
	request.SetUint32(index)
	_ = n.raw(func(fd uintptr) {
		if unix.IoctlIfreq(int(fd), unix.SIOCGIFNAME, request) == nil {
			name = request.Name()
		}
	})
	return name
}
