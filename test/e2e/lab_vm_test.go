package e2e_test

import (
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// TestVMExamples runs those of the examples to which a full kernel makes a difference:
// its own ipip and wireguard, where the expectations look at each packet's form. The
// others run in TestExamples.
func TestVMExamples(t *testing.T) {
	testenv.VM(t)
	for _, name := range []string{"cross-subnet.yaml", "wireguard.yaml"} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			out, code := c.weft("lab", "run", "-f", "../../examples/"+name)
			if code != 0 || strings.Contains(out, "✗") || !strings.Contains(out, "✓ pods reach pods") {
				t.Errorf("exit code %d:\n%s", code, out)
			}
		})
	}
}
