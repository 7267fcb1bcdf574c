package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v3 "github.com/weft-net/weft/api/v3"
)

// MaxFile is how long one file may be, in bytes. It is far above what anybody writes: a list
// of 100,000 endpoints has a tenth of it.
const MaxFile = 1 << 30

// Options say how to read.
type Options struct {
	Recursive bool      // also the directories in a directory
	SkipEmpty bool      // nothing found is no error
	Namespace string    // of objects that need one and name none; empty: "default"
	Stdin     io.Reader // what the path "-" means; nil: it is empty

	// Calico refuses what calicoctl refuses though its meaning is plain: Kubernetes' List,
	// and an empty document before the first object.
	Calico bool
}

// Document is one object, and where it came from.
type Document struct {
	Object v3.Object // without defaults but for the namespace
	File   string    // as given or found; "-" is standard input
	Line   int       // of its first character
	Column int       // the same, in characters
	Raw    []byte    // JSON of what the user wrote, and of nothing else

	at place
}

// Read reads a file, a directory or, for "-", standard input. Of a directory it takes the files
// that end in .yaml, .yml or .json, in the order of their names. Every good object is returned,
// also when the error is not nil; the error is [Problems], sorted, or an [EmptyError].
func Read(o Options, path string) ([]Document, error) {
	files, isDir, err := files(o, path)
	if err != nil {
		return nil, Problems{{File: path, Err: err}}
	}
	var docs []Document
	var wrong Problems
	for _, file := range files {
		data, err := contents(o, file)
		if err != nil {
			wrong = append(wrong, &Problem{File: file, Err: err})
			continue
		}
		more, problems := ReadBytes(o, file, data)
		docs, wrong = append(docs, more...), append(wrong, problems...)
	}
	switch {
	case len(wrong) > 0:
		return docs, Join(wrong)
	case len(docs) == 0 && !o.SkipEmpty:
		return nil, &EmptyError{Path: path, Directory: isDir}
	}
	return docs, nil
}

// ReadBytes reads the text of a file that is called name in documents and problems. It keeps
// data, which must not change afterwards. No object at all is no problem here.
func ReadBytes(o Options, name string, data []byte) ([]Document, Problems) {
	parts := split(name, data, o.Calico)
	results := make([]result, len(parts))
	parallel(len(parts), func(i int) { results[i] = o.decode(parts[i]) })
	var docs []Document
	var wrong Problems
	for _, r := range results {
		docs, wrong = append(docs, r.docs...), append(wrong, r.wrong...)
	}
	return docs, wrong
}

// parallel calls do with 0 to n-1, on all processors.
func parallel(n int, do func(int)) {
	const few = 16 // not worth a goroutine
	workers := min(n/few+1, maxWorkers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				do(i)
			}
		})
	}
	all.Wait()
}

// maxWorkers bounds how many documents are read at a time, and so what they take of memory.
const maxWorkers = 8

// files lists what is to be read, and whether path is a directory.
func files(o Options, path string) ([]string, bool, error) {
	if path == "-" {
		return []string{path}, false, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, opened(err)
	}
	if !info.IsDir() {
		return []string{path}, false, nil
	}
	var found []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != path && !o.Recursive:
			return fs.SkipDir
		case !entry.IsDir() && isManifest(file):
			found = append(found, file)
		}
		return nil
	})
	if err != nil {
		return nil, true, err
	}
	return found, true, nil
}

// opened names the operation as opening the file does, for the texts that scripts read.
func opened(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return &fs.PathError{Op: "open", Path: p.Path, Err: p.Err}
	}
	return err
}

func isManifest(file string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(file)))
}

// contents reads a whole file.
func contents(o Options, file string) ([]byte, error) {
	in := o.Stdin
	switch {
	case file == "-" && in == nil:
		return nil, nil
	case file != "-":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // nothing was written
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("longer than %d bytes: must be several files", MaxFile)
	}
	return data, err
}
