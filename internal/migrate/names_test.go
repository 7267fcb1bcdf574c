package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/migrate"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	kubestore "github.com/weft-net/weft/internal/store/kube"
	"github.com/weft-net/weft/internal/store/kube/kubetest"
	"github.com/weft-net/weft/internal/store/mem"
)

// oldPolicy is a policy as older versions stored it: "name", or "name called" with the
// annotation that says what it is called, and its tier and order.
func oldPolicy(t testing.TB, s mem.Store, name, called, tier, order string) {
	t.Helper()
	annotation := ""
	if called != "" {
		annotation = `,"annotations":{"projectcalico.org/metadata":"{\"name\":\"` + called + `\"}"}`
	}
	put(t, s, "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/"+name,
		`{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"`+name+`"`+annotation+`},"spec":{"tier":"`+tier+`","order":`+order+`,"selector":"all()","types":["Ingress"]}}`)
}

// policies are the names of all policies and their orders.
func policies(t testing.TB, s store.Store) string {
	t.Helper()
	list, err := s.List(t.Context(), model.KindGlobalNetworkPolicy, "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range list {
		names = append(names, fmt.Sprint(o.Meta().Name, ":", *o.Object.(*v3.GlobalNetworkPolicy).Spec.Order))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestRenamePolicies(t *testing.T) {
	t.Parallel()
	// A policy is "name called tier order"; - is nothing.
	for name, tt := range map[string]struct {
		has     []string
		done    int
		want    string
		problem string
	}{
		"old":                       {has: []string{"default.a - default 1"}, done: 1, want: "a:1"},
		"old, without a tier":       {has: []string{"default.a - - 1"}, done: 1, want: "a:1"},
		"old, called":               {has: []string{"default.a a default 1"}, done: 1, want: "a:1"},
		"called so by its user":     {has: []string{"default.a default.a default 1"}, want: "default.a:1"},
		"of another tier":           {has: []string{"default.a - security 1", "security.b - security 2"}, want: "default.a:1 security.b:2"},
		"new":                       {has: []string{"a a default 1", "b - default 2"}, want: "a:1 b:2"},
		"of Kubernetes":             {has: []string{"knp.default.a - default 1"}, want: "knp.default.a:1"},
		"no more than the tier":     {has: []string{"default. - default 1"}, want: "default.:1"},
		"both, the same":            {has: []string{"default.a - default 1", "a a default 1"}, done: 1, want: "a:1"},
		"both, and they differ":     {has: []string{"default.a - default 1", "a a default 2"}, want: "a:2 default.a:1", problem: "migrate: policy names: globalnetworkpolicy default.a to a: there is a policy of that name, and its spec.order is another: delete one of both"},
		"one fails, the others not": {has: []string{"default.a - default 1", "a a default 2", "default.b - default 3"}, done: 1, want: "a:2 b:3 default.a:1", problem: "migrate: policy names: globalnetworkpolicy default.a to a: there is a policy of that name, and its spec.order is another: delete one of both"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mem.New()
			for _, p := range tt.has {
				w := strings.Fields(p)
				for i := range w {
					w[i] = strings.TrimPrefix(w[i], "-")
				}
				oldPolicy(t, s, w[0], w[1], w[2], w[3])
			}
			done, err := migrate.RenamePolicies(t.Context(), migrate.Datastore{Store: s})
			problem := ""
			if err != nil {
				problem = err.Error()
			}
			if len(done) != tt.done || policies(t, s) != tt.want || problem != tt.problem {
				t.Errorf("%d done, %s, %s\nwant %d, %s, %s", len(done), policies(t, s), problem, tt.done, tt.want, tt.problem)
			}
			if again, _ := migrate.RenamePolicies(t.Context(), migrate.Datastore{Store: s}); len(again) != 0 {
				t.Errorf("doing it again did %v", again)
			}
		})
	}
}

// TestRenameBreaks: wherever it breaks the policy is there, and doing it again finishes it.
func TestRenameBreaks(t *testing.T) {
	t.Parallel()
	for at := range 2 {
		for _, before := range []bool{true, false} {
			s := mem.Piecewise{Store: mem.New()}
			oldPolicy(t, s.Store, "default.a", "", "default", "1")
			seen := 0
			s.Fail = func(_ store.Op, now bool) error {
				if now == before {
					if seen++; seen > at {
						return errBreak
					}
				}
				return nil
			}
			if _, err := migrate.RenamePolicies(t.Context(), migrate.Datastore{Store: s}); !errors.Is(err, errBreak) {
				t.Errorf("write %d: %v", at, err)
			}
			if policies(t, s) == "" {
				t.Errorf("write %d: the policy is gone", at)
			}
			s.Fail = nil
			if _, err := migrate.RenamePolicies(t.Context(), migrate.Datastore{Store: s}); err != nil || policies(t, s) != "a:1" {
				t.Errorf("write %d: %v, %s", at, err, policies(t, s))
			}
		}
	}
}

// TestRenameInKubernetes: there the older name is one of the API alone. Who watches never
// misses the policy.
func TestRenameInKubernetes(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("crd.projectcalico.org")...)
	client, err := kube.Connect(api.Config())
	if err != nil {
		t.Fatal(err)
	}
	post := func(name, called string) {
		t.Helper()
		err := client.Clientset.CoreV1().RESTClient().Post().AbsPath("/apis/crd.projectcalico.org/v1/globalnetworkpolicies").
			SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
			Body([]byte(`{"apiVersion":"crd.projectcalico.org/v1","kind":"GlobalNetworkPolicy","metadata":{"name":"` + name + `","annotations":{"projectcalico.org/metadata":"` + called + `"}},"spec":{"tier":"default","order":1,"selector":"all()","types":["Ingress"]}}`)).
			Do(t.Context()).Error()
		if err != nil {
			t.Fatal(err)
		}
	}
	post("default.a", `{\"name\":\"a\"}`)
	post("default.b", `{}`)
	post("c", `{\"name\":\"c\"}`)
	s, err := kubestore.Open(t.Context(), api.Config(), kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan model.Key, 100)
	started := make(chan struct{})
	end := make(chan struct{})
	go func() {
		defer close(end)
		for b, err := range s.Watch(ctx, model.KindGlobalNetworkPolicy) {
			if err != nil {
				continue
			}
			if b.Synced {
				close(started)
			}
			for _, k := range b.Deletes {
				gone <- k
			}
		}
	}()
	<-started
	done, err := migrate.RenamePolicies(t.Context(), migrate.Datastore{Store: s, Kubernetes: true})
	if err != nil || len(done) != 2 || policies(t, s) != "a:1 b:1 c:1" {
		t.Errorf("%v, %v, %s", done, err, policies(t, s))
	}
	// The key default.b goes: it was one of its own. That of a stays; c ends the wait.
	list, err := s.List(t.Context(), model.KindGlobalNetworkPolicy, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if o.Meta().Name == "c" {
			if _, err := s.Commit(t.Context(), store.Op{Verb: store.Delete, Object: o}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var all []string
	for k := range gone {
		all = append(all, k.Name)
		if k.Name == "c" {
			break
		}
	}
	cancel()
	<-end
	if got := strings.Join(all, " "); got != "default.b c" {
		t.Errorf("gone are %s, want default.b c", got)
	}
	raw, err := client.Clientset.CoreV1().RESTClient().Get().AbsPath("/apis/crd.projectcalico.org/v1/globalnetworkpolicies").
		SetHeader("Accept", "application/json").Do(t.Context()).Raw()
	if err != nil || strings.Contains(string(raw), `"name":"default.`) || !strings.Contains(string(raw), `"name":"a"`) {
		t.Errorf("%v: in the API are %s", err, raw)
	}
}
