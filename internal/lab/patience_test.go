package lab_test

import (
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/lab"
)

func TestParsePatience(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 1, "1": 1, "10": 10, "1000": 1000, "0": 0, "-1": 0, "1001": 0, "1.5": 0, "soon": 0} {
		got, err := lab.ParsePatience(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "must be a whole number from 1 to 1000") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
