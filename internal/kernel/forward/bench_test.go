package forward

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/reconcile"
	"github.com/weft-net/weft/internal/testenv"
)

// BenchmarkPass looks at everything, where others have so many chains besides one
// that drops; and, as each second, at nothing but legacy tables.
func BenchmarkPass(b *testing.B) {
	for _, chains := range []int{10, 10_000} {
		ns := testenv.Netns(b)
		var script strings.Builder
		script.WriteString("add table inet t\nadd chain inet t f { type filter hook forward priority 0; policy drop; }\n")
		for i := range chains {
			fmt.Fprintf(&script, "add chain inet t c%d\nadd rule inet t c%d tcp dport 80 accept\n", i, i)
		}
		cmd := exec.Command(testenv.Need(b, "nft"), "-f", "-")
		cmd.Stdin = strings.NewReader(script.String())
		if err := ns.Start(cmd); err != nil {
			b.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
		for _, all := range []bool{true, false} {
			b.Run(fmt.Sprintf("chains=%d/all=%t", chains, all), func(b *testing.B) {
				ns.MustDo(func() error {
					f, err := New(Options{})
					if err != nil {
						return err
					}
					defer f.close()
					b.ReportAllocs()
					for b.Loop() {
						f.all = all
						if err := f.pass(context.Background(), reconcile.Resync); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
	}
}
