package diags

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// fileLimit is the most that is taken of one file, in bytes: its end.
const fileLimit = 8 << 20

// File adds the end of a file.
func (b *Bundle) File(name, path string, limitBytes int64) {
	b.Text(name, func(w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if info, err := f.Stat(); err == nil && info.Size() > limitBytes {
			if _, err := f.Seek(-limitBytes, io.SeekEnd); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(w, "(the last %d bytes of %d)\n", limitBytes, info.Size())
		}
		_, err = io.Copy(w, io.LimitReader(f, limitBytes))
		return err
	})
}

// Files adds the files of a directory, and of those in it, whose names are wanted.
func (b *Bundle) Files(name, dir string, wanted func(file string) bool) {
	if _, err := os.Stat(dir); err != nil {
		b.Fault(name, err)
		return
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() && strings.Count(at, string(filepath.Separator)) > 1 {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && wanted(filepath.Base(at)) {
			b.File(name+"/"+at, path, fileLimit)
		}
		return nil
	})
	if err != nil {
		b.Fault(name, err)
	}
}

// Secrets are the contents of secret files: files as they are named, and all files below dirs.
// What can't be read can't get into a bundle either.
func Secrets(files, dirs []string) []string {
	var out []string
	read := func(path string) {
		if text, err := os.ReadFile(path); err == nil {
			out = append(out, string(text))
		}
	}
	for _, f := range files {
		if f != "" {
			read(f)
		}
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // what can't be read is left out
			if err != nil || d.IsDir() {
				return skippable(err)
			}
			read(path) // a link too: Kubernetes mounts secrets as such
			return nil
		})
	}
	return out
}

// skippable is err, but for what only means that something is not there or is closed.
func skippable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
