package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// TestMTUFollows changes the MTU of a node's network card while its agent runs, and while
// it does not: the tunnel's device, the pods that run with both ends of their interfaces,
// the pods that come, the file for the CNI executable and the node's record follow. A pod
// whose CNI configuration has an MTU keeps it.
func TestMTUFollows(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
nodes: [{name: a}, {name: b}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16, CALICO_IPV4POOL_VXLAN: Always}
pods: [{name: p, node: a}, {name: q, node: b}, {name: own, node: a, cni: {mtu: 1300}}]
`))
	c.refresh()
	st := c.store()
	follows := func(underlay int) {
		t.Helper()
		pods := underlay - 50
		eventually(t, fmt.Sprintf("an underlay of %d", underlay), func() error {
			file, err := os.ReadFile(filepath.Join(filepath.Dir(c.node("a").Socket), "mtu"))
			if err != nil {
				return err
			}
			o, err := st.Get(t.Context(), model.Node{Name: "a"}.Key())
			if err != nil {
				return err
			}
			got := fmt.Sprintf("file %s, record %s, device %s, host %s, pod %s, own %s", strings.TrimSpace(string(file)), o.Object.(*v3.Node).Annotations[model.MTUAnnotation],
				c.mtu("a", "vxlan.calico"), c.mtu("a", c.pod("p").HostLink), c.mtu("pod/default/p", "eth0"), c.mtu("pod/default/own", "eth0"))
			if want := fmt.Sprintf("file %d, record %d, device %d, host %d, pod %d, own 1300", pods, underlay, pods, pods, pods); got != want {
				return fmt.Errorf("got %s; want %s", got, want)
			}
			return nil
		})
		c.reach("pod/default/p", c.addr("q"))
	}
	follows(1500)
	set := func(mtu int) { t.Helper(); c.sh("a").run(fmt.Sprintf("ip link set eth0 mtu %d", mtu)) }
	set(1400)
	follows(1400)
	set(1460)
	follows(1460)
	c.stop("a", true)
	set(1420)
	c.start("a")
	follows(1420)
}

// mtu is the MTU of an interface.
func (c *cluster) mtu(target, link string) string {
	c.t.Helper()
	out, _ := c.sh(target).try("cat /sys/class/net/" + link + "/mtu")
	return out
}
