package ctl

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What commands say that can't open the datastore, in both voices.
func TestOpenComplains(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.cfg")
	secret := filepath.Join(dir, "secret.cfg")
	for file, spec := range map[string]string{
		bad:    "  datastoreTyp: etcdv3\n",
		secret: "  etcdEndpoints: http://127.0.0.1:1\n  etcdUsername: root\n  etcdPassword: hush-hush\n  etcdKeyFile: /k\n",
	} {
		if err := os.WriteFile(file, []byte("apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n"+spec), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(dir, "missing.cfg")
	etcd := []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=http://127.0.0.1:1"}
	// ours is what weft says on stderr; theirs what calicoctl says, with its stream.
	for name, tt := range map[string]struct {
		environ      []string
		args         string
		ours, theirs string
		code         int
	}{
		"unknown type":   {environ: []string{"DATASTORE_TYPE=mongo"}, ours: `DATASTORE_TYPE: "mongo": must be etcdv3 or kubernetes`, theirs: "stdout: Failed to create Calico API client: unknown datastore type: mongo", code: 1},
		"no endpoints":   {environ: []string{"DATASTORE_TYPE=etcdv3"}, theirs: "stdout: Failed to create Calico API client: no etcd endpoints specified", code: 1},
		"no such file":   {environ: etcd, args: "-c " + missing, ours: "--config: stat " + missing + ": no such file or directory", theirs: "stdout: Error reading config file: " + missing, code: 1},
		"unknown field":  {args: "-c " + bad, ours: bad + ": spec.datastoreTyp: unknown field: did you mean spec.datastoreType?", theirs: "stdout: Failed to create Calico API client: syntax error in " + bad + `: failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: unknown field "datastoreTyp"`, code: 1},
		"half a pair":    {args: "-c " + secret, ours: secret + ": spec.etcdKeyFile and spec.etcdCertFile: one is set and the other is not: must be both or none", theirs: "stderr: " + secret + ": spec.etcdKeyFile and spec.etcdCertFile: one is set and the other is not: must be both or none", code: 1},
		"nobody there":   {environ: etcd, ours: "etcd: http://127.0.0.1:1: connection refused", theirs: "stderr: etcd: http://127.0.0.1:1: connection refused", code: 1},
		"nothing is set": {environ: []string{"HOME=" + dir}, ours: "no datastore is set: tried in this order: ", code: 1},
		"log level":      {environ: etcd, args: "-l loud", ours: "--log-level loud: must be panic, fatal, error, warn, info or debug", theirs: "stderr: unknown log level: loud, expected one of: panic, fatal, error, warn, info, debug", code: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"datastore", "migrate", "lock"}, strings.Fields(tt.args)...)
			if tt.ours != "" {
				stdout, stderr, code := command(t.Context(), "weft", tt.environ, "", args...)
				if stdout != "" || !strings.HasPrefix(stderr, "weft: "+tt.ours) || strings.Count(strings.TrimSpace(stderr), "\n") != 0 || code != tt.code {
					t.Errorf("weft: stdout %q, exit %d, stderr\n%s\nwant\n%s", stdout, code, stderr, tt.ours)
				}
			}
			if tt.theirs != "" {
				stdout, stderr, code := command(t.Context(), "calicoctl", tt.environ, "", args...)
				got := "stdout: " + stdout + stderr
				if stderr != "" {
					got = "stderr: " + stderr + stdout
				}
				if got != tt.theirs+"\n" || code != 1 {
					t.Errorf("calicoctl: exit %d\n%s\nwant\n%s", code, got, tt.theirs)
				}
			}
		})
	}
}

// A server that takes connections and says nothing is named after a while, and an interrupt
// does not wait for that.
func TestOpenGivesUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	environ := []string{"ETCD_ENDPOINTS=http://" + l.Addr().String()}
	_, stderr, code := command(t.Context(), "weft", environ, "", "datastore", "migrate", "lock")
	if !strings.HasPrefix(stderr, "weft: etcd: http://"+l.Addr().String()+": ") || code != 1 {
		t.Errorf("exit %d: %s", code, stderr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, stderr, code = command(ctx, "weft", environ, "", "datastore", "migrate", "lock")
	if !strings.HasPrefix(stderr, "weft: interrupted before the datastore answered") || code != 1 {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
