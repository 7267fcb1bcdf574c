// Package server runs an etcd server inside the process: the datastore of a lab, of
// a test, or of a cluster that brings none of its own.
//
// It is etcd's own server (go.etcd.io/etcd/server/v3/embed) with settings for
// one job: a small datastore that is up at once. A single member is its own
// majority, so it elects itself within a few short ticks; nothing is logged below
// warnings; old revisions go after ten minutes, as Calico's controllers have it;
// every write is on disk before it is acknowledged, unless nobody needs that
// ([Config.Volatile]).
//
// It is deliberately not a way to run etcd clusters in production: several
// members ([Config.Cluster]) are there for tests of leader changes.
//
// Files: the data directory has mode 0700, unix sockets 0600.
//
// Invariant: after [Server.Stop] the same directory and URLs can be served again,
// with the same content.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// Config says what to serve.
type Config struct {
	// Dir holds the data. It is made if it does not exist.
	Dir string
	// ClientURLs is where clients connect: unix:///run/weft/etcd.sock,
	// http://127.0.0.1:2379 or https://192.0.2.1:2379.
	ClientURLs []string
	// CertFile and KeyFile, PEM, are needed for https URLs. With CAFile clients
	// must show a certificate that it signed.
	CertFile, KeyFile, CAFile string
	// Name is this member's, Cluster the peer URL of each member by name, this
	// one's included. Both are empty for a server of its own.
	Name    string
	Cluster map[string]string
	// Compaction is the age at which revisions are forgotten. 0: 10 minutes.
	Compaction time.Duration
	// QuotaBytes limits the size of the database. 0: 2 GiB, etcd's default.
	QuotaBytes int64
	// Volatile has no write wait for the disk: for data that nobody needs when the
	// machine is gone, as in tests, which then do not depend on a disk's speed.
	Volatile bool
	// Log takes what etcd has to say, from warnings on. Nil: nothing.
	Log *slog.Logger
}

// Server is a running etcd.
type Server struct {
	etcd       *embed.Etcd
	sockets    []string
	endStreams context.CancelFunc
	silence    *atomic.Bool // set when it stops: what ends then is meant to end
	stop       sync.Once
}

// Start runs a server and returns when it serves, or when ctx ends.
func Start(ctx context.Context, c Config) (*Server, error) {
	silence := &atomic.Bool{}
	settings, err := c.settings(silence)
	if err != nil {
		return nil, fmt.Errorf("etcd server: %w", err)
	}
	sockets, err := c.prepare()
	if err != nil {
		return nil, err
	}
	streams, endStreams := context.WithCancel(context.Background())
	settings.GRPCAdditionalServerOptions = append(settings.GRPCAdditionalServerOptions, endingWith(streams))
	e, err := embed.StartEtcd(settings)
	if err != nil {
		endStreams()
		_ = os.Remove(c.Dir) // if it is empty: nothing was kept there
		return nil, fmt.Errorf("etcd server: %s: %w", c.Dir, err)
	}
	s := &Server{etcd: e, sockets: sockets, endStreams: endStreams, silence: silence}
	for _, path := range sockets {
		if err := os.Chmod(path, 0o600); err != nil {
			s.Stop()
			return nil, fmt.Errorf("etcd server: %w", err)
		}
	}
	select {
	case <-e.Server.ReadyNotify():
		return s, nil
	case err = <-e.Err():
	case <-e.Server.StopNotify():
		err = errors.New("stopped while starting")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.Stop()
	return nil, fmt.Errorf("etcd server: %s: %w", c.Dir, err)
}

// Stop ends the server and waits for it. Clients see their connections close.
// Stopping twice does nothing.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.silence.Store(true)
		s.endStreams()
		s.etcd.Close()
		for _, path := range s.sockets {
			os.Remove(path) //nolint:errcheck // etcd has removed it already, as a rule
		}
	})
}

// endingWith makes the server's streams end with ctx. Without that etcd waits five
// seconds, when it stops, for each client to give up its watches by itself.
func endingWith(ctx context.Context) grpc.ServerOption {
	return grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		streamCtx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return handle(srv, endingStream{ss, streamCtx})
	})
}

// endingStream is a stream with another context.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endingStream) Context() context.Context { return s.ctx }

// Err delivers the error that ended the server, if it ended by itself.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Etcd is the server itself, for tests that move leaders or raise alarms.
func (s *Server) Etcd() *embed.Etcd { return s.etcd }

// prepare makes the directories with their modes and removes the sockets that a
// killed server left, which would keep a new one from listening. It returns the
// paths of the sockets.
func (c Config) prepare() ([]string, error) {
	var sockets []string
	for _, u := range c.ClientURLs {
		path, ok := strings.CutPrefix(u, "unix://")
		if !ok {
			continue
		}
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("etcd server: client URL %q: must hold an absolute path, such as unix:///run/weft/etcd.sock", u)
		}
		if len(path) > 107 {
			return nil, fmt.Errorf("etcd server: client URL %q: the path has %d bytes: a unix socket's has at most 107", u, len(path))
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("etcd server: %w", err)
		}
		if err := removeStale(path); err != nil {
			return nil, fmt.Errorf("etcd server: client URL %q: %w", u, err)
		}
		sockets = append(sockets, path)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd server: %w", err)
	}
	if err := checkUnused(c.Dir); err != nil {
		return nil, fmt.Errorf("etcd server: %s: %w", c.Dir, err)
	}
	return sockets, nil
}

// checkUnused refuses the data of a running etcd: by itself a second one would
// wait for the first to end, and say nothing.
func checkUnused(dir string) error {
	db, err := os.OpenFile(filepath.Join(dir, "member", "snap", "db"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer db.Close()
	if err := unix.Flock(int(db.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return errors.New("another etcd is using this directory")
	}
	return nil
}

// removeStale removes a socket on which nobody listens any more. What is no socket
// is not ours to remove.
func removeStale(path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return errors.New("there is something already that is no socket")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return errors.New("somebody serves there already")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// settings are c in etcd's terms.
func (c Config) settings(silence *atomic.Bool) (*embed.Config, error) {
	if len(c.ClientURLs) == 0 {
		return nil, errors.New("no client URL is set")
	}
	e := embed.NewConfig()
	e.Dir = c.Dir
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(newZapCore(c.Log, silence)))
	e.LogLevel = "warn"
	e.EnableGRPCGateway = false
	e.PreVote = true
	e.TickMs, e.ElectionMs = 10, 100
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	if c.Compaction != 0 {
		e.AutoCompactionRetention = c.Compaction.String()
	}
	e.QuotaBackendBytes, e.UnsafeNoFsync = c.QuotaBytes, c.Volatile
	// Few entries in memory between snapshots: the store is small, and each
	// entry holds its value.
	e.SnapshotCount, e.SnapshotCatchUpEntries = 5000, 500
	e.MaxSnapFiles, e.MaxWalFiles = 2, 2
	e.ClientTLSInfo.CertFile, e.ClientTLSInfo.KeyFile = c.CertFile, c.KeyFile
	e.ClientTLSInfo.TrustedCAFile, e.ClientTLSInfo.ClientCertAuth = c.CAFile, c.CAFile != ""
	var err error
	if e.ListenClientUrls, err = parseURLs(c.ClientURLs); err != nil {
		return nil, err
	}
	e.AdvertiseClientUrls = e.ListenClientUrls
	if len(c.Cluster) == 0 {
		return e, c.alone(e)
	}
	e.TickMs, e.ElectionMs = 20, 400 // members need time to hear of each other
	e.Name, e.InitialCluster = c.Name, ""
	for name, peer := range c.Cluster {
		e.InitialCluster += "," + name + "=" + peer
	}
	e.InitialCluster = strings.TrimPrefix(e.InitialCluster, ",")
	e.ListenPeerUrls, err = parseURLs([]string{c.Cluster[c.Name]})
	e.AdvertisePeerUrls = e.ListenPeerUrls
	return e, err
}

// alone sets the peer URL of a server that has no peers: a socket in its own
// directory, so that no port is taken.
func (c Config) alone(e *embed.Config) error {
	e.Name = "weft"
	e.ListenPeerUrls = nil
	// The URL is part of the stored membership, so it must not depend on where
	// the directory is; nobody ever connects to it.
	var err error
	e.AdvertisePeerUrls, err = parseURLs([]string{"http://localhost:2380"})
	e.InitialCluster = e.InitialClusterFromName(e.Name)
	return err
}

func parseURLs(texts []string) ([]url.URL, error) {
	urls := make([]url.URL, len(texts))
	for i, text := range texts {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "unix" && (u.Scheme != "http" && u.Scheme != "https" || u.Port() == "") {
			return nil, fmt.Errorf("URL %q: must be unix:///PATH, http://ADDRESS:PORT or https://ADDRESS:PORT", text)
		}
		urls[i] = *u
	}
	return urls, nil
}
