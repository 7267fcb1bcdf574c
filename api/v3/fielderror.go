package v3

import (
	"errors"
	"strings"
)

// FieldError is one thing that is wrong with one object. It prints as
//
//	ippool default-ipv4-ippool: spec.blockSize: 33: must be 20 to 32 for IPv4
type FieldError struct {
	Object string // kind and name, as [Describe] prints them
	Field  string // path, such as "spec.ports[0].protocol"; empty for the whole object
	Value  string // what it is, quoted if text; empty when the value says nothing
	Reason string // why it is wrong, and what is allowed

	Unknown bool   // the kind has no such field
	Near    string // the name of the field that was probably meant by an unknown one; or empty
}

// Error prints the parts that are not empty.
func (e *FieldError) Error() string {
	var parts []string
	for _, p := range []string{strings.TrimSpace(e.Object), e.Field, e.Value, e.Reason} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}

// FieldErrors returns the field errors in err, which [Decode], [Validate] or
// [ValidateUpdate] returned. Errors about no field are left out.
func FieldErrors(err error) []*FieldError {
	if err == nil {
		return nil
	}
	if e := (*FieldError)(nil); errors.As(err, &e) {
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			var all []*FieldError
			for _, one := range many.Unwrap() {
				all = append(all, FieldErrors(one)...)
			}
			return all
		}
		return []*FieldError{e}
	}
	return nil
}
