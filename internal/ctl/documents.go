package ctl

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/manifest"
)

// documentFlags are the flags of the commands that read documents.
type documentFlags struct {
	paths     []string
	recursive bool
	skipEmpty bool
	namespace string
}

// add adds the flags to a command that does verb to what it reads.
func (f *documentFlags) add(cmd *cobra.Command, verb string) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.paths, "filename", "f", nil, "file or directory with what to "+verb+"; - is the standard input (repeatable)")
	flags.BoolVarP(&f.recursive, "recursive", "R", false, "take directories within the directory too")
	flags.BoolVar(&f.skipEmpty, "skip-empty", false, "pass over files without a document")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of what names none")
}

// read reads all documents that f names. Good ones are returned beside the problems of others,
// which are a manifest.Problems.
func (f *documentFlags) read(c *client) ([]manifest.Document, error) {
	var all []manifest.Document
	var problems manifest.Problems
	for _, path := range f.paths {
		docs, err := manifest.Read(manifest.Options{
			Recursive: f.recursive, SkipEmpty: f.skipEmpty, Namespace: f.namespace, Stdin: c.Stdin, Calico: c.calico,
		}, path)
		all = append(all, docs...)
		var found manifest.Problems
		switch {
		case errors.As(err, &found):
			problems = append(problems, found...)
		case err != nil:
			return all, err
		}
	}
	if len(problems) > 0 {
		return all, problems
	}
	return all, nil
}

// objects are the objects of documents.
func objects(docs []manifest.Document) []v3.Object {
	out := make([]v3.Object, len(docs))
	for i := range docs {
		out[i] = docs[i].Object
	}
	return out
}

// need refuses a call without -f.
func (f *documentFlags) need(cmd *cobra.Command) error {
	if len(f.paths) == 0 {
		return &UsageError{fmt.Errorf("-f is missing: give a file, a directory or - for the standard input: see '%s --help'", cmd.CommandPath())}
	}
	return nil
}

// calicoReadError is the error of reading documents in calicoctl's words.
func calicoReadError(err error) error {
	var problems manifest.Problems
	if errors.As(err, &problems) && len(problems) > 0 {
		err = problems[0]
	}
	var (
		empty  *manifest.EmptyError
		syntax *manifest.SyntaxError
		twice  *manifest.DuplicateError
		kind   *v3.KindError
		shape  *v3.DocumentError
		path   *fs.PathError
		field  *v3.FieldError
	)
	text := ""
	switch {
	case errors.As(err, &empty) && empty.Directory:
		return fmt.Errorf("no resources specified in directory %s", empty.Path)
	case errors.As(err, &empty):
		return fmt.Errorf("no resources specified in file %s", empty.Path)
	case errors.As(err, &field) && field.Unknown:
		name := field.Field[strings.LastIndexByte(field.Field, '.')+1:]
		return fmt.Errorf("field in document is not recognized or is in the wrong location: %s", name)
	case errors.As(err, &syntax):
		text = "error converting YAML to JSON: " + syntax.Err.Error()
	case errors.As(err, &twice) && twice.Err != nil:
		text = "error converting YAML to JSON: " + twice.Err.Error()
	case errors.As(err, &kind):
		text = fmt.Sprintf("unknown resource type (%s) and/or version (%s)", kind.Kind, kind.APIVersion)
	case errors.As(err, &shape):
		text = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal " + jsonWord(shape.Is) + " into Go value of type []unstructured.Unstructured"
	case errors.As(err, &field):
		text = fmt.Sprintf("error unmarshaling JSON: %s: %s", field.Field, field.Reason)
	case errors.As(err, &path):
		text = path.Error()
	default:
		text = err.Error()
	}
	return fmt.Errorf("failed to execute command: %s", text)
}

// jsonWord is what encoding/json calls a value.
func jsonWord(is string) string {
	switch is {
	case "text":
		return "string"
	case "a list":
		return "array"
	case "a boolean":
		return "bool"
	}
	return strings.TrimPrefix(is, "a ")
}
