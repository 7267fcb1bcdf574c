package spelling

import (
	"strings"
	"testing"
)

func TestEdits(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]int{
		"cidr cidr": 0, "cdir cidr": 2, "CIDR cidr": 0, "node nodes": 1, "nodes node": 1, "pool tier": 4, "ippol ippool": 1,
	} {
		a, b, _ := strings.Cut(words, " ")
		if got := Edits(a, b); got != want || Edits(b, a) != want {
			t.Errorf("Edits(%q, %q) = %d, and %d the other way round; want %d", a, b, got, Edits(b, a), want)
		}
	}
	if Edits("", "abc") != 3 || Edits("abc", "") != 3 || Edits("", "") != 0 {
		t.Error("empty words")
	}
}
