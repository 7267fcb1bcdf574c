package policy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/test/policy/world"
)

// scenario is a cluster, packets and what becomes of them; see testdata.
type scenario struct {
	world.World
	packets []world.Packet
	allowed []bool
}

func readScenario(t *testing.T, name string) scenario {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	docs := strings.Split(string(data), "\n---\n")
	w, err := world.Parse(docs[1:])
	if err != nil {
		t.Fatal(err)
	}
	s := scenario{World: w}
	for line := range strings.Lines(docs[0]) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "packet ")
		if !ok {
			continue
		}
		text, denied := strings.CutSuffix(text, ": denied")
		text, allowed := strings.CutSuffix(text, ": allowed")
		p, err := w.ParsePacket(text)
		if err != nil || allowed == denied || p.String() != text {
			t.Fatalf("%s: %q is no packet with allowed or denied behind it: %v", name, text, err)
		}
		s.packets, s.allowed = append(s.packets, p), append(s.allowed, allowed)
	}
	return s
}

// Explanation, rules and kernel do with the packets of scenarios what is written there.
func TestScenarios(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no scenarios", err)
	}
	k := newKernel(t)
	for _, name := range names {
		s := readScenario(t, name)
		f := compile(s.World)
		if err := k.program(f.Filter); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, explained, err := k.compare(s.World, s.packets)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, p := range s.packets {
			if ruled, _, _ := judge(f, p); got[i] != s.allowed[i] || explained[i] != s.allowed[i] || ruled != s.allowed[i] {
				t.Errorf("%s: %v: allowed is %v, but explained %v, ruled %v, done %v\n%s", name, p, s.allowed[i], explained[i], ruled, got[i], differ(s.World, f, p))
			}
		}
	}
}
