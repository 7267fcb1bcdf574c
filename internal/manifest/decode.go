package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
	lenient "sigs.k8s.io/yaml"

	v3 "github.com/weft-net/weft/api/v3"
)

// place is where an object stands: its text, and the path to it within; "" is all of it.
type place struct {
	text text
	path string
}

// result is what became of one text.
type result struct {
	docs  []Document
	wrong Problems
}

func (r *result) add(more result) {
	r.docs, r.wrong = append(r.docs, more.docs...), append(r.wrong, more.wrong...)
}

// decode reads one document: an object, or a list of them.
func (o Options) decode(t text) result {
	if doc, isJSON := readJSON(t); isJSON {
		t.json = true
		return o.value(t, doc)
	}
	raw, err := lenient.YAMLToJSONStrict(t.data)
	if err == nil {
		return o.value(t, raw)
	}
	r := result{wrong: syntax(t, err)}
	if !errors.Is(r.wrong, ErrDuplicate) {
		return r
	}
	// The fields given twice do not hide what else is wrong.
	if raw, err = lenient.YAMLToJSON(t.data); err == nil {
		rest := o.value(t, raw)
		r.wrong = append(r.wrong, rest.wrong...)
	}
	return r
}

// value reads a document that has become JSON.
func (o Options) value(t text, raw []byte) result {
	path, items, head, isList := o.list(raw)
	if !isList {
		line, column := t.start()
		return o.object(place{t, ""}, raw, line, column)
	}
	var places []place
	var at []position
	if t.json {
		places, at = jsonItems(t, path, items)
	} else {
		places, at = yamlItems(t, path, len(items))
	}
	var all result
	for i, item := range items {
		if head.Kind != "" {
			item = head.complete(item)
		}
		all.add(o.object(places[i], item, at[i].line, at[i].column))
	}
	return all
}

// object reads one object.
func (o Options) object(at place, raw []byte, line, column int) result {
	object, err := v3.DecodeJSON(raw)
	if err != nil {
		return result{wrong: problems(at, position{line, column}, err)}
	}
	if meta := object.Meta(); v3.KindOf(object).Namespaced && meta.Namespace == "" {
		meta.Namespace = o.Namespace
		if meta.Namespace == "" {
			meta.Namespace = "default"
		}
	}
	return result{docs: []Document{{Object: object, File: at.text.file, Line: line, Column: column, Raw: raw, at: at}}}
}

// header is what a list says of its items.
type header struct{ Kind, APIVersion string }

// complete adds kind and version to an item that has neither.
func (h header) complete(item []byte) []byte {
	fields := map[string]json.RawMessage{}
	if json.Unmarshal(item, &fields) != nil || fields == nil {
		return item
	}
	if fields["kind"] != nil || fields["apiVersion"] != nil {
		return item
	}
	fields["kind"], _ = json.Marshal(h.Kind) // text always has a form
	fields["apiVersion"], _ = json.Marshal(h.APIVersion)
	whole, err := json.Marshal(fields)
	if err != nil {
		return item
	}
	return whole
}

// list gives the items of a document that is a list, where they are in it ("" or "items"), and
// what they are when they do not say it themselves.
func (o Options) list(raw []byte) (path string, items []json.RawMessage, head header, isList bool) {
	switch trimmed := bytes.TrimLeft(raw, " \t\r\n"); {
	case len(trimmed) == 0:
		return "", nil, head, false
	case trimmed[0] == '[':
		return "", items, head, json.Unmarshal(raw, &items) == nil
	case trimmed[0] != '{' || !bytes.Contains(raw, []byte(`List"`)):
		return "", nil, head, false
	}
	var doc struct {
		Kind       string            `json:"kind"`
		APIVersion string            `json:"apiVersion"`
		Items      []json.RawMessage `json:"items"`
	}
	if json.Unmarshal(raw, &doc) != nil {
		return "", nil, head, false
	}
	if doc.Kind == "List" && doc.APIVersion == "v1" && !o.Calico {
		return "items", doc.Items, head, true
	}
	of, isName := strings.CutSuffix(doc.Kind, "List")
	if !isName {
		return "", nil, head, false
	}
	for _, k := range v3.Kinds() {
		if t := k.TypeMeta(); t.Kind == of && t.APIVersion == doc.APIVersion {
			return "items", doc.Items, header{t.Kind, t.APIVersion}, true
		}
	}
	return "", nil, head, false
}

// syntax says what is wrong with a text that sigs.k8s.io/yaml did not take, and where.
func syntax(t text, err error) Problems {
	root, wrong := parse(t.data)
	if wrong == nil && root != nil {
		if twice := duplicates(t, root, err); len(twice) > 0 {
			return twice
		}
	}
	line, column := t.start()
	reason := strings.TrimPrefix(oneLine(err.Error()), "yaml: ")
	if marked := (*yaml.LoadError)(nil); errors.As(wrong, &marked) && marked.Mark.Line > 0 {
		line, column = t.locate(marked.Mark.Line, marked.Mark.Column)
		reason = oneLine(marked.Message)
		if marked.ContextMsg != "" {
			began := ""
			if from, column := t.locate(marked.ContextMark.Line, marked.ContextMark.Column); from != line && marked.ContextMark.Line > 0 {
				began = fmt.Sprintf(" that begins at line %d, column %d", from, column)
			}
			reason += " " + marked.ContextMsg + began
		}
	}
	return Problems{{File: t.file, Line: line, Column: column, Err: &SyntaxError{Reason: reason, Err: err}}}
}

// problems gives each error of api/v3 its position.
func problems(at place, start position, err error) Problems {
	fields := v3.FieldErrors(err)
	if len(fields) == 0 {
		p := &Problem{File: at.text.file, Line: start.line, Column: start.column, Err: err}
		if kind := (*v3.KindError)(nil); errors.As(err, &kind) {
			p.Path = kind.Field
			p.Line, p.Column = newLocator(at.text).find(at.path, kind.Field, start, false)
		}
		return Problems{p}
	}
	var all Problems
	where := newLocator(at.text)
	for _, field := range fields {
		p := &Problem{File: at.text.file, Path: field.Field, Err: field}
		p.Line, p.Column = where.find(at.path, field.Field, start, field.Unknown)
		all = append(all, p)
	}
	return Join(all)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
