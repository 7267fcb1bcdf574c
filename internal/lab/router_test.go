package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/lab/topology"
	"github.com/weft-net/weft/internal/testenv"
)

// TestBirdConfig has BIRD itself read what is made for it.
func TestBirdConfig(t *testing.T) {
	t.Parallel()
	bird := testenv.Need(t, "bird")
	for name, tt := range map[string]struct{ in, want string }{
		"plain":        {"nodes: [{name: a}]\nrouters: [{name: tor}]", "neighbor 10.99.1.11 as 64512;"},
		"eBGP":         {"env: {AS: 64513}\nnodes: [{name: a}]\nrouters: [{name: tor, asn: 65001}]", "neighbor 10.99.1.11 as 64513;"},
		"node's AS":    {"env: {AS: 64513}\nnodes: [{name: a, env: {AS: 64514}}]\nrouters: [{name: tor}]", "neighbor 10.99.1.11 as 64514;"},
		"cluster's AS": {"nodes: [{name: a}]\nrouters: [{name: tor}]\nresources: [{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, spec: {asNumber: 4200000001}}]", "as 4200000001;"},
		"dual stack":   {"racks: [{name: r, subnets: [10.1.0.0/24, 'fd00::/64']}]\nnodes: [{name: a-1}]\nrouters: [{name: tor, announce: [203.0.113.0/24, '2001:db8::/32']}]", "protocol bgp node_a_1_ipv6 {"},
		"password":     {"nodes: [{name: a}]\nrouters: [{name: tor, password: 'se cret'}]", `password "se cret";`},
		"other rack":   {"racks: [{name: r}, {name: s}]\nnodes: [{name: a, rack: r}]\nrouters: [{name: tor, rack: s}]", "multihop;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topo, err := topology.Parse("lab.yaml", []byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			config := birdConfig(topo, &topo.Routers[0])
			if !strings.Contains(config, tt.want) {
				t.Errorf("lacks %q:\n%s", tt.want, config)
			}
			path := filepath.Join(t.TempDir(), "bird.conf")
			if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(bird, "-p", "-c", path).CombinedOutput(); err != nil {
				t.Errorf("bird: %v: %s\n%s", err, out, config)
			}
		})
	}
}
