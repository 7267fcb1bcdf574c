// Package reference writes docs/reference: a page for each kind of object, and one for each
// command.
//
//	api/v3 types, comments ── internal/crd ──► resources/KIND.md
//	internal/ctl, its commands ── cobra ─────► commands/COMMAND.md
//
// It is a generator as internal/crd is: `make reference` runs it, a test fails when docs/reference
// is not what it makes, and the product does not contain it. So nothing is said in a page that is
// not said in the code, and whoever changes a flag or a field changes its page by one command.
package reference
