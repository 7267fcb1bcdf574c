package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

var (
	// ErrNoAgent is wrapped by a [Client]'s errors when nobody listens on the
	// socket. Nothing was asked.
	ErrNoAgent = errors.New("no node agent")
	// ErrLost is wrapped by a [Client]'s errors when the agent went away before it
	// answered. It may have done what was asked, in whole or in part.
	ErrLost = errors.New("the node agent went away")
)

// Client is the agent behind a socket. It may be used by several goroutines;
// each call makes its own connection.
type Client struct {
	Socket string // path; empty means [DefaultSocket]
}

var _ Agent = Client{}

// Add implements [Agent].
func (c Client) Add(ctx context.Context, r AddRequest) (AddResponse, error) {
	var out AddResponse
	err := c.call(ctx, verbAdd, r, &out)
	return out, err
}

// Del implements [Agent].
func (c Client) Del(ctx context.Context, r DelRequest) error { return c.call(ctx, verbDel, r, nil) }

// Check implements [Agent].
func (c Client) Check(ctx context.Context, r CheckRequest) error {
	return c.call(ctx, verbCheck, r, nil)
}

// Status implements [Agent].
func (c Client) Status(ctx context.Context, r StatusRequest) error {
	return c.call(ctx, verbStatus, r, nil)
}

// GC implements [Agent].
func (c Client) GC(ctx context.Context, r GCRequest) (GCResponse, error) {
	var out GCResponse
	err := c.call(ctx, verbGC, r, &out)
	return out, err
}

// The verbs on the wire.
const (
	verbAdd    = "add"
	verbDel    = "del"
	verbCheck  = "check"
	verbStatus = "status"
	verbGC     = "gc"
)

// request and response are the two messages of a connection.
type request struct {
	Version int             `json:"version"`
	Verb    string          `json:"verb"`
	Body    json.RawMessage `json:"body"`
}

type response struct {
	Error *Error          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// call sends one request and reads the answer into out, unless that is nil. It
// ends with ctx, and after [Budget] at the latest.
func (c Client) call(ctx context.Context, verb string, in, out any) error {
	socket := c.Socket
	if socket == "" {
		socket = DefaultSocket
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("agent: %s: %w", verb, err)
	}
	message, err := json.Marshal(request{Version: protocol, Verb: verb, Body: body})
	if err != nil {
		return fmt.Errorf("agent: %s: %w", verb, err)
	}
	ctx, cancel := context.WithTimeout(ctx, Budget)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("agent: %s: %w: %w", socket, ErrNoAgent, reason(err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { withdraw(conn) })()
	answer, err := exchange(conn, message)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("agent: %s: %s: no answer in time: %w", socket, verb, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("agent: %s: %s: %w: %w", socket, verb, ErrLost, reason(err))
	}
	return answer.into(out)
}

// withdraw tells the agent that its answer is not wanted, and leaves it a moment
// to say that it has stopped: a DEL sent after that cannot overtake an ADD.
func withdraw(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if u, ok := conn.(*net.UnixConn); ok {
		_ = u.CloseWrite()
	}
}

// exchange writes message and reads one response.
func exchange(conn net.Conn, message []byte) (response, error) {
	if _, err := conn.Write(message); err != nil {
		return response{}, err
	}
	var answer response
	err := json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&answer)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it closed the connection without an answer")
	}
	return answer, err
}

// into unpacks the answer.
func (r response) into(out any) error {
	if r.Error != nil {
		return r.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(r.Body, out); err != nil {
		return fmt.Errorf("agent: answer: %w", err)
	}
	return nil
}

// reason takes the address off a network error: the caller has named it.
func reason(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}
