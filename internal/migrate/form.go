package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/kv"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metadataAnnotation is what the stored form of policies has and no document.
const metadataAnnotation = v3.Group + "/metadata"

// portable is an object as it stands in a Dump. What it was read from is kept where that says
// more than the object: fields of a newer version.
func portable(o store.Object, p place, kubernetes bool) (store.Object, error) {
	bare := copyOf(o.Object)
	stripped(bare)
	if p.part == addressing {
		if kubernetes {
			return store.New(bare), nil
		}
		return store.Stored(bare, o.Raw()), nil
	}
	encoded, err := v3.Encode(bare)
	if err != nil {
		return store.Object{}, err
	}
	var doc, raw map[string]json.RawMessage
	if err := json.Unmarshal(encoded, &doc); err != nil {
		return store.Object{}, err
	}
	whole := encoded
	// Endpoints and nodes of Kubernetes are read from things with other fields.
	derived := kubernetes && (v3.KindOf(o.Object).Name == "Node" || v3.KindOf(o.Object).Name == "WorkloadEndpoint")
	if !derived && json.Unmarshal(o.Raw(), &raw) == nil && raw != nil {
		for _, field := range []string{"spec", "status"} {
			if raw[field] != nil {
				doc[field] = raw[field]
			}
		}
		stored, err := json.Marshal(doc)
		if err != nil {
			return store.Object{}, err
		}
		if whole, err = v3.Merge(stored, bare); err != nil {
			return store.Object{}, err
		}
	}
	if whole, err = asDocument(whole); err != nil {
		return store.Object{}, fmt.Errorf("%s: %w", v3.Describe(bare), err)
	}
	return store.Stored(bare, whole), nil
}

// asDocument takes from a stored form what documents of users don't have.
func asDocument(stored []byte) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(stored, &doc); err != nil {
		return nil, err
	}
	var meta map[string]any
	if err := json.Unmarshal(doc["metadata"], &meta); err != nil {
		return nil, err
	}
	for _, field := range births() {
		delete(meta, field)
	}
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		if delete(annotations, metadataAnnotation); len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
	var err error
	if doc["metadata"], err = json.Marshal(meta); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// births are the fields of metadata that belong to one datastore.
func births() []string {
	return []string{
		"uid", "creationTimestamp", "resourceVersion", "generation", "managedFields", "selfLink",
		"deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "ownerReferences", "generateName",
	}
}

// stripped takes births from an object.
func stripped(o v3.Object) {
	m := o.Meta()
	*m = metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations}
}

// copyOf is a copy of o that shares nothing with it.
func copyOf(o v3.Object) v3.Object {
	if c, ok := o.(*v3.IPAMConfig); ok {
		fresh := *c
		fresh.Labels, fresh.Annotations = maps.Clone(c.Labels), maps.Clone(c.Annotations)
		return &fresh
	}
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // objects of a datastore come from JSON
	}
	fresh, _ := v3.New(v3.KindOf(o).Name)
	if err := json.Unmarshal(text, fresh); err != nil {
		panic(err) // as above
	}
	return fresh
}

// canonical is what must be the same on both sides of a migration: the object with its
// defaults, without births and status, and without fields that are empty. Of what address
// management keeps names are made anew everywhere.
func canonical(o v3.Object) map[string]any {
	c := copyOf(o)
	stripped(c)
	v3.Default(c)
	switch c := c.(type) {
	case *v3.BlockAffinity:
		if c.Spec.Type == "" {
			c.Spec.Type = "host"
		}
	case *v3.IPAMConfig:
		if c.Spec.KubeVirtVMAddressPersistence == nil {
			c.Spec.KubeVirtVMAddressPersistence = v3.NewIPAMConfig().Spec.KubeVirtVMAddressPersistence
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // as in copyOf
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		panic(err)
	}
	if isAddressing(c) {
		delete(doc, "metadata")
	}
	if n, ok := doc["status"].(map[string]any); ok && v3.KindOf(c).Name == "Node" {
		delete(n, "podCIDRs") // the rest is the node's own word
	} else {
		delete(doc, "status")
	}
	delete(doc, "kind")
	delete(doc, "apiVersion")
	pruned, _ := prune(doc).(map[string]any)
	return pruned
}

// isAddressing reports whether o is of a kind that address management keeps.
func isAddressing(o v3.Object) bool {
	switch o.(type) {
	case *v3.IPAMBlock, *v3.BlockAffinity, *v3.IPAMHandle, *v3.IPAMConfig:
		return true
	}
	return false
}

// prune takes fields that are empty from maps; nil if nothing is left. Elements of lists have
// a meaning by their place and stay.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, field := range v {
			if field = prune(field); field == nil {
				delete(v, k)
			} else {
				v[k] = field
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i, e := range v {
			v[i] = prune(e)
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	}
	return v
}

// Difference is one field that is not as it should be. Want or Got is empty where there is no
// such field.
type Difference struct {
	Path      string
	Want, Got string
}

// differences compares two canonical forms, in the order of their fields.
func differences(path string, want, got any) []Difference {
	w, ok1 := want.(map[string]any)
	g, ok2 := got.(map[string]any)
	if ok1 && ok2 {
		var out []Difference
		fields := slices.AppendSeq(slices.Collect(maps.Keys(w)), maps.Keys(g))
		slices.Sort(fields)
		for _, f := range slices.Compact(fields) {
			out = append(out, differences(strings.TrimPrefix(path+"."+f, "."), w[f], g[f])...)
		}
		return out
	}
	wl, ok1 := want.([]any)
	gl, ok2 := got.([]any)
	if ok1 && ok2 && len(wl) == len(gl) {
		var out []Difference
		for i := range wl {
			out = append(out, differences(path+"["+strconv.Itoa(i)+"]", wl[i], gl[i])...)
		}
		return out
	}
	if a, b := text(want), text(got); a != b {
		return []Difference{{path, a, b}}
	}
	return nil
}

// text is a value as JSON; nothing for nothing.
func text(v any) string {
	if v == nil {
		return ""
	}
	out, err := json.Marshal(v)
	if err != nil {
		panic(err) // it comes from JSON
	}
	return string(out)
}

// unknown lists the fields of an object's stored form that weft has no place for.
func unknown(o store.Object) []string {
	if o.Raw() == nil {
		return nil
	}
	var raw, known map[string]any
	encoded, err := v3.Encode(o.Object)
	if isAddressing(o.Object) {
		_, encoded, err = kv.EntryOf(store.New(o.Object))
	}
	if err != nil || json.Unmarshal(encoded, &known) != nil || json.Unmarshal(o.Raw(), &raw) != nil {
		return nil
	}
	return missing("", raw, known)
}

// missing lists what is in raw and not in known, where that is not empty anyway.
func missing(path string, raw, known any) []string {
	var out []string
	switch r := raw.(type) {
	case map[string]any:
		k, ok := known.(map[string]any)
		if !ok {
			break
		}
		lower := make(map[string]any, len(k))
		for f, v := range k {
			lower[strings.ToLower(f)] = v
		}
		for _, f := range slices.Sorted(maps.Keys(r)) {
			at := strings.TrimPrefix(path+"."+f, ".")
			if v, ok := lower[strings.ToLower(f)]; ok {
				out = append(out, missing(at, r[f], v)...)
			} else if !isNothing(r[f]) {
				out = append(out, at)
			}
		}
	case []any:
		k, ok := known.([]any)
		for i := 0; ok && len(k) == len(r) && i < len(r); i++ {
			out = append(out, missing(path+"["+strconv.Itoa(i)+"]", r[i], k[i])...)
		}
	}
	return out
}

// isNothing reports whether a value says what its absence would: such fields need not be
// written.
func isNothing(v any) bool {
	switch v := v.(type) {
	case bool:
		return !v
	case float64:
		return v == 0
	}
	text := text(v)
	return text == "" || text == `""` || text == "{}" || text == "[]"
}
