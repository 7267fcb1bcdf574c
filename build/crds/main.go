// Crds writes the custom resource definitions into deploy/crds, and those that tests
// take for Calico's older ones into test/fixtures/crd-v1. It is run in the top
// directory of the module, by "make crds".
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/weft-net/weft/internal/crd"
)

func main() {
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(root string) error {
	files, err := crd.Files(os.DirFS(root))
	if err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
