// Package show prints objects: as tables, as documents, by templates.
//
//	-o                       what
//	ps, table, ""            a table of the most important columns
//	wide                     a table of all columns
//	custom-columns=A,B       a table of these columns; custom-columns-file=FILE
//	yaml, json               documents that apply takes back
//	name                     ippool.projectcalico.org/pool-a, one a line
//	go-template=TEXT         text/template over the Go values; go-template-file=FILE
//	jsonpath=TEXT            kubectl's JSONPath over the documents; jsonpath-file=FILE
//
// It has two voices, as the command line has. In Calico's ([Options.Calico]) a table
// is, blank by blank, what calicoctl prints, because scripts cut it at columns; each
// result has a table of its own. In weft's, columns are as wide as they must be, lines
// have no blanks at their end, results of one kind share a table, and where a terminal
// reads it the table fits its width: lists are shortened to "a,b +3 more", then text is
// cut with "…", the name of an object last of all. What is no terminal gets all of it.
//
// Nothing is read or decided here: what to print and in which order is the caller's
// business, but for files that the format itself names.
//
// Invariant: what yaml and json print is the object and nothing but the object.
package show

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"text/template"

	"k8s.io/client-go/util/jsonpath"

	v3 "github.com/weft-net/weft/api/v3"
)

// Options are how to print, whatever the format.
type Options struct {
	Calico bool // as calicoctl does, to the blank
	Width  int  // columns of the terminal that reads it; 0: none does, nothing is cut
}

// List is one result: objects of one kind, or (Single) one object by itself.
type List struct {
	Kind            v3.Kind
	Objects         []v3.Object
	ResourceVersion string // of the list, as the datastore counts; not used for a Single
	Single          bool   // one object that was asked for by name
	Namespaces      bool   // tables begin with a column NAMESPACE
	// ASNumber is the cluster's: that of nodes without their own. 0: 64512.
	ASNumber v3.ASNumber
}

// Format is how objects are printed. It is made by [ParseFormat]; it is safe for
// concurrent use but for jsonpath.
type Format struct {
	Options
	form     form
	headings []string // custom columns, in upper case but in Calico's voice
	template *template.Template
	path     *jsonpath.JSONPath
}

// form is what a Format is in the main.
type form uint8

const (
	formTable form = iota
	formWide
	formColumns
	formYAML
	formJSON
	formName
	formTemplate
	formPath
)

// formOf is the format that a word alone stands for.
func formOf(word string) (form, bool) {
	switch word {
	case "", "ps", "table":
		return formTable, true
	case "wide":
		return formWide, true
	case "yaml":
		return formYAML, true
	case "json":
		return formJSON, true
	case "name":
		return formName, true
	}
	return 0, false
}

// formats is what may be asked for, in errors.
const formats = "table, wide, yaml, json, name, custom-columns=A,B, go-template=TEXT or jsonpath=TEXT (the last three also as …-file=FILE)"

// ParseFormat reads the value of -o. The error says what is wrong with it, or with the
// template in it, or why the file that it names can't be read.
func ParseFormat(text string, o Options) (Format, error) {
	f := Format{Options: o}
	if form, ok := formOf(text); ok {
		f.form = form
		return f, nil
	}
	name, arg, _ := strings.Cut(text, "=")
	if base, isFile := strings.CutSuffix(name, "-file"); isFile && arg != "" {
		data, err := os.ReadFile(arg)
		if err != nil {
			return f, fmt.Errorf("-o %s: %w", name, err)
		}
		name, arg = base, string(data)
	}
	var err error
	switch name {
	case "custom-columns":
		f.form = formColumns
		f.headings = strings.FieldsFunc(arg, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
		if len(f.headings) == 0 {
			err = fmt.Errorf("-o %s: names no column: must be such as custom-columns=NAME,CIDR", name)
		}
	case "go-template":
		f.form = formTemplate
		f.template, err = parseTemplate(arg)
	case "jsonpath":
		f.form = formPath
		f.path = jsonpath.New("get")
		if err = f.path.Parse(arg); err != nil {
			err = fmt.Errorf("-o %s: %w", name, err)
		}
	default:
		err = unknownFormat(text, o)
	}
	return f, err
}

func unknownFormat(text string, o Options) error {
	if o.Calico {
		return fmt.Errorf("unrecognized output format '%s'", text)
	}
	return fmt.Errorf("-o %s: must be %s", text, formats)
}

// IsTable reports whether f prints tables.
func (f Format) IsTable() bool { return f.form <= formColumns }

// IsName reports whether f prints names alone.
func (f Format) IsName() bool { return f.form == formName }

// IsDocument reports whether f prints YAML or JSON.
func (f Format) IsDocument() bool { return f.form == formYAML || f.form == formJSON }

// Check reports, before anything is read, whether objects of the kind can be printed
// so: a *HeadingError if the kind has not all of the custom columns.
func (f Format) Check(kind v3.Kind) error {
	_, err := f.columns(List{Kind: kind})
	return err
}

// Print prints results in order. In Calico's voice documents of no result are "null".
func (f Format) Print(w io.Writer, results ...List) error {
	switch f.form {
	case formTable, formWide, formColumns:
		return f.tables(w, results)
	case formYAML, formJSON:
		return f.documents(w, results)
	case formName:
		for _, l := range results {
			if err := names(w, l.Objects); err != nil {
				return err
			}
		}
		return nil
	case formTemplate:
		return f.template.Execute(w, values(results))
	default:
		return f.jsonPath(w, results)
	}
}

// Stream prints one list that arrives in pieces, as Print prints it whole. head has no
// objects; its ResourceVersion is read after the last piece. An error of the pieces
// ends it and is returned; nothing is printed then.
func (f Format) Stream(w io.Writer, head *List, pieces iter.Seq2[[]v3.Object, error]) error {
	var t *table
	if f.IsTable() {
		var err error
		if t, err = f.newTable(*head); err != nil {
			return err
		}
	}
	var known bytes.Buffer // names
	documents := f.newItems()
	var all []v3.Object
	for objects, err := range pieces {
		switch {
		case err != nil:
			return err
		case t != nil:
			t.add(objects)
		case f.IsName():
			_ = names(&known, objects) // a buffer takes all
		case f.IsDocument():
			if err := documents.add(objects); err != nil {
				return err
			}
		default:
			all = append(all, objects...)
		}
	}
	switch {
	case t != nil:
		return t.print(w)
	case f.IsName():
		_, err := known.WriteTo(w)
		return err
	case f.IsDocument():
		return documents.print(w, *head)
	}
	whole := *head
	whole.Objects = all
	return f.Print(w, whole)
}

// names prints kind and name of each object.
func names(w io.Writer, objects []v3.Object) error {
	for _, o := range objects {
		if _, err := fmt.Fprintln(w, Name(o)); err != nil {
			return err
		}
	}
	return nil
}

// Name is an object's kind and name as kubectl prints them, such as
// ippool.projectcalico.org/pool-a.
func Name(o v3.Object) string {
	t := v3.KindOf(o).TypeMeta()
	group, _, _ := strings.Cut(t.APIVersion, "/")
	return strings.ToLower(t.Kind) + "." + group + "/" + o.Meta().Name
}
