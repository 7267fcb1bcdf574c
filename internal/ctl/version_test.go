package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd/server"
	"github.com/weft-net/weft/internal/store/mem"
)

// startEtcd runs an empty datastore and returns the settings that lead there.
func startEtcd(t *testing.T) []string {
	t.Helper()
	url := "unix://" + filepath.Join(t.TempDir(), "etcd.sock")
	s, err := server.Start(t.Context(), server.Config{Dir: t.TempDir(), ClientURLs: []string{url}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + url}
}

// openTest opens the datastore that the settings lead to.
func openTest(t *testing.T, environ []string) store.Store {
	t.Helper()
	c := &client{Process: Process{Environ: environ, Stderr: &bytes.Buffer{}}}
	st, err := c.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// noteVersion writes a ClusterInformation.
func noteVersion(t *testing.T, st store.Store, version, kind string) {
	t.Helper()
	ready := true
	info := &v3.ClusterInformation{Spec: v3.ClusterInformationSpec{ClusterGUID: "0123", CalicoVersion: version, ClusterType: kind, DatastoreReady: &ready}}
	info.Name = "default"
	verb := store.Create
	if _, err := st.Get(t.Context(), model.Cluster{}.Key()); err == nil {
		verb = store.Update
	}
	if _, err := st.Commit(t.Context(), store.Op{Verb: verb, Object: store.New(info)}); err != nil {
		t.Fatal(err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	env := append(startEtcd(t), fakeAgent(t, &agent.Status{Node: "node-a", Version: "v0.1"}, nil)...)
	empty := "Client Version:    v0\nGit commit:        \n"
	// goldens 006 and 299
	out, log, code := voice(t, "calicoctl", env, "version")
	if out != empty || code != 1 || log != "unable to retrieve Cluster Version or Type: resource does not exist: ClusterInformation(default) with error: <nil>\n" {
		t.Errorf("empty datastore: exit %d, %q, %q", code, out, log)
	}
	out, log, code = voice(t, "weft", env, "version")
	if want := "weft v0\nagent    v0.1, of node node-a\ncluster  none: nobody has set up this datastore yet\n"; out != want || code != 0 || log != "" {
		t.Errorf("empty datastore: exit %d, %q, %q", code, out, log)
	}
	st := openTest(t, env)
	noteVersion(t, st, "", "")
	out, log, code = voice(t, "calicoctl", env, "version")
	if out != empty+"Cluster Version:   unknown\nCluster Type:      unknown\n" || code != 0 || log != "" {
		t.Errorf("unknown: exit %d, %q, %q", code, out, log)
	}
	noteVersion(t, st, "v3.31.2", "k8s,bgp")
	for line, want := range map[string]string{
		"calicoctl version":          empty + "Cluster Version:   v3.31.2\nCluster Type:      k8s,bgp\n",
		"calicoctl version --client": empty,
		"weft version":               "weft v0\nagent    v0.1, of node node-a\ncluster  v3.31.2, type k8s,bgp\n",
		"weft version --client":      "weft v0\n",
	} {
		words := strings.Fields(line)
		if out, log, code := voice(t, words[0], env, words[1:]...); out != want || code != 0 || log != "" {
			t.Errorf("%s: exit %d, %q, %q; want %q", line, code, out, log, want)
		}
	}
	out, _, _ = voice(t, "weft", env, "version", "-o", "json")
	var got versions
	if err := json.Unmarshal([]byte(out), &got); err != nil || *got.Agent != (agentVersion{"node-a", "v0.1"}) ||
		*got.Cluster != (clusterVersion{"v3.31.2", "k8s,bgp", "0123", true}) || got.Client != "v0" {
		t.Errorf("json: %s, %v", out, err)
	}
	nobody := []string{"WEFT_STATUS_SOCKET=/nowhere/s", "ETCD_ENDPOINTS=unix:///nowhere/etcd"}
	out, log, code = voice(t, "weft", nobody, "version")
	if !strings.HasPrefix(out, "weft v0\nagent    none answers at /nowhere/s: no such file or directory\ncluster  not known\n") || code != 1 || !strings.Contains(log, "/nowhere/etcd") {
		t.Errorf("datastore away: exit %d, %q, %q", code, out, log)
	}
	if out, log, code = voice(t, "weft", nobody[:1], "version"); !strings.HasSuffix(out, "cluster  none: no datastore is set\n") || code != 0 {
		t.Errorf("no datastore: exit %d, %q, %q", code, out, log)
	}
	if _, log, code = voice(t, "weft", env, "version", "--poll", "-1s"); code != 2 || !strings.Contains(log, "--poll") {
		t.Errorf("--poll: exit %d, %q", code, log)
	}
}

// TestNewerCluster: of a cluster that weft does not know it says so and does not write to it,
// unless it is told to.
func TestNewerCluster(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version string
		allow   bool
		writes  bool
		says    string // on stderr
	}{
		{"", false, true, ""},
		{"master", false, true, ""},
		{"v3.33.9", false, true, ""},
		{"v3.4.0", false, true, ""},
		{"v2.99.0", false, true, ""},
		{"v3.34.0-0.dev", false, false, "v3.34.0-0.dev, which this one (v0) knows up to v3.33: reading only"},
		{"v4.0.0", false, false, "reading only"},
		{"v4.0.0", true, true, "writing all the same"},
	} {
		st := mem.New()
		noteVersion(t, st, tt.version, "")
		var log bytes.Buffer
		c := &client{Process: Process{Stderr: &log, Version: "v0"}, allowVersionMismatch: tt.allow}
		checked := c.checkVersion(t.Context(), st)
		tier := &v3.Tier{}
		tier.Name = "shop"
		_, err := checked.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(tier)})
		if (err == nil) != tt.writes || err != nil && (!errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "--allow-version-mismatch") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q, allowed %t: %v", tt.version, tt.allow, err)
		}
		if !strings.Contains(log.String(), tt.says) || (tt.says == "") != (log.Len() == 0) || strings.Count(log.String(), "\n") > 1 {
			t.Errorf("%q, allowed %t: says %q, want one line with %q", tt.version, tt.allow, log.String(), tt.says)
		}
		if _, err := checked.Get(t.Context(), model.Cluster{}.Key()); err != nil {
			t.Errorf("%q: can't be read: %v", tt.version, err)
		}
	}
}
