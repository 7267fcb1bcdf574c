package device_test

import (
	"os"

	"golang.org/x/sys/unix"
)

// listenUDP takes a port of IPv4 in the calling thread's namespace.
func listenUDP(port int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "udp")
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
