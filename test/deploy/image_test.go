package deploy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/testenv"
)

// TestImage builds the image of this machine's architecture as users do, and looks at every
// file of it. Then its programs are started with nothing but the image as file system,
// without a network.
func TestImage(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	archive := filepath.Join(tmp, "weft.tar")
	out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "--no-print-directory", "image", "VERSION=v0-test",
		"IMAGE=localhost/weft-test", "IMAGE_ARCHS="+runtime.GOARCH, "IMAGE_TAR="+archive, "IMAGE_BIN="+filepath.Join(tmp, "bin")).CombinedOutput()
	if err != nil {
		t.Fatalf("make image: %v:\n%s", err, out)
	}
	root := filepath.Join(tmp, "root")
	got := unpack(t, archive, root)
	want := []string{"opt/", "opt/cni/", "opt/cni/bin/"}
	programs := []string{
		"opt/cni/bin/bandwidth", "opt/cni/bin/host-local", "opt/cni/bin/loopback", "opt/cni/bin/portmap", "opt/cni/bin/weft-cni", "usr/bin/weft",
	}
	want = append(append(want, programs[:5]...), "usr/", "usr/bin/", "usr/bin/calicoctl", "usr/bin/kubectl-weft", programs[5])
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	for _, p := range programs {
		checkStatic(t, filepath.Join(root, p))
	}
	if got := inside(t, root, nil, "/usr/bin/weft", "version"); !strings.Contains(got, "v0-test") {
		t.Errorf("weft version: %q", got)
	}
	if got := inside(t, root, nil, "/usr/bin/calicoctl", "version", "--client"); !strings.HasPrefix(got, "Client Version:") {
		t.Errorf("calicoctl version: %q", got)
	}
	for _, p := range programs[:5] {
		if got := inside(t, root, []string{"CNI_COMMAND=VERSION"}, "/"+p); !strings.Contains(got, `"1.0.0"`) {
			t.Errorf("%s knows the versions %q", p, got)
		}
	}
}

// unpack writes the files of the image of this architecture, and returns their paths in
// order.
func unpack(t *testing.T, archive, root string) []string {
	t.Helper()
	b, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{}
	each(t, bytes.NewReader(b), func(h *tar.Header, content []byte) { blobs[h.Name] = content })
	var images []struct{ Layers []string }
	if err := json.Unmarshal(blobs["manifest.json"], &images); err != nil || len(images) != 1 || len(images[0].Layers) != 1 {
		t.Fatalf("manifest.json: %v: %s", err, blobs["manifest.json"])
	}
	layer, err := gzip.NewReader(bytes.NewReader(blobs[images[0].Layers[0]]))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	each(t, layer, func(h *tar.Header, content []byte) {
		paths = append(paths, h.Name)
		path := filepath.Join(root, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		default:
			err = os.WriteFile(path, content, os.FileMode(h.Mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return paths
}

func each(t *testing.T, r io.Reader, f func(*tar.Header, []byte)) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		f(h, content)
	}
}

// checkStatic: an image from scratch has no libraries and no loader.
func checkStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s is not static", path)
		}
	}
}

// inside runs a program with root as its file system, in a network namespace without any
// interface that is up, and returns what it wrote.
func inside(t *testing.T, root string, env []string, args ...string) string {
	t.Helper()
	testenv.NeedRoot(t)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env, cmd.Dir = env, "/"
	cmd.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}
