package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Listen makes the socket at path for root alone, with the directories it
// needs. A socket that a dead agent left is replaced; one on which somebody
// answers is an error. Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("agent: %s: another agent is listening there", path)
	} else if info, statErr := os.Lstat(path); statErr == nil && info.Mode().Type() == os.ModeSocket && errors.Is(err, unix.ECONNREFUSED) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("agent: remove stale socket: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("agent: socket directory: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("agent: listen: %w", err)
	}
	// Between the two calls others might connect, but the peer's credentials are
	// checked on every connection.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("agent: listen: %w", err)
	}
	return l, nil
}

// Serve answers the requests that arrive on l with agent until ctx ends, then
// closes l, ends the calls under way and waits for them. It returns nil when
// ctx ended, else why it could not go on. A panic of agent is the answer to its
// own request only.
func Serve(ctx context.Context, l net.Listener, agent Agent, log *slog.Logger) error {
	s := &server{agent: agent, log: log, busy: map[Attachment]*turn{}}
	ctx, cancel := context.WithCancel(ctx)
	defer s.calls.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			s.calls.Go(func() { s.serve(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			log.Warn("agent: accept", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond): // descriptors come back
			}
		default:
			return fmt.Errorf("agent: accept: %w", err)
		}
	}
}

type server struct {
	agent Agent
	log   *slog.Logger
	calls sync.WaitGroup

	mu   sync.Mutex
	busy map[Attachment]*turn // attachments with a call under way or waiting
}

// turn is the queue of the calls for one attachment.
type turn struct {
	sync.Mutex
	waiting int
}

// serve reads one request from conn and answers it.
func (s *server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Budget))
	ctx, cancel := context.WithTimeout(ctx, Budget)
	defer cancel()
	if err := checkPeer(conn); err != nil {
		s.log.Warn("agent: request refused", "err", err)
		s.answer(conn, nil, err)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var r request
	limited := &io.LimitedReader{R: conn, N: maxMessage}
	if err := json.NewDecoder(limited).Decode(&r); err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("longer than %d bytes", maxMessage)
		}
		s.answer(conn, nil, &Error{Code: CodeDecoding, Msg: "agent: request: " + err.Error()})
		return
	}
	// The client says nothing more; when it closes, it wants nothing more.
	s.calls.Go(func() {
		_, _ = io.Copy(io.Discard, limited)
		cancel()
	})
	body, err := s.run(ctx, r)
	s.answer(conn, body, err)
}

// run dispatches one request; a panic becomes its error.
func (s *server) run(ctx context.Context, r request) (body any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("agent: panic", "verb", r.Verb, "err", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("agent: %s: internal error: %v", r.Verb, p)
		}
	}()
	if r.Version != protocol {
		return nil, &Error{Code: CodeInternal, Msg: fmt.Sprintf("agent: protocol version %d: this agent speaks %d", r.Version, protocol)}
	}
	switch r.Verb {
	case verbAdd:
		in, err := decode[AddRequest](r)
		if err != nil {
			return nil, err
		}
		defer s.takeTurn(in.Attachment)()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx) // withdrawn while it waited
		}
		return s.agent.Add(ctx, in)
	case verbDel:
		in, err := decode[DelRequest](r)
		if err != nil {
			return nil, err
		}
		defer s.takeTurn(in.Attachment)()
		return nil, s.agent.Del(ctx, in)
	case verbCheck:
		in, err := decode[CheckRequest](r)
		if err != nil {
			return nil, err
		}
		defer s.takeTurn(in.Attachment)()
		return nil, s.agent.Check(ctx, in)
	case verbStatus:
		in, err := decode[StatusRequest](r)
		if err != nil {
			return nil, err
		}
		return nil, s.agent.Status(ctx, in)
	case verbGC:
		in, err := decode[GCRequest](r)
		if err != nil {
			return nil, err
		}
		return s.agent.GC(ctx, in)
	}
	return nil, &Error{Code: CodeInternal, Msg: fmt.Sprintf("agent: unknown verb %q", r.Verb)}
}

func decode[T any](r request) (T, error) {
	var in T
	if err := json.Unmarshal(r.Body, &in); err != nil {
		return in, &Error{Code: CodeDecoding, Msg: fmt.Sprintf("agent: %s: %v", r.Verb, err)}
	}
	return in, nil
}

// takeTurn waits until no other call for a is under way; the result ends the turn.
func (s *server) takeTurn(a Attachment) (done func()) {
	s.mu.Lock()
	t := s.busy[a]
	if t == nil {
		t = &turn{}
		s.busy[a] = t
	}
	t.waiting++
	s.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(s.busy, a)
		}
	}
}

// answer writes the response; a client that has gone does not matter.
func (s *server) answer(conn net.Conn, body any, err error) {
	var r response
	if err != nil {
		r.Error = errorFor(err)
	} else if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			r.Error = errorFor(fmt.Errorf("agent: answer: %w", err))
		}
		r.Body = raw
	}
	_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		s.log.Debug("agent: answer not delivered", "err", err)
	}
}

// checkPeer refuses a peer that is neither root nor this process's own user.
func checkPeer(conn net.Conn) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil // a pipe of a test
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fmt.Errorf("agent: peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("agent: peer: %w", err)
	}
	if credErr != nil {
		return fmt.Errorf("agent: peer: %w", credErr)
	}
	return allowed(cred.Uid, os.Geteuid())
}

// allowed reports whether a process of user uid may ask an agent of user own.
func allowed(uid uint32, own int) error {
	if uid == 0 || int(uid) == own {
		return nil
	}
	return &Error{Code: CodeInternal, Msg: fmt.Sprintf("agent: user %d may not ask: only root and user %d may", uid, own)}
}
