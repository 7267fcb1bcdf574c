// Command weft is the whole of weft in one binary: its roles (node agent,
// store), the lab, and the command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weft-net/weft/internal/ctl"
	"github.com/weft-net/weft/internal/run"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx := run.Context(context.Background())
	err := ctl.Execute(ctx, ctl.Process{
		Program: filepath.Base(os.Args[0]),
		Args:    os.Args[1:],
		Environ: os.Environ(),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Version: version,
	})
	if err != nil && !errors.As(err, new(*ctl.ExitError)) {
		fmt.Fprintf(os.Stderr, "weft: %v\n", err)
	}
	os.Exit(ctl.ExitCode(err))
}
