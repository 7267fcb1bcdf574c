package v3

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// Merge returns o in its stored form together with what stored holds and weft does
// not know: stored is the JSON that an earlier version of o was read from, perhaps
// written by a newer Calico. Known fields come first, in their order; unknown ones
// follow in the order of stored, byte for byte. They are kept within objects, maps
// and lists for as long as the object that has them is still there; an element of
// a list is the same as one of stored if their known fields are equal, or else if it
// has the same place in a list of the same length. A nil stored means [Encode].
func Merge(stored []byte, o Object) ([]byte, error) {
	wanted, err := Encode(o)
	if err != nil || stored == nil {
		return wanted, err
	}
	before, err := DecodeStored(stored)
	if err != nil {
		return nil, fmt.Errorf("merge: %s: %w", Describe(o), err)
	}
	known, err := Encode(before)
	if err != nil {
		return nil, err
	}
	if KindOf(before).Name != KindOf(o).Name {
		return nil, fmt.Errorf("merge: %s: stored value is a %s", Describe(o), KindOf(before).Name)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, stored); err != nil {
		return nil, fmt.Errorf("merge: %s: %w", Describe(o), err)
	}
	return merge(compact.Bytes(), known, wanted, reflect.TypeOf(o).Elem()), nil
}

// merge adds to wanted what stored has and t does not: known is stored without that.
// All three are compact JSON of values of type t. known is nil where stored has
// nothing that encodes to a value, such as a struct all of whose fields are unknown.
func merge(stored, known, wanted []byte, t reflect.Type) []byte {
	if bytes.Equal(stored, known) {
		return wanted
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch kind := t.Kind(); {
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return wanted
	case kind == reflect.Struct && stored[0] == '{':
		return mergeStruct(stored, known, wanted, t)
	case kind == reflect.Map && stored[0] == '{' && wanted[0] == '{':
		return mergeMap(stored, known, wanted, t.Elem())
	case kind == reflect.Slice && stored[0] == '[' && wanted[0] == '[':
		return mergeList(stored, known, wanted, t.Elem())
	}
	return wanted
}

func mergeStruct(stored, known, wanted []byte, t reflect.Type) []byte {
	if wanted != nil && wanted[0] != '{' {
		return wanted
	}
	fields := jsonFields(t)
	out, was := members(wanted), members(known)
	for _, m := range members(stored) {
		f, ok := findField(fields, m.name)
		if !ok {
			out = append(out, m)
			continue
		}
		i := out.index(f.name)
		switch {
		case i >= 0:
			out[i].value = merge(m.value, was.value(f.name), out[i].value, f.typ)
		case was.value(f.name) == nil && m.value[0] == '{':
			// Nothing known in it, before or now: it is there for the unknown alone.
			if rest := merge(m.value, nil, nil, f.typ); len(members(rest)) > 0 {
				out = append(out, member{m.name, rest})
			}
		}
	}
	return out.print()
}

func mergeMap(stored, known, wanted []byte, elem reflect.Type) []byte {
	out, was := members(wanted), members(known)
	for _, m := range members(stored) {
		if i := out.index(m.name); i >= 0 {
			out[i].value = merge(m.value, was.value(m.name), out[i].value, elem)
		}
	}
	return out.print()
}

func mergeList(stored, known, wanted []byte, elem reflect.Type) []byte {
	old, was, out := elements(stored), elements(known), elements(wanted)
	if len(old) != len(was) {
		return wanted
	}
	for i := range out {
		j := slices.IndexFunc(was, func(w json.RawMessage) bool { return bytes.Equal(w, out[i]) })
		if j < 0 && len(old) == len(out) {
			j = i
		}
		if j >= 0 {
			out[i] = merge(old[j], was[j], out[i], elem)
		}
	}
	return slices.Concat([]byte("["), bytes.Join(rawBytes(out), []byte(",")), []byte("]"))
}

func rawBytes(in []json.RawMessage) [][]byte {
	out := make([][]byte, len(in))
	for i := range in {
		out[i] = in[i]
	}
	return out
}

// member is a name and a value of a JSON object.
type member struct {
	name  string
	value []byte
}

// object is a JSON object in the order of its text.
type object []member

func (o object) index(name string) int {
	return slices.IndexFunc(o, func(m member) bool { return m.name == name })
}

// value returns nil for a name that is not there.
func (o object) value(name string) []byte {
	if i := o.index(name); i >= 0 {
		return o[i].value
	}
	return nil
}

func (o object) print() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(m.name) // a string always has a JSON form
		b.Write(name)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// members cuts a valid JSON object into its members; anything else has none.
func members(data []byte) object {
	d := json.NewDecoder(bytes.NewReader(data))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	var out object
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return out
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return out
		}
		out = append(out, member{name.(string), value})
	}
	return out
}

func elements(data []byte) []json.RawMessage {
	var out []json.RawMessage
	if json.Unmarshal(data, &out) != nil {
		return nil
	}
	return out
}
