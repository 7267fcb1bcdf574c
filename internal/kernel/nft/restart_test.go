package nft_test

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// restartPlan lets UDP to port 7001 pass on output, and none else. Its shape differs with
// i: names, priorities and types of sets, all of which an agent of another version
// may have left.
func restartPlan(i int) plan.TableDelta {
	set := plan.Set{Name: "locals", Type: plan.SetAddrs}
	member := addr("127.0.0.1")
	if i%3 == 1 {
		set.Type, member = plan.SetNets, netOf("127.0.0.0/8")
	}
	names := []string{"policy", "other"}
	return plan.TableDelta{
		PutSets: []plan.Set{set},
		Changes: []plan.SetChange{{Set: "locals", Put: []plan.Member{member}}},
		PutChains: []plan.Chain{
			{Name: "output", Base: &plan.Base{Hook: plan.Output, Priority: int32(i % 2)}, Rules: []plan.Rule{{
				Match: []plan.Match{{Kind: plan.MatchProtocol, Low: 17}, {Kind: plan.MatchDstSet, Set: "locals"}}, Verdict: plan.Goto, Target: names[i%2],
			}}},
			{Name: names[i%2], Rules: []plan.Rule{
				{Match: []plan.Match{{Kind: plan.MatchDstPort, Low: 7001, High: 7001}}, Verdict: plan.Accept},
				{Verdict: plan.Drop, Count: i%5 == 0},
			}},
		},
	}
}

// TestRestart: while agents with plans of different shapes follow one another, no
// packet that all deny passes, and none that all allow is lost.
func TestRestart(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	n, stop := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: restartPlan(0)})
	n.Synced()
	k.wait(n)
	stop()

	var denied, allowed, wrong atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	var pass, drop net.Conn
	var listener net.PacketConn
	k.ns.MustDo(func() (err error) {
		if pass, err = net.Dial("udp", "127.0.0.1:7001"); err == nil {
			drop, err = net.Dial("udp", "127.0.0.1:7002")
		}
		if err == nil {
			listener, err = net.ListenPacket("udp", "127.0.0.1:7001")
		}
		return err
	})
	defer listener.Close()
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
			}
			// A packet that the output hook drops is an error of the call (EPERM).
			if _, err := pass.Write([]byte("x")); errors.Is(err, unix.EPERM) {
				wrong.Add(1)
			}
			allowed.Add(1)
			if _, err := drop.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
				wrong.Add(1)
			}
			denied.Add(1)
		}
	}()
	for i := range 30 {
		n, stop := k.start(nft.Options{})
		n.Apply(plan.FilterDelta{V4: restartPlan(i)})
		n.Synced()
		k.wait(n)
		n.Apply(plan.FilterDelta{V4: plan.TableDelta{PutChains: restartPlan(i).PutChains}})
		k.wait(n)
		stop()
	}
	close(done)
	<-ended
	t.Logf("%d allowed and %d denied packets", allowed.Load(), denied.Load())
	if wrong.Load() != 0 || denied.Load() == 0 {
		t.Errorf("%d wrong verdicts of %d", wrong.Load(), allowed.Load()+denied.Load())
	}
}
