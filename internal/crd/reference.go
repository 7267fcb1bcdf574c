package crd

import (
	"reflect"

	v3 "github.com/weft-net/weft/api/v3"
)

// Described is a kind with the schema of its documents.
type Described struct {
	Kind   v3.Kind
	About  string // the comment of its type, on one line
	Schema Schema
}

// Reference describes all kinds whose documents are weft's to define, by name: those of which
// definitions are made, and those that Kubernetes keeps as its own objects. It is for reading;
// [Native] is for servers.
func Reference(docs Comments) []Described {
	b := builder{docs: docs, rules: rules()}
	var all []Described
	for _, k := range v3.Kinds() {
		if k.TypeMeta().APIVersion != v3.APIVersion {
			continue
		}
		o, _ := v3.New(k.Name) // the kind is of the table of kinds
		all = append(all, Described{Kind: k, About: line(docs[k.Name]), Schema: *b.schemaOf(reflect.TypeOf(o).Elem())})
	}
	return all
}
