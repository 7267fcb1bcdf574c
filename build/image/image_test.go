package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// files makes a directory with two architectures' programs, and a tree.
func files(t *testing.T, mode os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	for name, perm := range map[string]os.FileMode{
		"amd64/prog": 0o700 | mode, "arm64/prog": 0o700 | mode, "tree/etc/text": 0o600 | mode,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700|mode), os.WriteFile(path, []byte(name), perm)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("text", filepath.Join(dir, "tree/etc/link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build runs the program over such a directory and returns the archive's files.
func build(t *testing.T, dir string) ([]byte, map[string][]byte) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := run([]string{
		"-o", out, "-name", "localhost/x:1", "-name", "localhost/x:latest", "-arch", "amd64", "-arch", "arm64", "-time", "1700000000",
		"-entrypoint", "/bin/prog", "-label", "title=x", "-dir", "/tmp", "-link", "/bin/again=prog",
		filepath.Join(dir, "{arch}/prog") + "=/bin/prog", filepath.Join(dir, "tree") + "=/",
	}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b, untar(t, bytes.NewReader(b), func(h *tar.Header) string { return h.Name })
}

// untar reads an archive; name says under which key a file is kept.
func untar(t *testing.T, r io.Reader, name func(*tar.Header) string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[name(h)], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReproducible: neither times nor the umask of the builder show.
func TestReproducible(t *testing.T) {
	t.Parallel()
	one, two := files(t, 0), files(t, 0o044)
	long := time.Unix(1, 0)
	if err := os.Chtimes(filepath.Join(two, "amd64/prog"), long, long); err != nil {
		t.Fatal(err)
	}
	a, _ := build(t, one)
	b, _ := build(t, two)
	if !bytes.Equal(a, b) {
		t.Error("the same files give another image when their times and modes differ")
	}
	if err := os.WriteFile(filepath.Join(two, "amd64/prog"), []byte("amd64/PROG"), 0o700); err != nil {
		t.Fatal(err)
	}
	if b, _ = build(t, two); bytes.Equal(a, b) {
		t.Error("another file gives the same image")
	}
}

// TestLayout follows the archive as a runtime does, from the name to the files.
func TestLayout(t *testing.T) {
	t.Parallel()
	_, archive := build(t, files(t, 0))
	blob := func(d descriptor, mediaType string) []byte {
		b, ok := archive[d.path()]
		sum := sha256.Sum256(b)
		if !ok || d.MediaType != mediaType || len(b) != d.Size || "sha256:"+hex.EncodeToString(sum[:]) != d.Digest {
			t.Fatalf("descriptor %+v: blob of %d bytes, present: %v, want type %s", d, len(b), ok, mediaType)
		}
		return b
	}
	var names []string
	for _, d := range parse[index](t, archive["index.json"]).Manifests {
		names = append(names, d.Annotations["io.containerd.image.name"])
		for _, m := range parse[index](t, blob(d, typeIndex)).Manifests {
			image := parse[manifest](t, blob(m, typeManifest))
			c := parse[config](t, blob(image.Config, typeConfig))
			if c.Architecture != m.Platform.Architecture || c.OS != "linux" || c.Config.Entrypoint[0] != "/bin/prog" ||
				!c.Created.Equal(time.Unix(1_700_000_000, 0)) || c.Config.Labels["title"] != "x" {
				t.Errorf("configuration of %v: %+v", *m.Platform, c)
			}
			zip, err := gzip.NewReader(bytes.NewReader(blob(image.Layers[0], typeLayer)))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(zip)
			if err != nil {
				t.Fatal(err)
			}
			if sum := sha256.Sum256(plain); c.RootFS.DiffIDs[0] != "sha256:"+hex.EncodeToString(sum[:]) {
				t.Errorf("layer of %s is not what its configuration says", c.Architecture)
			}
			checkLayer(t, c.Architecture, plain)
		}
	}
	if d := cmp.Diff([]string{"localhost/x:1", "localhost/x:latest"}, names); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	checkDocker(t, archive)
}

func checkLayer(t *testing.T, arch string, plain []byte) {
	t.Helper()
	got := untar(t, bytes.NewReader(plain), func(h *tar.Header) string {
		return fmt.Sprintf("%c %04o %d:%d %s%s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, strings.TrimSuffix(" "+h.Linkname, " "))
	})
	want := map[string][]byte{
		"5 0755 0:0 bin/": {}, "0 0755 0:0 bin/prog": []byte(arch + "/prog"), "2 0777 0:0 bin/again prog": {},
		"5 0755 0:0 etc/": {}, "0 0644 0:0 etc/text": []byte("tree/etc/text"), "2 0777 0:0 etc/link text": {},
		"5 1777 0:0 tmp/": {},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("layer of %s (-want +got):\n%s", arch, d)
	}
}

// checkDocker looks at what `docker load` before 25 reads.
func checkDocker(t *testing.T, archive map[string][]byte) {
	t.Helper()
	var tags []string
	for _, image := range parse[[]dockerImage](t, archive["manifest.json"]) {
		tags = append(tags, image.RepoTags...)
		for _, path := range append(image.Layers, image.Config) {
			if len(archive[path]) == 0 {
				t.Errorf("manifest.json names %s, which is not there", path)
			}
		}
	}
	if d := cmp.Diff([]string{"localhost/x:1", "localhost/x:latest", "localhost/x:1-arm64", "localhost/x:latest-arm64"}, tags); d != "" {
		t.Errorf("tags for Docker (-want +got):\n%s", d)
	}
}

// The documents of an image, as far as they are looked at.
type (
	index    struct{ Manifests []descriptor }
	manifest struct {
		Config descriptor
		Layers []descriptor
	}
	config struct {
		Architecture, OS string
		Created          time.Time
		Config           struct {
			Entrypoint []string
			Labels     map[string]string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
)

func parse[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

func TestBadArguments(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "image.tar")
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no name":      {nil, "at least one"},
		"no such file": {[]string{"-name", "x:1", "/none/{arch}=/x"}, "no such file"},
		"no place":     {[]string{"-name", "x:1", "/etc/hosts"}, "SOURCE=DESTINATION"},
		"half a link":  {[]string{"-name", "x:1", "-link", "/a"}, "NAME=value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(append([]string{"-o", out}, tt.args...))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("there is an archive all the same")
			}
		})
	}
}
