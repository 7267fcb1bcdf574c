// Package docs_test runs what the pages under docs/ show: the objects of a page are
// stored one after the other, its commands are run, and must print what stands there.
package docs_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/etcd/server"
	"github.com/weft-net/weft/internal/testenv"
)

var update = flag.Bool("update", false, "rewrite what commands print; then read the difference")

const (
	page    = "../../docs/policy.md"
	cluster = "../../examples/policy/shop.yaml"
)

func TestPolicyPage(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*testenv.Patience)
	defer cancel()
	dir := t.TempDir()
	endpoint := "unix://" + filepath.Join(dir, "etcd.sock")
	s, err := server.Start(ctx, server.Config{Dir: filepath.Join(dir, "data"), ClientURLs: []string{endpoint}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	st, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	if err := store.Initialise(ctx, st); err != nil {
		t.Fatal(err)
	}
	apply(t, st, read(t, cluster))

	text := read(t, page)
	var fresh strings.Builder // the page with what commands print
	commands, copied := 0, 0
	for _, b := range blocks(text) {
		switch b.language {
		case "yaml":
			apply(t, st, b.body)
		case "console":
			commands++
			line, want, _ := strings.Cut(b.body, "\n")
			got := run(ctx, t, endpoint, strings.TrimPrefix(line, "$ weft "))
			if got != want {
				t.Errorf("%s\nprints:\n%s\nthe page says:\n%s", line, got, want)
			}
			fresh.WriteString(text[copied:b.at] + line + "\n" + got)
			copied = b.at + len(b.body)
		}
	}
	if commands == 0 {
		t.Fatal("the page shows no command")
	}
	if *update {
		if err := os.WriteFile(page, []byte(fresh.String()+text[copied:]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// block is a fenced block of a page.
type block struct {
	language, body string
	at             int // where the body begins, in bytes
}

func blocks(text string) []block {
	var out []block
	var open *block
	at := 0
	for line := range strings.Lines(text) {
		at += len(line)
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			open = &block{language: language, at: at}
		case fence:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.body += line
		}
	}
	return out
}

// apply stores the documents as `calicoctl create` would.
func apply(t *testing.T, st store.Store, text string) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		o, err := v3.Decode([]byte(doc))
		if err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		v3.Default(o)
		if err := v3.Validate(o); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if _, err := st.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(o)}); err != nil {
			t.Fatal(err)
		}
	}
}

func run(ctx context.Context, t *testing.T, endpoint, line string) string {
	t.Helper()
	var out bytes.Buffer
	err := ctl.Execute(ctx, ctl.Process{
		Args: strings.Fields(line), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Version: "v0",
		Environ: []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + endpoint},
	})
	if err != nil {
		t.Errorf("weft %s: %v", line, err)
	}
	return out.String()
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
