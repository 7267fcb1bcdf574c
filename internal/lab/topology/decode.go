package topology

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decode fills out from in, the value of a JSON document whose numbers are
// json.Number. The path names the place for errors: nodes[1].rack. Every field
// of a struct is optional; one that is not known is an error.
func decode(path string, in any, out reflect.Value) error {
	if in == nil {
		return nil
	}
	if d, ok := out.Addr().Interface().(*time.Duration); ok {
		return decodeDuration(path, in, d)
	}
	if u, ok := out.Addr().Interface().(encoding.TextUnmarshaler); ok {
		s, ok := in.(string)
		if !ok || u.UnmarshalText([]byte(s)) != nil {
			return fmt.Errorf("%s: %s: must be %s", path, show(in), describe(out.Type()))
		}
		return nil
	}
	switch out.Kind() {
	case reflect.Struct:
		return decodeStruct(path, in, out)
	case reflect.Pointer:
		out.Set(reflect.New(out.Type().Elem()))
		return decode(path, in, out.Elem())
	case reflect.Slice:
		return decodeSlice(path, in, out)
	case reflect.Map:
		return decodeMap(path, in, out)
	default:
		return decodeScalar(path, in, out)
	}
}

func decodeStruct(path string, in any, out reflect.Value) error {
	m, ok := in.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: %s: must be a mapping with the fields %s", path, show(in), strings.Join(fields(out.Type()), ", "))
	}
	known := map[string]int{}
	for i, name := range fields(out.Type()) {
		known[name] = i
	}
	for _, key := range sortedKeys(m) {
		i, ok := known[key]
		if !ok {
			return fmt.Errorf("%s: no such field; allowed are %s", join(path, key), strings.Join(fields(out.Type()), ", "))
		}
		if err := decode(join(path, key), m[key], out.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// decodeSlice takes a single value of a list of strings as a list of one.
func decodeSlice(path string, in any, out reflect.Value) error {
	list, ok := in.([]any)
	if !ok {
		if _, isString := in.(string); !isString || out.Type().Elem().Kind() != reflect.String {
			return fmt.Errorf("%s: %s: must be a list", path, show(in))
		}
		list = []any{in}
	}
	out.Set(reflect.MakeSlice(out.Type(), len(list), len(list)))
	for i, v := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if v == nil {
			return fmt.Errorf("%s: empty: must be %s", at, describe(out.Type().Elem()))
		}
		if err := decode(at, v, out.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// decodeMap fills a map of anything, of mappings, or of text in which a number or
// a truth value stands for itself: AS: 64513.
func decodeMap(path string, in any, out reflect.Value) error {
	m, ok := in.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: %s: must be a mapping", path, show(in))
	}
	if out.Type().Elem().Kind() == reflect.Interface {
		out.Set(reflect.ValueOf(plain(m)))
		return nil
	}
	out.Set(reflect.MakeMap(out.Type()))
	for _, key := range sortedKeys(m) {
		value := m[key]
		if out.Type().Elem().Kind() == reflect.String {
			switch value.(type) {
			case json.Number, bool:
				value = fmt.Sprint(value)
			}
		}
		v := reflect.New(out.Type().Elem()).Elem()
		if err := decode(join(path, key), value, v); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(key), v)
	}
	return nil
}

func decodeScalar(path string, in any, out reflect.Value) error {
	switch v := in.(type) {
	case string:
		if out.Kind() == reflect.String {
			out.SetString(v)
			return nil
		}
	case bool:
		if out.Kind() == reflect.Bool {
			out.SetBool(v)
			return nil
		}
	case json.Number:
		if out.CanFloat() {
			if n, err := v.Float64(); err == nil {
				out.SetFloat(n)
				return nil
			}
		}
		if out.CanUint() {
			if n, err := strconv.ParseUint(v.String(), 10, out.Type().Bits()); err == nil {
				out.SetUint(n)
				return nil
			}
		}
	}
	return fmt.Errorf("%s: %s: must be %s", path, show(in), describe(out.Type()))
}

func decodeDuration(path string, in any, out *time.Duration) error {
	s, ok := in.(string)
	d, err := time.ParseDuration(s)
	if !ok || err != nil || d <= 0 {
		return fmt.Errorf("%s: %s: must be a duration greater than 0, such as 5s", path, show(in))
	}
	*out = d
	return nil
}

// plain turns the numbers of a document into what encoding/json would give, so
// that it may be printed as JSON again.
func plain(m map[string]any) map[string]any {
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // it came from JSON
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(err)
	}
	return out
}

// fields lists the names of a struct's fields in the file, in their order.
func fields(t reflect.Type) []string {
	out := make([]string, t.NumField())
	for i := range out {
		out[i] = t.Field(i).Tag.Get("yaml")
	}
	return out
}

// describe says in words what a value of type t looks like.
func describe(t reflect.Type) string {
	switch t.String() {
	case "netip.Addr":
		return "an IP address"
	case "netip.Prefix":
		return "a CIDR, such as 10.1.0.0/24"
	case "string":
		return "text"
	case "bool":
		return "true or false"
	case "float64":
		return "a number"
	case "uint16":
		return "a number from 0 to 65535"
	case "uint32":
		return "a number from 0 to 4294967295"
	default:
		return "a mapping"
	}
}

// show prints the value that is wrong, in short.
func show(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	const most = 60
	if s := []rune(string(raw)); len(s) > most {
		return string(s[:most]) + "…"
	}
	return string(raw)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
