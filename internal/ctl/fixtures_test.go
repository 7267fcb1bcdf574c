package ctl

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcdOf connects to the etcd of settings.
func etcdOf(t *testing.T, environ []string) *clientv3.Client {
	t.Helper()
	for _, setting := range environ {
		if url, ok := strings.CutPrefix(setting, "ETCD_ENDPOINTS="); ok {
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
	}
	t.Fatal("no ETCD_ENDPOINTS")
	return nil
}

// empty makes the datastore empty.
func empty(t *testing.T, c *clientv3.Client) {
	t.Helper()
	if _, err := c.Delete(context.Background(), "\x00", clientv3.WithFromKey()); err != nil {
		t.Fatal(err)
	}
}

// TestValidationVerdicts gives every document to apply and validate as a script would, and
// expects Calico's verdict.
func TestValidationVerdicts(t *testing.T) {
	t.Parallel()
	type verdict struct{ Verdict string }
	// What apply finds without other objects validate finds too, though Calico's does not: service
	// CIDRs of one node, parts of an endpoint's name. And neither makes demands that apply fulfils
	// itself: the name of an endpoint, the order of the tier default.
	asApply := []string{"bgpcfg-014", "wep-008", "wep-009", "wep-010", "wep-002", "tier-011"}
	env := startEtcd(t)
	etcd := etcdOf(t, env)
	for _, c := range readLines[struct {
		ID, About, Input, Verdict string
		Before                    []string
		Validate                  *verdict
	}](t, "validation/cases.jsonl") {
		empty(t, etcd)
		for _, doc := range c.Before {
			if stdout, stderr, exit := executeAs(t, calicoctl, env, doc, "apply", "-f", "-"); exit != 0 {
				t.Fatalf("%s: before: %s%s", c.ID, stdout, stderr)
			}
		}
		judge := func(want string, args ...string) {
			stdout, stderr, exit := executeAs(t, calicoctl, env, c.Input, args...)
			if got := map[bool]string{true: "accept", false: "reject"}[exit == 0]; got != want {
				t.Errorf("%s (%s): %s says %s, want %s:\n%s%s\n%s", c.ID, c.About, args[0], got, want, stdout, stderr, c.Input)
			}
		}
		judge(c.Verdict, "apply", "-f", "-")
		if c.Validate == nil || slices.Contains(asApply, c.ID) {
			c.Validate = &verdict{c.Verdict}
		}
		judge(c.Validate.Verdict, "validate", "-f", "-")
	}
}

// TestStoredForm runs what was run with Calico's tool on a new datastore, and expects the same
// bytes under the same keys.
func TestStoredForm(t *testing.T) {
	t.Parallel()
	env := startEtcd(t)
	etcd := etcdOf(t, env)
	initial := readLines[pair](t, "stored/initial.jsonl")
	for _, c := range readLines[struct {
		ID, About, Input, Command string
		Before                    []string
		Written                   []pair
	}](t, "stored/cases.jsonl") {
		empty(t, etcd)
		// A new cluster, in which nothing but the essentials are.
		if stdout, stderr, exit := executeAs(t, calicoctl, env, "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: default}\nspec: {order: 1000000, defaultAction: Deny}\n", "apply", "-f", "-"); exit != 0 {
			t.Fatalf("initialise: %s%s", stdout, stderr)
		}
		comparePairs(t, c.ID+": initial", initial, stored(t, etcd))
		for _, doc := range c.Before {
			executeAs(t, calicoctl, env, doc, "apply", "-f", "-")
		}
		before := stored(t, etcd)
		args := []string{"apply", "-f", "-"}
		if c.Command != "" {
			args = strings.Fields(strings.TrimPrefix(c.Command, "calicoctl "))
		}
		if stdout, stderr, exit := executeAs(t, calicoctl, env, c.Input, args...); exit != 0 {
			t.Errorf("%s (%s): %s%s", c.ID, c.About, stdout, stderr)
		}
		after := stored(t, etcd)
		maps.DeleteFunc(after, func(key, value string) bool { return before[key] == value })
		comparePairs(t, c.ID+" "+c.About, c.Written, after)
	}
}

// stored is all that etcd holds.
func stored(t *testing.T, c *clientv3.Client) map[string]string {
	t.Helper()
	all, err := c.Get(context.Background(), "\x00", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range all.Kvs {
		out[string(kv.Key)] = string(kv.Value)
	}
	return out
}

// pair is a key of etcd and its value.
type pair struct {
	Key       string
	ValueText string `json:"value_text"`
}

// comparePairs compares what is stored with what must be, but for what differs in each run.
func comparePairs(t *testing.T, name string, want []pair, got map[string]string) {
	t.Helper()
	var a, b []string
	for _, p := range want {
		a = append(a, p.Key+" "+p.ValueText)
	}
	mask := []struct{ re, with string }{
		{placeholders()["<uid>"], "<uid>"}, {`"` + placeholders()["<guid>"] + `"`, `"<guid>"`}, {`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "<time>"},
	}
	for key, value := range got {
		for _, m := range mask {
			value = regexp.MustCompile(m.re).ReplaceAllString(value, m.with)
		}
		b = append(b, key+" "+value)
	}
	slices.SortFunc(a, cmp.Compare)
	slices.SortFunc(b, cmp.Compare)
	if d := gocmp.Diff(a, b); d != "" {
		t.Errorf("%s: stored (-want +got):\n%s", name, d)
	}
}
