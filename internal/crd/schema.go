package crd

import "slices"

// Schema is a schema of OpenAPI v3 with the extensions of Kubernetes, as far as they
// are used here.
type Schema struct {
	Description          string             `json:"description,omitempty"`
	Type                 string             `json:"type,omitempty"`
	Format               string             `json:"format,omitempty"`
	Nullable             bool               `json:"nullable,omitempty"`
	Default              any                `json:"default,omitempty"`
	Enum                 []any              `json:"enum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	Minimum              *int64             `json:"minimum,omitempty"`
	Maximum              *int64             `json:"maximum,omitempty"`
	MinLength            int                `json:"minLength,omitempty"`
	MaxLength            *int               `json:"maxLength,omitempty"`
	MinItems             int                `json:"minItems,omitempty"`
	MaxItems             int                `json:"maxItems,omitempty"`
	MinProperties        int                `json:"minProperties,omitempty"`
	MaxProperties        int                `json:"maxProperties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	Properties           map[string]*Schema `json:"properties,omitempty"`
	AdditionalProperties *Schema            `json:"additionalProperties,omitempty"`
	Items                *Schema            `json:"items,omitempty"`
	AnyOf                []*Schema          `json:"anyOf,omitempty"`
	Not                  *Schema            `json:"not,omitempty"`

	IntOrString     bool     `json:"x-kubernetes-int-or-string,omitempty"`
	PreserveUnknown bool     `json:"x-kubernetes-preserve-unknown-fields,omitempty"`
	ListType        string   `json:"x-kubernetes-list-type,omitempty"`
	ListMapKeys     []string `json:"x-kubernetes-list-map-keys,omitempty"`
	MapType         string   `json:"x-kubernetes-map-type,omitempty"`
	Rules           []Rule   `json:"x-kubernetes-validations,omitempty"`
}

// Rule is an expression in CEL that must hold of the value.
type Rule struct {
	Rule      string `json:"rule"`
	Message   string `json:"message"`
	FieldPath string `json:"fieldPath,omitempty"`
}

// at finds the schema of a field by its path, "[]" being the elements of a list. It
// panics if there is none: paths are constants of this package.
func (s *Schema) at(path ...string) *Schema {
	for _, name := range path {
		next := s.Properties[name]
		if name == "[]" {
			next = s.Items
		}
		if next == nil {
			panic("crd: no field " + name)
		}
		s = next
	}
	return s
}

// require makes fields mandatory.
func (s *Schema) require(names ...string) {
	for _, name := range names {
		s.at(name)
	}
	s.Required = slices.Sorted(slices.Values(append(s.Required, names...)))
}

// rule adds an expression.
func (s *Schema) rule(cel, message string) {
	s.Rules = append(s.Rules, Rule{Rule: cel, Message: message})
}

// ruleAt adds an expression whose error is about the field at that path, such as
// ".spec.order".
func (s *Schema) ruleAt(field, cel, message string) {
	s.Rules = append(s.Rules, Rule{Rule: cel, Message: message, FieldPath: field})
}

// between bounds a number.
func (s *Schema) between(low, high int64) { s.Minimum, s.Maximum = &low, &high }

// most bounds the length of a text in characters.
func (s *Schema) most(n int) { s.MaxLength = &n }
