package bench

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of the server's threads that are on a processor of their own.
const (
	portEchoUndisturbed = 8012
	portBulkUndisturbed = 8013
)

// serveUndisturbed starts a server for bulkUndisturbed and roundTripsUndisturbed.
func (r *road) serveUndisturbed(b *testing.B) {
	b.Helper()
	r.serveThread(b, portBulkUndisturbed, func(c int, buf []byte) {
		for {
			if n, err := again(unix.Read, c, buf); n <= 0 || err != nil {
				return
			}
		}
	})
	r.serveThread(b, portEchoUndisturbed, func(c int, buf []byte) {
		_ = unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		for {
			n, err := again(unix.Read, c, buf)
			if n <= 0 || err != nil {
				return
			}
			if _, err := again(unix.Write, c, buf[:n]); err != nil {
				return
			}
		}
	})
}

// serveThread has one thread, undisturbed on the last processor, serve one connection after
// the other.
func (r *road) serveThread(b *testing.B, port int, each func(fd int, buf []byte)) {
	b.Helper()
	var fd int
	r.server.MustDo(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
			return err
		}
		return unix.Listen(fd, 16)
	})
	b.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); _ = unix.Close(fd) })
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		undisturbed(-1)
		buf := make([]byte, 256<<10)
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			// The end of a connection may get lost where packets do.
			_ = unix.SetsockoptTimeval(c, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000})
			each(c, buf)
			_ = unix.Close(c)
		}
	}()
}

// undisturbed binds the thread to the first processor that it may use, or to the last one
// (-1), and lets it go before others' work there, where it may.
func undisturbed(which int) {
	var all, one unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
			if which == 0 {
				break
			}
		}
	}
	_ = unix.SchedSetaffinity(0, &one)
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0)
}

// pause is what the others get before each slice: so they go on, and the kernel does not
// take the processor away from who has it nearly always (sched_rt_runtime_us).
const pause = slice / 2

// bulkUndisturbed is bulk with sender and receiver on a processor each. All that happens
// on the way is done by the sender's.
func bulkUndisturbed(r *road, d time.Duration) (float64, error) {
	time.Sleep(pause)
	undisturbed(0)
	fd, err := r.dial(portBulkUndisturbed)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 256<<10)
	return perSecond(d, func() (int, error) { return again(unix.Write, fd, buf) })
}

// roundTripsUndisturbed is roundTrips likewise.
func roundTripsUndisturbed(r *road, d time.Duration) (float64, error) {
	time.Sleep(pause)
	undisturbed(0)
	fd, err := r.dial(portEchoUndisturbed)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	one := make([]byte, 1)
	return perSecond(d, func() (int, error) {
		if _, err := again(unix.Write, fd, one); err != nil {
			return 0, err
		}
		return again(unix.Read, fd, one)
	})
}

// perSecond repeats f for d and returns what it did in a second.
func perSecond(d time.Duration, f func() (int, error)) (float64, error) {
	done, start := 0, time.Now()
	for time.Since(start) < d {
		n, err := f()
		if err != nil {
			return 0, err
		}
		done += n
	}
	return float64(done) / time.Since(start).Seconds(), nil
}
