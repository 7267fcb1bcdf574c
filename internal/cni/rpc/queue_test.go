package rpc_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// collect is a Del that notes what it carried out; it fails for the container "bad".
func collect(out *[]string) func(context.Context, rpc.DelRequest) error {
	return func(_ context.Context, r rpc.DelRequest) error {
		if r.ContainerID == "bad" {
			return errors.New("store is away")
		}
		*out = append(*out, r.ContainerID)
		return nil
	}
}

func put(t *testing.T, q rpc.Queue, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := q.Put(rpc.DelRequest{Attachment: attachment(id)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQueueCarriesOutWhatItCan(t *testing.T) {
	t.Parallel()
	q := rpc.Queue{Dir: filepath.Join(t.TempDir(), "cni", "del")}
	var done []string
	if err := q.Each(t.Context(), collect(&done)); err != nil || len(done) != 0 {
		t.Fatalf("no directory: %v, %v", done, err)
	}
	put(t, q, "a", "b", "bad", "a", strings.Repeat("long", 200), "../../etc/passwd")
	if err := os.WriteFile(filepath.Join(q.Dir, "zz.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := q.Each(t.Context(), collect(&done))
	if err == nil || !strings.Contains(err.Error(), "net/bad/eth0: store is away") || !strings.Contains(err.Error(), "set aside") {
		t.Errorf("got %v", err)
	}
	if len(done) != 4 {
		t.Errorf("carried out %v, want 4", done)
	}
	done = nil
	if err := q.Each(t.Context(), collect(&done)); err == nil || strings.Contains(err.Error(), "set aside") || len(done) != 0 {
		t.Errorf("second pass: %v, %v", done, err)
	}
}

func TestSettleComesBeforeAdd(t *testing.T) {
	t.Parallel()
	q := rpc.Queue{Dir: filepath.Join(t.TempDir(), "del")}
	var done []string
	if err := q.Settle(t.Context(), attachment("a"), collect(&done)); err != nil {
		t.Fatalf("no directory: %v", err)
	}
	put(t, q, "a", "b")
	if err := q.Put(rpc.DelRequest{Attachment: attachment("a"), AddressesOnly: true}); err != nil {
		t.Fatal(err)
	}
	if err := q.Settle(t.Context(), attachment("a"), collect(&done)); err != nil || strings.Join(done, " ") != "a a" {
		t.Errorf("settled %v, %v", done, err)
	}
	if err := q.Each(t.Context(), collect(&done)); err != nil || strings.Join(done, " ") != "a a b" {
		t.Errorf("then %v, %v", done, err)
	}
	put(t, q, "bad")
	if err := q.Settle(t.Context(), attachment("bad"), collect(&done)); err == nil {
		t.Error("an ADD goes on although the DEL before it failed")
	}
}

// Agent and executable may work off one queue together: each entry once.
func TestEntryIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	q := rpc.Queue{Dir: filepath.Join(t.TempDir(), "del")}
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	put(t, q, ids...)
	var mu sync.Mutex
	var done []string
	del := func(ctx context.Context, r rpc.DelRequest) error {
		mu.Lock()
		defer mu.Unlock()
		return collect(&done)(ctx, r)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := q.Each(context.Background(), del); err != nil {
				t.Error(err)
			}
		})
		for _, id := range ids {
			wg.Go(func() {
				if err := q.Settle(context.Background(), attachment(id), del); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if len(done) != len(ids) {
		t.Errorf("carried out %v", done)
	}
}
