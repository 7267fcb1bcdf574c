package reconcile

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestHealthIsLoggedWhenItChanges(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	h := Health{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: noTime})), Good: "well again", Bad: "not well"}
	for _, text := range []string{"", "a", "a", "b", "", ""} {
		var err error
		if text != "" {
			err = errors.New(text)
		}
		h.Note(err)
		if h.Err() != text {
			t.Errorf("after %q: Err is %q", text, h.Err())
		}
	}
	want := `level=WARN msg="not well" err=a
level=WARN msg="not well" err=b
level=INFO msg="well again"
`
	if out.String() != want {
		t.Errorf("logged\n%s\nwant\n%s", &out, want)
	}
	silent := Health{}
	silent.Note(errors.New("c"))
	if silent.Err() != "c" {
		t.Errorf("without a log: Err is %q", silent.Err())
	}
}

func noTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
