package server_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/weft-net/weft/internal/store/etcd/server"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// start runs a server on a socket of its own.
func start(t testing.TB, dir string) (*server.Server, string) {
	t.Helper()
	url := "unix://" + filepath.Join(dir, "etcd.sock")
	s, err := server.Start(t.Context(), server.Config{Dir: filepath.Join(dir, "data"), ClientURLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	return s, url
}

func dial(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStopAndStartKeepsContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, url := start(t, dir)
	if _, err := dial(t, url).Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s, url = start(t, dir)
	defer s.Stop()
	got, err := dial(t, url).Get(t.Context(), "k")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" {
		t.Fatalf("after a restart: %v, %v; want k=v", got, err)
	}
}

func TestFileModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, dir)
	defer s.Stop()
	for path, want := range map[string]os.FileMode{"data": 0o700 | os.ModeDir, "etcd.sock": 0o600 | os.ModeSocket} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	running, url := start(t, dir)
	defer running.Stop()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := "unix:///" + string(make([]byte, 120))
	for name, tt := range map[string]struct {
		c    server.Config
		want string
	}{
		"no URL":         {server.Config{Dir: dir}, "etcd server: no client URL is set"},
		"relative":       {server.Config{Dir: dir, ClientURLs: []string{"unix://a.sock"}}, `etcd server: client URL "unix://a.sock": must hold an absolute path, such as unix:///run/weft/etcd.sock`},
		"long path":      {server.Config{Dir: dir, ClientURLs: []string{long}}, ""},
		"scheme":         {server.Config{Dir: dir, ClientURLs: []string{"tcp://127.0.0.1:1"}}, `etcd server: URL "tcp://127.0.0.1:1": must be unix:///PATH, http://ADDRESS:PORT or https://ADDRESS:PORT`},
		"no certificate": {server.Config{Dir: dir + "/tls", ClientURLs: []string{"https://127.0.0.1:1"}}, ""},
		"bad address":    {server.Config{Dir: dir + "/bad", ClientURLs: []string{"http://192.0.2.1:23791"}}, ""},
		"no socket":      {server.Config{Dir: dir + "/other", ClientURLs: []string{"unix://" + precious}}, `etcd server: client URL "unix://` + precious + `": there is something already that is no socket`},
		"data in use":    {server.Config{Dir: dir + "/data", ClientURLs: []string{url + "2"}}, "etcd server: " + dir + "/data: another etcd is using this directory"},
		"socket in use":  {server.Config{Dir: dir + "/other", ClientURLs: []string{url}}, `etcd server: client URL "` + url + `": somebody serves there already`},
	} {
		s, err := server.Start(t.Context(), tt.c)
		if err == nil {
			s.Stop()
			t.Errorf("%s: started", name)
		} else if tt.want != "" && err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %v", name, err, tt.want)
		}
	}
	for _, made := range []string{"other", "bad"} {
		if _, err := os.Stat(filepath.Join(dir, made)); !os.IsNotExist(err) {
			t.Errorf("a server that did not start left %s: %v", made, err)
		}
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("somebody's file:", err)
	}
}

func TestStartEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	s, err := server.Start(ctx, server.Config{Dir: dir + "/data", ClientURLs: []string{"unix://" + dir + "/s"}})
	if err == nil {
		s.Stop() // it was ready before it looked
	}
}
