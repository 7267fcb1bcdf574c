// Package vm_test runs the tests that need a full kernel: those whose names begin with
// TestVM, of all packages, in one virtual machine that the script run boots.
//
//	TestFullKernel ── go test -c, go build ──► binaries
//	      │                                       │
//	      └── run: QEMU, Debian's kernel, host's files below memory ──► each package's
//	                                              TestVM… tests, one package at a time
//
// Such a test begins with testenv.VM, which skips it elsewhere, and does not do anything
// else that others do not: the host's programs, root, namespaces and its package's
// folder are there; WEFT_BIN names a folder with weft and weft-cni, built; there is no
// compiler that is fast enough to be used. Whatever it changes is gone with the machine.
//
// To run some of them, with what they print:
//
//	go test ./test/vm -v -vm.run TestVMCarried
//
// A test that did not run, because its package's binary died or the machine did, fails.
package vm_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

var only = flag.String("vm.run", "", "run in the machine the `tests` that match this regular expression only")

// Times.
const (
	machineLimit = 35 * time.Minute // without a deadline of the test's own
	margin       = 30 * time.Second // to end before such a deadline
)

// root is the module's folder.
const root = "../.."

// suite is what one package has for the machine.
type suite struct {
	pkg   string   // its folder, from root
	tests []string // names
}

// name is a file name for s.
func (s suite) name() string { return strings.ReplaceAll(s.pkg, "/", "_") }

// suites finds the tests by their declarations. It looks at each file of the module, so
// that a result is kept no longer than they stay as they are.
func suites(t *testing.T) []suite {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (TestVM\w*)\(`)
	chosen, err := regexp.Compile(*only)
	if err != nil {
		t.Fatalf("-vm.run: %v", err)
	}
	found := map[string][]string{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "bin"):
			return filepath.SkipDir
		case d.IsDir():
			return nil
		case !strings.HasSuffix(name, "_test.go"):
			_, _ = os.Stat(path) // for the memory of `go test`
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg, _ := filepath.Rel(root, filepath.Dir(path))
		for _, m := range declared.FindAllSubmatch(text, -1) {
			if test := string(m[1]); chosen.MatchString(test) {
				found[pkg] = append(found[pkg], test)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []suite
	for pkg, tests := range found {
		slices.Sort(tests)
		all = append(all, suite{pkg, tests})
	}
	slices.SortFunc(all, func(a, b suite) int { return strings.Compare(a.pkg, b.pkg) })
	if len(all) == 0 {
		t.Fatal("there are no tests for the machine")
	}
	return all
}

// build makes static binaries of the suites and of the product in dir. What cannot be
// built is a failure, and the rest runs.
func build(t *testing.T, all []suite, dir string) (built []suite) {
	t.Helper()
	command := func(args ...string) bool {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return err == nil
	}
	for _, s := range all {
		if command("test", "-c", "-vet=off", "-ldflags", "-s -w", "-o", filepath.Join(dir, s.name()+".test"), "./"+s.pkg) {
			built = append(built, s)
		}
	}
	if os.Getenv("WEFT_BIN") == "" {
		command("build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "bin")+"/", "./cmd/weft", "./cmd/weft-cni")
	}
	if len(built) == 0 {
		t.FailNow()
	}
	return built
}

// script is what the machine runs: each suite's output and exit status go to a file.
func script(t *testing.T, all []suite, dir, out string, limit time.Duration) string {
	t.Helper()
	var b strings.Builder
	if os.Getenv("WEFT_BIN") == "" {
		fmt.Fprintf(&b, "export WEFT_BIN=%q\n", filepath.Join(dir, "bin"))
	}
	for _, s := range all {
		path, err := filepath.Abs(filepath.Join(root, s.pkg))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "cd %q; read -r s _ </proc/uptime\n", path)
		fmt.Fprintf(&b, "%q -test.v -test.timeout %v -test.run '^(%s)$' >%q 2>&1 </dev/null\n",
			filepath.Join(dir, s.name()+".test"), limit, strings.Join(s.tests, "|"), filepath.Join(out, s.name()+".log"))
		fmt.Fprintf(&b, "echo $? >%q; read -r e _ </proc/uptime; echo \"%s: after $s s, until $e s\"\n",
			filepath.Join(out, s.name()+".status"), s.pkg)
	}
	return b.String()
}

// TestFullKernel is the test of all that need a full kernel.
func TestFullKernel(t *testing.T) {
	if os.Getenv("WEFT_VM") != "" {
		t.Skip("this is the machine")
	}
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if out, err := exec.Command("./run", "--prepare").CombinedOutput(); err != nil {
		testenv.Skip(t, "no virtual machine: %s", strings.TrimSpace(string(out)))
	}
	start, end := time.Now(), time.Now().Add(machineLimit)
	if d, ok := t.Deadline(); ok && d.Add(-margin).Before(end) {
		end = d.Add(-margin)
	}
	all := suites(t)
	dir, out := t.TempDir(), t.TempDir()
	all = build(t, all, dir)
	limit := time.Until(end)
	built := time.Since(start)
	cmd := exec.Command("./run", "--timeout", strconv.Itoa(int(limit.Seconds())), "--", "bash", "-c",
		script(t, all, dir, out, limit))
	cmd.Env = append(os.Environ(), "WEFT_VM_OUT="+out)
	console, err := cmd.CombinedOutput()
	t.Logf("built in %v, machine ran for %v\n%s", built.Round(time.Second), (time.Since(start) - built).Round(time.Second), console)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	} else if err != nil {
		t.Errorf("the machine: %v", err)
	}
	for _, s := range all {
		t.Run(s.pkg, func(t *testing.T) { s.report(t, out) })
	}
}

// report tells of s what its files in out say.
func (s suite) report(t *testing.T, out string) {
	log, _ := os.ReadFile(filepath.Join(out, s.name()+".log"))
	status, _ := os.ReadFile(filepath.Join(out, s.name()+".status"))
	t.Logf("%s", log)
	verdicts := verdicts(string(log))
	for _, name := range s.tests {
		t.Run(name, func(t *testing.T) {
			switch verdicts[name] {
			case "PASS":
			case "SKIP":
				testenv.Skip(t, "skipped in the machine, see above")
			case "FAIL":
				t.Error("failed in the machine, see above")
			default:
				t.Error("did not run, or did not end")
			}
		})
	}
	if got := strings.TrimSpace(string(status)); got != "0" && !t.Failed() {
		t.Errorf("exit status %q", got)
	}
}

// verdicts reads what `go test -v` prints: PASS, FAIL or SKIP of each test, not of subtests.
func verdicts(log string) map[string]string {
	all := map[string]string{}
	// What a test prints without a newline stands in front.
	for _, m := range regexp.MustCompile(`--- (PASS|FAIL|SKIP): (\w+) \(`).FindAllStringSubmatch(log, -1) {
		all[m[2]] = m[1]
	}
	return all
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	got := verdicts("=== RUN   TestVMA\n--- PASS: TestVMA (0.1s)\n    --- FAIL: TestVMA/sub (0.1s)\n" +
		"text--- FAIL: TestVMB (1.0s)\n=== RUN   TestVMC\npanic: oh\n--- SKIP: TestVMD (0.0s)\n")
	for name, want := range map[string]string{"TestVMA": "PASS", "TestVMB": "FAIL", "TestVMC": "", "TestVMD": "SKIP"} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}
