package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	n := newNotes(slog.New(slog.NewTextHandler(&log, nil)))
	bad := model.Invalid{Key: model.Key{Kind: model.KindIPPool, Name: "bad"}, Err: errors.New("spec.cidr: nonsense")}
	felix := model.FelixConfig{Name: "default", Unbuilt: []string{"bpfEnabled", "flowLogs"}}
	snapshot := model.Batch{Reset: true, Synced: true, Invalids: []model.Invalid{bad}, Puts: []model.Value{felix}}
	n.step(snapshot)
	n.step(snapshot)
	want := "FelixConfiguration/default: [bpfEnabled flowLogs]: stored, without effect in this version\nIPPool/bad: invalid: spec.cidr: nonsense"
	if got := strings.Join(n.all(), "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 2 {
		t.Errorf("each note is logged once; got %d lines:\n%s", lines, log.String())
	}
	p := model.Problem{Key: model.Key{Kind: model.KindBGPPeer, Name: "tor"}, Text: "no password"}
	n.problems("peering", []model.Problem{p})
	n.problems("route", nil)
	n.step(model.Batch{Reset: true, Synced: true})
	n.step(model.Batch{Deletes: []model.Key{felix.Key()}})
	if got := strings.Join(n.all(), "\n"); got != "BGPPeer/tor: no password" {
		t.Errorf("after the objects are gone: %q", got)
	}
	n.problems("peering", nil)
	n.step(model.Batch{Puts: []model.Value{model.Cluster{Ready: false}}})
	if !n.locked() || len(n.all()) != 0 {
		t.Errorf("locked %t, notes %q", n.locked(), n.all())
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bgp"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"key": "s3cret\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, "bgp", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := secrets(dir).lookup(model.SecretRef{Name: "bgp", Key: "key"}); got != "s3cret" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for _, ref := range []model.SecretRef{{Name: "bgp", Key: "empty"}, {Name: "bgp", Key: "none"}, {Name: "..", Key: "key"}, {Name: "bgp", Key: "../bgp/key"}, {Name: "bgp"}} {
		if got, err := secrets(dir).lookup(ref); got != "" || err == nil {
			t.Errorf("%+v: got %q, %v; want an error", ref, got, err)
		}
	}
	if _, err := secrets("").lookup(model.SecretRef{Name: "bgp", Key: "key"}); err == nil || !strings.Contains(err.Error(), "WEFT_SECRETS_DIR") {
		t.Errorf("without a directory: %v", err)
	}
}
