// Reference writes docs/reference, the pages of all kinds and commands. It is run in the top
// directory of the module, by "make reference".
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/weft-net/weft/internal/reference"
)

func main() {
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write makes all pages anew; those of what is gone are removed.
func write(root string) error {
	files, err := reference.Files(os.DirFS(root))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(root, reference.Dir)); err != nil {
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
