package docs_test

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

const networking = "../../docs/networking.md"

// TestNetworkingPage runs what the page shows, with the real programs: each `weft lab up`
// takes the lab before it down, and what comes after is run against it. A line … stands
// for any lines.
func TestNetworkingPage(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ip", "bridge", "nft")
	l := newLab(t)
	commands := 0
	for _, b := range blocks(read(t, networking)) {
		if b.language != "console" {
			continue
		}
		for _, part := range strings.Split("\n"+b.body, "\n$ ")[1:] {
			line, want, _ := strings.Cut(part, "\n")
			commands++
			l.shows(line, strings.TrimSpace(want))
		}
	}
	if commands == 0 {
		t.Fatal("the page shows no command")
	}
}

// pageLab runs the commands of a page.
type pageLab struct {
	t   *testing.T
	env []string
}

// newLab builds the programs, or takes them from WEFT_BIN.
func newLab(t *testing.T) *pageLab {
	t.Helper()
	bin := os.Getenv("WEFT_BIN")
	if bin == "" {
		bin = t.TempDir()
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin+"/", "./cmd/weft", "./cmd/weft-cni")
		build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "docs") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	l := &pageLab{t: t, env: append(os.Environ(), "WEFT_LAB_DIR="+dir, "WEFT_LAB_PATIENCE=6", "PATH="+bin+":"+os.Getenv("PATH"))}
	t.Cleanup(func() {
		_, _ = l.run("weft lab down")
		_ = os.RemoveAll(dir)
	})
	return l
}

// run runs a command from the top of the repository and returns what it prints.
func (l *pageLab) run(line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.t.Context()), 5*testenv.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = "../..", l.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// shows runs a command until it prints what the page says, for some time: a lab that has
// just come up is not done yet.
func (l *pageLab) shows(line, want string) {
	l.t.Helper()
	if strings.HasPrefix(line, "weft lab up ") {
		_, _ = l.run("weft lab down")
		out, err := l.run(line)
		if err != nil {
			l.t.Fatalf("%s: %v\n%s", line, err, out)
		}
		settings, _ := l.run("weft lab env")
		for line := range strings.Lines(settings) {
			l.env = append(l.env, strings.TrimPrefix(strings.TrimSpace(line), "export "))
		}
		return
	}
	if strings.HasPrefix(line, "eval ") {
		return // up has done it
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testenv.Patience); ; <-tick.C {
		out, err := l.run(line)
		if err == nil && pattern(inBlock(want)).MatchString(trimLines(inBlock(out))) {
			return
		}
		if time.Now().After(deadline) {
			l.t.Errorf("%s\nprints (%v):\n%s\nthe page says:\n%s", line, err, out, want)
			return
		}
	}
}

// pattern is a page's text with … for any lines.
func pattern(text string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for line := range strings.Lines(trimLines(text) + "\n") {
		if line == "…\n" {
			b.WriteString(`(?:[^\n]*\n)*?`)
		} else {
			b.WriteString(regexp.QuoteMeta(line))
		}
	}
	return regexp.MustCompile(strings.TrimSuffix(b.String(), "\n") + `\n?\z`)
}

// inBlock replaces addresses of pools by the first of their block: pods and tunnels get
// theirs in the order in which they ask.
func inBlock(text string) string {
	return regexp.MustCompile(`192\.168\.[0-9.]+|fd00:168:[0-9a-f:]+`).ReplaceAllStringFunc(text, func(s string) string {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return s
		}
		first, _ := a.Prefix(a.BitLen() - 6)
		return first.Addr().String()
	})
}

func trimLines(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		out = append(out, strings.TrimRight(line, " \n"))
	}
	return strings.TrimSpace(strings.Join(out, "\n")) + "\n"
}

// TestNetworkingMessages: what the page says that `weft node status` says stands in the
// program.
func TestNetworkingMessages(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	err := filepath.WalkDir("../../internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		body, err := os.ReadFile(path)
		source.Write(body)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(read(t, networking), "| it says | |\n")
	if !found {
		t.Fatal("the page has no table of messages")
	}
	digits := regexp.MustCompile(`\d+`)
	messages := 0
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 3 || strings.HasPrefix(row, "|---") {
			continue
		}
		text := strings.TrimSpace(cells[1])
		forms := []string{text, digits.ReplaceAllString(text, "%d"), digits.ReplaceAllString(text, "%v")}
		messages++
		if !slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(source.String(), form) }) {
			t.Errorf("nothing in the program says %q", text)
		}
	}
	if messages == 0 {
		t.Error("the table has no messages")
	}
}
