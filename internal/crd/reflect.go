package crd

import (
	"encoding/json"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
)

// builder makes schemas of Go types.
type builder struct {
	docs  Comments
	rules map[reflect.Type]func(*Schema) // what the type alone does not say
}

// schemaOf is the schema of values of type t, rules included.
func (b builder) schemaOf(t reflect.Type) *Schema {
	if t.Kind() == reflect.Pointer {
		return b.schemaOf(t.Elem())
	}
	s := scalar(t)
	if s == nil {
		s = b.composite(t)
	}
	if rule := b.rules[t]; rule != nil {
		rule(s)
	}
	return s
}

// scalar is the schema of types that are one value in JSON; nil for all others.
func scalar(t reflect.Type) *Schema {
	switch t {
	case reflect.TypeFor[metav1.ObjectMeta](): // the server has its own; more can be said of names only
		return &Schema{Type: "object", Properties: map[string]*Schema{"name": {Type: "string"}}}
	case reflect.TypeFor[metav1.Duration]():
		return &Schema{Type: "string"}
	case reflect.TypeFor[metav1.Time]():
		return &Schema{Type: "string", Format: "date-time", Nullable: true}
	case reflect.TypeFor[v3.Port](), reflect.TypeFor[v3.Protocol](), reflect.TypeFor[v3.DSCP](), reflect.TypeFor[v3.ASNumber]():
		return &Schema{IntOrString: true}
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		panic("crd: " + t.String() + " has a JSON form of its own, which needs a schema here")
	}
	switch t.Kind() {
	case reflect.String:
		return &Schema{Type: "string"}
	case reflect.Bool:
		return &Schema{Type: "boolean"}
	case reflect.Float64:
		return &Schema{Type: "number"}
	case reflect.Int, reflect.Int64:
		return &Schema{Type: "integer", Format: "int64"}
	case reflect.Int32:
		return &Schema{Type: "integer", Format: "int32"}
	case reflect.Uint64: // sequence numbers, far below the end, which the server could not read
		return &Schema{Type: "integer", Format: "int64", Minimum: new(int64)}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		s := &Schema{Type: "integer", Format: "int64"}
		s.between(0, 1<<t.Bits()-1)
		return s
	}
	return nil
}

func (b builder) composite(t reflect.Type) *Schema {
	switch t.Kind() {
	case reflect.Slice:
		items := b.schemaOf(t.Elem())
		items.Nullable = items.Nullable || t.Elem().Kind() == reflect.Pointer
		return &Schema{Type: "array", Items: items, ListType: "atomic"}
	case reflect.Map:
		return &Schema{Type: "object", AdditionalProperties: b.schemaOf(t.Elem())}
	case reflect.Struct:
		s := &Schema{Type: "object", Properties: map[string]*Schema{}}
		b.addFields(s, t)
		return s
	}
	panic("crd: no schema for " + t.String())
}

// addFields adds the fields of a struct, those of embedded ones included.
func (b builder) addFields(s *Schema, t reflect.Type) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			b.addFields(s, f.Type)
			continue
		}
		p := b.schemaOf(f.Type)
		if f.Type != reflect.TypeFor[metav1.ObjectMeta]() {
			p.Description = b.docs.field(t, f.Name, name)
		}
		// What is written even when it is nil is null then.
		nils := f.Type.Kind() == reflect.Slice || f.Type.Kind() == reflect.Map
		p.Nullable = p.Nullable || nils && !strings.Contains(options, "omit")
		s.Properties[name] = p
	}
}
