package run

import (
	"fmt"
	"strings"
	"testing"
)

func TestRecent(t *testing.T) {
	t.Parallel()
	r := NewRecent(3)
	for _, text := range []string{"a\n", "b\nc", "d\n"} {
		if n, err := fmt.Fprint(r, text); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}
	var out strings.Builder
	if n, err := r.WriteTo(&out); out.String() != "b\nc\nd\n" || n != 6 || err != nil {
		t.Errorf("got %q, %d, %v", out.String(), n, err)
	}
	out.Reset()
	r = nil
	fmt.Fprintln(r, "x")
	if _, err := r.WriteTo(&out); err != nil || out.Len() != 0 {
		t.Errorf("nil: %q, %v", out.String(), err)
	}
}
