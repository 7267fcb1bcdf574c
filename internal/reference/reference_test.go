package reference

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
)

const top = "../.."

// The pages are what the code makes of itself.
func TestPagesAreCurrent(t *testing.T) {
	t.Parallel()
	files, err := Files(os.DirFS(top))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(top, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code makes: run 'make reference' and look at the difference (%v)", name, err)
		}
	}
	err = fs.WalkDir(os.DirFS(top), Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && files[path] == nil {
			t.Errorf("%s is of nothing that is in the code any more: run 'make reference'", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A page has what its reader looks for.
func TestPagesTellAll(t *testing.T) {
	t.Parallel()
	files, err := Files(os.DirFS(top))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range v3.Kinds() {
		if page := files[Dir+"/resources/"+strings.ToLower(k.Name)+".md"]; page == nil && k.TypeMeta().APIVersion == v3.APIVersion {
			t.Errorf("%s has no page", k.Name)
		}
	}
	for name, want := range map[string][]string{
		"resources/ippool.md":        {"| `blockSize` | integer |", "`CrossSubnet`", "| `cidr` | text |"},
		"resources/networkpolicy.md": {"`ingress[].source.nets`", "`Allow`", "namespace: default"},
		"commands/get.md":            {"# weft get", "--all-namespaces", "weft get ippools"},
		"commands/ipam.md":           {"## weft ipam check", "## weft ipam release"},
		"commands/completion.md":     {"## weft completion zsh"},
		"commands/README.md":         {"--allow-version-mismatch", "(get.md#weft-get)"},
	} {
		for _, text := range want {
			if !strings.Contains(string(files[Dir+"/"+name]), text) {
				t.Errorf("%s does not say %q", name, text)
			}
		}
	}
}
