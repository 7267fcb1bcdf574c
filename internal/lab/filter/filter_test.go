package filter

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/topology"
	"github.com/weft-net/weft/internal/testenv"
)

// TestLoss counts what gets through a lossy port.
func TestLoss(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		percent     float64
		least, most int // of sent datagrams; five standard deviations, or exact
	}{
		"none":      {0, sent, sent},
		"a quarter": {25, sent*3/4 - 310, sent*3/4 + 310},
		"little":    {0.5, sent*995/1000 - 50, sent*995/1000 + 50},
		"all":       {100, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := testenv.Netns(t), testenv.Netns(t)
			testenv.Veth(t, a, "eth0", []string{"10.0.0.1/24"}, b, "port", []string{"10.0.0.2/24"})
			out, in := socketOf(t, a, nil), socketOf(t, b, target())
			_ = unix.Sendto(out, []byte{1}, 0, target()) // so that ARP is over
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}}, 5000); n != 1 {
				t.Fatalf("the first one has not arrived: %v", err)
			}
			_, _, _ = unix.Recvfrom(in, make([]byte, 8), 0)
			b.MustDo(func() error {
				lossy := &topology.Topology{Racks: []topology.Rack{{Loss: max(tt.percent, 0.01)}}}
				if err := Fabric(lossy, func(int) string { return "rack1" }); err != nil {
					return err
				}
				return Port("port", topology.Rack{Loss: tt.percent})
			})
			if got := arrived(out, in); got < tt.least || got > tt.most {
				t.Errorf("%d of %d datagrams arrived, want %d to %d", got, sent, tt.least, tt.most)
			}
		})
	}
}

const sent = 20000

// target is where they are sent to.
func target() unix.Sockaddr { return &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 0, 0, 2}} }

// socketOf is a UDP socket in n that does not wait, bound unless at is nil.
func socketOf(t *testing.T, n *testenv.Namespace, at unix.Sockaddr) (fd int) {
	t.Helper()
	n.MustDo(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil || at == nil {
			return err
		}
		return unix.Bind(fd, at)
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// arrived sends that many datagrams and counts those that come in.
func arrived(out, in int) (got int) {
	to := target()
	count := func() {
		for buf := make([]byte, 8); ; got++ {
			if _, _, err := unix.Recvfrom(in, buf, 0); err != nil {
				return
			}
		}
	}
	for i := range sent {
		_ = unix.Sendto(out, []byte{1}, 0, to)
		if i%64 == 0 {
			count()
		}
	}
	for { // what softirqs have still in hand
		count()
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}}, 100); n != 1 {
			return got
		}
	}
}
