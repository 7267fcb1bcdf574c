package kube_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kube"
)

// env reads "NAME=value NAME=value" as an environment.
func env(text string) func(string) string {
	m := map[string]string{}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		m[name] = value
	}
	return func(name string) string { return m[name] }
}

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                   "none",
		"KUBECONFIG=/a":                      " /a",
		"K8S_API_ENDPOINT=https://a:6443":    "https://a:6443 ",
		"K8S_API_ENDPOINT=a:6443":            `K8S_API_ENDPOINT: "a:6443": must be a URL such as https://10.0.0.1:6443`,
		"K8S_API_ENDPOINT=https://me:pw@a:1": `K8S_API_ENDPOINT: must not hold a user or password: K8S_API_TOKEN or K8S_CERT_FILE do`,
		"K8S_API_ENDPOINT=https://%zz":       `K8S_API_ENDPOINT: is no URL: must be such as https://10.0.0.1:6443`,
		"K8S_INSECURE_SKIP_TLS_VERIFY=maybe": `K8S_INSECURE_SKIP_TLS_VERIFY: "maybe": must be true or false`,
		"K8S_CERT_FILE=/a":                   `K8S_CERT_FILE and K8S_KEY_FILE: one is set and the other is not: must be both or none`,
		// A pod without a service account token has no API server.
		"KUBERNETES_SERVICE_HOST=10.0.0.1 KUBERNETES_SERVICE_PORT=443":                        "none",
		"KUBERNETES_SERVICE_HOST=10.0.0.1 KUBERNETES_SERVICE_PORT=443 K8S_API_TOKEN=t":        "https://10.0.0.1:443 ",
		"KUBERNETES_SERVICE_HOST=fd00::1 KUBERNETES_SERVICE_PORT=443 K8S_API_TOKEN=t":         "https://[fd00::1]:443 ",
		"KUBERNETES_SERVICE_HOST=a KUBERNETES_SERVICE_PORT=1 K8S_API_ENDPOINT=http://[::1]:8": "http://[::1]:8 ",
	} {
		c, err := kube.ConfigFromEnv(env(in))
		got := c.Server + " " + c.Kubeconfig
		switch {
		case err != nil:
			got = err.Error()
		case !c.Found():
			got = "none"
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestREST(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := func(user string) string {
		return `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":"https://a:1"}}],"users":[{"name":"u","user":` + user + `}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}`
	}
	good, plugin := write("good", config(`{"token":"sesame"}`)), write("plugin", config(`{"exec":{"apiVersion":"client.authentication.k8s.io/v1","command":"x","interactiveMode":"Never"}}`))
	token := write("token", "fresh\n")
	for name, tt := range map[string]struct {
		c    kube.Config
		want string // host and token, or what the error holds
	}{
		"none":         {kube.Config{}, "no Kubernetes API server is configured"},
		"file":         {kube.Config{Kubeconfig: good}, "https://a:1 sesame"},
		"file, server": {kube.Config{Kubeconfig: good, Server: "https://b:1", TokenFile: token}, "https://b:1 fresh"},
		"plugin":       {kube.Config{Kubeconfig: plugin}, "weft starts none"},
		"no file":      {kube.Config{Kubeconfig: filepath.Join(dir, "none")}, "no such file"},
		"no token":     {kube.Config{Server: "https://a", TokenFile: filepath.Join(dir, "none")}, "kube: token: "},
		"no authority": {kube.Config{Server: "https://a", CAFile: filepath.Join(dir, "none")}, "kube: certificates: "},
	} {
		r, err := tt.c.REST()
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got %v, want %s", name, err, tt.want)
			}
			continue
		}
		if got := r.Host + " " + r.BearerToken; got != tt.want || r.QPS >= 0 || r.UserAgent != "weft/unknown" {
			t.Errorf("%s: got %s %v %s", name, got, r.QPS, r.UserAgent)
		}
		if _, err := kube.Connect(tt.c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	c, err := kube.ConfigFromEnv(env("K8S_API_ENDPOINT=https://a K8S_API_TOKEN=sesame"))
	text, jsonErr := json.Marshal(c)
	out := fmt.Sprintf("%v %+v %#v %q %s", c, c, c, c.Token, text)
	if err != nil || jsonErr != nil || strings.Contains(out, "sesame") {
		t.Errorf("a secret is printed: %v: %s", err, out)
	}
}
