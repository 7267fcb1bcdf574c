package fib_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/fib"
)

func TestUnlink(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.workload("cali1")
	f, _ := k.start(fib.Options{}, pod("cali1"))
	k.wait(f, "cali1")
	index := func(link string) (n int32) {
		_, _ = fmt.Sscanf(k.ip("-o link show "+link), "%d:", &n)
		return n
	}
	if err := f.Unlink(index("eth0"), "eth0"); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("a link that is no workload's: %v", err)
	}
	// The name is another link's: the index was used again.
	if err := f.Unlink(index("cali1"), "cali2"); err != nil {
		t.Error(err)
	}
	if out := k.ip("-o link show"); !strings.Contains(out, "cali1") || !strings.Contains(out, "eth0@") {
		t.Fatalf("a wrong link went:\n%s", out)
	}
	gone := index("cali1")
	for range 2 { // deleting again is no error
		if err := f.Unlink(gone, "cali1"); err != nil {
			t.Error(err)
		}
	}
	if out := k.ip("-o link show"); strings.Contains(out, "cali1") {
		t.Errorf("still there:\n%s", out)
	}
}

// TestWaitLink: who waits for a link by its index is not answered about another
// that had its name before.
func TestWaitLink(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.workload("cali1")
	f, _ := k.start(fib.Options{}, pod("cali1"))
	k.wait(f, "cali1")
	index := func() (n int32) {
		_, _ = fmt.Sscanf(k.ip("-o link show cali1"), "%d:", &n)
		return n
	}
	old := index()
	if err := f.WaitLink(t.Context(), "cali1", old); err != nil {
		t.Error(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.WaitLink(soon, "cali1", old+1000); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cali1") {
		t.Errorf("an index that no link has: %v", err)
	}
	k.ip("link del cali1")
	k.workload("cali1")
	fresh := index()
	if fresh == old {
		t.Fatalf("the new link has the old index %d", fresh)
	}
	if err := f.WaitLink(t.Context(), "cali1", fresh); err != nil {
		t.Error(err)
	}
	k.wait(f, "cali1")
	if out := k.ip("route show dev cali1"); out == "" {
		t.Error("WaitApplied returned after WaitLink, and the new link has no route")
	}
}
