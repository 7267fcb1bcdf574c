package testenv

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// API is a kube-apiserver with an etcd of its own, for one test: no controllers, no
// scheduler, no nodes. Who comes with a user's name as bearer token is that user; admin
// may do everything, what others may RBAC says.
type API struct {
	URL  string // https on the loopback interface
	Etcd string // URL of its etcd
	dir  string
	t    testing.TB
	args []string
	bin  string
	proc *process
}

// process is a program that the test has started.
type process struct {
	cmd  *exec.Cmd
	out  *bytes.Buffer
	dead chan struct{}
}

// NeedKubernetes gives the directory with the programs that test/k8s/build.sh makes. Without
// them it skips the test, which is part of `make test-k8s`; there WEFT_K8S=1 makes that a
// failure.
func NeedKubernetes(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("TESTBED_BIN")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = filepath.Join(os.TempDir(), ".cache")
		}
		dir = filepath.Join(cache, "k8s-testbed", "bin")
	}
	for _, name := range []string{"kube-apiserver", "etcd"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			if os.Getenv("WEFT_K8S") != "" {
				t.Fatalf("%s is not built, and WEFT_K8S is set: run test/k8s/build.sh", name)
			}
			t.Skipf("needs %s: run by `make test-k8s`", name)
		}
	}
	return dir
}

// APIServer starts a kube-apiserver, which ends with the test. See NeedKubernetes.
func APIServer(t testing.TB, args ...string) *API {
	t.Helper()
	a := &API{bin: NeedKubernetes(t), dir: t.TempDir(), t: t}
	client, peer, port := freePort(t), freePort(t), freePort(t)
	a.Etcd, a.URL = "http://"+client, "https://"+port
	etcd := a.start("etcd", "--data-dir", filepath.Join(a.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", a.Etcd, "--advertise-client-urls", a.Etcd,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	t.Cleanup(func() { etcd.kill() })
	key := filepath.Join(a.dir, "sa.key")
	writeKey(t, key)
	tokens := filepath.Join(a.dir, "tokens")
	users := "admin,admin,admin,system:masters\n"
	for _, user := range []string{"node", "controllers", "reader", "nobody"} {
		users += user + "," + user + "," + user + ",testers\n"
	}
	if err := os.WriteFile(tokens, []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	host, number, _ := net.SplitHostPort(port)
	a.args = append([]string{
		"--etcd-servers", a.Etcd, "--bind-address", host, "--secure-port", number, "--cert-dir", filepath.Join(a.dir, "certs"),
		"--token-auth-file", tokens, "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://test", "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none", "--profiling=false", "-v", "0",
	}, args...)
	a.Start()
	t.Cleanup(func() { a.Stop() })
	return a
}

// Start starts the API server (again), and waits until it serves.
func (a *API) Start() {
	a.t.Helper()
	a.proc = a.start("kube-apiserver", a.args...)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // its own
	for limit := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		select {
		case <-a.proc.dead:
			a.t.Fatalf("kube-apiserver ended: %s", last(a.proc.out))
		default:
		}
		request, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, a.URL+"/readyz", nil)
		request.Header.Set("Authorization", "Bearer admin")
		answer, err := client.Do(request)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(limit) {
			a.t.Fatalf("kube-apiserver is not ready: %v: %s", err, last(a.proc.out))
		}
	}
}

// Stop ends the API server at once; its etcd stays.
func (a *API) Stop() { a.proc.kill() }

// Freeze stops the API server from running, connections stay; thaw lets it go on.
func (a *API) Freeze() (thaw func()) {
	_ = a.proc.cmd.Process.Signal(syscall.SIGSTOP)
	return func() { _ = a.proc.cmd.Process.Signal(syscall.SIGCONT) }
}

// Kubeconfig writes a kubeconfig for a user: admin, node, controllers, reader or nobody.
func (a *API) Kubeconfig(user string) string {
	a.t.Helper()
	path := filepath.Join(a.dir, user+".kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":%q,"insecure-skip-tls-verify":true}}],
"users":[{"name":"u","user":{"token":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}`, a.URL, user)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *API) start(name string, args ...string) *process {
	a.t.Helper()
	p := &process{cmd: exec.Command(filepath.Join(a.bin, name), args...), out: &bytes.Buffer{}, dead: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = p.out, p.out, a.dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel kills it when this thread ends, which must not be before the test does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // it is killed
			close(p.dead)
		}
	}()
	if err := <-started; err != nil {
		a.t.Fatal(err)
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be dead
	<-p.dead
}

// last is the end of what a dead program has printed.
func last(out *bytes.Buffer) string {
	text := strings.TrimSpace(out.String())
	return text[max(0, len(text)-2000):]
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func writeKey(t testing.TB, path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
}
