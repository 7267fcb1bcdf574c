package ctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeDocuments writes a file of documents that have not all the same fate.
func writeDocuments(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "all.yaml")
	const text = `apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p}
spec: {tier: gold}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: a}
spec: {cidr: 10.0.0.0/16, natOutgoin: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: b}
spec: {cidr: 10.0.0.0/40}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: gold}
spec: {order: 5}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// One bad document among many: all that is wrong is told, and nothing is applied unless that
// is asked for.
func TestBadDocuments(t *testing.T) {
	t.Parallel()
	u, path := user{t, startEtcd(t)}, writeDocuments(t)
	said := strings.ReplaceAll(`FILE:9:27: ippool a: spec.natOutgoin: unknown field: is natOutgoing meant?
FILE:14:14: ippool b: spec.cidr: "10.0.0.0/40": must be a prefix such as "10.0.0.0/8" or "fd00::/8"
FILE:21:1: clusterinformation default: read-only: the system writes it
`, "FILE", path)
	for i, step := range []struct {
		args           string
		exit           int
		stdout, stderr string // stderr beside what is wrong with the documents
	}{
		{"apply", 1, "", "weft: apply: nothing was applied: 3 problems\n"},
		{"create", 1, "", "weft: create: nothing was created: 3 problems\n"},
		{"diff", 2, "", "weft: diff: 3 problems\n"},
		{"get tier gold", 1, "", ""},
		{"apply --skip-invalid --dry-run=client", 1, "networkpolicy/default/p valid (dry run: client)\ntier/gold valid (dry run: client)\n", "weft: apply: 3 problems: what is wrong was left out\n"},
		{"apply --skip-invalid --dry-run", 1, "networkpolicy/default/p created (dry run)\ntier/gold created (dry run)\n", "weft: apply: 3 problems: what is wrong was left out\n"},
		{"get tier gold", 1, "", ""},
		{"apply --skip-invalid", 1, "networkpolicy/default/p created\ntier/gold created\n", "weft: apply: 3 problems: what is wrong was left out\n"},
		{"apply --skip-invalid", 1, "networkpolicy/default/p unchanged\ntier/gold unchanged\n", "weft: apply: 3 problems: what is wrong was left out\n"},
	} {
		args := strings.Fields(step.args)
		if args[0] == "get" {
			u.does(step.exit, "", "", args...)
			continue
		}
		stdout, stderr, exit := executeAs(t, "weft", u.environ, "", append(args, "-f", path)...)
		if d := cmp.Diff([]any{step.exit, step.stdout, said + step.stderr}, []any{exit, stdout, stderr}); d != "" {
			t.Errorf("step %d: %s (-want +got):\n%s", i+1, step.args, d)
		}
	}
}

// What is wrong only beside other objects is told with its place too, and stops nothing else.
func TestRulesAreTold(t *testing.T) {
	t.Parallel()
	env := startEtcd(t)
	const text = `apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p}
spec:
  tier: nosuch
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: s}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: s, resourceVersion: "1"}
`
	stdout, stderr, exit := executeAs(t, "weft", env, text, "apply", "-f", "-")
	want := []any{
		1, "globalnetworkset/s created\n",
		"-:1:1: networkpolicy/default/p: spec.tier: \"nosuch\": must be a tier that exists: make the tier first\n" +
			"-:11:1: globalnetworkset/s: changed meanwhile: its resourceVersion is not the one given: read it again\n" +
			"weft: apply: of 3 objects 1 created, 2 failed\n",
	}
	if d := cmp.Diff(want, []any{exit, stdout, stderr}); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// An interrupt tells what landed and what did not; a second apply does the rest.
func TestInterruptedApply(t *testing.T) {
	t.Parallel()
	env := startEtcd(t)
	var text strings.Builder
	const all = 300
	for i := range all {
		fmt.Fprintf(&text, "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: s%d}\n", i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	p := Process{Program: "weft", Args: []string{"apply", "-f", "-"}, Environ: env, Stdout: &out, Stderr: &errs}
	p.Stdin = &interrupting{strings.NewReader(text.String()), cancel}
	err := Execute(ctx, p)
	if ExitCode(err) != 1 {
		t.Fatalf("interrupted: %v\n%s", err, errs.String())
	}
	landed := strings.Count(out.String(), " created\n")
	stdout, stderr, exit := executeAs(t, "weft", env, text.String(), "apply", "-f", "-")
	created, unchanged := strings.Count(stdout, " created\n"), strings.Count(stdout, " unchanged\n")
	if exit != 0 || unchanged != landed || created != all-landed {
		t.Errorf("%d landed; then exit %d, %d created, %d unchanged\n%s", landed, exit, created, unchanged, stderr)
	}
}

// interrupting is input after which the user interrupts.
type interrupting struct {
	*strings.Reader
	cancel func()
}

func (r *interrupting) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil {
		r.cancel()
	}
	return n, err
}

// A wrong call says what is wrong in a line, and exits with 2; as calicoctl with 1.
func TestWrongCalls(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"apply":                               "-f is missing",
		"apply -f x --dry-run=often":          `--dry-run "often": must be client or server`,
		"delete":                              "-f is missing",
		"delete ippool":                       "ippool: give the names of what to delete",
		"delete ippool a -f x":                "give -f or names, not both",
		"delete ippools/a node":               `"node": must be KIND/NAME as the first one is`,
		"delete ippol a":                      "unknown kind \"ippol\": is ippool meant?",
		"delete ippool a -n prod":             "--namespace prod: ippool is not namespaced",
		"patch ippool":                        "ippool: give the name of the object",
		"patch ippool a":                      "--patch is missing",
		"patch ippool a -t x -p {}":           `--type "x": must be strategic, merge or json`,
		"label node a":                        "give labels as KEY=VALUE",
		"label node a b":                      `"b": must be KEY=VALUE`,
		"label node a b=c --remove":           `"b=c": with --remove give the key alone`,
		"patch ippool a -p {} --patch-file=p": "give --patch or --patch-file, not both",
		"validate":                            "-f is missing",
		"replace -f a extra":                  "unknown command",
	} {
		_, stderr, exit := executeAs(t, "weft", nil, "", strings.Fields(args)...)
		if exit != 2 || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("weft %s: exit %d, want 2 and %q in one line:\n%s", args, exit, want, stderr)
		}
		if _, _, exit := executeAs(t, calicoctl, []string{"ETCD_ENDPOINTS=unix:///nowhere"}, "", strings.Fields(args)...); exit != 1 {
			t.Errorf("calicoctl %s: exit %d, want 1", args, exit)
		}
	}
}
