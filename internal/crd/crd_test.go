package crd

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
)

// The files in the tree are what the generator makes, and there are no others.
func TestFilesAreFresh(t *testing.T) {
	t.Parallel()
	const root = "../.."
	want, err := Files(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if have, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(have, text) {
			t.Errorf("%s is not what the types make (%v): run make crds", name, err)
		}
	}
	for _, dir := range []string{"deploy/crds", "test/fixtures/crd-v1"} {
		have, err := filepath.Glob(filepath.Join(root, dir, "*projectcalico.org_*.yaml"))
		if err != nil || len(have) != len(customKinds()) {
			t.Errorf("%s has %d definitions (%v), want the %d of %v", dir, len(have), err, len(customKinds()), slices.Sorted(maps.Keys(want)))
		}
	}
}

// kubectl explain says what the comments say, with the names of JSON.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	docs, err := ReadComments(os.DirFS("../../api/v3"))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"CIDR":     "cidr is the range, masked, IPv4 or IPv6. It cannot change.",
		"IPIPMode": "ipipMode says the same for IP in IP, IPv4 only. Default Never. At most one of the two modes is other than Never.",
	} {
		f, _ := reflect.TypeFor[v3.IPPoolSpec]().FieldByName(field)
		if got := docs.field(reflect.TypeFor[v3.IPPoolSpec](), field, strings.TrimSuffix(f.Tag.Get("json"), ",omitempty")); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	if got := line(docs["DSCP"] + docs["BGPFilter"]); strings.ContainsAny(got, "[]\n") {
		t.Errorf("links are marked: %s", got)
	}
}
