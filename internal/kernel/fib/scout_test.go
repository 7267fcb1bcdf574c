package fib_test

import (
	"testing"

	"github.com/weft-net/weft/internal/kernel/fib"
)

// TestScout: what forwards for the cluster is told from what does not.
func TestScout(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	var s *fib.Scout
	k.ns.MustDo(func() (err error) { s, err = fib.OpenScout(fib.Options{Protocols: []uint8{12, 80}}); return err })
	defer func() { _ = s.Close() }()
	look := func(want fib.Sighting) {
		t.Helper()
		got, err := s.Look()
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	look(fib.Sighting{})
	k.workload("cali1")
	k.workload("cali2")
	k.ip("route add blackhole 203.0.113.0/24 proto static")
	look(fib.Sighting{}) // no route to a workload yet
	k.ip("route add 10.65.0.1 dev cali1 proto boot")
	k.ip("-6 route add fd65::1 dev cali1 proto 80")
	k.ip("route add 10.65.0.2 dev cali2 proto static") // whoever wrote it
	k.ip("route add blackhole 10.65.0.0/26 proto bird")
	k.ip("route add 10.65.1.0/26 via 10.0.0.9 proto 80")
	k.ip("-6 route add blackhole fd65::/122 proto bird")
	look(fib.Sighting{Workloads: 2, Blocks: 3})
}
