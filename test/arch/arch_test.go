package arch

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// packages lists all of the module, as built for Linux.
func packages(t *testing.T) []Package {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=Dir,ImportPath,GoFiles,Imports,Deps", Module+"/...")
	cmd.Dir = "../.."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []Package
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p Package
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list knows only %d packages of %s", len(all), Module)
	}
	return all
}

// TestLayers reads the real imports of every package.
func TestLayers(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, fault := range Faults(p) {
			t.Error(fault)
		}
	}
}

// TestReasons makes sure that the rules can fail: each case breaks, or just keeps,
// one of them.
func TestReasons(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ path, imports, want string }{
		"down":              {"internal/agent", Module + "/internal/store", ""},
		"up":                {"internal/model", Module + "/internal/route", "dependencies point down"},
		"door to shell":     {"internal/store/etcd", Module + "/internal/agent", "dependencies point down"},
		"door to decider":   {"internal/kernel/fib", Module + "/internal/route", "meet only in a shell"},
		"decider to door":   {"internal/route", Module + "/internal/store", "dependencies point down"},
		"speaker to bgp":    {"internal/speaker", Module + "/internal/bgp/wire", ""},
		"speaker to route":  {"internal/speaker", Module + "/internal/route", "meet only in a shell"},
		"lock in a decider": {"internal/ipam", "sync", "pure"},
		"address is pure":   {"internal/ipam", "net/netip", ""},
		"logger in a noun":  {"internal/plan", "log/slog", "pure"},
		"meta in api":       {"api/v3", "k8s.io/apimachinery/pkg/apis/meta/v1", ""},
		"meta in model":     {"internal/model", "k8s.io/apimachinery/pkg/apis/meta/v1", "only api/v3"},
		"other in api":      {"api/v3", "k8s.io/api/core/v1", "only api/v3"},
		"test helper":       {"internal/lab", Module + "/internal/testenv", "tests only"},
		"Calico's module":   {"internal/ctl", "github.com/projectcalico/api/pkg/apis/projectcalico/v3", "no module of Calico's"},
		"no layer":          {"internal/misc", "fmt", "has no layer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(Faults(Package{ImportPath: Module + "/" + tt.path, Imports: []string{tt.imports}}), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
	small := Package{ImportPath: Module + "/cmd/weft-cni", Deps: []string{"go.etcd.io/etcd/client/v3"}}
	if len(Faults(small)) != 1 {
		t.Errorf("an etcd client in weft-cni: got %q, want one fault", Faults(small))
	}
}

// TestCalls looks into the source for what imports do not show: the clock in a
// pure package, the environment or an exit below main and run, and init.
func TestCalls(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if layer := LayerOf(p.ImportPath); layer == Aside || layer == Unknown {
			continue
		}
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			src, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			for _, fault := range callFaults(p.ImportPath, src) {
				t.Errorf("%s/%s: %s", p.ImportPath, name, fault)
			}
		}
	}
}

// callFaults gives the forbidden calls and functions of one file.
func callFaults(pkg string, src *ast.File) []string {
	layer := LayerOf(pkg)
	top := strings.HasPrefix(pkg, Module+"/cmd/") || strings.HasPrefix(pkg, Module+"/internal/run")
	forbidden := map[string]string{}
	if layer == Nouns || layer == Deciders {
		for _, call := range []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.Tick", "time.NewTimer", "time.NewTicker", "time.AfterFunc"} {
			forbidden[call] = "nouns and deciders are told the time"
		}
	}
	if !top {
		for _, call := range []string{"os.Getenv", "os.LookupEnv", "os.Environ", "os.Setenv"} {
			forbidden[call] = "the environment is read in main and package run, and passed down"
		}
		for _, call := range []string{"os.Exit", "log.Fatal", "log.Fatalf"} {
			forbidden[call] = "only main ends the process"
		}
	}
	imported := map[string]string{} // local name to path
	for _, spec := range src.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		local := filepath.Base(path)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		imported[local] = path
	}
	var faults []string
	ast.Inspect(src, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				faults = append(faults, "has an init function: nothing happens before main says so")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				call := imported[x.Name] + "." + n.Sel.Name
				if why, bad := forbidden[call]; bad {
					faults = append(faults, "uses "+call+": "+why)
				}
			}
		}
		return true
	})
	return faults
}

// TestCallReasons makes sure that TestCalls can fail.
func TestCallReasons(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ pkg, body, want string }{
		"clock in a decider": {"internal/route", `import "time"; var _ = time.Now`, "told the time"},
		"duration is pure":   {"internal/route", `import "time"; var _ = time.Second`, ""},
		"clock in a door":    {"internal/speaker", `import "time"; var _ = time.Now`, ""},
		"renamed import":     {"internal/route", `import clock "time"; var _ = clock.Now`, "told the time"},
		"environment":        {"internal/agent", `import "os"; var _ = os.Getenv`, "passed down"},
		"environment in run": {"internal/run", `import "os"; var _ = os.Getenv`, ""},
		"exit":               {"internal/ctl", `import "os"; func f() { os.Exit(1) }`, "only main"},
		"init":               {"internal/store", `func init() {}`, "before main"},
		"method named init":  {"internal/store", `type t struct{}; func (t) init() {}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x; "+tt.body, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(callFaults(Module+"/"+tt.pkg, src), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}

// TestDependencies wants a reason for every module that a package of ours
// imports.
func TestDependencies(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-e", "-f",
		`{{range .Imports}}{{.}}{{"\n"}}{{end}}{{range .TestImports}}{{.}}{{"\n"}}{{end}}{{range .XTestImports}}{{.}}{{"\n"}}{{end}}`, Module+"/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for imported := range strings.FieldsSeq(string(out)) {
		first, _, _ := strings.Cut(imported, "/")
		if !strings.Contains(first, ".") || strings.HasPrefix(imported, Module) || seen[imported] {
			continue
		}
		seen[imported] = true
		if !reasonGiven(string(page), imported) {
			t.Errorf("docs/dependencies.md gives no reason for the module of %s", imported)
		}
	}
	if len(seen) < 3 {
		t.Errorf("go list shows only %d packages of others", len(seen))
	}
}

// reasonGiven reports whether the page names the module that has the package.
func reasonGiven(page, pkg string) bool {
	for path := pkg; path != "."; path = filepath.Dir(path) {
		if strings.Contains(page, "`"+path+"`") {
			return true
		}
	}
	return false
}

// TestLinks follows the links between our pages.
func TestLinks(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	seen := 0
	for _, page := range append(pages, more...) {
		body, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(body), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", filepath.Base(page), m[1], err)
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d links found", seen)
	}
}
