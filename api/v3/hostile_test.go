package v3

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// hostile fills v with what no schema has looked at: missing pointers, empty and long
// texts, and numbers out of range; some of it is right, so that checks go deep. budget
// is how many values it may still make.
func hostile(r *rand.Rand, v reflect.Value, budget *int) {
	if *budget--; *budget < 0 || r.IntN(5) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		hostile(r, v.Elem(), budget)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				hostile(r, v.Field(i), budget)
			}
		}
	case reflect.Slice:
		n := []int{0, 1, 1, 2, 2, 3, 30, 300}[r.IntN(8)]
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			hostile(r, v.Index(i), budget)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			hostile(r, key, budget)
			hostile(r, elem, budget)
			v.SetMapIndex(key, elem)
		}
	case reflect.String:
		texts := []string{
			"a", "10.0.0.0/8", "fd00::/8", "10.0.0.1", "all()", "global()", "has(a)", "TCP", "ICMP", "Allow", "Deny", "Ingress", "Egress", "Set", "Delete",
			"Admin", "IPv4", "In", "*", "a.b", "node-a", "\x00", "é", strings.Repeat("(", 2000), strings.Repeat("9", 300), "-", "/", "1/day", "90s",
		}
		v.SetString(texts[r.IntN(len(texts))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{0, 1, -1, 4, 6, 58, 80, 255, 65536, 1 << 30}[r.IntN(10)])
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint([]uint64{1, 6, 17, 58, 80, 255}[r.IntN(6)])
	case reflect.Float64:
		v.SetFloat(float64(r.IntN(2000)))
	}
}

// No object panics, whatever is in it, and what is valid has a stored form that reads
// back the same.
func FuzzHostileObjects(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		for _, k := range Kinds() {
			o, _ := New(k.Name)
			budget, budgetBefore := 600, 200
			hostile(r, reflect.ValueOf(o).Elem(), &budget)
			ClearSystemFields(o)
			Default(o)
			wrong := Validate(o)
			_ = CheckWritable(o)
			_ = CheckTier(o, func(string) bool { return false })
			before, _ := New(k.Name)
			hostile(r, reflect.ValueOf(before).Elem(), &budgetBefore)
			_ = ValidateUpdate(before, o)
			if len(strings.Split(errText(wrong), "\n")) > maxErrors+1 {
				t.Errorf("%s: %.999v", k.Name, wrong)
			}
			text, err := Encode(o)
			if err != nil {
				continue // times beyond year 9999 and the like
			}
			back, err := DecodeStored(text)
			if err != nil {
				if wrong == nil {
					t.Fatalf("valid, but stored as %.999s: %v", text, err)
				}
				continue
			}
			Default(back)
			if again, err := Encode(back); wrong == nil && (err != nil || string(again) != string(text)) {
				t.Errorf("stored as %.999s, then as %.999s (%v)", text, again, err)
			}
			if !json.Valid(text) {
				t.Errorf("stored as %s", text)
			}
		}
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
