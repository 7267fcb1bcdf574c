package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// explain makes one line of what a call returned: which endpoints, and why. Where
// the cause may be the connection it looks at each endpoint itself, because what
// gRPC says of it is long and often only "deadline exceeded".
func (d *db) explain(ctx context.Context, err error) error {
	if err == nil || errors.Is(context.Cause(ctx), context.Canceled) {
		return err
	}
	all := strings.Join(d.config.Endpoints, ",")
	if cause := d.answered(err); cause != nil {
		return &EndpointError{Endpoints: all, Err: cause, Answered: true}
	}
	probeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if probed := probeAll(probeCtx, d.config.Endpoints, d.tls); probed != nil {
		return probed
	}
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return &EndpointError{Endpoints: all, Err: worded{"no answer in time, though it listens: have the members a leader?", err}}
	}
	return &EndpointError{Endpoints: all, Err: plain(err)}
}

// answered is the cause when etcd itself answered with an error; nil if the
// connection may be the cause.
func (d *db) answered(err error) error {
	server := rpctypes.Error(err)
	var e rpctypes.EtcdError
	switch {
	case errors.Is(server, rpctypes.ErrPermissionDenied), status.Code(err) == codes.PermissionDenied:
		return fmt.Errorf("user %q may not do this: permission denied", d.config.Username)
	case errors.Is(server, rpctypes.ErrAuthFailed):
		return fmt.Errorf("user %q: authentication failed: wrong user name or password", d.config.Username)
	case errors.Is(server, rpctypes.ErrUserEmpty):
		return errors.New("authentication is needed: ETCD_USERNAME and ETCD_PASSWORD must be set")
	case errors.Is(server, rpctypes.ErrNoSpace):
		return errors.New("the database is full and takes no writes (alarm NOSPACE): compact, defragment and disarm it")
	case errors.As(server, &e) && e.Code() != codes.Unavailable && e.Code() != codes.DeadlineExceeded:
		return plain(err)
	case status.Code(err) == codes.Unimplemented:
		return fmt.Errorf("is a gRPC server, but not etcd: %w", plain(err))
	}
	return nil
}

// rpcError prints the message of a gRPC error without its frame.
type rpcError struct{ error }

func (e rpcError) Error() string {
	if errors.Is(e.error, io.EOF) {
		return "the server ended the stream"
	}
	text := strings.TrimPrefix(status.Convert(e.error).Message(), "etcdserver: ")
	return strings.ReplaceAll(text, "\n", " ")
}

func (e rpcError) Unwrap() error { return e.error }

func plain(err error) error { return rpcError{err} }

// probeAll looks at each endpoint at the same time. It is nil if one of them
// speaks HTTP/2 as etcd does, else it says what is wrong with each.
func probeAll(ctx context.Context, endpoints []string, t *tls.Config) error {
	errs := make([]error, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() { errs[i] = probe(ctx, e, t) })
	}
	wg.Wait()
	var texts []string
	for i, err := range errs {
		if err == nil {
			return nil
		}
		texts = append(texts, endpoints[i]+": "+err.Error())
	}
	if len(endpoints) == 1 {
		return &EndpointError{Endpoints: endpoints[0], Err: errs[0]}
	}
	text := strings.TrimPrefix(strings.Join(texts, "; "), endpoints[0]+": ")
	return &EndpointError{Endpoints: endpoints[0], Err: worded{text, errors.Join(errs...)}}
}

// probe connects to one endpoint and exchanges the first bytes of HTTP/2. Where
// that is answered by nothing it asks as a browser would, to tell web servers apart.
func probe(ctx context.Context, endpoint string, t *tls.Config) error {
	conn, err := connect(ctx, endpoint, t)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = greet(conn)
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	again, dialErr := connect(ctx, endpoint, t)
	if dialErr != nil {
		return err
	}
	defer again.Close()
	head := make([]byte, 5)
	if _, err := io.WriteString(again, "GET / HTTP/1.0\r\n\r\n"); err == nil {
		io.ReadFull(again, head) //nolint:errcheck // what did not come is not HTTP
	}
	if string(head) == "HTTP/" {
		return errHTTP1
	}
	return err
}

// What an endpoint does that is not etcd's.
var (
	errHTTP1 = errors.New("answers in HTTP/1: not etcd")
	// errClosed is also what a server does that wants TLS.
	errClosed = worded{"closes the connection without an answer: not etcd, or it speaks TLS and needs https://", io.EOF}
)

// worded is an error in words for users.
type worded struct {
	text string
	error
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.error }

// connect dials an endpoint, by TLS unless t is nil. The connection ends with ctx's
// deadline.
func connect(ctx context.Context, endpoint string, t *tls.Config) (net.Conn, error) {
	network, address := dialTarget(endpoint)
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, cause(err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	// Who is interrupted does not wait for a server that says nothing.
	raw := conn
	context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	if err == nil && t != nil {
		t = t.Clone()
		t.NextProtos = []string{"h2"}
		t.ServerName, _, _ = net.SplitHostPort(address)
		if network == "unix" {
			t.ServerName = path.Base(address)
		}
		secure := tls.Client(conn, t)
		if err = secure.HandshakeContext(ctx); err != nil {
			err = fmt.Errorf("TLS: %w", cause(err))
		}
		conn = secure
	}
	if err != nil {
		conn.Close() //nolint:errcheck // it is of no use any more
		return nil, err
	}
	return conn, nil
}

// greet sends the HTTP/2 preface with empty settings and reads the header of the
// first frame, which must be the server's settings (RFC 9113, section 3.4).
func greet(conn io.ReadWriter) error {
	const settings = 4
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string([]byte{0, 0, 0, settings, 0, 0, 0, 0, 0})
	if _, err := io.WriteString(conn, preface); err != nil {
		return cause(err)
	}
	var head [9]byte
	n, err := io.ReadFull(conn, head[:])
	switch got := head[:n]; {
	case n == len(head) && head[0] == 0 && head[3] == settings:
		return nil
	case bytes.HasPrefix(got, []byte("HTTP/")):
		return errHTTP1
	case bytes.HasPrefix(got, []byte{21, 3}):
		return errors.New("speaks TLS: the endpoint must begin with https://")
	case n > 0:
		return fmt.Errorf("answers with %q, which is not gRPC: not etcd", got)
	case errors.Is(err, io.EOF):
		return errClosed
	}
	return cause(err)
}

// dialTarget is where an endpoint listens, as package net takes it.
func dialTarget(endpoint string) (network, address string) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "tcp", endpoint // refused by Config.check before
	}
	if strings.HasPrefix(u.Scheme, "unix") {
		return "unix", u.Host + u.Path
	}
	return "tcp", u.Host
}

// cause is the part of a network error that says why.
func cause(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return errors.New("does not answer in time")
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if call := (*os.SyscallError)(nil); errors.As(err, &call) {
		err = call.Err
	}
	return err
}
