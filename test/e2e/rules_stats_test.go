package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weft-net/weft/internal/agent"
)

// policyCLI runs `weft policy ARGS` on a node.
func (c *cluster) policyCLI(node, args string) (string, int) {
	c.t.Helper()
	socket := filepath.Join(filepath.Dir(c.node(node).Socket), "status.sock")
	return c.sh(node).try("WEFT_STATUS_SOCKET=" + socket + " " + filepath.Join(bin, "weft") + " policy " + args)
}

// stats are the counters of a node by "OBJECT DIRECTION INDEX", with more flags.
func (c *cluster) stats(node string, flags ...string) map[string]agent.RuleStat {
	c.t.Helper()
	args := "stats -o json"
	for _, f := range flags {
		args += " " + f
	}
	out, code := c.policyCLI(node, args)
	var all []agent.RuleStat
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
		c.t.Fatalf("policy %s on %s: exit code %d, %v: %s", args, node, code, err, out)
	}
	byRule := map[string]agent.RuleStat{}
	for _, s := range all {
		byRule[fmt.Sprintf("%s %s %d", s.Object, s.Direction, s.Rule)] = s
	}
	return byRule
}

// read is a file's content.
func (c *cluster) read(path string) string {
	c.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}
