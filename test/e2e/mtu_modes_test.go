package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// mtuCase is what a pod's MTU follows from.
type mtuCase struct {
	modes    [2]mode
	underlay int // bytes
	overhead int // bytes
}

// TestMTUOfModes changes the modes of pools and the MTU of the underlay of a cluster that
// runs: pods have the MTU that the largest encapsulation in use leaves, the largest packet
// gets through within a rack and between racks, and of one byte more the sender is told.
// A change of the underlay reaches all of them within a second.
func TestMTUOfModes(t *testing.T) {
	t.Parallel()
	cases := []mtuCase{
		{[2]mode{{}, {}}, 1500, 0},
		{[2]mode{{"ipip", false}, {}}, 1500, 20},
		{[2]mode{{"ipip", true}, {}}, 1400, 20},
		{[2]mode{{"vxlan", false}, {}}, 1400, 50},
		{[2]mode{{"vxlan", true}, {"vxlan", true}}, 1400, 70},
		{[2]mode{{"ipip", false}, {"vxlan", false}}, 1460, 70},
		{[2]mode{{}, {"vxlan", false}}, 1500, 70},
	}
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(racks+`
env: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none}
resources:
- `+cases[0].modes[0].pool("four", pool4)+`
- `+cases[0].modes[1].pool("six", "fd00:168::/48")))
	c.refresh()
	h := c.runtime("a")
	for n, m := range cases {
		put(t, c.st(), m.modes[0].pool("four", pool4))
		put(t, c.st(), m.modes[1].pool("six", "fd00:168::/48"))
		eventually(t, fmt.Sprint(m), func() error { return c.ways(m.modes) })
		began := time.Now()
		for _, n := range stations() {
			c.sh(n.name).run(fmt.Sprintf("ip link set eth0 mtu %d", m.underlay))
		}
		pods := m.underlay - m.overhead
		eventually(t, fmt.Sprint(m), func() error { return c.mtus(m, pods) })
		t.Logf("%+v: pods have an MTU of %d after %v", m, pods, time.Since(began))
		name := fmt.Sprint("new-", n)
		h.must("ADD", name)
		if a := h.call(cniCall{Containers: []string{name}, Exec: []string{"ip", "-o", "link", "show", "dev", "eth0"}})[0]; !strings.Contains(a.Stdout, fmt.Sprintf(" mtu %d ", pods)) {
			t.Errorf("%+v: a new pod has %s%s, want an MTU of %d", m, a.Stdout, a.Stderr, pods)
		}
		for i, md := range m.modes {
			for _, pod := range []string{"q", "r"} {
				if pod == "q" || md.tunnel != "" {
					c.largest("p", c.pod(pod).Addresses[i].String(), pods)
				}
			}
		}
	}
}

// mtus fails unless devices, pods and files of all nodes have their MTU.
func (c *cluster) mtus(m mtuCase, pods int) error {
	c.t.Helper()
	for i, n := range stations() {
		want := fmt.Sprint(pods)
		pod := []string{"p", "q", "r"}[i]
		file, err := os.ReadFile(filepath.Join(filepath.Dir(c.node(n.name).Socket), "mtu"))
		if err != nil {
			return err
		}
		got := map[string]string{"file": strings.TrimSpace(string(file)), "pod": c.mtu("pod/default/"+pod, "eth0"), "host": c.mtu(n.name, c.pod(pod).HostLink)}
		for what, mtu := range got {
			if mtu != want {
				return fmt.Errorf("node %s: %s has %s, want %s", n.name, what, mtu, want)
			}
		}
		for family, md := range m.modes {
			if md.tunnel == "" {
				continue
			}
			overhead := map[string]int{"tunl0": 20, "vxlan.calico": 50, "vxlan-v6.calico": 70}[md.device(family == 1)]
			if got := c.mtu(n.name, md.device(family == 1)); got != fmt.Sprint(m.underlay-overhead) {
				return fmt.Errorf("node %s: %s has %s, want %d", n.name, md.device(family == 1), got, m.underlay-overhead)
			}
		}
	}
	return nil
}

// largest fails unless a packet of that many bytes, which may not be fragmented, is
// answered, and the sender is told that one byte more is too much.
func (c *cluster) largest(fromPod, to string, bytes int) {
	c.t.Helper()
	testenv.Need(c.t, "ping")
	headers := 28
	if strings.Contains(to, ":") {
		headers = 48
	}
	ping := func(size int) (string, int) {
		return c.sh("pod/default/" + fromPod).try(fmt.Sprintf("ping -n -c 1 -W 0.3 -M do -s %d %s", size-headers, to))
	}
	eventually(c.t, fmt.Sprintf("%d bytes to %s", bytes, to), func() error {
		if out, code := ping(bytes); code != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if out, code := ping(bytes + 1); code == 0 || !strings.Contains(out, "too long") && !strings.Contains(out, "mtu") {
		c.t.Errorf("%d bytes to %s: exit code %d, want an error that says so: %s", bytes+1, to, code, out)
	}
}
