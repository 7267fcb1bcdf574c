package bench

import (
	"context"
	"errors"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
)

// BenchmarkPath is what a packet's way through a node costs, in nanoseconds, with one
// thread that is client and server: each system call takes its packet all the way, so
// that no scheduler and no second core has a part in it. The tables take turns on one
// road, and of many short runs the fastest counts, which a busy machine changes little.
//
// It says where the time goes of which BenchmarkDatapath says what is left: plain is
// routing, tracked is connection tracking with one rule, the others are weft's.
func BenchmarkPath(b *testing.B) {
	r := newRoad(b)
	w := newWalk(b, r)
	worlds := map[string]model.World{"100-policies": guardedWorld(b, 0, 0), "large": guardedWorld(b, 5000, 2000)}
	tables := []string{"plain", "tracked", "100-policies", "large"}
	took := map[string]map[string][]float64{}
	for b.Loop() {
		for _, t := range tables {
			r.nft(b, "flush ruleset")
			switch w := worlds[t]; {
			case w != nil:
				r.enforceOnce(b, w)
			case t == "tracked":
				r.nft(b, "table ip t { chain f { type filter hook forward priority 0; ct state established,related accept; }; }")
			}
			for kind, one := range map[string]func() float64{"round-trip": w.roundTrip, "connection": w.connection} {
				if took[kind] == nil {
					took[kind] = map[string][]float64{}
				}
				var x float64
				err := r.client.Do(func() error { x = one(); return w.err })
				if err != nil {
					b.Fatalf("%s with %s: %v", kind, t, err)
				}
				took[kind][t] = append(took[kind][t], x)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for kind, of := range took {
		for _, t := range tables {
			slices.Sort(of[t])
			b.ReportMetric(of[t][len(of[t])/4], kind+"-"+t+"-ns")
		}
	}
}

// nft runs a script of nft(8) on the node.
func (r *road) nft(b *testing.B, script string) {
	b.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	err := r.node.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		b.Fatalf("nft: %s: %v", script, err)
	}
}

// enforceOnce puts a world's policy in force, and leaves it so.
func (r *road) enforceOnce(b *testing.B, w model.World) {
	b.Helper()
	var table *nft.NFT
	r.node.MustDo(func() (err error) {
		table, err = nft.New(nft.Options{})
		return err
	})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = table.Run(ctx) }()
	batch := model.Batch{Reset: true, Synced: true}
	for _, v := range w {
		batch.Puts = append(batch.Puts, v)
	}
	table.Apply(policy.NewGraph("node-a").Step(batch))
	table.Synced()
	err := table.WaitApplied(ctx)
	cancel()
	<-done
	if err != nil {
		b.Fatal(err)
	}
}

// walk is a client of a road that is its server as well. It is for one thread, inside
// the client's namespace.
type walk struct {
	road   *road
	server int   // listens
	err    error // the first
}

const (
	portWalk = 8004
	walkRuns = 10  // short runs of each measure
	walkLen  = 100 // round trips or connections in a run
)

func newWalk(b *testing.B, r *road) *walk {
	b.Helper()
	w := &walk{road: r}
	r.server.MustDo(func() (err error) {
		if w.server, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(unix.Bind(w.server, &unix.SockaddrInet4{Port: portWalk}), unix.Listen(w.server, 16))
	})
	b.Cleanup(func() { _ = unix.Close(w.server) })
	return w
}

// fastest is the least time of f in several runs, for each of its turns.
func fastest(f func()) float64 {
	best := math.Inf(1)
	for range walkRuns {
		start := time.Now()
		for range walkLen {
			f()
		}
		best = min(best, float64(time.Since(start).Nanoseconds())/walkLen)
	}
	return best
}

// open is both ends of a new connection, which ends by a reset.
func (w *walk) open() (client, server int) {
	client, err := w.road.dial(portWalk)
	w.note(err)
	for server = -1; w.err == nil && server < 0; {
		if server, _, err = unix.Accept(w.server); !errors.Is(err, unix.EINTR) {
			w.note(err)
		}
	}
	return client, server
}

func (w *walk) note(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *walk) connection() float64 {
	return fastest(func() {
		if w.err == nil {
			client, server := w.open()
			_ = unix.Close(client)
			_ = unix.Close(server)
		}
	})
}

func (w *walk) roundTrip() float64 {
	client, server := w.open()
	defer func() { _, _ = unix.Close(client), unix.Close(server) }()
	one := make([]byte, 1)
	for _, fd := range []int{client, server} {
		w.note(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	return fastest(func() {
		for _, way := range [][2]int{{client, server}, {server, client}} {
			if w.err == nil {
				_, err := again(unix.Write, way[0], one)
				w.note(err)
				_, err = again(unix.Read, way[1], one)
				w.note(err)
			}
		}
	})
}
