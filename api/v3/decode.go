package v3

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Decode reads one YAML or JSON document. Field names are read in any case. A field
// that the kind does not have is an error, as is a field given twice; the error
// names each by its path. Numbers and booleans are taken as text where a field is
// text. Neither defaults nor rules are applied.
func Decode(data []byte) (Object, error) {
	tree, err := parseYAML(data)
	if err != nil {
		return nil, err
	}
	return decodeTree(tree)
}

// DecodeJSON is [Decode] for a document that is known to be JSON, or that was made JSON of
// YAML. Of a field that is given twice, in one case, the last counts.
func DecodeJSON(data []byte) (Object, error) {
	tree, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	return decodeTree(tree)
}

// DecodeAll reads a file: YAML documents separated by "---" lines, each an object
// or a list of objects. Empty documents are passed over, except that the first
// must not be empty. It is all or nothing: one bad document fails the file, and if
// there are several, the error says which by its number from 1.
func DecodeAll(data []byte) ([]Object, error) {
	var objects []Object
	docs := documents(data)
	for i, doc := range docs {
		tree, err := parseYAML(doc)
		if err == nil && tree == nil && i > 0 {
			continue
		}
		items, isList := tree.([]any)
		if !isList {
			items = []any{tree}
		}
		for n, item := range items {
			if err != nil {
				break
			}
			var o Object
			if o, err = decodeTree(item); err != nil && isList {
				err = fmt.Errorf("item %d: %w", n+1, err)
			}
			objects = append(objects, o)
		}
		if err != nil && len(docs) > 1 {
			err = fmt.Errorf("document %d: %w", i+1, err)
		}
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// DecodeStored reads a value of the datastore. Unlike [Decode] it passes over fields
// that the kind does not have; [Merge] keeps them.
func DecodeStored(data []byte) (Object, error) {
	kind, version, ok := storedHead(data)
	if !ok {
		var head struct{ Kind, APIVersion string }
		if err := json.Unmarshal(data, &head); err != nil {
			return nil, fmt.Errorf("decode: stored value is no JSON object: %w", err)
		}
		kind, version = head.Kind, head.APIVersion
	}
	o, err := newObject(kind, version)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if err := json.Unmarshal(data, o); err != nil {
		return nil, fmt.Errorf("decode: %s: %w", kind, err)
	}
	stripStored(o)
	return o, nil
}

// storedHead reads kind and version of a value in the form that [Encode] gives it,
// in which they come first; so most values are parsed once only.
func storedHead(data []byte) (kind, version string, ok bool) {
	rest, ok1 := bytes.CutPrefix(data, []byte(`{"kind":"`))
	k, rest, ok2 := bytes.Cut(rest, []byte(`","apiVersion":"`))
	v, _, ok3 := bytes.Cut(rest, []byte(`"`))
	return string(k), string(v), ok1 && ok2 && ok3 && consistsOf(string(k), "")
}

// Encode returns o as the datastore keeps it: JSON with fields in Calico's order,
// without what the datastore itself adds on reading (resourceVersion) and what only
// the Kubernetes API keeps (managedFields), and with the annotation that Calico gives
// to stored policies, which [DecodeStored] takes off. o is not changed.
func Encode(o Object) ([]byte, error) {
	c := shallow(o)
	*c.Type() = KindOf(o).TypeMeta()
	m := c.Meta()
	m.ResourceVersion, m.ManagedFields = "", nil
	annotateStored(c)
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode: %s: %w", Describe(o), err)
	}
	return data, nil
}

// Describe returns "ippool default-ipv4-ippool" or, for namespaced kinds,
// "workloadendpoint default/name": how errors and logs name an object.
func Describe(o Object) string {
	name := o.Meta().Name
	if ns := o.Meta().Namespace; ns != "" {
		name = ns + "/" + name
	}
	return strings.ToLower(KindOf(o).Name) + " " + name
}

// shallow copies the object itself, not what it points to.
func shallow(o Object) Object {
	v := reflect.ValueOf(o).Elem()
	c := reflect.New(v.Type())
	c.Elem().Set(v)
	return c.Interface().(Object)
}

// documents cuts a YAML file at its "---" lines. What follows the dashes on their
// line belongs to the document. Comments before the first mark are no document.
func documents(data []byte) [][]byte {
	var docs [][]byte
	var doc []byte
	first := true
	for line := range bytes.Lines(data) {
		rest, isMark := bytes.CutPrefix(line, []byte("---"))
		if !isMark || len(bytes.TrimSpace(rest)) > 0 && rest[0] != ' ' && rest[0] != '\t' {
			doc = append(doc, line...)
			continue
		}
		if !first || !onlyComments(doc) {
			docs = append(docs, doc)
		}
		first, doc = false, slices.Clone(bytes.TrimLeft(rest, " \t"))
	}
	return append(docs, doc)
}

func onlyComments(doc []byte) bool {
	for line := range bytes.Lines(doc) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// parseYAML turns a document into maps, lists, strings, booleans and json.Numbers.
func parseYAML(data []byte) (any, error) {
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("decode: not valid YAML or JSON: %s", oneLine(strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	return parseJSON(text)
}

func parseJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("decode: not valid YAML or JSON: %w", err)
	}
	return tree, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// decodeTree makes an object of a parsed document.
func decodeTree(tree any) (Object, error) {
	fields, ok := tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("decode: %w", &DocumentError{Is: describe(tree)})
	}
	kind, _ := fields["kind"].(string)
	version, _ := fields["apiVersion"].(string)
	o, err := newObject(kind, version)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	s := shaper{object: strings.ToLower(KindOf(o).Name) + " " + nameIn(fields)}
	shaped := s.shape(fields, reflect.TypeOf(o).Elem(), "")
	if len(s.errs) > 0 {
		return nil, errors.Join(s.errs...)
	}
	text, err := json.Marshal(shaped)
	if err != nil {
		return nil, fmt.Errorf("decode: %s: %w", s.object, err)
	}
	if err := json.Unmarshal(text, o); err != nil {
		return nil, fmt.Errorf("decode: %s: %w", s.object, err)
	}
	return o, nil
}

// nameIn finds the name of an object that is not decoded yet, for error texts.
func nameIn(fields map[string]any) string {
	meta, _ := fields["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if ns, _ := meta["namespace"].(string); ns != "" {
		name = ns + "/" + name
	}
	return name
}
