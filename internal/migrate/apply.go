package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// batchOps is how many objects are written at once: few enough for a request of etcd's even
// if they are blocks.
const batchOps = 32

// Options are an import's.
type Options struct {
	// Overwrite replaces what is in the target and differs, and lets what is not of the
	// dump stay. Without it such a target is refused.
	Overwrite bool
	// DropUnknown leaves out fields that this version does not know. Without it they are
	// an error.
	DropUnknown bool
	// Progress may be nil.
	Progress Progress
}

// Report is what came of an import.
type Report struct {
	Created, Updated, Same int
	// Notes tell what was left out, and why.
	Notes []string
	// Failed are the objects that the datastore refused.
	Failed []error
	// Different are the objects that are not as they should be when read back, each field
	// that differs. Empty: everything landed.
	Different []Mismatch
}

// Mismatch is one object that did not land as it was sent.
type Mismatch struct {
	Key    model.Key
	Fields []Difference // empty: it is not there
}

// Done reports whether everything that was to be carried is in the target.
func (r Report) Done() bool { return len(r.Failed)+len(r.Different) == 0 }

// ErrOccupied says that a target holds what is not of the dump. Nothing was written.
var ErrOccupied = errors.New("the datastore is not empty")

// want is one object on its way.
type want struct {
	key    model.Key
	object store.Object
	node   *v3.Node     // what a node of Kubernetes gets; nil for all else
	have   store.Object // in the target; zero: it is not there
	exists bool
}

// importer carries out one import.
type importer struct {
	to     Datastore
	o      Options
	report Report
	wants  []want
	done   int
}

// Import writes d into a datastore, which it locks, and reads everything back. An error means
// that it broke off: nothing was written if it wraps ErrOccupied or [store.ErrUnreadable], else
// doing it again goes on; the report tells how far it came. What single objects failed of is in
// the report.
func Import(ctx context.Context, to Datastore, d Dump, o Options) (Report, error) {
	i := &importer{to: to, o: o}
	if to.Kubernetes {
		d, i.report.Notes = d.ForKubernetes()
	}
	if err := i.known(d); err != nil {
		return i.report, err
	}
	have, err := Read(ctx, to)
	if err != nil {
		return i.report, err
	}
	if err := i.prepare(d, have); err != nil {
		return i.report, err
	}
	if err := i.lock(ctx, d.Cluster); err != nil {
		return i.report, err
	}
	if err := i.write(ctx); err != nil {
		return i.report, fmt.Errorf("migrate: import: %w", err)
	}
	return i.report, i.verify(ctx, d.Cluster)
}

// known refuses fields that would be lost.
func (i *importer) known(d Dump) error {
	var lost []error
	for _, o := range d.Objects {
		if fields := unknown(o); len(fields) > 0 {
			text := fmt.Sprintf("%v: %s: not known to this version", keyOf(o.Object), strings.Join(fields, ", "))
			if i.o.DropUnknown {
				i.report.Notes = append(i.report.Notes, text+": left out")
			} else {
				lost = append(lost, errors.New(text))
			}
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("migrate: import: fields would be lost: %w", errors.Join(lost...))
	}
	return nil
}

// prepare finds out what is to be done, and whether it may be.
func (i *importer) prepare(d, have Dump) error {
	there := make(map[model.Key]store.Object, len(have.Objects))
	for _, o := range have.Objects {
		there[keyOf(o.Object)] = o
	}
	var occupied []string
	for _, o := range d.Objects {
		w := want{key: keyOf(o.Object), object: o}
		w.have, w.exists = there[w.key]
		delete(there, w.key)
		if node, ok := o.Object.(*v3.Node); ok && i.to.Kubernetes {
			if !w.exists {
				i.report.Notes = append(i.report.Notes, fmt.Sprintf("%v is left out: Kubernetes has no such node", w.key))
				continue
			}
			w.node = node
		} else if w.exists && !i.mayReplace(w) && len(w.differences(w.have)) > 0 {
			occupied = append(occupied, fmt.Sprintf("%v is another one", w.key))
		}
		i.wants = append(i.wants, w)
	}
	if !i.o.Overwrite {
		for k := range there {
			if !i.mayStay(k) {
				occupied = append(occupied, fmt.Sprintf("%v is not in the file", k))
			}
		}
	}
	if len(occupied) == 0 {
		return nil
	}
	slices.Sort(occupied)
	const most = 20
	if more := len(occupied) - most; more > 0 {
		occupied = append(occupied[:most], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("migrate: import: %w: %s", ErrOccupied, strings.Join(occupied, "; "))
}

// mayReplace reports whether w may take the place of what the target has.
func (i *importer) mayReplace(w want) bool {
	return i.o.Overwrite || isBuiltin(w.key)
}

// mayStay reports whether the target may have k besides what is imported.
func (i *importer) mayStay(k model.Key) bool {
	if i.to.Kubernetes && (k.Kind == model.KindNode || k.Kind == model.KindWorkloadEndpoint || isConverted(k)) {
		return true // Kubernetes' own
	}
	return isBuiltin(k)
}

// isBuiltin reports whether every cluster has k from the start.
func isBuiltin(k model.Key) bool {
	for _, tier := range v3.BuiltinTiers() {
		if k == keyOf(tier) {
			return true
		}
	}
	return false
}

// differences compares what w wants with what is there.
func (w want) differences(have store.Object) []Difference {
	return differences("", anyOf(canonical(w.over(have))), anyOf(canonical(have.Object)))
}

// over is the object that is to be in the place of have.
func (w want) over(have store.Object) v3.Object {
	if w.node != nil {
		return nodeFor(have.Object.(*v3.Node), w.node)
	}
	return w.object.Object
}

// anyOf is m as a value; a nil map is an empty one.
func anyOf(m map[string]any) any {
	if m == nil {
		m = map[string]any{}
	}
	return m
}

// lock locks the target and gives it the identity of the cluster.
func (i *importer) lock(ctx context.Context, of *v3.ClusterInformation) error {
	for {
		have, err := i.to.Store.Get(ctx, model.Cluster{}.Key())
		op := store.Op{Verb: store.Update}
		if errors.Is(err, store.ErrNotFound) {
			op.Verb = store.Create
			fresh, _ := v3.New(string(model.KindClusterInformation))
			fresh.Meta().Name = "default"
			if of != nil {
				fresh.(*v3.ClusterInformation).Spec = of.Spec
			}
			have = store.New(fresh)
		} else if err != nil {
			return fmt.Errorf("migrate: import: %w", err)
		}
		c := copyOf(have.Object).(*v3.ClusterInformation)
		c.ObjectMeta = *have.Object.Meta()
		if of != nil {
			c.Spec.ClusterGUID, c.Spec.CalicoVersion = of.Spec.ClusterGUID, of.Spec.CalicoVersion
		}
		locked := false
		c.Spec.DatastoreReady = &locked
		op.Object = have.With(c)
		if op.Verb == store.Update && text(anyOf(canonical(c))) == text(anyOf(canonical(have.Object))) {
			return nil
		}
		_, err = i.to.Store.Commit(ctx, op)
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("migrate: import: %w", err)
		}
	}
}

// write writes what is missing, in order.
func (i *importer) write(ctx context.Context) error {
	var batch []want
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := i.commit(ctx, batch)
		batch = batch[:0]
		return err
	}
	for n, w := range i.wants {
		if n > 0 && w.key.Kind != i.wants[n-1].key.Kind || len(batch) == batchOps {
			if err := flush(); err != nil {
				return err
			}
		}
		if w.exists && len(w.differences(w.have)) == 0 {
			i.report.Same++
			i.progress(1)
			continue
		}
		batch = append(batch, w)
	}
	return flush()
}

// commit writes several objects at once, or, when that fails, each by itself.
func (i *importer) commit(ctx context.Context, batch []want) error {
	ops := make([]store.Op, len(batch))
	for n, w := range batch {
		ops[n] = w.op()
	}
	if _, err := i.to.Store.Commit(ctx, ops...); err == nil {
		for _, w := range batch {
			i.count(w)
		}
		return nil
	}
	for _, w := range batch {
		if err := i.one(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// op is the write that w is.
func (w want) op() store.Op {
	if !w.exists {
		return store.Op{Verb: store.Create, Object: store.New(w.object.Object)}
	}
	fresh := copyOf(w.over(w.have))
	fresh.Meta().ResourceVersion = w.have.Object.Meta().ResourceVersion
	return store.Op{Verb: store.Update, Object: store.New(fresh)}
}

// one writes one object, whatever became of it before. A refusal is the object's, any other
// error the connection's.
func (i *importer) one(ctx context.Context, w want) error {
	for {
		have, err := i.to.Store.Get(ctx, w.key)
		switch {
		case err == nil:
			w.have, w.exists = have, true
			if len(w.differences(have)) == 0 {
				i.count(w)
				return nil
			}
		case errors.Is(err, store.ErrNotFound):
			w.exists = false
		default:
			return err
		}
		_, err = i.to.Store.Commit(ctx, w.op())
		switch {
		case err == nil:
			i.count(w)
			return nil
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists), errors.Is(err, store.ErrNotFound):
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		case errors.Is(err, store.ErrRefused):
			i.report.Failed = append(i.report.Failed, err)
			i.progress(1)
			return nil
		default:
			return err
		}
	}
}

// count notes that w is done.
func (i *importer) count(w want) {
	if w.exists {
		i.report.Updated++
	} else {
		i.report.Created++
	}
	i.progress(1)
}

func (i *importer) progress(n int) {
	i.done += n
	if i.o.Progress != nil {
		i.o.Progress(i.done, len(i.wants))
	}
}

// verify reads everything back and compares.
func (i *importer) verify(ctx context.Context, of *v3.ClusterInformation) error {
	got, err := Read(ctx, i.to)
	if err != nil {
		return err
	}
	there := make(map[model.Key]store.Object, len(got.Objects))
	for _, o := range got.Objects {
		there[keyOf(o.Object)] = o
	}
	for _, w := range i.wants {
		have, ok := there[w.key]
		if !ok {
			i.report.Different = append(i.report.Different, Mismatch{Key: w.key})
		} else if d := w.differences(have); len(d) > 0 {
			i.report.Different = append(i.report.Different, Mismatch{w.key, d})
		}
	}
	if of != nil && (got.Cluster == nil || got.Cluster.Spec.ClusterGUID != of.Spec.ClusterGUID) {
		guid := ""
		if got.Cluster != nil {
			guid = got.Cluster.Spec.ClusterGUID
		}
		i.report.Different = append(i.report.Different, Mismatch{model.Cluster{}.Key(), []Difference{{"spec.clusterGUID", of.Spec.ClusterGUID, guid}}})
	}
	return nil
}
