package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// temporary begins the names of files that are being written. No runtime reads a file that
// does not end in .conf, .conflist or .json, and none runs a plugin of such a name.
const temporary = ".weft-install-"

// files writes files so that there is the old one or the new one, whole, whenever it ends.
type files struct {
	// step is called before each thing that is done; an error ends the work there, as the
	// end of the process would. nil: nothing.
	step func(what string) error
	// unsynced leaves it to the kernel when what is written gets to the disk: for tests, which
	// end processes and not machines.
	unsynced bool
}

func (f files) before(what string) error {
	if f.step == nil {
		return nil
	}
	return f.step(what)
}

// write makes path hold what r has.
func (f files) write(path string, r io.Reader, mode fs.FileMode) error {
	if err := f.before("create"); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), temporary+"*")
	if err != nil {
		return err
	}
	name, done := tmp.Name(), false
	defer func() {
		_ = tmp.Close()
		if !done && f.step == nil { // who is killed clears nothing away
			_ = os.Remove(name)
		}
	}()
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"write", func() error { _, err := io.Copy(tmp, r); return err }},
		{"mode", func() error { return tmp.Chmod(mode) }},
		{"sync", func() error { return f.sync(tmp) }},
		{"rename", func() error { return os.Rename(name, path) }},
		{"sync directory", func() error { return f.syncDir(filepath.Dir(path)) }},
	} {
		if err := f.before(s.what); err != nil {
			return err
		}
		if err := s.do(); err != nil {
			return err
		}
		done = done || s.what == "rename"
	}
	return nil
}

func (f files) sync(file *os.File) error {
	if f.unsynced {
		return nil
	}
	return file.Sync()
}

func (f files) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return f.sync(d)
}

// copy makes to a copy of from, unless it is one; with keep, any file that is there stays. Where
// like is not empty, it is the name of a copy beside to, and one file on the disk will do for both.
func (f files) copy(from, to, like string, keep bool) (changed bool, err error) {
	in, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer func() { _ = in.Close() }()
	same, err := sameFile(in, to, keep)
	if err != nil || same {
		return false, err
	}
	if like != "" {
		if err := f.link(filepath.Join(filepath.Dir(to), like), to); err == nil {
			return true, nil
		}
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("%s: %w", from, err)
	}
	return true, f.write(to, in, 0o755)
}

// link gives the file old a further name.
func (f files) link(old, path string) error {
	name := filepath.Join(filepath.Dir(path), temporary+filepath.Base(path))
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"clear", func() error { return remove(name) }},
		{"link", func() error { return os.Link(old, name) }},
		{"rename", func() error { return os.Rename(name, path) }},
		{"sync directory", func() error { return f.syncDir(filepath.Dir(path)) }},
	} {
		if err := f.before(s.what); err != nil {
			return err
		}
		if err := s.do(); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a file that may not be there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sameFile reports whether the file at path has the content of in, and may be executed; with
// any, whether it is there at all.
func sameFile(in *os.File, path string, exists bool) (bool, error) {
	have, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = have.Close() }()
	if exists {
		return true, nil
	}
	want, err := in.Stat()
	if err != nil {
		return false, err
	}
	info, err := have.Stat()
	if err != nil || os.SameFile(want, info) {
		return true, err
	}
	if info.Size() != want.Size() || info.Mode().Perm()&0o111 == 0 {
		return false, nil
	}
	return sameBytes(in, have)
}

func sameBytes(a, b io.Reader) (bool, error) {
	left, right := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, left)
		m, errB := io.ReadFull(b, right)
		if !bytes.Equal(left[:n], right[:m]) {
			return false, nil
		}
		switch {
		case errA == nil && errB == nil:
		case ended(errA) && ended(errB):
			return true, nil
		default:
			return false, errors.Join(errA, errB)
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// sweep removes what a life that was ended left half written.
func (f files) sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, temporary+"*"))
	for _, path := range left {
		_ = os.Remove(path)
	}
}
