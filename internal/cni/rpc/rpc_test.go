package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// funcs is an agent of which a test fills in what it needs.
type funcs struct {
	add func(context.Context, rpc.AddRequest) (rpc.AddResponse, error)
	del func(context.Context, rpc.DelRequest) error
}

func (f funcs) Add(ctx context.Context, r rpc.AddRequest) (rpc.AddResponse, error) {
	return f.add(ctx, r)
}
func (f funcs) Del(ctx context.Context, r rpc.DelRequest) error { return f.del(ctx, r) }
func (funcs) Check(context.Context, rpc.CheckRequest) error     { return nil }
func (funcs) Status(context.Context, rpc.StatusRequest) error   { return nil }
func (funcs) GC(_ context.Context, r rpc.GCRequest) (rpc.GCResponse, error) {
	return rpc.GCResponse{HostLinks: []string{r.Network}}, nil
}

// serve offers a on a socket and returns a client of it.
func serve(t *testing.T, a rpc.Agent) rpc.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	l, err := rpc.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- rpc.Serve(ctx, l, a, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return rpc.Client{Socket: path}
}

func attachment(id string) rpc.Attachment {
	return rpc.Attachment{Network: "net", ContainerID: id, IfName: "eth0"}
}

func TestRequestArrivesWhole(t *testing.T) {
	t.Parallel()
	want := rpc.AddRequest{
		Attachment: attachment("c"),
		Workload:   rpc.Workload{Orchestrator: rpc.Kubernetes, Namespace: "ns", Pod: "p", PodUID: "u", Node: "n"},
		Netns:      "/run/netns/x",
		Address:    rpc.AddressWish{IPv4: true, IPv6Pools: []string{"p6"}, Exact: []netip.Addr{netip.MustParseAddr("fd00::1")}},
		Endpoint: &rpc.Endpoint{
			HostLink: "cali1", MAC: "02:00:00:00:00:01", Given: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")},
			Profiles: []string{"net"}, Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"},
			Ports:          []rpc.Port{{Protocol: "udp", Port: 53, HostPort: 53}},
			SourcePrefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, FloatingIPs: []netip.Addr{netip.MustParseAddr("1.2.3.4")},
		},
	}
	var got rpc.AddRequest
	addrs := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/26"), netip.MustParsePrefix("fd00::1/122")}
	c := serve(t, funcs{add: func(_ context.Context, r rpc.AddRequest) (rpc.AddResponse, error) {
		got = r
		return rpc.AddResponse{Addrs: addrs, MTU: 1450}, nil
	}})
	r, err := c.Add(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if g, w := asJSON(t, got), asJSON(t, want); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if asJSON(t, r) != asJSON(t, rpc.AddResponse{Addrs: addrs, MTU: 1450}) {
		t.Errorf("answer %+v", r)
	}
	gc, err := c.GC(t.Context(), rpc.GCRequest{Network: "net"})
	if err != nil || len(gc.HostLinks) != 1 {
		t.Errorf("gc: %+v, %v", gc, err)
	}
	if err := errors.Join(c.Check(t.Context(), rpc.CheckRequest{}), c.Status(t.Context(), rpc.StatusRequest{})); err != nil {
		t.Error(err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestErrorsKeepTheirCode(t *testing.T) {
	t.Parallel()
	full := &rpc.Error{Code: rpc.CodeNoAddress, Msg: "pool is full", Details: "10 of 10"}
	for _, tt := range []struct {
		err  error
		want rpc.Error
	}{
		{full, *full},
		{fmt.Errorf("ipam: %w", full), rpc.Error{Code: rpc.CodeNoAddress, Msg: "ipam: pool is full (10 of 10)"}},
		{io.ErrUnexpectedEOF, rpc.Error{Code: rpc.CodeInternal, Msg: "unexpected EOF"}},
	} {
		c := serve(t, funcs{del: func(context.Context, rpc.DelRequest) error { return tt.err }})
		err := c.Del(t.Context(), rpc.DelRequest{Attachment: attachment("c")})
		var got *rpc.Error
		if !errors.As(err, &got) || *got != tt.want {
			t.Errorf("%v: got %v, want %+v", tt.err, err, tt.want)
		}
	}
}

func TestPanicHurtsItsOwnRequestOnly(t *testing.T) {
	t.Parallel()
	c := serve(t, funcs{del: func(_ context.Context, r rpc.DelRequest) error {
		if r.ContainerID == "bad" {
			panic("boom")
		}
		return nil
	}})
	for range 2 { // the second shows that the attachment is free again
		if err := c.Del(t.Context(), rpc.DelRequest{Attachment: attachment("bad")}); err == nil || !strings.Contains(err.Error(), "boom") {
			t.Errorf("got %v", err)
		}
	}
	if err := c.Del(t.Context(), rpc.DelRequest{Attachment: attachment("good")}); err != nil {
		t.Error(err)
	}
}

// A DEL that follows a withdrawn ADD must find the ADD ended, else the ADD
// would leave something behind for ever.
func TestDelDoesNotOvertakeWithdrawnAdd(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var order []string
	note := func(s string) { mu.Lock(); defer mu.Unlock(); order = append(order, s) }
	entered := make(chan struct{})
	c := serve(t, funcs{
		add: func(ctx context.Context, _ rpc.AddRequest) (rpc.AddResponse, error) {
			close(entered)
			<-ctx.Done()
			note("add ended")
			return rpc.AddResponse{}, context.Cause(ctx)
		},
		del: func(context.Context, rpc.DelRequest) error { note("del"); return nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := c.Add(ctx, rpc.AddRequest{Attachment: attachment("c")}); !errors.Is(err, context.Canceled) {
		t.Errorf("add: %v", err)
	}
	if err := c.Del(t.Context(), rpc.DelRequest{Attachment: attachment("c")}); err != nil {
		t.Error(err)
	}
	if got := strings.Join(order, ", "); got != "add ended, del" {
		t.Errorf("order: %s", got)
	}
}

func TestOneAttachmentOneCall(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	busy := map[string]bool{}
	c := serve(t, funcs{del: func(_ context.Context, r rpc.DelRequest) error {
		mu.Lock()
		if busy[r.ContainerID] {
			t.Errorf("two calls for %s at once", r.ContainerID)
		}
		busy[r.ContainerID] = true
		mu.Unlock()
		mu.Lock()
		busy[r.ContainerID] = false
		mu.Unlock()
		return nil
	}})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if err := c.Del(context.Background(), rpc.DelRequest{Attachment: attachment(fmt.Sprint(i % 2))}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestBadRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	c := serve(t, funcs{})
	for in, want := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n":                         `"code":6`,
		`{"version":9,"verb":"add","body":{}}`:           "this agent speaks 1",
		`{"version":1,"verb":"fly","body":{}}`:           `unknown verb \"fly\"`,
		`{"version":1,"verb":"add","body":[]}`:           `"code":6`,
		`{"version":1,"verb":"add"}`:                     `"code":6`,
		`{"verb":"` + strings.Repeat("x", 2<<20):         "longer than",
		`{"version":1,"verb":"status","body":{}}` + "\n": `{}`,
	} {
		conn, err := net.Dial("unix", c.Socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(conn, in) }()
		out, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.Contains(string(out), want) {
			t.Errorf("%.60q: got %q, want %q", in, out, want)
		}
	}
}

func TestNoAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := rpc.Client{Socket: dir + "/none.sock"}.Status(t.Context(), rpc.StatusRequest{})
	if !errors.Is(err, rpc.ErrNoAgent) || err.Error() != "agent: "+dir+"/none.sock: no node agent: connect: no such file or directory" {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.Listen("unix", dir+"/deaf.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
	}()
	if err := (rpc.Client{Socket: dir + "/deaf.sock"}).Status(t.Context(), rpc.StatusRequest{}); !errors.Is(err, rpc.ErrLost) {
		t.Errorf("agent that hangs up: %v", err)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "agent.sock")
	l, err := rpc.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", info, err)
	}
	if _, err := rpc.Listen(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second agent: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as if killed
	l.Close()
	if l, err = rpc.Listen(path); err != nil {
		t.Fatalf("after a dead agent: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = rpc.Listen(path); err == nil {
		t.Error("a plain file was replaced")
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"version":1,"verb":"add","body":{"network":"n","endpoint":{"given":["10.0.0.1/24"]}}}`))
	f.Add([]byte(`{"version":1,"verb":"gc","body":{"valid":[{}]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var r struct{ Body json.RawMessage }
		if json.Unmarshal(in, &r) != nil {
			return
		}
		var add rpc.AddRequest
		if json.Unmarshal(r.Body, &add) != nil {
			return
		}
		var again rpc.AddRequest
		if err := json.Unmarshal([]byte(asJSON(t, add)), &again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if a, b := asJSON(t, add), asJSON(t, again); a != b {
			t.Fatalf("%s became %s", a, b)
		}
	})
}
