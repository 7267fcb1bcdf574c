package store

import "errors"

// Errors are the errors about single objects in err, such as those that List gives beside
// the rest; none if it is about something else.
func Errors(err error) []*Error {
	var found []*Error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			found = append(found, Errors(e)...)
		}
		return found
	}
	var one *Error
	if errors.As(err, &one) {
		found = append(found, one)
	}
	return found
}
