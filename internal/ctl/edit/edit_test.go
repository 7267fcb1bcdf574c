package edit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/edit"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
)

// head begins a document: "IPPool a" or "NetworkPolicy prod/a".
func doc(t testing.TB, head, rest string) v3.Object {
	t.Helper()
	kind, name, _ := strings.Cut(head, " ")
	meta := "  name: " + name + "\n"
	if ns, n, ok := strings.Cut(name, "/"); ok {
		meta = "  namespace: " + ns + "\n  name: " + n + "\n"
	}
	o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\nkind: " + kind + "\nmetadata:\n" + meta + rest))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func newEditor(t testing.TB) (*edit.Editor, store.Store) {
	t.Helper()
	st := mem.New()
	t.Cleanup(func() { _ = st.Close() })
	return edit.New(st, time.Now), st
}

// brief is a result in a line: outcome, changed fields, error.
func brief(r edit.Result) string {
	text := r.Outcome.String()
	if len(r.Changed) > 0 {
		text += " " + strings.Join(r.Changed, ",")
	}
	if r.Err != nil {
		text += " " + r.Err.Error()
	}
	return text
}

// Each step does something to the same cluster.
func TestVerbs(t *testing.T) {
	t.Parallel()
	e, _ := newEditor(t)
	ctx := t.Context()
	pool := func(spec string) v3.Object { return doc(t, "IPPool a", "spec: {"+spec+"}\n") }
	set := func(nets string) v3.Object { return doc(t, "GlobalNetworkSet s", "spec: {nets: ["+nets+"]}\n") }
	policy := func(tier string) v3.Object { return doc(t, "NetworkPolicy p", "spec: {tier: "+tier+"}\n") }
	key := func(kind, name string) model.Key { return model.Key{Kind: model.Kind(kind), Name: name} }
	for i, step := range []struct {
		do   func() edit.Result
		want string // begins the brief result
	}{
		{func() edit.Result { return e.Apply(ctx, pool("cidr: 10.0.0.0/16")) }, "created"},
		{func() edit.Result { return e.Apply(ctx, pool("cidr: 10.0.0.0/16")) }, "unchanged"},
		{func() edit.Result { return e.Apply(ctx, pool("cidr: 10.0.0.0/16, natOutgoing: true")) }, "configured spec.natOutgoing"},
		{func() edit.Result { return e.Apply(ctx, pool("cidr: 10.1.0.0/16")) }, "failed ippool a: spec.cidr"},
		{func() edit.Result { return e.Apply(ctx, pool("cidr: 10.0.0.0/16, blockSize: 28")) }, "failed ippool a: spec.blockSize"},
		{func() edit.Result { return e.Apply(ctx, doc(t, "IPPool b", "spec: {cidr: 10.0.4.0/24}\n")) }, "failed ippool b: spec.cidr: \"10.0.4.0/24\": must not overlap with ippool a"},
		{func() edit.Result { return e.Create(ctx, pool("cidr: 10.0.0.0/16")) }, "failed IPPool/a: already exists"},
		{func() edit.Result { return e.Replace(ctx, set("10.0.0.0/8")) }, "failed GlobalNetworkSet/s: not found"},
		{func() edit.Result { return e.Create(ctx, set("10.0.0.0/8, 11.0.0.0/8")) }, "created"},
		{func() edit.Result { return e.Replace(ctx, set("10.0.0.0/8")) }, "configured spec.nets"},
		{func() edit.Result { return e.Apply(ctx, policy("gold")) }, "failed networkpolicy default/p: spec.tier: \"gold\": must be a tier that exists"},
		{func() edit.Result { return e.Apply(ctx, doc(t, "Tier gold", "spec: {order: 5}\n")) }, "created"},
		{func() edit.Result { return e.Apply(ctx, policy("gold")) }, "created"},
		{func() edit.Result { return e.Delete(ctx, doc(t, "Tier gold", "")) }, "failed tier gold: in use: delete or move its policies first: networkpolicy default/p"},
		{func() edit.Result { return e.Apply(ctx, policy("default")) }, "configured metadata.labels.projectcalico.org/tier,spec.tier"},
		{func() edit.Result { return e.Delete(ctx, doc(t, "Tier gold", "")) }, "deleted"},
		{func() edit.Result { return e.Delete(ctx, doc(t, "Tier gold", "")) }, "failed Tier/gold: not found"},
		{func() edit.Result { return e.Delete(ctx, doc(t, "Tier default", "")) }, "failed tier default: built in"},
		{func() edit.Result { return e.Delete(ctx, doc(t, "ClusterInformation default", "")) }, "failed clusterinformation default: read-only"},
		{func() edit.Result {
			return e.Apply(ctx, doc(t, "BGPPeer p", "spec: {peerIP: 192.0.2.1, asNumber: 1, filters: [f]}\n"))
		}, "failed bgppeer p: spec.filters[0]: \"f\": must be a BGPFilter that exists"},
		{func() edit.Result {
			return e.Patch(ctx, key("IPPool", "a"), edit.StrategicPatch, []byte(`{"spec":{"natOutgoing":false}}`))
		}, "configured spec.natOutgoing"},
		{func() edit.Result {
			return e.Patch(ctx, key("IPPool", "a"), edit.JSONPatch, []byte(`[{"op":"add","path":"/spec/disabled","value":true}]`))
		}, "configured spec.disabled"},
		{func() edit.Result {
			return e.Patch(ctx, key("IPPool", "a"), edit.MergePatch, []byte(`{"spec":{"disabled":null}}`))
		}, "configured spec.disabled"},
		{func() edit.Result {
			return e.Patch(ctx, key("IPPool", "a"), edit.MergePatch, []byte(`{"spec":{"disabeld":true}}`))
		}, "failed ippool a: spec.disabeld: unknown field: is disabled meant?"},
		{func() edit.Result { return e.Patch(ctx, key("IPPool", "a"), edit.JSONPatch, []byte(`{}`)) }, "failed ippool a: patch: must be a list"},
		{func() edit.Result {
			return e.Patch(ctx, key("IPPool", "a"), edit.MergePatch, []byte(`{"metadata":{"name":"b"}}`))
		}, "failed ippool a: patch: kind, name and namespace"},
		{func() edit.Result {
			return e.Label(ctx, key("IPPool", "a"), edit.Labels{Set: map[string]string{"x": "1", "y": "2"}})
		}, "configured metadata.labels"},
		{func() edit.Result {
			return e.Label(ctx, key("IPPool", "a"), edit.Labels{Set: map[string]string{"x": "2", "y": "2"}})
		}, "failed ippool a: label x is \"1\" already"},
		{func() edit.Result {
			return e.Label(ctx, key("IPPool", "a"), edit.Labels{Set: map[string]string{"x": "2"}, Overwrite: true})
		}, "configured metadata.labels.x"},
		{func() edit.Result { return e.Label(ctx, key("IPPool", "a"), edit.Labels{Remove: []string{"x"}}) }, "configured metadata.labels.x"},
		{func() edit.Result { return e.Label(ctx, key("IPPool", "a"), edit.Labels{Remove: []string{"x"}}) }, "failed ippool a: has no label x"},
		{func() edit.Result { return e.Delete(ctx, doc(t, "IPPool a", "")) }, "deleted"},
	} {
		if got := brief(step.do()); !strings.HasPrefix(got, step.want) {
			t.Errorf("step %d: %s, want %s", i+1, got, step.want)
		}
	}
}

// Whoever gives a revision gets a conflict, whoever gives none is tried again.
func TestConflict(t *testing.T) {
	t.Parallel()
	e, st := newEditor(t)
	ctx := t.Context()
	first := e.Create(ctx, doc(t, "GlobalNetworkSet s", "spec: {nets: [10.0.0.0/8]}\n"))
	old := first.Object.Meta().ResourceVersion
	e.Apply(ctx, doc(t, "GlobalNetworkSet s", "spec: {nets: [11.0.0.0/8]}\n"))
	late := doc(t, "GlobalNetworkSet s", "spec: {nets: [12.0.0.0/8]}\n")
	late.Meta().ResourceVersion = old
	for verb, do := range map[string]func(context.Context, v3.Object) edit.Result{"apply": e.Apply, "replace": e.Replace, "delete": e.Delete} {
		if r := do(ctx, late); !errors.Is(r.Err, store.ErrConflict) {
			t.Errorf("%s at an old revision: %s, want a conflict", verb, brief(r))
		}
	}
	racing := edit.New(&overtaken{Store: st, times: 2}, time.Now)
	late.Meta().ResourceVersion = ""
	if r := racing.Apply(ctx, late); r.Outcome != edit.Configured {
		t.Errorf("apply while others write: %s", brief(r))
	}
}

// overtaken is a store in which somebody else is quicker with the first updates.
type overtaken struct {
	store.Store
	times int
}

func (o *overtaken) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if ops[0].Verb == store.Update && o.times > 0 {
		o.times--
		other := ops[0].Object.Object.(*v3.GlobalNetworkSet)
		theirs := *other
		theirs.ResourceVersion, theirs.Labels = "", map[string]string{"n": fmt.Sprint(o.times)}
		if _, err := o.Store.Commit(ctx, store.Op{Verb: store.Update, Object: store.New(&theirs)}); err != nil {
			return nil, err
		}
	}
	return o.Store.Commit(ctx, ops...)
}

// A dry run checks against the datastore and what it would have written itself, and writes
// nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	e, st := newEditor(t)
	e.DryRun = true
	ctx := t.Context()
	results := e.Run(ctx, edit.Apply, []v3.Object{
		doc(t, "NetworkPolicy p", "spec: {tier: gold}\n"),
		doc(t, "IPPool b", "spec: {cidr: 10.0.4.0/24}\n"),
		doc(t, "Tier gold", "spec: {order: 5}\n"),
		doc(t, "IPPool a", "spec: {cidr: 10.0.0.0/16}\n"),
		doc(t, "NetworkPolicy q", "spec: {tier: silver}\n"),
	})
	for i, want := range []string{"created", "created", "created", "failed ippool a: spec.cidr", "failed networkpolicy default/q: spec.tier"} {
		if got := brief(results[i]); !strings.HasPrefix(got, want) {
			t.Errorf("%v: %s, want %s", results[i].Key, got, want)
		}
	}
	for _, kind := range []model.Kind{model.KindTier, model.KindIPPool, "NetworkPolicy", model.KindClusterInformation} {
		if objects, err := st.List(ctx, kind, ""); err != nil || len(objects) > 0 {
			t.Errorf("%d objects of kind %s after a dry run, %v", len(objects), kind, err)
		}
	}
}

// In order, what comes before the tier it is in fails; else order does not matter. A second
// run finishes what the first could not.
func TestOrder(t *testing.T) {
	t.Parallel()
	objects := func() []v3.Object {
		return []v3.Object{
			doc(t, "NetworkPolicy p", "spec: {tier: gold}\n"),
			doc(t, "Tier gold", "spec: {order: 5}\n"),
			doc(t, "NetworkPolicy q", "spec: {tier: gold}\n"),
		}
	}
	for name, tt := range map[string]struct {
		inOrder bool
		want    string
	}{
		"in order":  {true, "failed created created; created unchanged unchanged"},
		"by itself": {false, "created created created; unchanged unchanged unchanged"},
	} {
		e, _ := newEditor(t)
		e.InOrder = tt.inOrder
		var passes []string
		for range 2 {
			var words []string
			for _, r := range e.Run(t.Context(), edit.Apply, objects()) {
				words = append(words, r.Outcome.String())
			}
			passes = append(passes, strings.Join(words, " "))
		}
		if got := strings.Join(passes, "; "); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
		for _, r := range e.Run(t.Context(), edit.Delete, objects()) {
			if !tt.inOrder && r.Outcome != edit.Deleted {
				t.Errorf("%s: delete %v: %s", name, r.Key, brief(r))
			}
		}
	}
}

// What is under way when the user interrupts is finished; the next run does the rest.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	_, st := newEditor(t)
	ctx, cancel := context.WithCancel(t.Context())
	e := edit.New(&cancelling{st, cancel, ctx.Done()}, time.Now)
	objects := func() []v3.Object {
		var out []v3.Object
		for i := range 500 {
			out = append(out, doc(t, fmt.Sprintf("GlobalNetworkSet s%d", i), "spec: {}\n"))
		}
		return out
	}
	count := func(results []edit.Result) map[edit.Outcome]int {
		out := map[edit.Outcome]int{}
		for _, r := range results {
			out[r.Outcome]++
		}
		return out
	}
	first := count(e.Run(ctx, edit.Apply, objects()))
	stored, err := st.List(t.Context(), "GlobalNetworkSet", "")
	if err != nil || len(stored) != first[edit.Created] || first[edit.NotTried] == 0 || first[edit.Failed] > 0 {
		t.Errorf("interrupted: %v, and %d are stored (%v)", first, len(stored), err)
	}
	second := count(edit.New(st, time.Now).Run(t.Context(), edit.Apply, objects()))
	if second[edit.Created] != first[edit.NotTried] || second[edit.Unchanged] != first[edit.Created] {
		t.Errorf("again: %v after %v", second, first)
	}
}

// cancelling is a store whose user interrupts at the write of s20; what comes after it is not
// written before that.
type cancelling struct {
	store.Store
	cancel func()
	ended  <-chan struct{}
}

func (c *cancelling) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	var n int
	if _, err := fmt.Sscanf(ops[0].Object.Meta().Name, "s%d", &n); err == nil && n >= 20 {
		if n == 20 {
			c.cancel()
		}
		<-c.ended
	}
	return c.Store.Commit(ctx, ops...)
}

// Fields that a newer version has put there survive every way to change an object.
func TestUnknownFieldsSurvive(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	k := model.Key{Kind: "GlobalNetworkSet", Name: "s"}
	for name, do := range map[string]func(e *edit.Editor) edit.Result{
		"apply": func(e *edit.Editor) edit.Result {
			return e.Apply(ctx, doc(t, "GlobalNetworkSet s", "spec: {nets: [10.0.0.0/8]}\n"))
		},
		"replace": func(e *edit.Editor) edit.Result {
			return e.Replace(ctx, doc(t, "GlobalNetworkSet s", "spec: {nets: [10.0.0.0/8]}\n"))
		},
		"patch": func(e *edit.Editor) edit.Result {
			return e.Patch(ctx, k, edit.MergePatch, []byte(`{"spec":{"nets":["10.0.0.0/8"]}}`))
		},
		"label": func(e *edit.Editor) edit.Result {
			return e.Label(ctx, k, edit.Labels{Set: map[string]string{"a": "b"}})
		},
	} {
		_, st := newEditor(t)
		made, err := st.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(doc(t, "GlobalNetworkSet s", "spec: {}\n"))})
		if err != nil {
			t.Fatal(err)
		}
		raw := strings.Replace(string(made[0].Raw()), `"spec":{`, `"spec":{"colour":"red"`, 1)
		unknown := store.Stored(made[0].Object, []byte(raw))
		if _, err := st.Commit(ctx, store.Op{Verb: store.Update, Object: unknown}); err != nil {
			t.Fatal(err)
		}
		r := do(edit.New(st, time.Now))
		after, err := st.Get(ctx, k)
		if err != nil || r.Outcome != edit.Configured || !strings.Contains(string(after.Raw()), `"colour":"red"`) {
			t.Errorf("%s: %s, stored %s, %v", name, brief(r), after.Raw(), err)
		}
	}
}
