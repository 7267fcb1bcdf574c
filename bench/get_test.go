package bench_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/bench/world"
)

// program builds weft as it is released.
func program(b *testing.B) string {
	b.Helper()
	weft := filepath.Join(b.TempDir(), "weft")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", weft, "github.com/weft-net/weft/cmd/weft")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return weft
}

// filledStore runs weft's datastore as a process and writes a world into it. It returns the
// environment that names it.
func filledStore(b *testing.B, weft string, w world.World) []string {
	b.Helper()
	dir := b.TempDir()
	url := "unix://" + filepath.Join(dir, "s")
	cmd := exec.Command(weft, "store", "--data-dir", filepath.Join(dir, "data"), "--listen", url)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Context: b.Context()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for entries := range slices.Chunk(slices.Collect(w.Entries()), 100) {
		var ops []clientv3.Op
		for _, e := range entries {
			ops = append(ops, clientv3.OpPut(e.Key, e.Value))
		}
		if _, err := c.Txn(b.Context()).Then(ops...).Commit(); err != nil { // the client waits for the server
			b.Fatal(err)
		}
	}
	return append(os.Environ(), "DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS="+url)
}

// BenchmarkGet is `weft get` as a whole process, of one object and of 20,000 endpoints, with
// the datastore on the same machine. It tells the median time and the most memory that a
// process had resident, pages of the executable included.
func BenchmarkGet(b *testing.B) {
	weft := program(b)
	environ := filledStore(b, weft, world.World{Local: 1000, Remote: 19_000, Namespaces: 200, Policies: 100})
	for _, bench := range []struct {
		name  string
		args  []string
		lines int
	}{
		{"one", []string{"get", "ippool", "pool"}, 2},
		{"20000", []string{"get", "workloadendpoints", "-A"}, 20_001},
		{"20000-names", []string{"get", "workloadendpoints", "-A", "-o", "name"}, 20_000},
		{"20000-json", []string{"get", "workloadendpoints", "-A", "-o", "json"}, 0},
		{"20000-yaml", []string{"get", "workloadendpoints", "-A", "-o", "yaml"}, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var times []time.Duration
			var peak int64 // kB; at least that of this process, which the child begins as
			var busy time.Duration
			for b.Loop() {
				cmd := exec.Command(weft, bench.args...)
				cmd.Env = environ
				var out, failure bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &failure
				begin := time.Now()
				if err := cmd.Run(); err != nil {
					b.Fatalf("%v: %s", err, &failure)
				}
				times = append(times, time.Since(begin))
				busy += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				peak = max(peak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
				if n := bytes.Count(out.Bytes(), []byte("\n")); bench.lines > 0 && n != bench.lines {
					b.Fatalf("%d lines, want %d", n, bench.lines)
				}
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2])/1e6, "ms/median")
			b.ReportMetric(busy.Seconds()*1e3/float64(len(times)), "cpu-ms/op")
			b.ReportMetric(float64(peak)/1024, "MiB/peak")
		})
	}
}
