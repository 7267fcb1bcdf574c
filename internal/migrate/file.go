package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/kv"
	"sigs.k8s.io/yaml"
)

// mark parts the parts of a file.
const mark = "===\n"

// entry is a key and a value of etcd's, in Calico's form.
type entry struct {
	Key   string
	Value json.RawMessage
	TTL   int64
}

// addressPart is the third part of a file. Calico's tool passes over what it does not know.
type addressPart struct {
	Affinities []entry           `json:"block_affinities,omitempty"`
	Blocks     []entry           `json:"blocks,omitempty"`
	Handles    []entry           `json:"handles,omitempty"`
	Config     *entry            `json:"config,omitempty"`
	Others     []json.RawMessage `json:"other_resources,omitempty"`
}

// Write writes d as a file. The same dump always gives the same bytes.
func (d Dump) Write(w io.Writer) error {
	var docs bytes.Buffer
	var rest addressPart
	for _, o := range d.Objects {
		var err error
		switch partOf(keyOf(o.Object)) {
		case resources:
			err = writeDocument(&docs, o.Raw())
		case others:
			rest.Others = append(rest.Others, o.Raw())
		case addressing:
			err = rest.add(o)
		}
		if err != nil {
			return fmt.Errorf("migrate: write: %s: %w", v3.Describe(o.Object), err)
		}
	}
	docs.WriteString(mark)
	if d.Cluster != nil {
		text, err := json.MarshalIndent(d.Cluster, "", "  ")
		if err != nil {
			return fmt.Errorf("migrate: write: %w", err)
		}
		docs.Write(text)
	} else {
		docs.WriteString("{}")
	}
	docs.WriteString("\n" + mark)
	text, err := json.MarshalIndent(rest, "", "  ")
	if err != nil {
		return fmt.Errorf("migrate: write: %w", err)
	}
	docs.Write(append(text, '\n'))
	_, err = w.Write(docs.Bytes())
	return err
}

// writeDocument adds a document and the line behind it.
func writeDocument(w *bytes.Buffer, raw []byte) error {
	text, err := yaml.JSONToYAML(raw)
	if err != nil {
		return err
	}
	w.Write(text)
	w.WriteString("---\n")
	return nil
}

// add puts what address management keeps where it stands.
func (p *addressPart) add(o store.Object) error {
	key, value, err := kv.EntryOf(o)
	if err != nil {
		return err
	}
	e := entry{Key: key, Value: value}
	switch o.Object.(type) {
	case *v3.IPAMConfig:
		p.Config = &e
	case *v3.IPAMHandle:
		p.Handles = append(p.Handles, e)
	case *v3.IPAMBlock:
		p.Blocks = append(p.Blocks, e)
	default:
		p.Affinities = append(p.Affinities, e)
	}
	return nil
}

// Parse reads a file that Write or Calico's own tool made. All that is wrong with it is in the
// error, one line each, with the number of the document.
func Parse(data []byte) (Dump, error) {
	parts := split(data)
	if len(parts) != 3 {
		return Dump{}, fmt.Errorf("is no file of an export: must be three parts with lines of === between them, has %d: was it cut off?", len(parts))
	}
	byKind := map[string][]store.Object{}
	var wrong []error
	put := func(o store.Object, err error, at string, number int) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s %d: %w", at, number, oneLine(err)))
			return
		}
		kind := v3.KindOf(o.Object).Name
		byKind[kind] = append(byKind[kind], o)
	}
	number := 0
	for doc := range bytes.SplitSeq(append([]byte("\n"), parts[0]...), []byte("\n---\n")) {
		items, err := documentItems(doc)
		if err != nil || len(items) > 0 {
			number++
		}
		if err != nil {
			put(store.Object{}, err, "document", number)
		}
		for _, item := range items {
			o, err := parseDocument(item)
			put(o, err, "document", number)
		}
	}
	var d Dump
	var err error
	if d.Cluster, err = parseCluster(parts[1]); err != nil {
		wrong = append(wrong, fmt.Errorf("ClusterInformation: %w", oneLine(err)))
	}
	var rest addressPart
	if err := json.Unmarshal(parts[2], &rest); err != nil {
		wrong = append(wrong, fmt.Errorf("third part: %w", oneLine(err)))
	}
	for i, raw := range rest.Others {
		o, err := parseDocument(raw)
		put(o, err, "other resource", i+1)
	}
	for i, e := range rest.entries() {
		o, err := kv.ParseEntry(e.Key, e.Value)
		put(o, err, "entry", i+1)
	}
	if len(wrong) > 0 {
		return Dump{}, errors.Join(wrong...)
	}
	return d, d.take(byKind)
}

// split cuts a file at its marks, which are lines of their own: text of users may hold them.
func split(data []byte) [][]byte {
	parts := make([][]byte, 1)
	for line := range bytes.Lines(data) {
		if string(bytes.TrimRight(line, "\r\n")) == strings.TrimSpace(mark) {
			parts = append(parts, nil)
			continue
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], line...)
	}
	return parts
}

// entries are those of address management.
func (p addressPart) entries() []entry {
	var all []entry
	if p.Config != nil {
		all = append(all, *p.Config)
	}
	all = append(all, p.Handles...)
	all = append(all, p.Blocks...)
	return append(all, p.Affinities...)
}

// take puts objects into the order in which they are made. One that is there twice is an error.
func (d *Dump) take(byKind map[string][]store.Object) error {
	seen := map[string]bool{}
	for _, p := range places() {
		for _, o := range byKind[string(p.kind)] {
			if k := keyOf(o.Object).String(); seen[k] {
				return fmt.Errorf("%s is in the file twice", k)
			} else {
				seen[k] = true
			}
			d.Objects = append(d.Objects, o)
		}
		delete(byKind, string(p.kind))
	}
	for kind := range byKind {
		return fmt.Errorf("kind %s does not belong into an export", kind)
	}
	return nil
}

// documentItems are the objects of a YAML document: of a list, such as Calico's tool writes,
// its items; none of an empty one.
func documentItems(doc []byte) ([]json.RawMessage, error) {
	if len(bytes.TrimSpace(doc)) == 0 {
		return nil, nil
	}
	text, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return nil, err
	}
	if string(text) == "null" {
		return nil, nil
	}
	var list struct {
		Kind, APIVersion string
		Items            []map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, errors.New("is no object")
	}
	kind, isList := strings.CutSuffix(list.Kind, "List")
	if !isList {
		return []json.RawMessage{text}, nil
	}
	var out []json.RawMessage
	for _, item := range list.Items {
		for field, value := range map[string]string{"kind": kind, "apiVersion": list.APIVersion} {
			if item[field] == nil {
				item[field], _ = json.Marshal(value) // text always has a JSON form
			}
		}
		raw, err := json.Marshal(item)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}

// parseDocument reads one object. Fields of a newer version stay in its stored form.
func parseDocument(raw []byte) (store.Object, error) {
	o, err := v3.DecodeStored(raw)
	if err != nil {
		return store.Object{}, err
	}
	if o.Meta().Name == "" {
		return store.Object{}, fmt.Errorf("%s: metadata.name is missing", v3.KindOf(o).Name)
	}
	stripped(o)
	*o.Type() = v3.KindOf(o).TypeMeta()
	whole, err := asDocument(raw)
	return store.Stored(o, whole), err
}

// parseCluster reads the second part; nil if it holds nothing.
func parseCluster(raw []byte) (*v3.ClusterInformation, error) {
	var head map[string]json.RawMessage
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	if len(head) == 0 {
		return nil, nil
	}
	o, err := v3.DecodeStored(raw)
	if err != nil {
		return nil, err
	}
	c, ok := o.(*v3.ClusterInformation)
	if !ok {
		return nil, fmt.Errorf("is a %s", v3.KindOf(o).Name)
	}
	return c, nil
}

// lineError prints an error as one line.
type lineError struct{ error }

func (e lineError) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e lineError) Unwrap() error { return e.error }

func oneLine(err error) error {
	if !strings.Contains(err.Error(), "\n") {
		return err
	}
	return lineError{err}
}
