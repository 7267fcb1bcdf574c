package world

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
)

// Edit is w after somebody has deleted some objects and applied some of another world,
// and what an agent hears of it.
func (w World) Edit(r *rand.Rand, other World) (World, model.Batch, error) {
	d := dice{r}
	docs, err := w.byKey()
	if err != nil {
		return w, model.Batch{}, err
	}
	more, err := other.byKey()
	if err != nil {
		return w, model.Batch{}, err
	}
	for _, k := range slices.SortedFunc(maps.Keys(docs), policy.CompareKeys) {
		if k.Kind != model.KindNode && d.in(8) {
			delete(docs, k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(more), policy.CompareKeys) {
		if !d.in(15) {
			continue
		}
		// An interface has one workload.
		if ep, ok := other.Values[k].(model.Endpoint); ok {
			maps.DeleteFunc(docs, func(k model.Key, _ string) bool {
				o, ok := w.Values[k].(model.Endpoint)
				return ok && o.Link == ep.Link
			})
		}
		docs[k] = more[k]
	}
	var text []string
	for _, k := range slices.SortedFunc(maps.Keys(docs), policy.CompareKeys) {
		text = append(text, docs[k])
	}
	out, err := Parse(text)
	return out, w.batch(out), err
}

// byKey is the documents that count, by what they are about.
func (w World) byKey() (map[model.Key]string, error) {
	out := map[model.Key]string{}
	for _, doc := range w.Docs {
		o, err := v3.Decode([]byte(doc))
		if err != nil {
			return nil, fmt.Errorf("world: %s: %w", doc, err)
		}
		v, err := model.Parse(o)
		if err != nil {
			return nil, fmt.Errorf("world: %s: %w", doc, err)
		}
		out[v.Key()] = doc
	}
	return out, nil
}

// batch is the changes from w to now.
func (w World) batch(now World) model.Batch {
	var b model.Batch
	for k, v := range now.Values {
		if !reflect.DeepEqual(w.Values[k], v) {
			b.Puts = append(b.Puts, v)
		}
	}
	for k := range w.Values {
		if now.Values[k] == nil {
			b.Deletes = append(b.Deletes, k)
		}
	}
	return b
}

// Snapshot is all of w.
func (w World) Snapshot() model.Batch {
	return model.Batch{Reset: true, Synced: true, Puts: slices.Collect(maps.Values(w.Values))}
}
