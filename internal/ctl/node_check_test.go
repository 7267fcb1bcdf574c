package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/ctl/check"
)

func TestCheckSystem(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("CONFIG_NF_TABLES=y\n# CONFIG_IFB is not set\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What comes of the tries is this machine's business; the form is not.
	out, _, code := voice(t, "weft", nil, "node", "checksystem", "-f", config, "-o", "json")
	var r check.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Fit() != (code == 0) || len(r.Items) < 20 {
		t.Fatalf("json: exit %d, %v\n%s", code, err, out)
	}
	out, _, code = voice(t, "weft", nil, "node", "checksystem", "-f", config)
	if !strings.HasPrefix(out, "ABILITY ") || !strings.Contains(out, "this machine can") || r.Fit() != (code == 0) {
		t.Errorf("exit %d\n%s", code, out)
	}
	out, _, _ = voice(t, "calicoctl", nil, "node", "checksystem", "-f", config)
	if !regexp.MustCompile(`^Kernel version\n\t\S+ +OK\nKernel modules\n(\t\S+ +(OK|FAIL|SKIP)\n){10,}`).MatchString(out) {
		t.Errorf("calicoctl:\n%s", out)
	}
	for program, want := range map[string]int{"weft": 2, "calicoctl": 1} {
		if _, log, code := voice(t, program, nil, "node", "checksystem", "-f", "/nowhere/config"); code != want || !strings.Contains(log, "/nowhere/config") {
			t.Errorf("%s without the file: exit %d, %q", program, code, log)
		}
	}
}

func TestCheckTables(t *testing.T) {
	t.Parallel()
	r := check.Report{Kernel: "6.1.0", Items: []check.Item{
		{Name: "kernel", For: "all", Required: true, State: check.OK},
		{Name: "nftables", Module: "nf_tables", For: "policy", Required: true, State: check.OK},
		{Name: "address sets", Module: "nf_tables", For: "policy", Required: true, State: check.FAIL, Why: "ip weft: no such file", Do: "modprobe nf_tables"},
		{Name: "ipip", Module: "ipip", For: "pools", State: check.SKIP, Why: "not tried", Do: "run it as root"},
	}}
	var b strings.Builder
	if err := calicoCheck(&b, r); err != nil {
		t.Fatal(err)
	}
	want := "Kernel version\n\t6.1.0                   OK\nKernel modules\n\tnf_tables               FAIL\n\tipip                    SKIP\naddress sets: ip weft: no such file: modprobe nf_tables\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("calicoctl (-want +got):\n%s", d)
	}
	b.Reset()
	if err := checkTable(&b, r); err != nil {
		t.Fatal(err)
	}
	want = `ABILITY       NEED      STATE  FOR     WHY
kernel        required  OK     all     -
nftables      required  OK     policy  -
address sets  required  FAIL   policy  ip weft: no such file
ipip          optional  SKIP   pools   not tried
address sets: modprobe nf_tables
ipip: run it as root
this machine can't be a node: see what is required and fails
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("weft (-want +got):\n%s", d)
	}
}
