package ipip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// String is a in dotted form.
func (a address) String() string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(a))
	return netip.AddrFrom4(b).String()
}

// bytes4 is a in network order.
func (a address) bytes4() (b [4]byte) {
	binary.BigEndian.PutUint32(b[:], uint32(a))
	return b
}

// socket is a descriptor that Go's poller waits for.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

// sockets are those to the underlay.
type sockets struct {
	in  socket // gets packets of protocol 4, and the ICMP errors about them
	out socket // sends whole packets; gets nothing
	// probe is asked how large a packet may be: seldom, and one at a time.
	mu    sync.Mutex
	probe int
}

// bufferBytes is room for what arrives, or goes, while this process does not run.
const bufferBytes = 8 << 20

func openSockets() (*sockets, error) {
	s := &sockets{probe: -1}
	if err := s.open(); err != nil {
		_ = s.close()
		return nil, err
	}
	return s, nil
}

func (s *sockets) open() error {
	in, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protoIPIP)
	if err != nil {
		return fmt.Errorf("raw socket of protocol %d: %w", protoIPIP, err)
	}
	if s.in, err = newSocket(in, "ipip-in"); err != nil {
		return err
	}
	out, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	if s.out, err = newSocket(out, "ipip-out"); err != nil {
		return err
	}
	if s.probe, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("datagram socket: %w", err)
	}
	if err := unix.SetsockoptInt(in, unix.SOL_IP, unix.IP_RECVERR, 1); err != nil {
		return fmt.Errorf("raw socket of protocol %d: ask for errors: %w", protoIPIP, err)
	}
	for fd, options := range map[int][2]int{in: {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, out: {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, options[0], bufferBytes) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, options[1], bufferBytes) // as much as the kernel allows
		}
	}
	return nil
}

func newSocket(fd int, name string) (s socket, err error) {
	s.file = os.NewFile(uintptr(fd), name)
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return s, fmt.Errorf("socket %s: %w", name, err)
	}
	return s, nil
}

func (s *sockets) close() error {
	var errs []error
	for _, f := range []*os.File{s.in.file, s.out.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe >= 0 {
		errs = append(errs, unix.Close(s.probe))
		s.probe = -1
	}
	return errors.Join(errs...)
}

// pathMTU is how large a packet to a node may be, bytes, as the kernel knows from
// its device and from ICMP; 0: it does not know the way.
func (s *sockets) pathMTU(to address) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if unix.Connect(s.probe, &unix.SockaddrInet4{Port: 9, Addr: to.bytes4()}) != nil {
		return 0
	}
	mtu, err := unix.GetsockoptInt(s.probe, unix.SOL_IP, unix.IP_MTU)
	if err != nil {
		return 0
	}
	return mtu
}

// send sends one whole packet.
func (s *sockets) send(packet []byte, to address) error {
	var err error
	if e := s.out.raw.Control(func(fd uintptr) {
		err = unix.Sendto(int(fd), packet, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.bytes4()})
	}); e != nil {
		return e
	}
	return err
}

// message is one element of the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	n      uint32 // bytes, written by the kernel
}

// batch is the system call recvmmsg or sendmmsg, which does not wait.
func batch(call, fd uintptr, list []message) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(call, fd, uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// failure is an ICMP error about a packet of ours.
type failure struct {
	kind, code byte
	to         address // where the packet went: a node
	inner      []byte  // what the error quotes of it
}

// nextFailure takes an ICMP error from the socket; false: there is none.
func (s socket) nextFailure(buf []byte) (f failure, ok bool) {
	_ = s.raw.Control(func(fd uintptr) {
		var control [512]byte
		n, oob, _, from, err := unix.Recvmsg(int(fd), buf, control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		ok = true
		f.inner = buf[:n]
		if a, is := from.(*unix.SockaddrInet4); is {
			f.to = address(binary.BigEndian.Uint32(a.Addr[:]))
		}
		messages, err := unix.ParseSocketControlMessage(control[:oob])
		if err != nil {
			return
		}
		for _, m := range messages {
			const extended = 16 // bytes of struct sock_extended_err
			if m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR && len(m.Data) >= extended &&
				m.Data[4] == unix.SO_EE_ORIGIN_ICMP {
				f.kind, f.code = m.Data[5], m.Data[6]
			}
		}
	})
	return f, ok
}
