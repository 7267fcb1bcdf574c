package crd

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"reflect"
	"regexp"
	"strings"
)

// Comments are the comments of types and fields of api/v3, by "Type" and
// "Type.Field", each on one line.
type Comments map[string]string

// docLink is the mark of a link in a comment of Go.
var docLink = regexp.MustCompile(`\[([A-Za-z.]+)\]`)

// ReadComments reads the comments in the Go files of dir, which is that of api/v3.
func ReadComments(dir fs.FS) (Comments, error) {
	names, err := fs.Glob(dir, "*.go")
	if err != nil {
		return nil, err
	}
	docs := Comments{}
	for _, name := range names {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("crd: comments: %w", err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("crd: comments: %w", err)
		}
		docs.addFile(file)
	}
	if docs["IPPool"] == "" {
		return nil, fmt.Errorf("crd: comments: %d files hold no type IPPool: must be those of api/v3", len(names))
	}
	return docs, nil
}

func (c Comments) addFile(file *ast.File) {
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			continue
		}
		for _, s := range decl.Specs {
			spec := s.(*ast.TypeSpec)
			if text := spec.Doc.Text() + decl.Doc.Text(); text != "" {
				c[spec.Name.Name] = text
			}
			if body, ok := spec.Type.(*ast.StructType); ok {
				c.addFields(spec.Name.Name, body)
			}
		}
	}
}

func (c Comments) addFields(owner string, body *ast.StructType) {
	for _, f := range body.Fields.List {
		for _, name := range f.Names {
			c[owner+"."+name.Name] = f.Doc.Text() + f.Comment.Text()
		}
	}
}

// field is the description of a field: its comment, or else that of its type. The
// names of Go become those of JSON, and links plain text.
func (c Comments) field(owner reflect.Type, goName, jsonName string) string {
	text, ok := strings.CutPrefix(c[owner.Name()+"."+goName], goName)
	if ok {
		text = jsonName + text
	}
	if f, _ := owner.FieldByName(goName); text == "" {
		t := f.Type
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		text = c[t.Name()]
	}
	return line(text)
}

// line is a comment on one line.
func line(text string) string {
	return docLink.ReplaceAllString(strings.Join(strings.Fields(text), " "), "$1")
}
