package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// TestRoutedFabric teaches the router between two racks the blocks of the nodes:
// then pods reach pods of the other rack, through each node's default route, and
// only while there is one.
func TestRoutedFabric(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	c := up(t, "topologies/run/two-racks.yaml")
	for node, addr := range map[string]string{"node-a": "10.1.0.11", "node-c": "10.2.0.11"} {
		eventually(t, "a block of "+node, func() error {
			i := slices.IndexFunc(c.routes(node), func(l string) bool { return strings.HasPrefix(l, "blackhole ") })
			if i < 0 {
				return fmt.Errorf("no block in %q", c.routes(node))
			}
			c.sh("fabric").run("ip route replace " + strings.Fields(c.routes(node)[i])[1] + " via " + addr)
			return nil
		})
	}
	const toA = `192\.168\.\S+/26 via 10\.2\.0\.1 dev eth0 proto bird`
	c.awaitRoute("node-a", `192\.168\.\S+/26 via 10\.1\.0\.1 dev eth0 proto bird`)
	c.awaitRoute("node-c", toA)
	c.sh("pod/default/a").run(ping(c.addr("c")))
	c.sh("pod/default/c").run(ping(c.addr("a")))

	c.sh("node-c").run("ip route replace 10.1.0.0/24 via 10.2.0.1 && ip route del default")
	c.sh("pod/default/c").run(ping(c.addr("a"))) // a more specific route does as well
	c.awaitRoute("node-c", toA)
	c.sh("node-c").run("ip route del 10.1.0.0/24")
	eventually(t, "no route to the other rack", func() error {
		if got := strings.Join(c.routes("node-c"), "\n"); strings.Contains(got, "via 10.2.0.1") {
			return fmt.Errorf("node-c:\n%s", got)
		}
		return nil
	})
	c.sh("node-c").run("ip route add default via 10.2.0.1")
	c.awaitRoute("node-c", toA)
	c.sh("pod/default/c").run(ping(c.addr("a")))
}
