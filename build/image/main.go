// Command image writes a container image as one archive, from nothing but files.
//
// It needs no registry, no daemon and no base image, and the same inputs give
// the same bytes on any machine. The archive is an OCI image layout
// (image-spec 1.1) in a tar file: one index, one manifest, one configuration and
// one layer for each architecture.
//
//	SOURCE=DESTINATION… ──► tree ──► layer ─┐
//	-entrypoint -cmd -env -user ─► config ──┴─► manifest ──► index, named ──► .tar
//
// `ctr images import`, `nerdctl load`, `podman load`, `skopeo copy` and Docker
// from 25 on read the layout. For older `docker load` a manifest.json lists the
// same blobs: there the first architecture bears the name, and the others bear it
// with "-ARCH" behind.
//
//	image -o weft.tar -name localhost/weft:1 -arch amd64 -arch arm64 \
//	    -entrypoint /usr/bin/weft bin/{arch}/weft=/usr/bin/weft
//
// A source is a file or a directory; {arch} in it stands for the architecture.
// Owners are 0:0; a file has mode 0755 if anybody may execute it, else 0644, so
// that the umask of whoever built it does not show. What is neither file,
// directory nor symbolic link is left out.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(args []string) error {
	var s spec
	var archs, dirs, links, labels list
	fs := flag.NewFlagSet("image", flag.ExitOnError)
	out := fs.String("o", "image.tar", "archive to write")
	seconds := fs.Int64("time", 0, "when the image was made, in seconds since 1970")
	fs.StringVar(&s.user, "user", "", "user the image runs as")
	fs.Var(&s.names, "name", "image reference (repeatable)")
	fs.Var(&s.entrypoint, "entrypoint", "one word of the entry point (repeatable)")
	fs.Var(&s.cmd, "cmd", "one word of the default arguments (repeatable)")
	fs.Var(&s.env, "env", "NAME=value (repeatable)")
	fs.Var(&labels, "label", "NAME=value, an annotation of the image (repeatable)")
	fs.Var(&dirs, "dir", "world-writable directory to make (repeatable)")
	fs.Var(&links, "link", "path=target, a symbolic link to make (repeatable)")
	fs.Var(&archs, "arch", "architecture as Go names it (repeatable; default: this machine's)")
	_ = fs.Parse(args) // ends the process itself
	if len(s.names) == 0 {
		return fmt.Errorf("-name: none given: want at least one, such as localhost/weft:1")
	}
	if len(archs) == 0 {
		archs = list{runtime.GOARCH}
	}
	s.created = time.Unix(*seconds, 0).UTC()
	var err error
	if s.labels, err = pairs("-label", labels); err != nil {
		return err
	}
	made, err := pairs("-link", links)
	if err != nil {
		return err
	}
	var variants []variant
	for _, arch := range archs {
		t := tree{}
		for _, d := range dirs {
			t.add(d, entry{mode: 0o1777})
		}
		for path, target := range made {
			t.add(path, entry{mode: 0o777, link: target})
		}
		for _, arg := range fs.Args() {
			if err := t.copy(strings.ReplaceAll(arg, "{arch}", arch)); err != nil {
				return err
			}
		}
		variants = append(variants, variant{arch: arch, tree: t})
	}
	return write(*out, s, variants)
}

// pairs splits NAME=value arguments of the flag.
func pairs(flag string, args list) (map[string]string, error) {
	out := map[string]string{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q: want NAME=value", flag, arg)
		}
		out[name] = value
	}
	return out, nil
}
