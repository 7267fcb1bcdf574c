package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v3 "github.com/weft-net/weft/api/v3"
)

// kind is that of a name.
func kind(t testing.TB, name string) v3.Kind {
	t.Helper()
	k, ok := v3.KindByName(name)
	if !ok {
		t.Fatalf("no kind %s", name)
	}
	return k
}

// printed is a list in a format.
func printed(t *testing.T, output string, o Options, results ...List) string {
	t.Helper()
	f, err := ParseFormat(output, o)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := f.Print(&b, results...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func set(name string, nets ...string) v3.Object {
	o := &v3.GlobalNetworkSet{Spec: v3.NetworkSetSpec{Nets: nets}}
	v3.Default(o)
	o.Name = name
	return o
}

// TestFit shows one list on terminals of less and less width. No line may be wider, as long
// as the columns can be cut.
func TestFit(t *testing.T) {
	t.Parallel()
	l := List{Kind: kind(t, "globalnetworkset"), Objects: []v3.Object{
		set("a", "10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"),
		set("a-rather-long-name", "2001:db8:1234:5678::/64"),
		set("none"),
	}}
	for width, want := range map[int]string{
		0:   "NAME                 NETS\na                    10.0.0.0/16,10.1.0.0/16,10.2.0.0/16,10.3.0.0/16\na-rather-long-name   2001:db8:1234:5678::/64\nnone\n",
		100: "NAME                 NETS\na                    10.0.0.0/16,10.1.0.0/16,10.2.0.0/16,10.3.0.0/16\na-rather-long-name   2001:db8:1234:5678::/64\nnone\n",
		60:  "NAME                 NETS\na                    10.0.0.0/16,10.1.0.0/16 +2 more\na-rather-long-name   2001:db8:1234:5678::/64\nnone\n",
		42:  "NAME                 NETS\na                    10.0.0.0/16 +3 more\na-rather-long-name   2001:db8:1234:5678::…\nnone\n",
		30:  "NAME              NETS\na                 10.0.0.0/16…\na-rather-long-…   2001:db8:12…\nnone\n",
	} {
		got := printed(t, "wide", Options{Width: width}, l)
		if got != want {
			t.Errorf("width %d:\n%s\nwant\n%s", width, got, want)
		}
		for line := range strings.Lines(got) {
			if n := len([]rune(line)) - 1; width > 0 && n > width {
				t.Errorf("width %d: %d: %q", width, n, line)
			}
		}
	}
	if got := printed(t, "wide", Options{Width: 30, Calico: true}, l); !strings.Contains(got, "10.3.0.0/16") {
		t.Errorf("Calico's tables are cut for no terminal:\n%s", got)
	}
}

// TestTerminal wants nothing printed that steers a terminal.
func TestTerminal(t *testing.T) {
	t.Parallel()
	l := List{Kind: kind(t, "globalnetworkset"), Objects: []v3.Object{set("a\x1b[2Jb", "x\ty\nz", "ü")}}
	if got, want := printed(t, "wide", Options{}, l), "NAME     NETS\na\ufffd[2Jb   x\ufffdy\ufffdz,ü\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// objects are all kinds with every field of their own set, as far as a value can be made up.
func objects(t testing.TB) map[string][]v3.Object {
	t.Helper()
	all := map[string][]v3.Object{}
	for _, k := range v3.Kinds() {
		for _, full := range []bool{false, true} {
			o, _ := v3.New(k.Name)
			if full {
				fill(reflect.ValueOf(o).Elem().FieldByName("Spec"), 0)
			}
			o.Meta().Name = "n"
			if k.Namespaced {
				o.Meta().Namespace = "ns"
			}
			all[k.Name] = append(all[k.Name], o)
		}
	}
	return all
}

// fill sets what v holds.
func fill(v reflect.Value, depth int) {
	if depth > 6 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), depth+1)
		fill(v.Index(1), depth+1)
	case reflect.String:
		v.SetString("a <text> && it's: \"long\" " + strings.Repeat("word ", 30) + "\n\n  two lines")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(200.5)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// TestEveryKind prints every kind, full and empty, in every format, and wants of documents
// that they are the very text that the whole list makes, and hold the whole object.
func TestEveryKind(t *testing.T) {
	t.Parallel()
	for name, list := range objects(t) {
		l := List{Kind: kind(t, name), Objects: list, ResourceVersion: "12", Namespaces: true}
		for _, calico := range []bool{false, true} {
			for _, output := range []string{"ps", "wide", "name", "go-template={{range .}}{{len .Items}}{{end}}", "jsonpath={.items[*].metadata.name}"} {
				got := printed(t, output, Options{Calico: calico}, l)
				if !strings.Contains(got, "n") && !strings.Contains(got, "2") || !calico && strings.Contains(got, " \n") {
					t.Errorf("%s -o %s (Calico: %t): %q", name, output, calico, got)
				}
			}
		}
		whole, err := yaml.Marshal(l.value())
		if err != nil {
			t.Fatal(err)
		}
		if got := printed(t, "yaml", Options{}, l); got != string(whole) {
			t.Errorf("%s: YAML of the list:\n%s", name, cmp.Diff(string(whole), got))
		}
		if whole, err = json.MarshalIndent(l.value(), "", "  "); err != nil {
			t.Fatal(err)
		}
		if got := printed(t, "json", Options{Calico: true}, l); got != string(whole) {
			t.Errorf("%s: JSON of the list:\n%s", name, cmp.Diff(string(whole), got))
		}
	}
}

// TestStream wants of pieces what the whole gives, and nothing at all where one fails.
func TestStream(t *testing.T) {
	t.Parallel()
	head := List{Kind: kind(t, "globalnetworkset")}
	whole := head
	whole.Objects, whole.ResourceVersion = []v3.Object{set("a"), set("b"), set("c")}, "7"
	broken := errors.New("broken")
	for _, output := range []string{"", "wide", "name", "yaml", "json", "jsonpath={.items[*].metadata.name}"} {
		f, err := ParseFormat(output, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for fail, want := range map[error]string{nil: printed(t, output, Options{}, whole), broken: ""} {
			var b bytes.Buffer
			l := head
			err := f.Stream(&b, &l, func(yield func([]v3.Object, error) bool) {
				l.ResourceVersion = "7"
				_ = yield(whole.Objects[:1], nil) && yield(nil, nil) && yield(whole.Objects[1:], nil) && (fail == nil || yield(nil, fail))
			})
			if b.String() != want || !errors.Is(err, fail) {
				t.Errorf("-o %s: %q, %v; want %q, %v", output, b.String(), err, want, fail)
			}
		}
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	now := metav1.NewTime(time.Unix(1, 0))
	o := &v3.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Name: "n", Namespace: "ns", UID: "u", ResourceVersion: "1", Generation: 2, CreationTimestamp: now, DeletionTimestamp: &now,
		Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "1"}, Finalizers: []string{"f"},
		OwnerReferences: []metav1.OwnerReference{{Name: "o"}}, ManagedFields: []metav1.ManagedFieldsEntry{{}}, GenerateName: "g",
	}, Spec: v3.NetworkPolicySpec{Tier: "t"}}
	want := metav1.ObjectMeta{Name: "n", Labels: o.Labels, Annotations: o.Annotations}
	got := Export(o, false).(*v3.NetworkPolicy)
	if d := cmp.Diff(want, got.ObjectMeta); d != "" || got.Spec.Tier != "t" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if want.Namespace = "ns"; cmp.Diff(want, *Export(o, true).Meta()) != "" {
		t.Errorf("got %v", Export(o, true).Meta())
	}
	if o.UID != "u" {
		t.Error("the object itself has changed")
	}
}

func TestFormatFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := List{Kind: kind(t, "globalnetworkset"), Objects: []v3.Object{set("a", "10.0.0.0/8", "11.0.0.0/8")}}
	for format, tt := range map[string]struct{ text, want string }{
		"custom-columns-file": {"NETS,\nNAME\n", "NETS                    NAME\n10.0.0.0/8,11.0.0.0/8   a\n"},
		"go-template-file":    {"{{range .}}{{range .Items}}{{join .Spec.Nets \"+\"}} {{joinAndTruncate .Spec.Nets \",\" 12}}{{end}}{{end}}", "10.0.0.0/8+11.0.0.0/8 10.0.0.0/..."},
		"jsonpath-file":       {"{.items[0].spec.nets[1]}\n", "11.0.0.0/8\n"},
	} {
		path := filepath.Join(dir, format)
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := printed(t, format+"="+path, Options{}, l); got != tt.want {
			t.Errorf("-o %s: %q, want %q", format, got, tt.want)
		}
	}
}

// TestFormatRefused names what is wrong with an output format.
func TestFormatRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"xml": "-o xml: must be table, wide", "name=x": "-o name=x: must be", "yaml-file=x": "-o yaml-file: open x",
		"custom-columns": "names no column", "custom-columns=,": "names no column",
		"go-template={{x": "template: get:1", "jsonpath={.x": "unclosed action", "jsonpath-file=/nosuch": "/nosuch: no such file",
	} {
		if _, err := ParseFormat(text, Options{}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("-o %s: %v; want one line with %q", text, err, want)
		}
	}
	f, err := ParseFormat("custom-columns=NAME,foo", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var unknown *HeadingError
	if err := f.Check(kind(t, "networkset")); !errors.As(err, &unknown) || unknown.Heading != "foo" || !cmp.Equal(unknown.Valid, []string{"NAMESPACE", "NAME", "NETS"}) {
		t.Errorf("got %v", err)
	}
}

// TestFeed prints events one by one: what came first gives the widths.
func TestFeed(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]string{
		"":     "EVENT   NAME\nADDED   aa\nADDED   b\nMODIFIED   b\nDELETED    a-name\n",
		"name": "globalnetworkset.projectcalico.org/aa\nglobalnetworkset.projectcalico.org/b\nglobalnetworkset.projectcalico.org/b\nglobalnetworkset.projectcalico.org/a-name deleted\n",
		"yaml": "---\nAA---\nB---\nB",
	} {
		f, err := ParseFormat(output, Options{})
		if err != nil {
			t.Fatal(err)
		}
		feed, err := f.Feed(List{Kind: kind(t, "globalnetworkset")})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		for _, step := range []struct {
			event   Event
			objects []v3.Object
		}{{Added, []v3.Object{set("aa"), set("b")}}, {Modified, []v3.Object{set("b")}}, {Deleted, []v3.Object{set("a-name")}}} {
			if err := feed.Print(&b, step.event, step.objects...); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"aa", "b"} {
			text, err := yaml.Marshal(set(name))
			if err != nil {
				t.Fatal(err)
			}
			want = strings.ReplaceAll(want, strings.ToUpper(name)+"-", string(text)+"-")
			if strings.HasSuffix(want, strings.ToUpper(name)) && output == "yaml" {
				want = strings.TrimSuffix(want, strings.ToUpper(name)) + string(text)
			}
		}
		if b.String() != want {
			t.Errorf("-o %s:\n%s\nwant\n%s", output, &b, want)
		}
	}
}
