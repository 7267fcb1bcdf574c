package fib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerTimeout bounds the wait for the kernel's answer, which is there
	// when the request's system call returns (rtnetlink works inside of it).
	answerTimeout = 10 * time.Second
	// receiveBytes holds the errors of a whole batch, or a burst of events.
	receiveBytes = 8 << 20
	// datagramBytes is the most the kernel puts in one message: 32 KiB in
	// dumps (netlink_dump), far less in events.
	datagramBytes = 64 << 10
)

// native is the byte order of netlink.
var native = binary.NativeEndian

// errOverrun says that the kernel had to drop messages to us (ENOBUFS).
var errOverrun = errors.New("receive buffer overrun")

// socket is a NETLINK_ROUTE socket in the network namespace of the thread that
// opened it. It is used by one goroutine at a time, but Close is always safe.
type socket struct {
	file *os.File
	port uint32 // our netlink address, which events name as their cause
	buf  []byte // of the datagram last read
	seq  uint32
}

// openSocket opens a socket that listens to the given multicast groups.
func openSocket(groups ...int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("fib: open netlink socket: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, datagramBytes)}
	if err := s.configure(fd, groups); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("fib: open netlink socket: %w", err)
	}
	return s, nil
}

func (s *socket) configure(fd int, groups []int) error {
	// Without CAP_NET_ADMIN the kernel gives what net.core.rmem_max allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBytes)
	}
	// Errors without a copy of the request; dumps of one table only.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	s.port = name.(*unix.SockaddrNetlink).Pid
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("join group %d: %w", g, err)
		}
	}
	return nil
}

// ignore makes the kernel drop events that requests of the given socket
// caused, so that writing 100,000 routes does not cost reading them as well.
func (s *socket) ignore(writer *socket) error {
	// The filter machine loads big-endian words; nlmsg_pid is in ours.
	var port [4]byte
	native.PutUint32(port[:], writer.port)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12}, // nlmsg_pid
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: binary.BigEndian.Uint32(port[:])},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err := errors.Join(err, serr); err != nil {
		return fmt.Errorf("fib: filter own events: %w", err)
	}
	return nil
}

// Close makes a read that waits return.
func (s *socket) Close() error { return s.file.Close() }

// read waits for one datagram. The bytes are valid until the next read. The
// error wraps errOverrun when messages were lost.
func (s *socket) read() ([]byte, error) {
	n, err := s.file.Read(s.buf)
	if errors.Is(err, unix.ENOBUFS) {
		return nil, errOverrun
	}
	return s.buf[:max(n, 0)], err
}

// dump sends a request whose payload is body and calls each with every message
// of the answer; between datagrams it calls pause. A table that does not exist
// is empty.
func (s *socket) dump(typ uint16, body []byte, each func(typ uint16, body []byte), pause func()) error {
	s.seq++
	req := appendHeader(nil, typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, s.seq)
	req = append(req, body...)
	native.PutUint32(req, uint32(len(req)))
	if err := s.file.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := s.file.Write(req); err != nil {
		return err
	}
	for {
		datagram, err := s.read()
		if err != nil {
			return err
		}
		for m := range messages(datagram) {
			switch {
			case m.seq != s.seq:
			case m.typ == unix.NLMSG_ERROR, m.typ == unix.NLMSG_DONE:
				if errno := m.errno(); errno != 0 && errno != unix.ENOENT {
					return errno
				}
				return nil
			default:
				each(m.typ, m.body)
			}
		}
		pause()
	}
}

// exchange sends a batch whose last message asks for an acknowledgement, and
// calls failed for every message that the kernel refused. The kernel has
// worked through all of them when it returns nil.
func (s *socket) exchange(batch []byte, last uint32, failed func(seq uint32, errno unix.Errno)) error {
	if err := s.file.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := s.file.Write(batch); err != nil {
		return err
	}
	for {
		datagram, err := s.read()
		if err != nil {
			return err
		}
		for m := range messages(datagram) {
			if m.typ != unix.NLMSG_ERROR {
				continue
			}
			if errno := m.errno(); errno != 0 {
				failed(m.seq, errno)
			}
			if m.seq == last {
				return nil
			}
		}
	}
}
