package agent

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// TestAddWaitsForTheKernel: an ADD does not succeed before its routes are there.
func TestAddWaitsForTheKernel(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.mu.Lock()
	b.missing["calic1"], b.awaited = true, cancel // who asks has no more time when they are waited for
	b.mu.Unlock()
	if _, err := b.Add(ctx, addRequest("c1", "web-1")); err == nil || !strings.Contains(err.Error(), "routes and policy of calic1") {
		t.Errorf("ADD without its routes: %v", err)
	}
}

// TestArrivals: only the endpoint as it was written is the one that is waited for.
func TestArrivals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newArrivals("node-a")
		addr := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
		want := model.Endpoint{Namespace: "shop", Name: "x", Node: "node-a", Link: "cali1", Addrs: addr("10.0.0.2")}
		got := make(chan error, 1)
		go func() { got <- a.wait(t.Context(), want) }()
		for name, change := range map[string]func(*model.Endpoint){
			"another address": func(e *model.Endpoint) { e.Addrs = addr("10.0.0.1") },
			"another link":    func(e *model.Endpoint) { e.Link = "cali0" },
			"another node":    func(e *model.Endpoint) { e.Node = "node-b" },
			"another name":    func(e *model.Endpoint) { e.Name = "y" },
		} {
			e := want
			change(&e)
			a.step(model.Batch{Puts: []model.Value{e}})
			synctest.Wait()
			select {
			case err := <-got:
				t.Fatalf("%s: it was taken for the one waited for: %v", name, err)
			default:
			}
		}
		a.step(model.Batch{Puts: []model.Value{want}})
		if err := <-got; err != nil {
			t.Error(err)
		}
		// Gone, it is waited for again; a snapshot with an invalid version keeps it.
		a.step(model.Batch{Reset: true, Synced: true, Invalids: []model.Invalid{{Key: want.Key(), Err: errors.New("x")}}})
		if _, ok := a.get(want.Key()); !ok {
			t.Error("an invalid version took the endpoint away")
		}
		a.step(model.Batch{Reset: true, Synced: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.wait(ctx, want); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "shop/x") {
			t.Errorf("after it went: %v", err)
		}
	})
}

// TestLinkOfAddress: an address that went to a new pod stays its own when the old
// pod's endpoint goes.
func TestLinkOfAddress(t *testing.T) {
	t.Parallel()
	a := newArrivals("node-a")
	addr := netip.MustParseAddr("10.0.0.1")
	old := model.Endpoint{Namespace: "shop", Name: "old", Node: "node-a", Link: "cali1", Addrs: []netip.Addr{addr}}
	heir := model.Endpoint{Namespace: "shop", Name: "heir", Node: "node-a", Link: "cali2", Addrs: []netip.Addr{addr}}
	for _, step := range []struct {
		b    model.Batch
		want string
	}{
		{model.Batch{Puts: []model.Value{old}}, "cali1"},
		{model.Batch{Puts: []model.Value{heir}}, "cali2"},
		{model.Batch{Deletes: []model.Key{old.Key()}}, "cali2"},
		{model.Batch{Reset: true, Synced: true}, ""},
	} {
		a.step(step.b)
		if got := a.link(addr); got != step.want {
			t.Errorf("after %+v: %q has it, want %q", step.b, got, step.want)
		}
	}
}
