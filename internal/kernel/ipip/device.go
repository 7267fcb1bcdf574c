package ipip

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is the TUN side.
type device struct {
	file *os.File
	raw  syscall.RawConn
}

// arphrdTunnel is what the kernel's own device is: `ip link` shows link/ipip, and IPv6
// gives it no address of its own.
const arphrdTunnel = 768

func openDevice(name string) (*device, error) {
	const path = "/dev/net/tun"
	req, err := unix.NewIfreq(name)
	if err != nil || name == "" {
		return nil, fmt.Errorf("device %q: a name has 1 to 15 bytes", name)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := attach(fd, req); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	// Only now: who waits for a descriptor without a device is told of an error.
	d := &device{file: os.NewFile(uintptr(fd), path)}
	if d.raw, err = d.file.SyscallConn(); err != nil {
		_ = d.file.Close()
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return d, nil
}

// why is the kernel's reason for an error of Go's poller, which knows no more than that
// there is one when somebody has deleted the device.
func (d *device) why(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		return err
	}
	_ = d.raw.Control(func(fd uintptr) {
		var b [1]byte
		if _, e := unix.Read(int(fd), b[:]); e != nil && !errors.Is(e, unix.EAGAIN) {
			err = e
		}
	})
	return err
}

// attach gives fd the device that req names.
func attach(fd int, req *unix.Ifreq) error {
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("another process carries its packets: %w", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("somebody else made it, of another kind than TUN: delete it: %w", err)
	case err != nil:
		return fmt.Errorf("make it: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETLINK, arphrdTunnel); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("set its type: %w", err) // busy: it is up, and was ours before
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep it: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4); err != nil {
		return fmt.Errorf("set its offloads: %w", err)
	}
	return nil
}

// mtuOf asks the kernel for the MTU of a device, in bytes, in the network namespace of a
// socket; 0: it cannot tell.
func mtuOf(socket int, name string) int {
	req, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(socket, unix.SIOCGIFMTU, req) != nil {
		return 0
	}
	return int(req.Uint32())
}

// vnet is what the kernel says about a packet, or we to it, in front of it
// (virtio 1.2, section 5.1.6). It is in the machine's byte order.
type vnet struct {
	flags, gso    uint8
	headers       uint16 // length, bytes; a hint
	size          uint16 // of a segment's payload
	start, offset uint16 // where the checksum begins, and where it goes from there
}

const (
	needsChecksum = 1 // of vnet.flags
	gsoNone       = 0 // of vnet.gso
	gsoTCP        = 1
)

// vnetAt is the header at the beginning of b, which has vnetLen bytes.
func vnetAt(b []byte) *vnet { return (*vnet)(unsafe.Pointer(&b[:vnetLen][0])) }
