package check

import (
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// TestTries: on this machine the required abilities are there, and none of the machine's own
// network changes.
func TestTries(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	r, err := Run(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, i := range r.Items {
		t.Logf("%-20s %-5s %s; %s", i.Name, i.State, i.Why, i.Do)
		if seen[i.Name] {
			t.Errorf("%s: twice", i.Name)
		}
		seen[i.Name] = true
		if i.Required && i.State != OK {
			t.Errorf("%s: %s: %s", i.Name, i.State, i.Why)
		}
		if i.State == FAIL && (i.Why == "" || i.Do == "" || strings.Contains(i.Why, "\n")) {
			t.Errorf("%s fails without one line of why and what to do: %q, %q", i.Name, i.Why, i.Do)
		}
	}
	if !r.Fit() || r.Kernel == "" || len(seen) < 20 {
		t.Errorf("fit %t, kernel %q, %d items", r.Fit(), r.Kernel, len(seen))
	}
	if _, err := os.Stat("/proc/sys/net/ipv4/conf/" + linkA); err == nil {
		t.Error("a link of the sandbox is in the namespace of the test")
	}
}

// root makes a directory with what files of a machine say.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFiles: what files say where nothing can be tried.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := root(t, map[string]string{
		"proc/sys/kernel/osrelease":                   "5.4.0-7-generic\n",
		"proc/modules":                                "veth 40960 0 - Live 0x0\n",
		"lib/modules/5.4.0-7-generic/modules.dep":     "kernel/net/vxlan/vxlan.ko.zst: kernel/x.ko\nkernel/net/netfilter/nft_ct.ko:\n",
		"lib/modules/5.4.0-7-generic/modules.builtin": "kernel/net/ipv6/ipv6.ko\n",
		"boot/config-5.4.0-7-generic":                 "# CONFIG_WIREGUARD is not set\nCONFIG_NET_IPIP=m\nCONFIG_NF_TABLES=y\n",
		"other":                                       "CONFIG_WIREGUARD=y\n",
		"empty":                                       "hello\n",
	})
	want := map[string]State{
		"kernel": FAIL, "links": OK, "vxlan": OK, "ipv6": OK, "wireguard": FAIL, "ipip": OK, "nftables": OK, "routes": SKIP, "multipath": SKIP, "nat": SKIP,
	}
	r, err := Run(t.Context(), Options{Root: dir, NoTries: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range r.Items {
		if w := want[i.Name]; w != "" && i.State != w {
			t.Errorf("%s: %s (%s), want %s", i.Name, i.State, i.Why, w)
		}
		if i.Name == "wireguard" && i.Do != "take a kernel with CONFIG_WIREGUARD" {
			t.Errorf("%s: do %q", i.Name, i.Do)
		}
	}
	if r.Fit() {
		t.Error("a kernel that is too old is fit")
	}
	if r, err = Run(t.Context(), Options{Root: dir, NoTries: true, KernelConfig: filepath.Join(dir, "other")}); err != nil {
		t.Fatal(err)
	}
	for _, i := range r.Items {
		if i.Name == "wireguard" && i.State != OK {
			t.Errorf("with another configuration: %+v", i)
		}
	}
	for _, file := range []string{"missing", "empty"} {
		path := filepath.Join(dir, file)
		if _, err := Run(t.Context(), Options{Root: dir, NoTries: true, KernelConfig: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want an error that names it", file, err)
		}
	}
}

func TestCompressedConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	_, _ = z.Write([]byte("CONFIG_VXLAN=m\n# CONFIG_IFB is not set\n"))
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := readConfig(path)
	if err != nil || got["CONFIG_VXLAN"] != "m" || got["CONFIG_IFB"] != "n" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestJudge: what is said of a try that failed, by why it did.
func TestJudge(t *testing.T) {
	t.Parallel()
	f := facts{loaded: map[string]bool{}, files: map[string]bool{"vxlan": true}, config: map[string]string{}}
	for _, tt := range []struct {
		module string
		err    error
		do     string
	}{
		{"vxlan", unix.EOPNOTSUPP, "modprobe vxlan"},
		{"ipip", unix.EOPNOTSUPP, "take a kernel with CONFIG_X"},
		{"ipip", unix.EPERM, "NET_ADMIN"},
		{"", unix.ENOENT, "by hand"},
	} {
		a := ability{name: "x", module: tt.module, config: "CONFIG_X", remedy: "by hand"}
		if i := a.judge(map[string]error{"x": tt.err}, nil, f); i.State != FAIL || !strings.Contains(i.Do, tt.do) || i.Why != tt.err.Error() {
			t.Errorf("%s, %v: %+v; want to do %q", tt.module, tt.err, i, tt.do)
		}
	}
	i := ability{name: "x"}.judge(nil, unix.EPERM, f)
	if i.State != SKIP || !strings.Contains(i.Why, "operation not permitted") {
		t.Errorf("without a sandbox: %+v", i)
	}
}
