package edit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// PatchType is how a patch is meant.
type PatchType string

// The types of patches.
const (
	// StrategicPatch is Kubernetes' own: a merge in which directives such as $patch: replace
	// are honoured. No list of Calico's kinds has a merge key, so lists are replaced.
	StrategicPatch PatchType = "strategic"
	MergePatch     PatchType = "merge" // RFC 7386
	JSONPatch      PatchType = "json"  // RFC 6902
)

// ParsePatchType reads the name of a type; empty is StrategicPatch.
func ParsePatchType(text string) (PatchType, error) {
	switch t := PatchType(text); t {
	case "":
		return StrategicPatch, nil
	case StrategicPatch, MergePatch, JSONPatch:
		return t, nil
	}
	return "", fmt.Errorf("%q: must be strategic, merge or json", text)
}

// Patch changes the object k by a patch in JSON. The result must be valid, and is still the
// same object: its kind, name and namespace can't be changed.
func (e *Editor) Patch(ctx context.Context, k model.Key, t PatchType, patch []byte) Result {
	return e.change(ctx, k, func(o v3.Object) (v3.Object, error) { return patched(o, t, patch) })
}

// change reads the object k, lets f make another version of it and writes that, again when it
// changed meanwhile.
func (e *Editor) change(ctx context.Context, k model.Key, f func(v3.Object) (v3.Object, error)) Result {
	fail := func(o v3.Object, err error) Result {
		return Result{Key: k, Object: o, Outcome: Failed, Err: err}
	}
	var r Result
	for range maxTries {
		before, err := e.store.Get(ctx, k)
		if err != nil {
			o, _ := v3.New(string(k.Kind))
			return fail(o, err)
		}
		o, err := f(before.Object)
		if err == nil {
			err = Check(o)
		}
		if o != nil && v3.KindOf(o).Name == string(k.Kind) {
			if fixedErr := v3.ValidateUpdate(before.Object, o); fixedErr != nil {
				err = &fixed{fixedErr} // it says more than that the result is wrong
			}
		}
		if err != nil {
			return fail(before.Object, err)
		}
		r = e.update(ctx, before, o)
		// What the patch itself demands of the revision is not met by trying again.
		if !errors.Is(r.Err, store.ErrConflict) || o.Meta().ResourceVersion != before.Meta().ResourceVersion {
			return r
		}
	}
	return r
}

// patched is o after a patch.
func patched(o v3.Object, t PatchType, patch []byte) (v3.Object, error) {
	*o.Type() = v3.KindOf(o).TypeMeta()
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	after, err := patchText(text, t, patch, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", v3.Describe(o), ErrPatch, err)
	}
	out, err := v3.Decode(after)
	if err != nil {
		return nil, err
	}
	if m, was := out.Meta(), o.Meta(); v3.KindOf(out).Name != v3.KindOf(o).Name || m.Name != was.Name || m.Namespace != was.Namespace {
		return nil, fmt.Errorf("%s: %w: kind, name and namespace can't be changed: the patch makes it %s", v3.Describe(o), ErrPatch, v3.Describe(out))
	}
	return out, nil
}

// patchText applies a patch to the JSON text of o.
func patchText(text []byte, t PatchType, patch []byte, o v3.Object) ([]byte, error) {
	switch t {
	case MergePatch:
		return jsonpatch.MergePatch(text, patch)
	case JSONPatch:
		ops, err := jsonpatch.DecodePatch(patch)
		if err != nil {
			return nil, fmt.Errorf("must be a list of operations, such as [{\"op\":\"replace\",\"path\":\"/spec/disabled\",\"value\":true}]: %w", err)
		}
		return ops.Apply(text)
	}
	return strategicpatch.StrategicMergePatch(text, patch, o)
}

// Labels is a change of an object's labels.
type Labels struct {
	Set       map[string]string
	Remove    []string
	Overwrite bool // a label may have another value before
}

// Label changes labels of the object k. The error of the result wraps ErrLabel, in a
// [LabelError], when one of the labels is not as it must be before; then none is changed.
func (e *Editor) Label(ctx context.Context, k model.Key, l Labels) Result {
	return e.change(ctx, k, func(o v3.Object) (v3.Object, error) { return labelled(o, l) })
}

// LabelError is a label that can't be changed.
type LabelError struct {
	Object v3.Object
	Label  string
	Exists bool   // it exists with Value, else it does not exist
	Value  string // that it has
}

// Error implements error.
func (e *LabelError) Error() string {
	if e.Exists {
		return fmt.Sprintf("%s: label %s is %q already: give --overwrite to change it", v3.Describe(e.Object), e.Label, e.Value)
	}
	return fmt.Sprintf("%s: has no label %s", v3.Describe(e.Object), e.Label)
}

// Unwrap is ErrLabel.
func (*LabelError) Unwrap() error { return ErrLabel }

// labelled is o with other labels.
func labelled(o v3.Object, l Labels) (v3.Object, error) {
	out := clone(o)
	labels := maps.Clone(o.Meta().Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(l.Set)) {
		if was, ok := labels[name]; ok && was != l.Set[name] && !l.Overwrite {
			errs = append(errs, &LabelError{o, name, true, was})
		}
		labels[name] = l.Set[name]
	}
	for _, name := range l.Remove {
		if _, ok := labels[name]; !ok {
			errs = append(errs, &LabelError{Object: o, Label: name})
		}
		delete(labels, name)
	}
	out.Meta().Labels = labels
	return out, errors.Join(errs...)
}
