package netlink

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
	// when the request's system call returns (the kernel works inside of it).
	answerTimeout = 10 * time.Second
	// receiveBytes holds the errors of a whole batch, or a burst of events.
	receiveBytes = 8 << 20
	// datagramBytes is the most the kernel puts in one message: 32 KiB in
	// dumps (netlink_dump), far less in events.
	datagramBytes = 64 << 10
)

var (
	// ErrOverrun says that the kernel had to drop messages to us (ENOBUFS).
	ErrOverrun = errors.New("receive buffer overrun")
	// ErrInterrupted says that what was dumped changed meanwhile, so that the
	// dump may lack objects or have some twice (NLM_F_DUMP_INTR).
	ErrInterrupted = errors.New("dump interrupted by a change")
)

// Options say what a socket is for.
type Options struct {
	Protocol int   // unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER
	Groups   []int // multicast groups to listen to
	// Strict has the kernel check dump requests, and filter by them. Only
	// NETLINK_ROUTE knows it.
	Strict bool
}

// Socket is a netlink socket in the network namespace of the thread that opened
// it. It is used by one goroutine at a time, but Close is always safe.
type Socket struct {
	file *os.File
	port uint32 // our netlink address, which events name as their cause
	buf  []byte // of the datagram last read
	seq  uint32
}

// Open opens a socket.
func Open(o Options) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, o.Protocol)
	if err != nil {
		return nil, fmt.Errorf("netlink: open socket: %w", err)
	}
	s := &Socket{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, datagramBytes)}
	if err := s.configure(fd, o); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("netlink: open socket: %w", err)
	}
	return s, nil
}

func (s *Socket) configure(fd int, o Options) error {
	// Without CAP_NET_ADMIN the kernel gives what net.core.rmem_max allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBytes)
	}
	// Errors without a copy of the request.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	if o.Strict {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	s.port = name.(*unix.SockaddrNetlink).Pid
	for _, g := range o.Groups {
		if err := member(fd, g, unix.NETLINK_ADD_MEMBERSHIP); err != nil {
			return err
		}
	}
	return nil
}

// Join listens to a multicast group from now on.
func (s *Socket) Join(group int) error {
	return s.control(func(fd int) error { return member(fd, group, unix.NETLINK_ADD_MEMBERSHIP) })
}

// Leave does not listen to a group any more; what is there already can be read. As long
// as nobody in the namespace listens, the kernel makes no messages.
func (s *Socket) Leave(group int) error {
	return s.control(func(fd int) error { return member(fd, group, unix.NETLINK_DROP_MEMBERSHIP) })
}

// member joins or leaves a group.
func member(fd, group, how int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, how, group); err != nil {
		return fmt.Errorf("membership of group %d: %w", group, err)
	}
	return nil
}

// Port is the address of s, by which the kernel names it as the cause of an event.
func (s *Socket) Port() uint32 { return s.port }

// Next is a sequence number that s has not used yet.
func (s *Socket) Next() uint32 {
	s.seq++
	return s.seq
}

// Ignore makes the kernel drop events that requests of the given sockets caused,
// so that writing 100,000 routes does not cost reading them as well. It replaces
// an earlier Ignore.
func (s *Socket) Ignore(writers ...*Socket) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12}} // nlmsg_pid
	for _, w := range writers {
		// The filter machine loads big-endian words; nlmsg_pid is in ours.
		var port [4]byte
		Native.PutUint32(port[:], w.port)
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: binary.BigEndian.Uint32(port[:])},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff})
	err := s.control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err != nil {
		return fmt.Errorf("netlink: filter own events: %w", err)
	}
	return nil
}

// sendOverhead is what the kernel keeps of a send buffer (netlink_sendmsg).
const sendOverhead = 32

// SendBuffer lets s send at least n bytes at once, as far as it may: without
// CAP_NET_ADMIN over the namespace that the machine booted with, net.core.wmem_max
// is the limit. It returns how many bytes s can send at once now.
func (s *Socket) SendBuffer(n int) (most int, err error) {
	err = s.control(func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n+sendOverhead) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n+sendOverhead)
		}
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		most = v - sendOverhead
		return err
	})
	return most, err
}

func (s *Socket) control(f func(fd int) error) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}

// Close makes a read that waits return.
func (s *Socket) Close() error { return s.file.Close() }

// Read waits for one datagram. The bytes are valid until the next read. The
// error wraps ErrOverrun when messages were lost, os.ErrClosed after Close.
func (s *Socket) Read() ([]byte, error) {
	n, err := s.file.Read(s.buf)
	if errors.Is(err, unix.ENOBUFS) {
		return nil, ErrOverrun
	}
	return s.buf[:max(n, 0)], err
}

// Send writes a request, or several, without waiting for an answer, of which the
// first Read after it must come within the next ten seconds. The error is
// unix.EMSGSIZE, wrapped, when it does not fit the send buffer.
func (s *Socket) Send(b []byte) error {
	if _, err := s.file.Write(b); err != nil {
		return err
	}
	// From now on: the kernel has worked in the call, for whole seconds where much is
	// written on a slow machine, and a deadline that is past hides an answer that is there.
	return s.file.SetReadDeadline(time.Now().Add(answerTimeout))
}

// Patience is how long the next reads wait at most, until the next request.
func (s *Socket) Patience(d time.Duration) error { return s.file.SetReadDeadline(time.Now().Add(d)) }

// Listen makes reads wait for good again, after a request on a socket that is for
// events.
func (s *Socket) Listen() error { return s.file.SetReadDeadline(time.Time{}) }

// Dump sends a request whose payload is body and calls each with every message
// of the answer; between datagrams it calls pause, which may be nil. A table that
// does not exist is empty. The error is ErrInterrupted, after all of the answer,
// when it may be torn.
func (s *Socket) Dump(typ uint16, body []byte, each func(typ uint16, body []byte), pause func()) error {
	seq := s.Next()
	req := AppendHeader(make([]byte, 0, HeaderBytes+len(body)), typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, seq)
	req = append(req, body...)
	EndMessage(req, 0)
	if err := s.Send(req); err != nil {
		return err
	}
	var torn error
	for {
		// Each datagram has its time, since each and pause take theirs.
		if err := s.file.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		datagram, err := s.Read()
		if err != nil {
			return err
		}
		for m := range Messages(datagram) {
			if m.Seq != seq {
				continue
			}
			if m.Flags&unix.NLM_F_DUMP_INTR != 0 {
				torn = ErrInterrupted
			}
			switch {
			case m.Type == unix.NLMSG_ERROR, m.Type == unix.NLMSG_DONE:
				if errno := m.Errno(); errno != 0 && errno != unix.ENOENT {
					return errno
				}
				return torn
			default:
				each(m.Type, m.Body)
			}
		}
		if pause != nil {
			pause()
		}
	}
}

// Exchange sends a batch whose last message asks for an acknowledgement, and
// calls failed for every message that the kernel refused. The kernel has
// worked through all of them when it returns nil.
func (s *Socket) Exchange(batch []byte, last uint32, failed func(seq uint32, errno unix.Errno)) error {
	if err := s.Send(batch); err != nil {
		return err
	}
	for {
		datagram, err := s.Read()
		if err != nil {
			return err
		}
		for m := range Messages(datagram) {
			if m.Type != unix.NLMSG_ERROR {
				continue
			}
			if errno := m.Errno(); errno != 0 {
				failed(m.Seq, errno)
			}
			if m.Seq == last {
				return nil
			}
		}
	}
}
