package v3

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

type validationCase struct {
	ID, Kind, About string
	Before          []string
	Input           string
	Verdict, Stage  string
	Fields          []string
	Error           string
}

// judge does what an apply does, short of storing; before is stored already.
func judge(input string, before []string) error {
	objects, err := DecodeAll([]byte(input))
	if err != nil {
		return err
	}
	var errs []error
	var stored []Object
	for _, tier := range BuiltinTiers() {
		stored = append(stored, tier)
	}
	for _, text := range before {
		if old, err := Decode([]byte(text)); err == nil {
			Default(old)
			stored = append(stored, old)
		}
	}
	for _, o := range objects {
		Default(o)
		errs = append(errs, Validate(o), CheckWritable(o), CheckTier(o, func(tier string) bool {
			return slices.ContainsFunc(stored, func(old Object) bool { return KindOf(old).Name == "Tier" && old.Meta().Name == tier })
		}))
		for _, old := range stored {
			if Describe(old) == Describe(o) {
				errs = append(errs, ValidateUpdate(old, o))
			}
		}
		stored = append(stored, o)
	}
	return errors.Join(errs...)
}

// Calico's verdict on the same documents, and the fields it complains about.
func TestCalicoAgreesOnValidity(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, c := range readLines[validationCase](t, "validation/cases.jsonl") {
		ran++
		err := judge(c.Input, c.Before)
		switch {
		case (err == nil) != (c.Verdict == "accept"):
			t.Errorf("%s (%s): error %v, want %s: %s", c.ID, c.About, err, c.Verdict, c.Error)
		case err == nil:
		case c.Stage == "fields" && !sameFields(FieldErrors(err), c.Fields):
			t.Errorf("%s (%s): error %v, want fields %v", c.ID, c.About, err, c.Fields)
		}
	}
	if ran < 357 {
		t.Errorf("%d cases ran, want all of our kinds", ran)
	}
}

// sameFields compares the last names of paths in any case. Calico's rules about a
// whole object name spec or the kind only; ours name the field at fault.
func sameFields(got []*FieldError, want []string) bool {
	has := func(name string) bool {
		return slices.ContainsFunc(got, func(e *FieldError) bool { return slices.Contains(names(e.Field), name) })
	}
	for _, field := range want {
		name := names(field)[len(names(field))-1]
		_, isKind := KindByName(strings.TrimSuffix(name, "spec"))
		switch { // some are names of Go types
		case name == "spec" || isKind:
			continue
		case name == "externalnodescidrlist":
			name = "externalnodeslist"
		case name == "port" || name == "portname":
			name = "ports"
		}
		if !has(name) {
			return false
		}
	}
	return len(got) > 0
}

// names cuts "spec.ports[0].name" and "Metadata.Labels (value)" into lower-case names.
func names(path string) []string {
	path, _, _ = strings.Cut(strings.ToLower(path), " ")
	parts := strings.Split(path, ".")
	for i, p := range parts {
		parts[i], _, _ = strings.Cut(p, "[")
	}
	return parts
}

func TestErrorsSayWhatWhereWhy(t *testing.T) {
	t.Parallel()
	const pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: "
	for input, want := range map[string]string{
		pool + "{cidr: 10.0.0.0/16, blockSize: 33}":        "ippool p: spec.blockSize: 33: must be 20 to 32 for IPv4",
		pool + "{cidr: fd00::/64, blockSize: 26}":          "ippool p: spec.blockSize: 26: must be 116 to 128 for IPv6",
		pool + "{cidr: 10.0.0.1/16}":                       `ippool p: spec.cidr: "10.0.0.1/16": must have no bits beyond the prefix length: 10.0.0.0/16 is meant`,
		pool + "{cidr: 10.0.0.0/16, blokSize: 26}":         "ippool p: spec.blokSize: unknown field: is blockSize meant?",
		pool + "{cidr: 10.0.0.0/16, blockSize: many}":      `ippool p: spec.blockSize: "many": must be an integer of 64 bits`,
		pool + "{cidr: 10.0.0.0/16, allowedUses: Any}":     `ippool p: spec.allowedUses: "Any": must be a list`,
		pool + "{cidr: 10.0.0.0/16, nodeSelector: 'a'}":    `ippool p: spec.nodeSelector: selector: "a": invalid selector: unexpected end, want an operator: ==, !=, in, not in, contains, starts with, ends with`,
		pool + "{cidr: 10.0.0.0/16, CIDR: 10.0.0.0/8}":     "ippool p: spec.cidr: given twice, in different case: must stand once as cidr",
		"apiVersion: projectcalico.org/v3\nkind: ippool\n": `decode: kind: "ippool" is unknown: must be IPPool`,
		"apiVersion: projectcalico.org/v1\nkind: IPPool\n": `decode: IPPool: apiVersion: "projectcalico.org/v1": must be projectcalico.org/v3`,
		"apiVersion: v1\nkind: List\nitems: []\n":          "decode: kind: List is not supported: separate the objects by lines of ---",
		"hello":                                 "decode: the document is text: must have apiVersion, kind, metadata and spec",
		"":                                      "decode: the document is empty: must have apiVersion, kind, metadata and spec",
		"a: 1\na: 2\n":                          `decode: not valid YAML or JSON: unmarshal errors: line 2: key "a" already set in map`,
		pool + "{cidr: 10.0.0.0/16}\n---\na: 1": "document 2: decode: kind: missing: must be a kind such as IPPool",
	} {
		if err := judge(input, nil); fmt.Sprint(err) != want {
			t.Errorf("%q:\n got %v\nwant %s", input, err, want)
		}
	}
}
