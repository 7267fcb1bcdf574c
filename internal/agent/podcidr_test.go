package agent

import (
	"strings"
	"testing"
)

// TestTunnelsOfPodRanges: with USE_POD_CIDR a tunnel's address is of the node's own range,
// where host-local gives it to nobody, and no block is claimed.
func TestTunnelsOfPodRanges(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, "pods: cidr: 10.244.0.0/16, ipipMode: Always")
	w.t.ofRange = true
	const node = "kind: Node\nmetadata: {name: node-a}\nspec: {bgp: {ipv4Address: 192.168.0.1/24}}\n"
	if problems, err := w.settle("ipip"); err != nil || !strings.Contains(problems, "spec.podCIDRs") {
		t.Errorf("without a range: %q, %v", problems, err)
	}
	w.write(node + "status: {podCIDRs: ['fd00:244::/64', 10.244.3.0/24]}")
	for range 2 {
		if problems, err := w.settle("ipip"); err != nil || problems != "" {
			t.Fatalf("%q, %v", problems, err)
		}
		if got := w.node().Spec.BGP.IPv4IPIPTunnelAddr; got != "10.244.3.1" {
			t.Errorf("address %q", got)
		}
	}
	if _, err := w.settle(""); err != nil {
		t.Fatal(err)
	}
	if got := w.node().Spec.BGP.IPv4IPIPTunnelAddr; got != "" || len(w.held()) != 0 {
		t.Errorf("not wanted any more: address %q, blocks %v", got, w.held())
	}
	for ranges, want := range map[string]string{"10.0.0.0/24": "10.0.0.1 invalid IP", "fd00::/64 10.1.2.0/25": "10.1.2.1 fd00::1", "10.0.0.1/32": "invalid IP invalid IP", "": "invalid IP invalid IP"} {
		v4, _ := firstOfRange(strings.Fields(ranges), false)
		v6, _ := firstOfRange(strings.Fields(ranges), true)
		if got := v4.String() + " " + v6.String(); got != want {
			t.Errorf("%s: got %s, want %s", ranges, got, want)
		}
	}
}
