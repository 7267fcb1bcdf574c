package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "agent.log")
	write := func(l *LogFile, text string) {
		t.Helper()
		if n, err := l.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}
	l, err := OpenLogFile(path, 8)
	if err != nil {
		t.Fatal(err)
	}
	write(l, "first\n")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = OpenLogFile(path, 8); err != nil { // goes on where the other ended
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	write(l, "second\n")
	write(l, "third longer than the limit\n")
	for file, want := range map[string]string{path: "third longer than the limit\n", path + ".1": "second\n"} {
		got, err := os.ReadFile(file)
		if string(got) != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", file, got, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want a file of its owner's", info.Mode(), err)
	}
	if _, err := OpenLogFile(filepath.Join(path, "below-a-file"), 8); err == nil || !strings.HasPrefix(err.Error(), "log file: ") {
		t.Errorf("below a file: %v", err)
	}
}
