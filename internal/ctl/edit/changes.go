package edit

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/rogpeppe/go-internal/diff"
	v3 "github.com/weft-net/weft/api/v3"
	"sigs.k8s.io/yaml"
)

// Changes are the paths of the fields in which two versions of an object differ, sorted.
// What only the datastore sets is passed over. Lists are compared as a whole where they
// differ in length, else element by element.
func Changes(before, after v3.Object) []string {
	a, b := plain(before), plain(after)
	if bytes.Equal(a, b) {
		return nil
	}
	var out []string
	compare("", tree(a), tree(b), &out)
	slices.Sort(out)
	return out
}

// plain is o as users write it, in JSON: without what only the datastore sets.
func plain(o v3.Object) []byte {
	c := clone(o)
	v3.ClearSystemFields(c)
	c.Meta().ResourceVersion = ""
	*c.Type() = v3.KindOf(c).TypeMeta()
	text, err := json.Marshal(c)
	if err != nil {
		return nil // no value of our types fails
	}
	return text
}

func tree(text []byte) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil
	}
	return v
}

// compare adds the paths below path at which a and b differ.
func compare(path string, a, b any, out *[]string) {
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			compareMaps(path, a, b, out)
			return
		}
	case []any:
		if b, ok := b.([]any); ok && len(a) == len(b) {
			for i := range a {
				compare(path+"["+strconv.Itoa(i)+"]", a[i], b[i], out)
			}
			return
		}
	}
	if !reflect.DeepEqual(a, b) {
		*out = append(*out, path)
	}
}

func compareMaps(path string, a, b map[string]any, out *[]string) {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for key := range keys {
		under := key
		if path != "" {
			under = path + "." + key
		}
		compare(under, a[key], b[key], out)
	}
}

// Diff is what r changes, as a unified diff of the YAML of the object; empty when that is
// nothing. Secrets are none of an object: they stand in Kubernetes.
func (r Result) Diff() []byte {
	name := r.Key.String()
	var before, after []byte
	switch r.Outcome {
	case Created:
		after = text(r.Object)
	case Configured:
		before, after = text(r.Before), text(r.Object)
	case Deleted:
		if r.Before != nil {
			before = text(r.Before)
		}
	default:
		return nil
	}
	return diff.Diff("stored/"+name, before, "applied/"+name, after)
}

// text is o in YAML as users write it.
func text(o v3.Object) []byte {
	out, err := yaml.JSONToYAML(plain(o))
	if err != nil {
		return nil
	}
	return out
}

// clone copies an object, and its metadata but for the maps.
func clone(o v3.Object) v3.Object {
	v := reflect.ValueOf(o).Elem()
	c := reflect.New(v.Type())
	c.Elem().Set(v)
	return c.Interface().(v3.Object)
}

// keepStatus gives o the status of stored, where o has none: what users write is mostly
// without.
func keepStatus(o, stored v3.Object) {
	field := reflect.ValueOf(o).Elem().FieldByName("Status")
	if field.IsValid() && field.IsZero() {
		field.Set(reflect.ValueOf(stored).Elem().FieldByName("Status"))
	}
}
