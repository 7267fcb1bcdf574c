package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/store/kube/kubetest"
)

// TestMigrate walks through a migration as a user does: from one etcd to another, and to
// Kubernetes.
func TestMigrate(t *testing.T) {
	t.Parallel()
	from, to := startEtcd(t), startEtcd(t)
	load(t, openTest(t, from), "../../test/fixtures/ctl/resources.yaml")
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	kubernetes := []string{"DATASTORE_TYPE=kubernetes", "K8S_API_ENDPOINT=" + api.URL}
	file := filepath.Join(t.TempDir(), "cluster.yaml")
	run := func(environ []string, stdin string, want int, args ...string) string {
		t.Helper()
		stdout, stderr, code := command(t.Context(), "weft", environ, stdin, append([]string{"datastore", "migrate"}, args...)...)
		if code != want {
			t.Fatalf("%v: exit %d: %s%s", args, code, stdout, stderr)
		}
		return stdout + stderr
	}
	said := func(got, want string) {
		t.Helper()
		if !strings.Contains(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	said(run(from, "", 1, "export"), "datastore is not locked: run `weft datastore migrate lock` first, or give --unlocked for a copy of what is in use")
	said(run(from, "", 0, "lock"), "Datastore locked.\n")
	said(run(from, "", 0, "lock"), "Datastore is locked already.\n")
	export, stderr, code := command(t.Context(), "weft", from, "", "datastore", "migrate", "export")
	if code != 0 || strings.Count(export, "===\n") != 2 || !strings.Contains(export, "kind: IPPool\n") {
		t.Fatalf("exit %d: %s\n%s", code, stderr, export)
	}
	said(stderr, "exported ")
	if err := os.WriteFile(file, []byte(export), 0o600); err != nil {
		t.Fatal(err)
	}
	said(run(to, "", 2, "import"), "-f FILE is missing")
	said(run(to, "", 2, "import", "-f", file, "-o", "nosuch"), "-o nosuch: must be table, json or yaml")
	said(run(to, "", 1, "import", "-f", file+"x"), "no such file")
	said(run(to, "a\n", 1, "import", "-f", "-"), "-: is no file of an export: ")
	said(run(to, "", 0, "import", "-f", file), "everything is there as in the file.\nThe datastore is locked. When everything uses it: weft datastore migrate unlock\n")
	var outcome importOutcome
	stdout, stderr, _ := command(t.Context(), "weft", to, export, "datastore", "migrate", "import", "-f", "-", "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &outcome); err != nil || outcome.Created+outcome.Updated != 0 || outcome.Unchanged == 0 {
		t.Errorf("%v: %s%s", err, stdout, stderr)
	}
	said(run(to, "", 0, "unlock"), "Datastore unlocked.\n")
	said(run(to, "", 0, "unlock"), "Datastore is not locked.\n")
	// What is not in the file is not overwritten unless it is asked for.
	other := strings.Replace(export, "cidr: 10.10.0.0/24", "cidr: 10.99.0.0/24", 1)
	if other == export {
		t.Fatal("no pool to change in the export")
	}
	said(run(to, other, 1, "import", "-f", "-"), "the datastore is not empty: IPPool/pool-a is another one")
	said(run(to, other, 0, "import", "-f", "-", "--overwrite"), "updated 1")
	// In Kubernetes there are no such nodes.
	got := run(kubernetes, "", 0, "import", "-f", file)
	said(got, "note: Node/node-a is left out: Kubernetes has no such node\n")
	said(got, "everything is there as in the file.\n")
	said(run(kubernetes, "", 0, "export"), "kind: IPPool\n")
}

// TestMigrateAsCalicoctl: its texts, and that it goes one way only.
func TestMigrateAsCalicoctl(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	api := kubetest.New(t, kubetest.CalicoResources("crd.projectcalico.org")...)
	kubernetes := []string{"DATASTORE_TYPE=kubernetes", "K8S_API_ENDPOINT=" + api.URL}
	for _, tt := range []struct {
		environ []string
		args    string
		want    string
		code    int
	}{
		{etcd, "migrate lock", "Datastore locked.\n", 0},
		{etcd, "migrate lock", "Datastore locked.\n", 0},
		{etcd, "migrate import -f -", "import writes to a kubernetes datastore, and the type of this one is etcdv3\n", 1},
		{etcd, "migrate unlock", "Datastore unlocked.\n", 0},
		{etcd, "migrate export", "datastore is not locked: run `calicoctl datastore migrate lock` first, or give --unlocked for a copy of what is in use\n", 1},
		{kubernetes, "migrate export", "export reads an etcdv3 datastore, and the type of this one is kubernetes\n", 1},
		{etcd, "migrate-policy-names", "0 policies renamed.\n", 0},
	} {
		stdout, stderr, code := command(t.Context(), "calicoctl", tt.environ, "===\n{}\n===\n{}\n", append([]string{"datastore"}, strings.Fields(tt.args)...)...)
		if stdout+stderr != tt.want || code != tt.code || (stderr != "") != (code != 0) {
			t.Errorf("%s: exit %d: stdout %q, stderr %q, want %q", tt.args, code, stdout, stderr, tt.want)
		}
	}
}
