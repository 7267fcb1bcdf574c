package etcd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/store/etcd"
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
		"":                                       "http://127.0.0.1:2379",
		"ETCD_ENDPOINTS=https://a:1,https://b:2": "https://a:1 https://b:2",
		"ETCD_ENDPOINTS=http://[fd00::1]:2379,":  "http://[fd00::1]:2379",
		"ETCD_ENDPOINTS=unix:///run/etcd.sock":   "unix:///run/etcd.sock",
		"ETCD_DISCOVERY_SRV=example.com":         "",

		"ETCD_ENDPOINTS=http://a:1 ETCD_DISCOVERY_SRV=b": `ETCD_ENDPOINTS and ETCD_DISCOVERY_SRV: both are set: only one may be`,
		"ETCD_ENDPOINTS=http://a:1,a:2379":               `ETCD_ENDPOINTS: endpoint 2: "a:2379": must begin with http://, https://, unix:// or unixs://`,
		"ETCD_ENDPOINTS=http://a":                        `ETCD_ENDPOINTS: endpoint 1: "http://a": must name a host and a port, such as https://10.0.0.1:2379`,
		"ETCD_ENDPOINTS=http://a:1/v3":                   `ETCD_ENDPOINTS: endpoint 1: "http://a:1/v3": must have no path`,
		"ETCD_ENDPOINTS=unix://":                         `ETCD_ENDPOINTS: endpoint 1: "unix://": must name a socket, such as unix:///run/etcd.sock`,
		"ETCD_ENDPOINTS=http://a:1,https://b:1":          `ETCD_ENDPOINTS: some endpoints use TLS and some do not: must be all or none`,
		"ETCD_ENDPOINTS=http://me:sesame@a:1":            `ETCD_ENDPOINTS: endpoint 1: must not hold a user or password: ETCD_USERNAME and ETCD_PASSWORD do`,
		"ETCD_ENDPOINTS=http://me:sesame%zz@a:1":         `ETCD_ENDPOINTS: endpoint 1: is no URL: must be such as https://10.0.0.1:2379 or unix:///run/etcd.sock`,
		"ETCD_PASSWORD=sesame":                           `ETCD_USERNAME and ETCD_PASSWORD: one is set and the other is not: must be both or none`,
		"ETCD_CERT_FILE=/a":                              `ETCD_KEY_FILE and ETCD_CERT_FILE: one is set and the other is not: must be both or none`,
	} {
		c, err := etcd.ConfigFromEnv(env(in))
		got := strings.Join(c.Endpoints, " ")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	c, err := etcd.ConfigFromEnv(env("ETCD_USERNAME=me ETCD_PASSWORD=sesame ETCD_KEY=sesame ETCD_CERT=sesame"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("connect", "config", c, "password", c.Password)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("connect", "config", c)
	fmt.Fprintf(&out, "%v %+v %#v %s %q", c, c, c, c, c.Password)
	text, err := json.Marshal(c)
	if out.Write(text); err != nil || strings.Contains(out.String(), "sesame") {
		t.Errorf("a secret is printed: %v: %s", err, out.String())
	}
}

func FuzzConfigFromEnv(f *testing.F) {
	f.Add("http://a:1,https://b", "")
	f.Add("unix://x%zz", "d")
	f.Fuzz(func(t *testing.T, endpoints, domain string) {
		c, err := etcd.ConfigFromEnv(func(name string) string {
			return map[string]string{"ETCD_ENDPOINTS": endpoints, "ETCD_DISCOVERY_SRV": domain}[name]
		})
		if err == nil && len(c.Endpoints) == 0 && c.DiscoverySRV == "" {
			t.Error("no endpoint and no error")
		}
		if err == nil && slices.Contains(c.Endpoints, "") {
			t.Error("an empty endpoint")
		}
	})
}
