package v3

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/spelling"
)

// KindError says that there is no kind of that name and version. It prints as
//
//	kind: "IPPol" is unknown: is IPPool meant?
type KindError struct {
	Kind, APIVersion string // what the document says; empty when it says nothing
	Near             string // the kind that was probably meant; empty when none is near
	Field            string // the one at fault: "kind" or "apiVersion"
	Reason           string // why it is wrong, and what is allowed
}

// Error names the field and what may stand there.
func (e *KindError) Error() string {
	if e.Field == "apiVersion" {
		return e.Kind + ": apiVersion: " + e.Reason
	}
	return e.Field + ": " + e.Reason
}

// DocumentError says that a document is no object with fields.
type DocumentError struct{ Is string } // what it is: "empty", "text", "a list", "a number" or "a boolean"

// Error says what the document is, and what it must be.
func (e *DocumentError) Error() string {
	return "the document is " + e.Is + ": must have apiVersion, kind, metadata and spec"
}

// newObject makes an object of the kind, or says what is wrong with kind and version: a
// [KindError].
func newObject(kind, version string) (Object, error) {
	if k, ok := kindOfDocument(kind, version); ok {
		o, _ := New(k.Name) // all kinds of the table are known
		return o, nil
	}
	wrong := &KindError{Kind: kind, APIVersion: version, Field: "kind"}
	if kind == "" {
		wrong.Reason = "missing: must be a kind such as IPPool"
		return nil, wrong
	}
	if kind == "List" {
		wrong.Reason = "List is not supported: separate the objects by lines of ---"
		return nil, wrong
	}
	if versions := versionsOf(kind); len(versions) > 0 {
		wrong.Field, wrong.Near = "apiVersion", kind
		wrong.Reason = fmt.Sprintf("%q: must be %s", version, orList(versions))
		return nil, wrong
	}
	k, isName := KindByName(kind)
	switch t := k.TypeMeta(); {
	case isName && t.Kind != k.Name:
		wrong.Near = t.Kind
		wrong.Reason = fmt.Sprintf("%q is unknown: must be %s with apiVersion %s", kind, t.Kind, t.APIVersion)
	case isName:
		wrong.Near = k.Name
		wrong.Reason = fmt.Sprintf("%q is unknown: must be %s", kind, k.Name)
	default:
		if wrong.Near = nearestKind(kind); wrong.Near != "" {
			wrong.Reason = fmt.Sprintf("%q is unknown: is %s meant?", kind, wrong.Near)
		} else {
			wrong.Reason = fmt.Sprintf("%q is unknown: must be one of %s", kind, kindNames())
		}
	}
	return nil, wrong
}

// versionsOf lists the versions that documents of the kind may have.
func versionsOf(kind string) []string {
	var versions []string
	for _, k := range kinds {
		if t := k.TypeMeta(); t.Kind == kind {
			versions = append(versions, t.APIVersion)
		}
	}
	return versions
}

// nearestKind is the kind whose name is like the given one; empty when none is.
func nearestKind(name string) string {
	if len(name) > 2*len("KubernetesClusterNetworkPolicy") {
		return "" // its distance from all of them is not worth counting
	}
	k, _ := nearKind(name, func(k Kind) []string { return []string{k.TypeMeta().Kind, k.Plural} })
	return k.TypeMeta().Kind
}

// NearestKind is the kind with a name, plural or short name like the given one, for "did you
// mean" when [KindByName] knows none. False: none is like it.
func NearestKind(name string) (Kind, bool) {
	return nearKind(name, func(k Kind) []string { return append([]string{k.Name, k.Plural}, k.ShortNames...) })
}

func nearKind(name string, names func(Kind) []string) (Kind, bool) {
	best, bestDistance := Kind{}, 4
	for _, k := range kinds {
		for _, known := range names(k) {
			d := spelling.Edits(known, name)
			if d < bestDistance && 3*d <= min(len(name), len(known)) {
				best, bestDistance = k, d
			}
		}
	}
	return best, best.Name != ""
}

func kindNames() string {
	var names []string
	for _, k := range kinds {
		if t := k.TypeMeta(); t.Kind != k.Name {
			names = append(names, t.Kind+" of "+t.APIVersion)
		} else {
			names = append(names, t.Kind)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
