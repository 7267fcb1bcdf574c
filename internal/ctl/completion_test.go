package ctl

import (
	"slices"
	"strings"
	"testing"
)

// What the shell asks for when somebody presses the tabulator.
func TestCompletion(t *testing.T) {
	t.Parallel()
	environ, s := etcdFor(t)
	load(t, s, "../../test/fixtures/ctl/resources.yaml")
	nowhere := []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=unix:///nowhere"}
	for name, tt := range map[string]struct {
		args    string // the last word is what was begun; "_" is nothing
		program string
		environ []string
		want    string
		without string
	}{
		"a command":          {args: "vali", want: "validate"},
		"kinds":              {args: "get ipp", want: "ippools ippool ipp ipps"},
		"short names":        {args: "delete we", want: "wep weps"},
		"all kinds":          {args: "get _", want: "nodes ipamblocks"},
		"all of calicoctl":   {args: "get _", program: calicoctl, want: "nodes", without: "ipamblocks"},
		"names":              {args: "get ippool pool-", want: "pool-a pool-b pool-six", without: "node-a"},
		"more names":         {args: "delete ippool pool-a pool-b", want: "pool-b"},
		"one name only":      {args: "label node node-a _", without: "node-b"},
		"of a namespace":     {args: "get networkpolicy -n prod _", want: "no-order", without: "allow-web"},
		"not of others":      {args: "patch networkpolicy _", want: "allow-web", without: "no-order"},
		"namespaces":         {args: "get networkpolicy -n pr", want: "prod"},
		"an unknown kind":    {args: "get frob _"},
		"without datastore":  {args: "get ippool _", environ: nowhere},
		"kinds without that": {args: "get tie", environ: nowhere, want: "tiers tier"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.environ == nil {
				tt.environ = environ
			}
			if tt.program == "" {
				tt.program = "weft"
			}
			args := append([]string{"__completeNoDesc"}, strings.Fields(tt.args)...)
			if last := &args[len(args)-1]; *last == "_" {
				*last = ""
			}
			stdout, _, exit := command(t.Context(), tt.program, tt.environ, "", args...)
			got := strings.Fields(stdout)
			for _, word := range strings.Fields(tt.want) {
				if !slices.Contains(got, word) {
					t.Errorf("%s: %q, want %s", tt.args, got, word)
				}
			}
			if tt.without != "" && slices.Contains(got, tt.without) || tt.want == "" && len(got) > 1 || exit != 0 {
				t.Errorf("%s: %q, exit code %d, want none of %s", tt.args, got, exit, tt.without)
			}
		})
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if stdout, _, exit := command(t.Context(), "weft", nil, "", "completion", shell); exit != 0 || len(stdout) < 1000 {
			t.Errorf("completion %s: exit code %d, %d bytes", shell, exit, len(stdout))
		}
	}
	if _, _, exit := command(t.Context(), "weft", nil, "", "completion", "tcsh"); exit != 2 {
		t.Errorf("completion tcsh: exit code %d, want 2", exit)
	}
}
