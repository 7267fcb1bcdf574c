package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store/etcd"
)

// golden is a line of test/fixtures/ctl/golden.jsonl: what Calico's own tool said.
type golden struct {
	ID          string
	Name        string
	Args        []string
	Env         map[string]string
	Stdin       string
	Exit        int
	Stdout      string
	Stderr      string
	Plugin      *plugin
	File        string
	Crash       bool
	OrderVaries bool `json:"order_varies"`
}

// plugin is an address given by the IPAM plugin.
type plugin struct{ Node, Pod, Container, Network, Args string }

// Every command that was recorded with Calico's tool, one after the other on one datastore.
func TestGolden(t *testing.T) {
	lines := readLines[golden](t, "ctl/golden.jsonl")
	page, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	conformance := string(page)
	w := newGoldenWorld(t)
	except, agreed := exceptions(), 0
	for _, g := range lines {
		if g.Plugin != nil {
			w.assign(t, g.Plugin)
			continue
		}
		stdout, stderr, exit := w.run(t, g)
		why := w.compare(g, stdout, stderr, exit)
		x, excepted := except[g.ID]
		delete(except, g.ID)
		switch {
		case g.Crash && !excepted:
			t.Errorf("%s: Calico's tool crashes here, and it is no exception:\n%s%s(exit %d)", g.ID, stdout, stderr, exit)
		case excepted && why == "":
			t.Errorf("%s: agrees, but is among the exceptions: %s", g.ID, x.why)
		case excepted:
			if d := x.differs(stdout, stderr, exit); d != "" {
				t.Errorf("%s %v: the exception is not as it should be (-want +got):\n%s", g.ID, g.Args, d)
			}
			if !strings.Contains(conformance, "| "+strings.TrimPrefix(g.ID, "ctl-")+" |") {
				t.Errorf("%s: docs/conformance.md does not tell of it", g.ID)
			}
			if len(x.undo) > 0 {
				w.execute(t, x.undo, "", nil)
			}
		case why != "":
			t.Errorf("%s %s: %q:\n%s", g.ID, g.Name, g.Args, why)
		default:
			agreed++
		}
	}
	for id := range except {
		t.Errorf("exception %s is of no line", id)
	}
	t.Logf("%d lines agree, %d are exceptions", agreed, len(exceptions()))
}

// goldenWorld is the folder, the datastore and the API server of the goldens.
type goldenWorld struct{ env map[string]string }

func newGoldenWorld(t *testing.T) *goldenWorld {
	t.Helper()
	env := map[string]string{}
	for _, setting := range startEtcd(t) {
		name, value, _ := strings.Cut(setting, "=")
		env[name] = value
	}
	fixtures, err := filepath.Abs("../../test/fixtures/ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.CopyFS(".", os.DirFS(filepath.Join(fixtures, "files"))); err != nil {
		t.Fatal(err)
	}
	resources, err := os.ReadFile(filepath.Join(fixtures, "resources.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile("conf.yaml")
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`))
	}))
	t.Cleanup(api.Close)
	for name, text := range map[string]string{
		"resources.yaml": string(resources),
		"conf.yaml":      strings.ReplaceAll(string(conf), "http://127.0.0.1:2379", env["ETCD_ENDPOINTS"]),
		"kubeconfig":     "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: '" + api.URL + "'}}]\ncontexts: [{name: a, context: {cluster: a, user: a}}]\ncurrent-context: a\nusers: [{name: a, user: {}}]\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("emptydir", 0o755); err != nil {
		t.Fatal(err)
	}
	return &goldenWorld{env}
}

// run is what weft says as calicoctl, or what is in a file that it wrote.
func (w *goldenWorld) run(t testing.TB, g golden) (stdout, stderr string, exit int) {
	t.Helper()
	if g.File == "" {
		return w.execute(t, g.Args, g.Stdin, g.Env)
	}
	text, err := os.ReadFile(g.File)
	if err != nil {
		return "", err.Error(), 1
	}
	return string(text), "", 0
}

// execute runs weft as calicoctl.
func (w *goldenWorld) execute(t testing.TB, args []string, stdin string, env map[string]string) (stdout, stderr string, exit int) {
	t.Helper()
	all := maps.Clone(w.env)
	maps.Copy(all, env)
	var environ []string
	for name, value := range all {
		environ = append(environ, name+"="+value)
	}
	return executeAs(t, calicoctl, environ, stdin, args...)
}

// executeAs runs the command line under a name.
func executeAs(t testing.TB, program string, environ []string, stdin string, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	var out, errs bytes.Buffer
	err := Execute(t.Context(), Process{
		Program: program, Args: args, Environ: environ, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Version: "v0.0.0",
	})
	if code := ExitCode(err); err != nil && program != calicoctl && !isExit(err) {
		return out.String(), errs.String() + "weft: " + err.Error() + "\n", code
	}
	return out.String(), errs.String(), ExitCode(err)
}

func isExit(err error) bool {
	_, ok := err.(*ExitError)
	return ok
}

// assign gives an address as the IPAM plugin does.
func (w *goldenWorld) assign(t *testing.T, p *plugin) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := etcd.ConfigFromEnv(func(name string) string { return w.env[name] })
	if err != nil {
		t.Fatal(err)
	}
	st, err := etcd.Open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	a := allocator.New(st, p.Node, time.Now)
	go func() { _ = a.Run(ctx) }()
	r := ipam.Request{
		Holder: ipam.PodHolder(p.Network+"."+p.Container, p.Node, "default", p.Pod, time.Now()),
		Use:    model.UseWorkload,
		Addrs:  []netip.Addr{netip.MustParseAddr(strings.TrimPrefix(p.Args, "IP="))},
	}
	if _, err := a.Assign(ctx, allocator.Request{Request: r}); err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
}

// placeholders stand in the goldens for what differs in each run.
func placeholders() map[string]string {
	return map[string]string{
		"<uid>":             `[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`,
		"<time>":            `\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^",\n]*`,
		"<guid>":            `[0-9a-f]{32}`,
		"<resourceVersion>": `\d*`,
		"<version>":         `\S+`,
		"<sequence>":        `\d+`,
		"<pointer>":         `0x[0-9a-f]+`,
	}
}

// matches reports whether got is want, but for what differs in each run.
func matches(want, got string) bool {
	pattern := regexp.QuoteMeta(want)
	for name, re := range placeholders() {
		pattern = strings.ReplaceAll(pattern, name, re)
	}
	return regexp.MustCompile(`\A(?:` + pattern + `)\z`).MatchString(got)
}

// compare says how the answer differs from the golden one; empty: it agrees.
func (w *goldenWorld) compare(g golden, stdout, stderr string, exit int) string {
	same := matches
	if g.OrderVaries || g.ID == "ctl-277" { // its nodes are in the order of a Go map, as those of the lines beside it
		same = sameItems
	}
	if exit == g.Exit && same(g.Stdout, stdout) && same(g.Stderr, stderr) {
		return ""
	}
	return fmt.Sprintf("exit %d, want %d (-want +got):\n%s%s", exit, g.Exit, cmp.Diff(g.Stdout, stdout), cmp.Diff(g.Stderr, stderr))
}

// sameItems compares lines, and the items of lists on a line, in any order.
func sameItems(want, got string) bool {
	got = regexp.MustCompile(placeholders()["<time>"]).ReplaceAllString(got, "<time>")
	items := func(text string) []string {
		list := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ',' || r == ' ' })
		slices.Sort(list)
		return list
	}
	return slices.Equal(items(want), items(got))
}

// readLines reads a file of fixtures, one JSON value a line.
func readLines[T any](t testing.TB, name string) []T {
	t.Helper()
	f, err := os.Open("../../test/fixtures/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("%s line %d: %v", name, len(all)+1, err)
		}
		all = append(all, one)
	}
	if err := lines.Err(); err != nil || len(all) == 0 {
		t.Fatalf("%s: %d lines, %v", name, len(all), err)
	}
	return all
}
