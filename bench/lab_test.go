package bench_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// BenchmarkLabUp is `weft lab up` of the quickstart: three nodes and six pods,
// from the command to its return. Taking it down is not in the time.
func BenchmarkLabUp(b *testing.B) {
	testenv.NeedRoot(b)
	dir, err := os.MkdirTemp("/tmp", "bench") // short: it holds sockets
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/", "github.com/weft-net/weft/cmd/weft", "github.com/weft-net/weft/cmd/weft-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	weft := func(args ...string) {
		cmd := exec.Command(filepath.Join(dir, "weft"), args...)
		cmd.Env = append(os.Environ(), "WEFT_LAB_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		weft("lab", "up")
		took = append(took, time.Since(start))
		b.StopTimer()
		weft("lab", "down")
		b.StartTimer()
	}
	report(b, "up", took)
}
