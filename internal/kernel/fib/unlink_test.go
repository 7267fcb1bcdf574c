package fib_test

import (
	"fmt"
	"strings"
	"testing"

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
