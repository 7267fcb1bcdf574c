package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"text/template"

	v3 "github.com/weft-net/weft/api/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// document is a list as it is printed, and as templates see it: fields in Calico's order.
type document struct {
	metav1.TypeMeta
	Metadata metadata    `json:"metadata"`
	Items    []v3.Object `json:"items"`
}

// metadata is that of a list.
type metadata struct {
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

// value is what a result is to documents and templates: the object, or the list.
func (l List) value() any {
	if l.Single && len(l.Objects) == 1 {
		return l.Objects[0]
	}
	t := l.Kind.TypeMeta()
	t.Kind += "List"
	items := l.Objects
	if items == nil {
		items = []v3.Object{}
	}
	return document{t, metadata{l.ResourceVersion}, items}
}

func values(results []List) []any {
	all := make([]any, len(results))
	for i, l := range results {
		all[i] = l.value()
	}
	return all
}

// root is what a document holds: the one result, or a sequence of several. Of none it
// is nil, which is printed in Calico's voice only.
func root(results []List) any {
	switch all := values(results); len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	default:
		return all
	}
}

// documents prints results as YAML, with fields in the order of their names, or as JSON, in
// that of Go's fields.
func (f Format) documents(w io.Writer, results []List) error {
	switch {
	case len(results) == 0 && !f.Calico:
		return nil
	case len(results) == 1 && !results[0].Single:
		d := f.newItems()
		if err := d.add(results[0].Objects); err != nil {
			return err
		}
		return d.print(w, results[0])
	}
	text, err := f.encode(root(results))
	if err != nil {
		return err
	}
	_, err = w.Write(f.ended(text))
	return err
}

// encode is v in YAML or JSON.
func (f Format) encode(v any) ([]byte, error) {
	if f.form == formYAML {
		return yaml.Marshal(v)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(f.Calico)
	err := e.Encode(v)
	return b.Bytes(), err
}

// ended is the text of a document as it ends: calicoctl does not end the line of JSON.
func (f Format) ended(text []byte) []byte {
	if f.Calico && f.form == formJSON {
		return bytes.TrimSuffix(text, []byte("\n"))
	}
	return text
}

// items is the text of the objects of a list, without that of the list around them: of a
// long list that is a tenth of what the objects take.
type items struct {
	Format
	text bytes.Buffer
}

func (f Format) newItems() *items { return &items{Format: f} }

// add encodes objects, on all processors.
func (d *items) add(objects []v3.Object) error {
	parts := min(runtime.GOMAXPROCS(0), len(objects))
	if parts == 0 {
		return nil
	}
	texts, errs := make([]bytes.Buffer, parts), make([]error, parts)
	var all sync.WaitGroup
	for i := range parts {
		part := objects[i*len(objects)/parts : (i+1)*len(objects)/parts]
		all.Go(func() {
			for _, o := range part {
				errs[i] = errors.Join(errs[i], d.item(&texts[i], o))
			}
		})
	}
	all.Wait()
	for i := range texts {
		d.text.Write(texts[i].Bytes())
	}
	return errors.Join(errs...)
}

// item writes one object as it stands in a list; of JSON the comma before it too.
func (d *items) item(b *bytes.Buffer, o v3.Object) error {
	if d.form == formYAML { // as a sequence of one: long lines are folded by where they begin
		text, err := d.encode([]v3.Object{o})
		b.Write(text)
		return err
	}
	text, err := d.encode(o)
	if err != nil {
		return err
	}
	b.WriteString(",\n    ")
	return json.Indent(b, bytes.TrimSuffix(text, []byte("\n")), "    ", "  ")
}

// print writes the list: what an empty one is, and the items in their place.
func (d *items) print(w io.Writer, head List) error {
	head.Objects = nil
	text, err := d.encode(head.value())
	if err != nil {
		return err
	}
	if d.text.Len() == 0 {
		_, err = w.Write(d.ended(text))
		return err
	}
	before, after, _ := bytes.Cut(text, []byte("[]")) // no other field is a list
	list, closing := d.text.Bytes(), ""
	if d.form == formJSON {
		list, closing, before = list[1:], "\n  ]", append(before, '[')
	} else {
		before, after = append(bytes.TrimSuffix(before, []byte(" ")), '\n'), bytes.TrimPrefix(after, []byte("\n"))
	}
	for _, part := range [][]byte{before, list, []byte(closing), d.ended(after)} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// jsonPath prints what the path finds in the document, as kubectl does: nothing ends
// the line but the path itself.
func (f Format) jsonPath(w io.Writer, results []List) error {
	if len(results) == 0 {
		return nil
	}
	text, err := json.Marshal(root(results))
	if err != nil {
		return err
	}
	var tree any
	if err := utiljson.Unmarshal(text, &tree); err != nil { // integers stay integers
		return err
	}
	if err := f.path.Execute(w, tree); err != nil {
		return fmt.Errorf("-o jsonpath: %w", err)
	}
	return nil
}

// parseTemplate reads a template over a slice of results: each is an object, or a list
// with its objects in .Items. join and joinAndTruncate put the items of a list together.
func parseTemplate(text string) (*template.Template, error) {
	return template.New("get").Funcs(template.FuncMap{
		"join":            joined,
		"joinAndTruncate": func(items any, sep string, most int) (string, error) { return truncated(items, sep, most) },
	}).Parse(text)
}

// joined puts the items of a slice of any kind together.
func joined(items any, sep string) (string, error) {
	v := reflect.ValueOf(items)
	if v.Kind() != reflect.Slice {
		return "", fmt.Errorf("join: %T: must be a list", items)
	}
	texts := make([]string, v.Len())
	for i := range texts {
		texts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(texts, sep), nil
}

func truncated(items any, sep string, most int) (string, error) {
	text, err := joined(items, sep)
	if err == nil && len(text) > most && most >= len("...") {
		text = text[:most-len("...")] + "..."
	}
	return text, err
}

// Export returns o without what belongs to the cluster that it is in and would be in
// the way in another: its identity, revision, times, owners and finalizers. The
// namespace is one of these things, but for lists, that may be of several: keep it.
func Export(o v3.Object, keepNamespace bool) v3.Object {
	v := reflect.New(reflect.TypeOf(o).Elem())
	v.Elem().Set(reflect.ValueOf(o).Elem())
	c := v.Interface().(v3.Object)
	m := o.Meta()
	*c.Meta() = metav1.ObjectMeta{Name: m.Name, Labels: m.Labels, Annotations: m.Annotations}
	if keepNamespace {
		c.Meta().Namespace = m.Namespace
	}
	return c
}
