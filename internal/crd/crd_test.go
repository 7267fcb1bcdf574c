package crd

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
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

// Each field of a spec is explained: kubectl explain has nothing else to say.
func TestFieldsAreDescribed(t *testing.T) {
	t.Parallel()
	docs, err := ReadComments(os.DirFS("../../api/v3"))
	if err != nil {
		t.Fatal(err)
	}
	for key, text := range map[string]string{
		"IPPool":          "IPPool is a range of addresses that workloads, tunnels and load balancers are\ngiven addresses from.\n",
		"IPPoolSpec.CIDR": "CIDR is the range, masked, IPv4 or IPv6. It cannot change.\n",
	} {
		if docs[key] != text {
			t.Errorf("comment of %s: %q, want %q", key, docs[key], text)
		}
	}
}
