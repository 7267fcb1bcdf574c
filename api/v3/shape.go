package v3

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-net/weft/internal/spelling"
)

// shaper fits a parsed document to a Go type before encoding/json sees it, because
// encoding/json stops at the first mismatch and does not name its path.
type shaper struct {
	object string // for errors, as Describe prints it
	errs   []error
}

// full reports whether enough is known to be wrong.
func (s *shaper) full() bool { return len(s.errs) >= maxErrors }

func (s *shaper) fail(path string, value any, reason string) {
	if s.full() {
		return
	}
	s.errs = append(s.errs, &FieldError{Object: s.object, Field: path, Value: valueText(value), Reason: reason})
}

// unknown tells of a field that the kind does not have; near may be empty.
func (s *shaper) unknown(path, near string) {
	if s.full() {
		return
	}
	reason := "unknown field"
	if near != "" {
		reason += ": is " + near + " meant?"
	}
	s.errs = append(s.errs, &FieldError{Object: s.object, Field: path, Reason: reason, Unknown: true, Near: near})
}

// shape returns v with field names in the case of t and with text where t is text.
func (s *shaper) shape(v any, t reflect.Type, path string) any {
	if v == nil || s.full() {
		return nil
	}
	if t.Kind() == reflect.Pointer {
		return s.shape(v, t.Elem(), path)
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		s.try(v, t, path)
		return v
	}
	switch t.Kind() {
	case reflect.Struct:
		return s.shapeStruct(v, t, path)
	case reflect.Map:
		return s.shapeMap(v, t, path)
	case reflect.Slice:
		return s.shapeList(v, t, path)
	case reflect.String:
		return s.shapeText(v, path)
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			s.fail(path, v, "must be true or false")
		}
	default:
		s.checkNumber(v, t, path)
	}
	return v
}

func (s *shaper) shapeStruct(v any, t reflect.Type, path string) any {
	in, ok := v.(map[string]any)
	if !ok {
		s.fail(path, v, "must be an object with fields")
		return v
	}
	fields := jsonFields(t)
	out := make(map[string]any, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		f, ok := findField(fields, key)
		switch {
		case !ok:
			s.unknown(join(path, key), nearest(fields, key))
		case has(out, f.name):
			s.fail(join(path, key), nil, "given twice, in different case: must stand once as "+f.name)
		default:
			out[f.name] = s.shape(in[key], f.typ, join(path, f.name))
		}
	}
	return out
}

func (s *shaper) shapeMap(v any, t reflect.Type, path string) any {
	in, ok := v.(map[string]any)
	if !ok {
		s.fail(path, v, "must be an object with fields")
		return v
	}
	out := make(map[string]any, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		out[key] = s.shape(in[key], t.Elem(), join(path, key))
	}
	return out
}

func (s *shaper) shapeList(v any, t reflect.Type, path string) any {
	in, ok := v.([]any)
	if !ok {
		s.fail(path, v, "must be a list")
		return v
	}
	out := make([]any, len(in))
	for i := range in {
		out[i] = s.shape(in[i], t.Elem(), fmt.Sprintf("%s[%d]", path, i))
	}
	return out
}

// shapeText takes a number or a boolean as text, since YAML reads the label value 1
// as a number and yes as a boolean.
func (s *shaper) shapeText(v any, path string) any {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	s.fail(path, v, "must be text")
	return v
}

func (s *shaper) checkNumber(v any, t reflect.Type, path string) {
	n, ok := v.(json.Number)
	var err error
	reason := "must be a number"
	switch bits := t.Bits(); t.Kind() {
	case reflect.Int, reflect.Int32, reflect.Int64:
		_, err = strconv.ParseInt(n.String(), 10, bits)
		reason = fmt.Sprintf("must be an integer of %d bits", bits)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		_, err = strconv.ParseUint(n.String(), 10, bits)
		reason = fmt.Sprintf("must be an integer 0 to %d", ^uint64(0)>>(64-bits))
	}
	if !ok || err != nil {
		s.fail(path, v, reason)
	}
}

// try reads v by the type's own method, for the error.
func (s *shaper) try(v any, t reflect.Type, path string) {
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		text, ok := v.(string)
		if _, err := time.ParseDuration(text); !ok || err != nil {
			s.fail(path, v, `must be a duration with a unit, such as "90s" or "1h30m"`)
		}
		return
	case reflect.TypeFor[metav1.Time]():
		text, ok := v.(string)
		if _, err := time.Parse(time.RFC3339, text); !ok || err != nil {
			s.fail(path, v, `must be a time such as "2026-01-31T12:00:00Z"`)
		}
		return
	}
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, reflect.New(t).Interface())
	}
	if err != nil {
		s.fail(path, nil, err.Error())
	}
}

// jsonField is a field as encoding/json sees it.
type jsonField struct {
	name string
	typ  reflect.Type
}

// jsonFields lists the fields of a struct, those of embedded structs included.
func jsonFields(t reflect.Type) []jsonField {
	var fields []jsonField
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			fields = append(fields, jsonFields(f.Type)...)
		case name == "":
			fields = append(fields, jsonField{f.Name, f.Type})
		default:
			fields = append(fields, jsonField{name, f.Type})
		}
	}
	return fields
}

// findField finds a field by name, the exact one first, as encoding/json does.
func findField(fields []jsonField, name string) (jsonField, bool) {
	i := slices.IndexFunc(fields, func(f jsonField) bool { return f.name == name })
	if i < 0 {
		i = slices.IndexFunc(fields, func(f jsonField) bool { return strings.EqualFold(f.name, name) })
	}
	if i < 0 {
		return jsonField{}, false
	}
	return fields[i], true
}

// nearest is the name of the field that was probably meant; empty when none is near.
func nearest(fields []jsonField, name string) string {
	const longest = 64 // bytes; no field has a longer name
	best, bestDistance := "", 3
	if len(name) > longest {
		return ""
	}
	for _, f := range fields {
		if d := spelling.Edits(f.name, name); d < bestDistance && d < len(name) {
			best, bestDistance = f.name, d
		}
	}
	return best
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func has(m map[string]any, key string) bool {
	_, ok := m[key]
	return ok
}

// describe says what kind of value a parsed document holds.
func describe(v any) string {
	switch v.(type) {
	case nil:
		return "empty"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return "text"
	case bool:
		return "a boolean"
	default:
		return "a number"
	}
}

// valueText prints a value for an error, short.
func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case map[string]any, []any:
		return describe(v)
	case string:
		const most = 100 // bytes; an error is one line
		if len(v) > most {
			return fmt.Sprintf("%q… (%d bytes)", v[:most/2], len(v))
		}
		return strconv.Quote(v)
	default:
		return fmt.Sprint(v)
	}
}
