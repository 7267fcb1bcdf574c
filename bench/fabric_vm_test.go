package bench

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

const vmRounds = 40

// BenchmarkFabricVM is BenchmarkFabric/ipip with the IPIP of a kernel that has it: in the
// virtual machine of test/vm. What it reports is what the benchmark in there does, which makes at least vmRounds
// rounds: with -benchtime 1x the machine starts but once.
func BenchmarkFabricVM(b *testing.B) {
	if os.Getenv("WEFT_VM") != "" {
		b.Skip("this is the machine")
	}
	const run = "../test/vm/run"
	if out, err := exec.Command(run, "--prepare").CombinedOutput(); err != nil {
		testenv.Skip(b, "no virtual machine: %s", strings.TrimSpace(string(out)))
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, w := range []string{"bulk", "round-trips", "connections"} {
		b.Run(w, func(b *testing.B) {
			out, err := exec.Command(run, "--", self, "-test.run=^$", "-test.bench=^BenchmarkFabric$/^ipip$/^"+w+"$", "-test.benchtime="+strconv.Itoa(max(b.N, vmRounds))+"x").CombinedOutput()
			if err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			metrics := 0
			for line := range strings.Lines(string(out)) {
				fields := strings.Fields(line)
				if len(fields) < 4 || !strings.HasPrefix(fields[0], "BenchmarkFabric/ipip/"+w) {
					continue
				}
				for pair := fields[2:]; len(pair) >= 2; pair = pair[2:] { // value and unit
					if v, err := strconv.ParseFloat(pair[0], 64); err == nil {
						b.ReportMetric(v, pair[1])
						metrics++
					}
				}
			}
			if metrics == 0 {
				b.Fatalf("the machine measured nothing:\n%s", out)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
