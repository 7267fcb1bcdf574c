package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// entry is one path of an image: a copy of the file src, a symbolic link, or,
// with neither, a directory.
type entry struct {
	src, link string
	mode      int64
}

// tree is what an image holds, by path without a leading slash. Later additions
// replace earlier ones.
type tree map[string]entry

func (t tree) add(name string, e entry) {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name != "" {
		t[name] = e
	}
}

// copy adds what SOURCE=DESTINATION says: a file, or all that is in a directory.
func (t tree) copy(arg string) error {
	src, dst, ok := strings.Cut(arg, "=")
	if !ok {
		return fmt.Errorf("%q: want SOURCE=DESTINATION", arg)
	}
	return filepath.WalkDir(src, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var e entry
		switch kind := info.Mode().Type(); {
		case kind == fs.ModeDir:
			e.mode = 0o755
		case kind == fs.ModeSymlink:
			e.mode = 0o777
			if e.link, err = os.Readlink(name); err != nil {
				return err
			}
		case kind != 0:
			return nil
		case info.Mode()&0o111 != 0:
			e.src, e.mode = name, 0o755
		default:
			e.src, e.mode = name, 0o644
		}
		t.add(path.Join(dst, filepath.ToSlash(rel)), e)
		return nil
	})
}

// pack writes the tree as a tar file: sorted, each directory before what is in
// it, and without times or owners.
func (t tree) pack(w io.Writer) error {
	all := maps.Clone(t)
	for name := range t {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if _, ok := all[d]; !ok {
				all[d] = entry{mode: 0o755}
			}
		}
	}
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := packEntry(tw, name, all[name]); err != nil {
			return fmt.Errorf("layer: %s: %w", name, err)
		}
	}
	return tw.Close()
}

func packEntry(tw *tar.Writer, name string, e entry) error {
	h := &tar.Header{Name: name, Mode: e.mode, Format: tar.FormatPAX}
	switch {
	case e.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		return tw.WriteHeader(h)
	case e.src == "":
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return tw.WriteHeader(h)
	}
	f, err := os.Open(e.src)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
