package policy_test

import (
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
)

var update = flag.Bool("update", false, "rewrite the tables under testdata")

// Whole tables, to be read beside the objects that they come from.
func TestTable(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/table/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]string{}
			for _, f := range archive.Files {
				parts[f.Name] = string(f.Data)
			}
			got := tableOf(t, parts["objects.yaml"], parts["links"]).Text(false)
			if *update {
				rewrite(t, file, archive, got)
				return
			}
			if d := cmp.Diff(parts["table.nft"], got); d != "" {
				t.Errorf("table (-want +got); -update rewrites it:\n%s", d)
			}
		})
	}
}

func tableOf(t *testing.T, objects, linkText string) plan.Table {
	t.Helper()
	decoded, err := v3.DecodeAll([]byte(objects))
	if err != nil {
		t.Fatal(err)
	}
	values := model.World{}
	for _, o := range decoded {
		v, err := model.Parse(o)
		if err != nil {
			t.Fatalf("%s: %v", v3.Describe(o), err)
		}
		values[v.Key()] = v
	}
	var links []policy.Link
	for line := range strings.Lines(linkText) {
		words := strings.Fields(line)
		links = append(links, policy.Link{Name: words[0], Addrs: []netip.Addr{netip.MustParseAddr(words[1])}})
	}
	settings := policy.SettingsFor(model.Node{Name: "node-a"}, maps.Values(values))
	return policy.Compile("node-a", values, links, settings).V4
}

func rewrite(t *testing.T, file string, archive *txtar.Archive, table string) {
	t.Helper()
	var kept []txtar.File
	for _, f := range archive.Files {
		if f.Name != "table.nft" {
			kept = append(kept, f)
		}
	}
	archive.Files = append(kept, txtar.File{Name: "table.nft", Data: []byte(table)})
	if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
