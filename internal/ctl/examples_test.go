package ctl

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// notRun are the commands whose examples are only read here, with the reason. What they need or
// do is tested elsewhere.
func notRun() map[string]string {
	return map[string]string{
		"weft node run":         "goes on until it is stopped",
		"weft node status":      "asks an agent",
		"weft node routes":      "asks an agent",
		"weft node health":      "asks an agent",
		"weft node checksystem": "tries the kernel of this machine",
		"weft node diags":       "collects from this machine",
		"weft node addresses":   "tells of this machine",
		"weft cluster diags":    "needs Kubernetes",
		"weft policy stats":     "asks an agent",
		"weft policy trace":     "asks an agent",
		"weft store":            "goes on until it is stopped",
		"weft controllers":      "goes on until it is stopped",
		"weft lab":              "starts nodes",
		"weft datastore":        "locks, and moves to another datastore",
		"weft ipam release":     "needs an address in use, and a report",
		"weft explain":          "needs two endpoints",
	}
}

// example is a line of a help text, as a shell would take it.
type example struct {
	text  string
	args  []string // without the program
	stdin string   // file
}

// examplesOf reads the examples of a command. Comments are on lines of their own, or stand
// three blanks behind a line.
func examplesOf(t *testing.T, cmd *cobra.Command) []example {
	t.Helper()
	var all []example
	text := strings.ReplaceAll(cmd.Example, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		e := example{text: line}
		line = regexp.MustCompile(`\s{3,}[^-\s'"].*$`).ReplaceAllString(line, "")
		words, err := shellWords(line)
		if err != nil {
			t.Errorf("%s: %s: %v", cmd.CommandPath(), line, err)
			continue
		}
		start := slices.IndexFunc(words, func(w string) bool { return w == "weft" })
		if start < 0 {
			t.Errorf("%s: the example %q does not call weft", cmd.CommandPath(), line)
			continue
		}
		words = words[start+1:]
		for i, w := range words {
			if w == "|" || w == ">" || w == "<" || w == ";" || w == "&&" || w == ")" {
				if w == "<" && i+1 < len(words) {
					e.stdin = words[i+1]
				}
				words = words[:i]
				break
			}
		}
		e.args = words
		all = append(all, e)
	}
	return all
}

// shellWords cuts a line as a shell does, as far as examples need it.
func shellWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, begun := rune(0), false
	flush := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quote == '"' && r == '\\':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ' || r == '(' || r == '$':
			flush()
		case r == ')':
			flush()
			words = append(words, ")")
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		// eval "$(weft lab env)": what is within is a line of its own.
		return nil, errors.New("a quote is not closed")
	}
	flush()
	if len(words) == 2 && words[0] == "eval" {
		return shellWords(strings.Trim(words[1], "$()"))
	}
	return words, nil
}

// Every command says by an example how it is called, the flags and arguments of each are there,
// and what can be run harmlessly does what it is said to do.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	root := Tree(Process{Program: "weft"})
	runnable := map[*cobra.Command][]example{}
	count := 0
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				visit(sub)
			}
		}
		given := examplesOf(t, cmd)
		if len(given) == 0 && !cmd.HasSubCommands() {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, e := range given {
			count++
			checkCall(t, cmd, e)
		}
		if mayRun(cmd) {
			runnable[cmd] = given
		}
	}
	visit(root)
	if count < 60 {
		t.Errorf("%d examples, want those of all commands", count)
	}
	ran := 0
	for cmd, given := range runnable {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			environ := newExampleWorld(t)
			for _, e := range given {
				if path := cmd.CommandPath(); path == "weft ipam split" { // the first leaves nothing to split
					environ = newExampleWorld(t)
					if _, stderr, exit := command(t.Context(), "weft", environ, "", "datastore", "migrate", "lock"); exit != 0 {
						t.Fatal(stderr)
					}
				}
				ran++
				want := 0
				if cmd.CommandPath() == "weft diff" {
					want = 1 // there is a difference
				}
				runExample(t, e, environ, want)
			}
		})
	}
	if ran < 30 {
		t.Errorf("%d examples ran, want most", ran)
	}
}

func mayRun(cmd *cobra.Command) bool {
	for path := range notRun() {
		if cmd.CommandPath() == path || strings.HasPrefix(cmd.CommandPath(), path+" ") {
			return false
		}
	}
	return cmd.Parent() != nil && !cmd.HasSubCommands()
}

// checkCall reads an example as the program would, without running it.
func checkCall(t *testing.T, of *cobra.Command, e example) {
	t.Helper()
	root := Tree(Process{Program: "weft", Stdout: io.Discard, Stderr: io.Discard})
	cmd, rest, err := root.Find(e.args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil && !cmd.DisableFlagParsing {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil {
		t.Errorf("%s: %s: %v", of.CommandPath(), e.text, err)
		return
	}
	if path := cmd.CommandPath(); path != of.CommandPath() && !strings.HasPrefix(path, of.CommandPath()+" ") {
		t.Errorf("%s: %s is an example of %s", of.CommandPath(), e.text, path)
	}
}

// runExample runs one in a directory that has the files which examples name, on a datastore that
// has the objects.
func runExample(t *testing.T, e example, environ []string, want int) {
	t.Helper()
	dir := t.TempDir()
	files, err := os.ReadDir("testdata/examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join("testdata/examples", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile("testdata/examples/policies.yaml")
	if err := os.WriteFile(filepath.Join(dir, "policies", "all.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	args := slices.Clone(e.args)
	for i, a := range args {
		if i > 0 && (strings.HasSuffix(a, ".yaml") || strings.HasSuffix(a, ".json") || strings.HasSuffix(a, "/")) && !strings.HasPrefix(a, "-") {
			if name, file, ok := strings.Cut(a, "="); ok {
				args[i] = name + "=" + filepath.Join(dir, file)
			} else {
				args[i] = filepath.Join(dir, a)
			}
		}
		if a == "--watch" {
			return // goes on; that it does is tested with the command
		}
	}
	stdin := text
	if e.stdin != "" {
		stdin, _ = os.ReadFile(filepath.Join("testdata/examples", e.stdin))
	}
	stdout, stderr, exit := command(t.Context(), "weft", environ, string(stdin), args...)
	if exit != want {
		t.Errorf("%s: exit code %d, want %d\n%s%s", e.text, exit, want, stdout, stderr)
	}
}

// newExampleWorld starts a datastore that has what the examples name.
func newExampleWorld(t *testing.T) []string {
	t.Helper()
	environ, s := etcdFor(t)
	load(t, s, "testdata/examples.yaml")
	return environ
}
