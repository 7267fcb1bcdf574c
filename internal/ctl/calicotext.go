package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/edit"
	"github.com/weft-net/weft/internal/manifest"
	"github.com/weft-net/weft/internal/store"
)

// runCalico is run in calicoctl's voice: documents that can't be read fail all, what is wrong
// with an object fails that object. err is that of reading them.
func (x *change) runCalico(ctx context.Context, c *client, docs []manifest.Document, err error) error {
	if err != nil {
		return calicoReadError(err)
	}
	if len(docs) == 0 {
		_, err := fmt.Fprintln(c.Stdout, "No resources specified")
		return err
	}
	if x.dryRun == dryClient {
		return x.accepted(c, docs)
	}
	results, err := x.carryOut(ctx, c, docs)
	if err != nil {
		return err
	}
	if x.verb == edit.Delete {
		return c.calicoDeleted(results)
	}
	return c.calicoReport(x.words, results)
}

// calicoReport says what became of objects as calicoctl does: how many were done, or why some
// were not.
func (c *client) calicoReport(w words, results []edit.Result) error {
	var errs []string
	kind := kindOfAll(results)
	for _, r := range results {
		if r.Err != nil {
			errs = append(errs, calicoError(r.Err, w.verb))
		}
	}
	done := len(results) - len(errs)
	switch {
	case len(errs) == 0:
		_, err := fmt.Fprintf(c.Stdout, "Successfully %s %s resource(s)\n", w.past, ofKind(done, kind))
		return err
	case w.verb == "replace" && len(errs) == 1:
		return c.calicoPartly(w, results, done, errs[0])
	case w.verb != "replace" && len(results) == 1:
		return fmt.Errorf("failed to %s '%s' resource: [%s]", w.verb, kind, errs[0])
	case done == 0 && kind != "":
		return fmt.Errorf("failed to %s any '%s' resources: [%s]", w.verb, kind, strings.Join(errs, " "))
	case done == 0:
		return fmt.Errorf("failed to %s any resources: [%s]", w.verb, strings.Join(errs, " "))
	}
	return c.calicoPartly(w, results, done, "["+strings.Join(errs, " ")+"]")
}

// calicoPartly says that some were done, and returns why others were not.
func (c *client) calicoPartly(w words, results []edit.Result, done int, why string) error {
	if failed := len(results) - done; done > failed {
		kind := kindOfAll(results)
		if kind != "" {
			kind = "'" + kind + "' "
		}
		_, _ = fmt.Fprintf(c.Stdout, "Partial success: %s %d out of %d %sresources:\n", w.past, done, len(results), kind)
	}
	return fmt.Errorf("hit error: %s", why)
}

// calicoDeleted is calicoReport for deleting.
func (c *client) calicoDeleted(results []edit.Result) error {
	var errs []string
	kind := kindOfAll(results)
	for _, r := range results {
		switch {
		case r.Err == nil:
		case kind != "":
			errs = append(errs, fmt.Sprintf("Failed to delete '%s' resource: %s\n", kind, calicoError(r.Err, "delete")))
		default:
			errs = append(errs, fmt.Sprintf("Failed to delete resource: %s\n", calicoError(r.Err, "delete")))
		}
	}
	if done := len(results) - len(errs); done > 0 {
		if _, err := fmt.Fprintf(c.Stdout, "Successfully deleted %s resource(s)\n", ofKind(done, kind)); err != nil {
			return err
		}
	}
	if len(errs) > 0 {
		return errors.New(strings.Join(errs, ""))
	}
	return nil
}

// kindOfAll is the kind of all results, empty when there are several.
func kindOfAll(results []edit.Result) string {
	kind := ""
	for i, r := range results {
		if k := v3.KindOf(r.Object).Name; i == 0 {
			kind = k
		} else if k != kind {
			return ""
		}
	}
	return kind
}

// ofKind is "3 'Tier'" or, of several kinds, "3".
func ofKind(n int, kind string) string {
	if kind == "" {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d '%s'", n, kind)
}

// calicoError is why an object failed, in calicoctl's words, as far as scripts read them; verb
// is what was tried.
func calicoError(err error, verb string) string {
	var rule *edit.RuleError
	var stored *store.Error
	fields := v3.FieldErrors(err)
	switch {
	case errors.As(err, &rule):
		return calicoRule(rule)
	case errors.Is(err, edit.ErrReadOnly) && len(fields) > 0:
		return calicoReadOnly(fields[0].Object, verb)
	case errors.Is(err, edit.ErrFixed) && len(fields) > 0:
		return calicoFixed(fields[0])
	case len(fields) > 0:
		return calicoFields(fields)
	case errors.As(err, &stored):
		return calicoStored(stored)
	}
	return err.Error()
}

func calicoStored(e *store.Error) string {
	name := e.Key.Name
	if e.Key.Namespace != "" {
		name = e.Key.Namespace + "/" + name
	}
	switch {
	case errors.Is(e.Err, store.ErrNotFound):
		return fmt.Sprintf("resource does not exist: %s(%s) with error: <nil>", e.Key.Kind, name)
	case errors.Is(e.Err, store.ErrExists):
		return fmt.Sprintf("resource already exists: %s(%s) with error: <nil>", e.Key.Kind, name)
	case errors.Is(e.Err, store.ErrConflict):
		return fmt.Sprintf("update conflict: %s(%s)", e.Key.Kind, name)
	}
	return e.Error()
}

func calicoRule(e *edit.RuleError) string {
	name := e.Object.Meta().Name
	switch o := e.Object.(type) {
	case *v3.Tier:
		if errors.Is(e, edit.ErrInUse) {
			return fmt.Sprintf("operation delete is not supported on %s: Cannot delete a non-empty tier", name)
		}
		return fmt.Sprintf("operation Delete is not supported on %s: Cannot delete %s tier", name, name)
	case *v3.BGPPeer:
		return fmt.Sprintf("error with field BGPPeer.Spec.Filters = '%v' (BGPFilter(s) not found)", o.Spec.Filters)
	case *v3.IPPool:
		return fmt.Sprintf("error with field IPPool.Spec.CIDR = '%s' (%s)", o.Spec.CIDR, e.Text)
	}
	if errors.Is(e, edit.ErrMissing) && e.Other != nil {
		return calicoStored(&store.Error{Key: *e.Other, Err: store.ErrNotFound})
	}
	return e.Error()
}

// calicoReadOnly is for an object as v3.Describe prints it.
func calicoReadOnly(object, verb string) string {
	kind, name, _ := strings.Cut(object, " ")
	if k, ok := v3.KindByName(kind); ok {
		kind = k.Name
	}
	switch {
	case kind == "Profile" && verb == "delete":
		return fmt.Sprintf("operation Delete is not supported on %s: The profile %q is a default provided by Calico and cannot be deleted", name, name)
	case kind == "Profile":
		return fmt.Sprintf("operation Update is not supported on %s: The profile %q is a default provided by Calico and cannot be updated", name, name)
	case verb == "delete":
		return fmt.Sprintf("operation delete is not supported on %s", kind)
	}
	return fmt.Sprintf("operation %s is not supported on %s: resource is readonly", verb, kind)
}

// calicoFixed is for a field of a pool that can't be changed.
func calicoFixed(f *v3.FieldError) string {
	field := strings.TrimPrefix(f.Field, "spec.")
	if field == "cidr" {
		field = "CIDR"
	} else {
		field = strings.ToUpper(field[:1]) + field[1:]
	}
	return fmt.Sprintf("error with field IPPool.Spec.%s = '%s' (IPPool %s cannot be modified)", field, unquoted(f.Value), field)
}

// calicoFields are what is wrong with the fields of an object.
func calicoFields(fields []*v3.FieldError) string {
	lines := make([]string, len(fields))
	for i, f := range fields {
		name, reason := f.Field, f.Reason
		if name == "" {
			name = "metadata"
		}
		if name == "metadata.name" && strings.HasPrefix(f.Object, "tier ") {
			name, reason = "Metadata.Name", "name must consist of lower case alphanumeric characters or '-' (regex: [a-z0-9]([-a-z0-9]*[a-z0-9])?)"
		}
		if f.Value != "" {
			name += " = '" + unquoted(f.Value) + "'"
		}
		lines[i] = fmt.Sprintf("%s (%s)", name, reason)
	}
	if len(lines) == 1 {
		return "error with field " + lines[0]
	}
	return "error with the following fields:\n-  " + strings.Join(lines, "\n-  ") + "\n"
}

func unquoted(text string) string {
	return strings.TrimSuffix(strings.TrimPrefix(text, `"`), `"`)
}
