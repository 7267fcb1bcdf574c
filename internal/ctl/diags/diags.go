// Package diags packs what is needed to find out what is wrong with a node or a cluster into
// one file, to be sent to somebody else.
//
//	agent's socket ─┐
//	kernel ─────────┤
//	files, logs ────┼─► Bundle.Add ─► Scrubber ─► NAME/…  in NAME.tar.gz, mode 0600
//	datastore ──────┤        │
//	Kubernetes ─────┘        └─► errors.txt: what could not be had, and why
//
// Whatever is not there (no agent, no datastore, no rights) is noted and the rest goes on: the
// bundle is for the day on which something does not work.
//
// All of it goes through a [Scrubber], which takes out what it was told is secret, and what
// looks like it: private keys, tokens, values behind names such as password. It sees text as
// lines, whatever it comes from, so that a secret that was logged by mistake is found as well.
// Secrets of Kubernetes are not read at all.
//
// Deliberately not here: what the commands look like (package ctl), and any judgement of what
// was found.
//
// Invariant: no byte of a text gets into a bundle but through its Scrubber.
package diags

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Bundle is a file that is being packed. Its methods may be called by several goroutines at
// once.
type Bundle struct {
	name  string // of the directory in it
	scrub *Scrubber
	now   time.Time
	tell  func(name string, err error)

	mu     sync.Mutex
	file   *os.File
	zip    *gzip.Writer
	tar    *tar.Writer
	faults []string
	broken error // of writing the file: nothing more gets in
}

// Create begins a bundle in a file that must not exist, which only its owner may read. name is
// the directory that everything in it is in. tell is called for each part, with nil when it
// has got in, or with why it has not; it may be nil.
func Create(path, name string, scrub *Scrubber, now time.Time, tell func(name string, err error)) (*Bundle, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("diags: %w", err)
	}
	if tell == nil {
		tell = func(string, error) {}
	}
	z := gzip.NewWriter(f)
	return &Bundle{name: name, scrub: scrub, now: now, tell: tell, file: f, zip: z, tar: tar.NewWriter(z)}, nil
}

// Text adds what write writes, without secrets. What it wrote before it failed gets in too.
func (b *Bundle) Text(name string, write func(io.Writer) error) {
	var text bytes.Buffer
	clean := b.scrub.Writer(&text)
	err := write(clean)
	err = errors.Join(err, clean.Close())
	b.add(name, text.Bytes(), err)
}

// Binary adds what write writes as it is: for forms that hold no text of a user's.
func (b *Bundle) Binary(name string, write func(io.Writer) error) {
	var data bytes.Buffer
	err := write(&data)
	b.add(name, data.Bytes(), err)
}

// Fault notes that a part could not be had.
func (b *Bundle) Fault(name string, err error) { b.add(name, nil, err) }

func (b *Bundle) add(name string, data []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(data) > 0 || err == nil {
		b.write(name, data)
	}
	if err != nil {
		err = errors.New(b.scrub.Line(strings.ReplaceAll(err.Error(), "\n", "; ")))
		b.faults = append(b.faults, name+": "+err.Error())
	}
	b.tell(name, err)
}

// write puts a file in. The caller holds the lock.
func (b *Bundle) write(name string, data []byte) {
	if b.broken != nil {
		return
	}
	h := &tar.Header{Name: b.name + "/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.now, Typeflag: tar.TypeReg}
	if b.broken = b.tar.WriteHeader(h); b.broken == nil {
		_, b.broken = b.tar.Write(data)
	}
}

// Faults is how many parts could not be had.
func (b *Bundle) Faults() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.faults)
}

// Close writes errors.txt and ends the file. The error says that the file is not whole.
func (b *Bundle) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) > 0 {
		b.write("errors.txt", []byte(strings.Join(b.faults, "\n")+"\n"))
	}
	err := errors.Join(b.broken, b.tar.Close(), b.zip.Close(), b.file.Close())
	if err != nil {
		return fmt.Errorf("diags: %s: %w", b.file.Name(), err)
	}
	return nil
}
