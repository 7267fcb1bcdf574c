package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/secret"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/etcd/server"
	"github.com/weft-net/weft/internal/store/storetest"
	"github.com/weft-net/weft/internal/testenv"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// listen serves each connection with f until the test ends.
func listen(t *testing.T, f func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				f(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// TestBadEndpoints opens what is not a good etcd.
func TestBadEndpoints(t *testing.T) {
	t.Parallel()
	refused := freeAddress(t, "127.0.0.1:0")
	browser := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(browser.Close)
	web := strings.TrimPrefix(browser.URL, "http://")
	noise := listen(t, func(c net.Conn) {
		io.WriteString(c, "220 mail.example.com ESMTP\r\n") //nolint:errcheck // the client's view is the test
		io.Copy(io.Discard, c)                              //nolint:errcheck // until the client goes
	})
	other := grpc.NewServer()
	t.Cleanup(other.Stop)
	otherAddress := freeAddress(t, "127.0.0.1:0")
	l, err := net.Listen("tcp", otherAddress)
	if err != nil {
		t.Fatal(err)
	}
	go other.Serve(l)                                                //nolint:errcheck // ends with Stop
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) }) //nolint:errcheck // until the client goes
	closing := listen(t, func(net.Conn) {})
	dir := t.TempDir()
	pki := newPKI(t, dir)
	secure := pki.serve(t, dir)
	plainURL, stop := serve(t, t.TempDir())
	t.Cleanup(stop)
	plain := strings.TrimPrefix(plainURL, "unix://")
	notPEM := filepath.Join(dir, "not.pem")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	for name, tt := range map[string]struct{ env, want string }{
		"refused":         {"ETCD_ENDPOINTS=http://" + refused, "etcd: http://" + refused + ": connection refused"},
		"all refused":     {"ETCD_ENDPOINTS=http://" + refused + ",http://" + noise, "etcd: http://" + refused + ": connection refused; http://" + noise + `: answers with "220 mail.", which is not gRPC: not etcd`},
		"no socket":       {"ETCD_ENDPOINTS=unix:///does/not/exist", "etcd: unix:///does/not/exist: no such file or directory"},
		"a web server":    {"ETCD_ENDPOINTS=http://" + web, "etcd: http://" + web + ": answers in HTTP/1: not etcd"},
		"noise":           {"ETCD_ENDPOINTS=http://" + noise, "etcd: http://" + noise + `: answers with "220 mail.", which is not gRPC: not etcd`},
		"silence":         {"ETCD_ENDPOINTS=http://" + silent, "etcd: http://" + silent + ": does not answer in time"},
		"another gRPC":    {"ETCD_ENDPOINTS=http://" + otherAddress, "etcd: http://" + otherAddress + ": is a gRPC server, but not etcd: unknown service etcdserverpb.KV"},
		"closes":          {"ETCD_ENDPOINTS=http://" + closing, "etcd: http://" + closing + ": closes the connection without an answer: not etcd, or it speaks TLS and needs https://|etcd: http://" + closing + ": connection reset by peer"},
		"TLS, not told":   {"ETCD_ENDPOINTS=http://" + secure, "etcd: http://" + secure + ": closes the connection without an answer: not etcd, or it speaks TLS and needs https://"},
		"no TLS, told so": {"ETCD_ENDPOINTS=unixs://" + plain, "etcd: unixs://" + plain + ": TLS: EOF|etcd: unixs://" + plain + ": TLS: tls: first record does not look like a TLS handshake"},
		"authority":       {"ETCD_ENDPOINTS=https://" + secure, "etcd: https://" + secure + ": TLS: tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		"no certificate":  {"ETCD_ENDPOINTS=https://" + secure + " ETCD_CA_CERT_FILE=" + pki.ca, "etcd: https://" + secure + ": tls: certificate required"},
		"no such file":    {"ETCD_ENDPOINTS=https://" + secure + " ETCD_CA_CERT_FILE=/does/not/exist", "ETCD_CA_CERT_FILE: open /does/not/exist: no such file or directory"},
		"not PEM":         {"ETCD_ENDPOINTS=https://" + secure + " ETCD_CA_CERT_FILE=" + notPEM, "ETCD_CA_CERT_FILE: " + notPEM + ": holds no certificate in PEM form"},
		"key not PEM":     {"ETCD_ENDPOINTS=https://" + secure + " ETCD_CERT_FILE=" + pki.cert + " ETCD_KEY_FILE=" + notPEM, "ETCD_CERT_FILE and ETCD_KEY_FILE: " + pki.cert + ", " + notPEM + ": tls: failed to find any PEM data in key input"},
		"no domain":       {"ETCD_DISCOVERY_SRV=etcd.invalid", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := etcd.ConfigFromEnv(env(tt.env))
			if err != nil {
				t.Fatal(err)
			}
			c.Timeout = 2 * time.Second
			begun := time.Now()
			s, err := etcd.Open(t.Context(), c)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if took := time.Since(begun); took > testenv.Patience {
				t.Errorf("took %v", took)
			}
			good := tt.want == "" && !strings.Contains(err.Error(), "\n")
			for want := range strings.SplitSeq(tt.want, "|") {
				good = good || err.Error() == want
			}
			if !good {
				t.Errorf("\n got %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pki := newPKI(t, dir)
	address := pki.serve(t, dir)
	text := func(path string) secret.Text {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return secret.Text(data)
	}
	for name, c := range map[string]etcd.Config{
		"files":  {CACertFile: pki.ca, CertFile: pki.cert, KeyFile: pki.key},
		"inline": {CACert: text(pki.ca), Cert: text(pki.cert), Key: text(pki.key)},
	} {
		c.Endpoints = []string{"https://" + address}
		s, err := etcd.Open(t.Context(), c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := s.List(t.Context(), model.KindNode, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

// pki is an authority and a certificate for 127.0.0.1, as files.
type pki struct{ ca, cert, key string }

func newPKI(t *testing.T, dir string) pki {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := pki{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for path, block := range map[string]*pem.Block{p.cert: {Type: "CERTIFICATE", Bytes: cert}, p.key: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// serve runs an etcd that wants certificates of its clients.
func (p pki) serve(t *testing.T, dir string) (address string) {
	t.Helper()
	address = freeAddress(t, "127.0.0.1:0")
	srv, err := server.Start(t.Context(), server.Config{
		Dir: filepath.Join(dir, "secure"), Volatile: true, ClientURLs: []string{"https://" + address},
		CertFile: p.cert, KeyFile: p.key, CAFile: p.ca,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	return address
}

// TestAuthentication runs against an etcd with users: one who may read only.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	endpoint, stop := serve(t, t.TempDir())
	t.Cleanup(stop)
	raw, ctx := client(t, endpoint), t.Context()
	_, err := raw.UserAdd(ctx, "root", "toor")
	for _, step := range []func() error{
		func() error { _, err := raw.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := raw.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := raw.RoleGrantPermission(ctx, "reader", "/calico/", "/calico0", clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := raw.UserAdd(ctx, "me", "sesame"); return err },
		func() error { _, err := raw.UserGrantRole(ctx, "me", "reader"); return err },
		func() error { _, err := raw.UserAdd(ctx, "stranger", "sesame"); return err },
		func() error { _, err := raw.AuthEnable(ctx); return err },
	} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	at := "etcd: " + endpoint + ": "
	for user, want := range map[string]string{
		":":               at + "authentication is needed: ETCD_USERNAME and ETCD_PASSWORD must be set",
		"me:wrong":        at + `user "me": authentication failed: wrong user name or password`,
		"stranger:sesame": at + `user "stranger" may not do this: permission denied`,
	} {
		name, password, _ := strings.Cut(user, ":")
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{endpoint}, Username: name, Password: secret.Text(password)})
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", user)
		} else if err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", user, err, want)
		}
	}
	s, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{endpoint}, Username: "me", Password: "sesame"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for b, err := range s.Watch(ctx) {
		if err != nil || !b.Synced {
			t.Errorf("a reader watches: %v, %v", b, err)
		}
		break
	}
	_, err = s.Commit(ctx, storetest.Create(storetest.Pool("p", "10.0.0.0/16")))
	if want := `IPPool/p: ` + at + `user "me" may not do this: permission denied`; err == nil || err.Error() != want || !errors.Is(err, store.ErrRefused) {
		t.Errorf("a reader writes:\n got %v\nwant %s", err, want)
	}
}

func TestFullDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	endpoint := "unix://" + dir + "/s"
	srv, err := server.Start(t.Context(), server.Config{Dir: dir + "/data", ClientURLs: []string{endpoint}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	s := open(t, endpoint)
	_, err = srv.Etcd().Server.Alarm(t.Context(), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: uint64(srv.Etcd().Server.MemberID()),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(t.Context(), storetest.Create(storetest.Pool("p", "10.0.0.0/16")))
	want := "IPPool/p: etcd: " + endpoint + ": the database is full and takes no writes (alarm NOSPACE): compact, defragment and disarm it"
	if err == nil || err.Error() != want || !errors.Is(err, store.ErrRefused) {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
}

// TestGoneWhileOpen stops the server under an open store.
func TestGoneWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	endpoint, stop := serve(t, dir)
	s := open(t, endpoint)
	stop()
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := s.Get(soon, model.Cluster{}.Key())
	want := "ClusterInformation/default: etcd: " + endpoint + ": no such file or directory"
	if err == nil || err.Error() != want || errors.Is(err, store.ErrRefused) {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, model.Cluster{}.Key()); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestLeaderChange moves the leadership of three members while a store writes and
// a watch reads, then stops the member that the watch is on.
func TestLeaderChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	members := map[string]string{"a": "http://" + freeAddress(t, "127.0.0.1:0"), "b": "http://" + freeAddress(t, "127.0.0.1:0"), "c": "http://" + freeAddress(t, "127.0.0.1:0")}
	type started struct {
		name string
		s    *server.Server
		err  error
	}
	results := make(chan started)
	var endpoints []string
	for name := range members {
		at := "unix://" + filepath.Join(dir, name+".s")
		endpoints = append(endpoints, at)
		go func() {
			s, err := server.Start(t.Context(), server.Config{Dir: filepath.Join(dir, name), ClientURLs: []string{at}, Name: name, Cluster: members, Volatile: true})
			results <- started{name, s, err}
		}()
	}
	running := map[string]*server.Server{}
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, r := range running {
			wg.Go(func() {
				r.Etcd().Server.HardStop() // nobody to hand the leadership to
				r.Stop()
			})
		}
		wg.Wait()
	})
	for range members {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		running[r.name] = r.s
	}
	s := open(t, endpoints...)
	sum := make(chan uint64)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for b := range s.Watch(ctx, model.KindIPAMBlock) {
			for _, v := range b.Puts {
				select {
				case sum <- v.(model.Block).Sequence:
				case <-ctx.Done():
				}
			}
		}
	}()
	write := func(seq uint64) {
		t.Helper()
		b := storetest.Block("10.0.0.0/30", "h")
		b.Spec.SequenceNumber = seq
		verb := store.Update
		if seq == 1 {
			verb = store.Create
		}
		for {
			// A write during an election may fail, or succeed unheard: without a
			// revision it can be repeated.
			_, err := s.Commit(t.Context(), store.Op{Verb: verb, Object: store.New(v3.Object(b))})
			if err == nil || errors.Is(err, store.ErrExists) {
				return
			}
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
		}
	}
	heard := func(want uint64) {
		t.Helper()
		limit := time.After(testenv.Patience)
		var last uint64
		for last < want {
			select {
			case got := <-sum:
				if got < last {
					t.Fatalf("heard %d after %d", got, last)
				}
				last = got
			case <-limit:
				t.Fatalf("heard %d, never %d", last, want)
			}
		}
	}
	write(1)
	heard(1)
	for _, m := range running {
		srv := m.Etcd().Server
		if srv.Leader() != srv.MemberID() {
			continue
		}
		for _, other := range running {
			if id := other.Etcd().Server.MemberID(); id != srv.MemberID() {
				if err := srv.MoveLeader(t.Context(), uint64(srv.MemberID()), uint64(id)); err != nil {
					t.Log(err) // a second move of the same leader
				}
			}
		}
	}
	write(2)
	heard(2)
	running["a"].Stop() // then without one of the members
	write(3)
	heard(3)
	if _, err := s.List(t.Context(), model.KindIPAMBlock, ""); err != nil {
		t.Error(fmt.Errorf("with one member down: %w", err))
	}
	running["b"].Etcd().Server.HardStop()
	running["b"].Stop()
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := s.Get(soon, model.Cluster{}.Key())
	if err == nil || !strings.HasSuffix(err.Error(), ": no answer in time, though it listens: have the members a leader?") {
		t.Errorf("with two members down: %v", err)
	}
}
