package nft

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// TestTableRefused: a kernel that has no tables of one family gets those of the other.
func TestTableRefused(t *testing.T) {
	t.Parallel()
	n := blank(Options{})
	chains := plan.TableDelta{PutChains: []plan.Chain{{Name: "a"}}}
	n.tables[0].apply(&chains)
	n.tables[1].apply(&chains)
	n.build(n.tables[:]...)
	for i := range n.tx.ops {
		if o := &n.tx.ops[i]; o.stage == atTable && o.t.v6 {
			n.unsettle()
			if err := n.blame(answer{errs: []refusal{{i, unix.EAFNOSUPPORT}, {i + 1, unix.ENOENT}}}, false); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	n.build(n.tables[:]...)
	if len(n.tx.ops) != 2 || n.tx.ops[0].t.v6 || n.tx.ops[1].t.v6 {
		t.Errorf("%d messages after ip6 was refused, want table and chain of ip", len(n.tx.ops))
	}
	if p := n.problems(); len(p) != 1 || p[0].String() != "ip6 weft: table: make: address family not supported by protocol" {
		t.Errorf("problems are %v", p)
	}
	n.unsettle()
	n.tryAgain()
	if n.build(n.tables[:]...); len(n.tx.ops) != 4 {
		t.Errorf("%d messages when tried again, want those of both tables", len(n.tx.ops))
	}
}
