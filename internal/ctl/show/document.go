package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
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

// json prints a document in the order of Go's fields. calicoctl does not end the line.
func (f Format) json(w io.Writer, results []List) error {
	if len(results) == 0 && !f.Calico {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(f.Calico)
	if err := e.Encode(root(results)); err != nil {
		return err
	}
	text := b.Bytes()
	if f.Calico {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	_, err := w.Write(text)
	return err
}

// yaml prints a document with its fields in the order of their names.
func (f Format) yaml(w io.Writer, results []List) error {
	if len(results) == 0 && !f.Calico {
		return nil
	}
	text, err := yaml.Marshal(root(results))
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
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
