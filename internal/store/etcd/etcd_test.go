package etcd_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/etcd/server"
	"github.com/weft-net/weft/internal/store/storetest"
	"github.com/weft-net/weft/internal/testenv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// serve runs a server of the test's own; stop it by the function.
func serve(t testing.TB, dir string) (url string, stop func()) {
	t.Helper()
	url = "unix://" + filepath.Join(dir, "s")
	s, err := server.Start(t.Context(), server.Config{Dir: filepath.Join(dir, "data"), ClientURLs: []string{url}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	return url, s.Stop
}

// open connects a store to the endpoints.
func open(t testing.TB, endpoints ...string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: endpoints, Timeout: testenv.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// client is a connection past the store.
func client(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	soon := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond}}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{url}, Logger: zap.NewNop(), DialTimeout: testenv.Patience,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(soon)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Target {
		dir := t.TempDir()
		url, stop := serve(t, dir)
		t.Cleanup(func() { stop() })
		raw := client(t, url)
		return storetest.Target{
			Store: open(t, url),
			Put: func(key, value string) {
				if _, err := raw.Put(t.Context(), key, value); err != nil {
					t.Error(err)
				}
			},
			Value: func(key string) string {
				got, err := raw.Get(t.Context(), key)
				if err != nil {
					t.Error(err)
				}
				for _, e := range got.Kvs {
					return string(e.Value)
				}
				return ""
			},
			Compact: func() {
				now, err := raw.Get(t.Context(), "now")
				if err == nil {
					_, err = raw.Compact(t.Context(), now.Header.Revision)
				}
				if err != nil {
					t.Error(err)
				}
			},
			Restart: func() {
				stop()
				_, stop = serve(t, dir)
			},
		}
	})
}

// TestEndpoints reaches a server by each kind of endpoint, and past a dead one.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	v4 := "http://" + freeAddress(t, "127.0.0.1:0")
	v6 := "http://" + freeAddress(t, "[::1]:0")
	dead := "http://" + freeAddress(t, "127.0.0.1:0")
	dir := t.TempDir()
	unix := "unix://" + dir + "/s"
	srv, err := server.Start(t.Context(), server.Config{Dir: dir + "/data", ClientURLs: []string{unix, v4, v6}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	for name, endpoints := range map[string][]string{
		"unix": {unix}, "IPv4": {v4}, "IPv6": {v6 + "/"}, "the first dead": {dead, v4}, "the last dead": {v6, dead},
	} {
		if err := store.Initialise(t.Context(), open(t, endpoints...)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// freeAddress is an address at which nobody listens.
func freeAddress(t *testing.T, at string) string {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
