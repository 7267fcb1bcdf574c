// Package etcd is the datastore etcd v3, in the layout that Calico uses: kv.Store
// over a client connection.
//
// It holds what is peculiar to etcd and a network: the connection settings
// ([Config], [ConfigFromEnv]), TLS, the transaction and watch calls, and errors
// that say in one line which endpoint did not do what, and why. How objects are
// named and written is package kv; a server to talk to is package server, below
// this one.
//
//	ETCD_* ──ConfigFromEnv──► Config ──Open──► Store ── kv.Store ── db ── gRPC ──► etcd
//
// Watches use etcd's stream directly, not clientv3's watcher, because that one
// hides breaks: a stream here lives until the first thing goes wrong (a member
// without leader, a compaction, a dead connection), and then kv begins again with
// a snapshot. Dead peers are found by keepalives, 30 s apart, answered within 10.
//
// Invariant: no password and no key appears in an error or a log.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/kv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Store is a connection to an etcd cluster. It is safe for concurrent use.
type Store struct {
	*kv.Store
	db *db
}

// Open connects to the cluster and makes sure that it answers. It returns within
// c.Timeout; at once if every endpoint refuses the connection or is not etcd. It
// does not wait for an etcd that is not there yet: callers that want to, call it
// again.
func Open(ctx context.Context, c Config) (*Store, error) {
	c, err := c.resolved(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	tlsConfig, err := c.tls()
	if err != nil {
		return nil, err
	}
	if err := probeAll(ctx, c.Endpoints, tlsConfig); err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            c.Endpoints,
		DialTimeout:          c.Timeout,
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		TLS:                  tlsConfig,
		Username:             c.Username,
		Password:             string(c.Password),
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		})},
	})
	d := &db{client: client, config: c, tls: tlsConfig}
	if err != nil {
		return nil, d.explain(ctx, err)
	}
	s := &Store{kv.New(d, time.Now, kv.DefaultBackoff()), d}
	if _, err := s.Ready(ctx); err != nil {
		return nil, errors.Join(unwrapAll(err), client.Close())
	}
	return s, nil
}

// unwrapAll is the innermost cause that says which endpoint failed.
func unwrapAll(err error) error {
	if e := (*EndpointError)(nil); errors.As(err, &e) {
		return e
	}
	return err
}

// EndpointError says which endpoints did not do what was asked. It prints as
//
//	etcd: https://10.0.0.1:2379: connection refused
type EndpointError struct {
	Endpoints string // one, or several parted by commas
	Err       error
	// Answered says that etcd itself answered with Err and has done nothing:
	// then the error is also store.ErrRefused. Else the request may or may not
	// have been carried out.
	Answered bool
}

// Error implements error.
func (e *EndpointError) Error() string { return fmt.Sprintf("etcd: %s: %v", e.Endpoints, e.Err) }

// Is makes an answer of etcd's a refusal.
func (e *EndpointError) Is(target error) bool { return e.Answered && target == store.ErrRefused }

// Unwrap gives the cause.
func (e *EndpointError) Unwrap() error { return e.Err }
