package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// What may be wrong, for errors.Is on a [Problem], on [Problems] and on what [Read] returns.
// What else may be found there: errors of the file system such as [fs.ErrNotExist], and, by
// errors.As, the [v3.KindError], [v3.DocumentError] and [v3.FieldError] themselves.
var (
	ErrEmpty        = errors.New("no objects")         // the file or directory holds none: an [EmptyError]
	ErrSyntax       = errors.New("syntax error")       // neither YAML nor JSON: a [SyntaxError]
	ErrDuplicate    = errors.New("field given twice")  // of one object: a [DuplicateError]
	ErrNoObject     = errors.New("not an object")      // text, a number or a list where an object must stand
	ErrUnknownKind  = errors.New("unknown kind")       // kind or apiVersion missing, unknown or unknown together
	ErrUnknownField = errors.New("unknown field")      // one that the kind does not have
	ErrInvalid      = errors.New("field is not valid") // of a known field: a value of another type, or against a rule
)

// Problem is one thing that is wrong with what the user wrote.
type Problem struct {
	File   string // as it was given or found; "-" is standard input
	Line   int    // from 1; 0 when the whole file is at fault
	Column int    // from 1, in characters; 0 when Line is
	Path   string // of the field at fault, such as "spec.cidr"; empty for the whole document
	Err    error  // what is wrong
}

// Error prints
//
//	pool.yaml:6:9: ippool p: spec.cidr: "10.0.0.0/40": must be a prefix
func (p *Problem) Error() string {
	text := p.Err.Error()
	if file := (*fs.PathError)(nil); errors.As(p.Err, &file) {
		text = file.Err.Error() // it names the file again
	}
	return p.Where() + ": " + strings.TrimPrefix(text, "decode: ")
}

// Where is the place only: file:line:column.
func (p *Problem) Where() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Is tells of which sort the problem is; see [ErrEmpty] and those with it.
func (p *Problem) Is(target error) bool {
	field := (*v3.FieldError)(nil)
	switch target {
	case ErrUnknownKind:
		return errors.As(p.Err, new(*v3.KindError))
	case ErrNoObject:
		return errors.As(p.Err, new(*v3.DocumentError))
	case ErrUnknownField:
		return errors.As(p.Err, &field) && field.Unknown
	case ErrInvalid:
		return errors.As(p.Err, &field) && !field.Unknown
	}
	return false
}

// Problems is all that is wrong, by file and position. None is no error: it is nil.
type Problems []*Problem

// Error prints one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// Join puts problems of several sources into the order in which they are told: by file, then
// by position. What is not of this package's making stays in place at the end.
func Join(all ...Problems) Problems {
	joined := slices.Concat(all...)
	slices.SortStableFunc(joined, func(a, b *Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column)
	})
	return joined
}

// ProblemsOf gives the problems in err, of [Read] or [Problems] as an error; none when err is
// nil or another one.
func ProblemsOf(err error) Problems {
	var ps Problems
	if errors.As(err, &ps) {
		return ps
	}
	return nil
}

// SyntaxError is text that is no YAML.
type SyntaxError struct {
	Reason string // what, with where in the text it began
	Err    error  // what the YAML package says of the same, which calicoctl prints: "yaml: line 2: …"
}

// Error says what is wrong; where is for the [Problem] to say.
func (e *SyntaxError) Error() string { return "not valid YAML: " + e.Reason }

// Unwrap gives the YAML package's error.
func (e *SyntaxError) Unwrap() error { return e.Err }

// Is makes it an [ErrSyntax].
func (e *SyntaxError) Is(target error) bool { return target == ErrSyntax }

// DuplicateError is a field that stands twice in one object.
type DuplicateError struct {
	Field string // its path
	Line  int    // where it stands first
	Err   error  // what the YAML package says of all such fields of the document; nil for JSON
}

// Error says where the first one is.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("%s: given twice: stands on line %d already", e.Field, e.Line)
}

// Unwrap gives the YAML package's error.
func (e *DuplicateError) Unwrap() error { return e.Err }

// Is makes it an [ErrDuplicate].
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// EmptyError is a file or a directory without an object in it.
type EmptyError struct {
	Path      string
	Directory bool
}

// Error says where nothing was found.
func (e *EmptyError) Error() string {
	if e.Directory {
		return e.Path + ": no objects in any .yaml, .yml or .json file of the directory"
	}
	return e.Path + ": no objects in the file"
}

// Is makes it an [ErrEmpty].
func (e *EmptyError) Is(target error) bool { return target == ErrEmpty }
