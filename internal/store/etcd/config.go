package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/secret"
)

// Config says how to reach an etcd cluster. Certificates are PEM, each either
// inline or in a file; inline wins.
type Config struct {
	// Endpoints are URLs, http, https, unix (unix:///run/etcd.sock) or unixs, all
	// with TLS or all without.
	Endpoints []string
	// DiscoverySRV is a domain whose DNS SRV records name the endpoints
	// (_etcd-client-ssl._tcp, then _etcd-client._tcp); used without Endpoints.
	DiscoverySRV string
	// Username and Password are both set or both empty.
	Username string
	Password secret.Text
	// Key and Cert are this client's, CACert the authority that signed the
	// servers' certificates; the system's if there is none.
	KeyFile, CertFile, CACertFile string
	Key, Cert, CACert             secret.Text
	// Timeout bounds Open, and each request whose context has no deadline. 0: 10 s.
	Timeout time.Duration
}

// ConfigFromEnv reads the settings that Calico's components read:
//
//	ETCD_ENDPOINTS        URLs parted by commas; default http://127.0.0.1:2379
//	ETCD_DISCOVERY_SRV    a DNS domain, instead of ETCD_ENDPOINTS
//	ETCD_USERNAME, ETCD_PASSWORD
//	ETCD_KEY_FILE, ETCD_CERT_FILE, ETCD_CA_CERT_FILE    paths of PEM files
//	ETCD_KEY, ETCD_CERT, ETCD_CA_CERT                   the PEM text itself
//
// lookup returns a variable's value, "" if it is not set. Files are not read yet. The
// error names the variable, its value (never a secret) and what is allowed.
func ConfigFromEnv(lookup func(string) string) (Config, error) {
	c := Config{
		DiscoverySRV: lookup("ETCD_DISCOVERY_SRV"),
		Username:     lookup("ETCD_USERNAME"), Password: secret.Text(lookup("ETCD_PASSWORD")),
		KeyFile: lookup("ETCD_KEY_FILE"), CertFile: lookup("ETCD_CERT_FILE"), CACertFile: lookup("ETCD_CA_CERT_FILE"),
		Key: secret.Text(lookup("ETCD_KEY")), Cert: secret.Text(lookup("ETCD_CERT")), CACert: secret.Text(lookup("ETCD_CA_CERT")),
	}
	for e := range strings.SplitSeq(lookup("ETCD_ENDPOINTS"), ",") {
		if e = strings.TrimSpace(e); e != "" {
			c.Endpoints = append(c.Endpoints, e)
		}
	}
	if len(c.Endpoints) > 0 && c.DiscoverySRV != "" {
		return Config{}, errors.New("ETCD_ENDPOINTS and ETCD_DISCOVERY_SRV: both are set: only one may be")
	}
	if len(c.Endpoints) == 0 && c.DiscoverySRV == "" {
		c.Endpoints = []string{"http://127.0.0.1:2379"}
	}
	return c, c.check()
}

// check refuses settings that can't work, naming the variable.
func (c Config) check() error {
	secure := 0
	for i, e := range c.Endpoints {
		u, err := url.Parse(e)
		at := fmt.Sprintf("ETCD_ENDPOINTS: endpoint %d", i+1)
		switch {
		case err != nil:
			return fmt.Errorf("%s: is no URL: must be such as https://10.0.0.1:2379 or unix:///run/etcd.sock", at)
		case u.User != nil:
			return fmt.Errorf("%s: must not hold a user or password: ETCD_USERNAME and ETCD_PASSWORD do", at)
		case u.Scheme == "unix" || u.Scheme == "unixs":
			if u.Host+u.Path == "" {
				return fmt.Errorf("%s: %q: must name a socket, such as unix:///run/etcd.sock", at, e)
			}
		case u.Scheme != "http" && u.Scheme != "https":
			return fmt.Errorf("%s: %q: must begin with http://, https://, unix:// or unixs://", at, e)
		case u.Port() == "" || u.Hostname() == "":
			return fmt.Errorf("%s: %q: must name a host and a port, such as https://10.0.0.1:2379", at, e)
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
			return fmt.Errorf("%s: %q: must have no path", at, e)
		}
		if isSecure(e) {
			secure++
		}
	}
	switch {
	case secure != 0 && secure != len(c.Endpoints):
		return errors.New("ETCD_ENDPOINTS: some endpoints use TLS and some do not: must be all or none")
	case (c.Username == "") != (c.Password == ""):
		return errors.New("ETCD_USERNAME and ETCD_PASSWORD: one is set and the other is not: must be both or none")
	case (c.Key+secret.Text(c.KeyFile) == "") != (c.Cert+secret.Text(c.CertFile) == ""):
		return errors.New("ETCD_KEY_FILE and ETCD_CERT_FILE: one is set and the other is not: must be both or none")
	}
	return nil
}

// isSecure reports whether an endpoint is reached by TLS.
func isSecure(endpoint string) bool {
	return strings.HasPrefix(endpoint, "https://") || strings.HasPrefix(endpoint, "unixs://")
}

// resolved is c with defaults set and its endpoints found.
func (c Config) resolved(ctx context.Context) (Config, error) {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if len(c.Endpoints) == 0 && c.DiscoverySRV != "" {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		var err error
		if c.Endpoints, err = discover(ctx, c.DiscoverySRV); err != nil {
			return c, err
		}
	}
	if len(c.Endpoints) == 0 {
		return c, errors.New("etcd: no endpoint is set")
	}
	c.Endpoints = slices.Clone(c.Endpoints)
	for i := range c.Endpoints {
		c.Endpoints[i] = strings.TrimRight(c.Endpoints[i], "/")
	}
	return c, c.check()
}

// discover asks DNS for the endpoints of a domain, as etcd's own clients do: those
// with TLS if there are any.
func discover(ctx context.Context, domain string) ([]string, error) {
	var lastErr error
	for _, service := range []struct{ name, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		_, records, err := net.DefaultResolver.LookupSRV(ctx, service.name, "tcp", domain)
		var endpoints []string
		for _, r := range records {
			host := strings.TrimSuffix(r.Target, ".")
			endpoints = append(endpoints, service.scheme+"://"+net.JoinHostPort(host, strconv.Itoa(int(r.Port))))
		}
		if len(endpoints) > 0 {
			return endpoints, nil
		}
		lastErr = err
	}
	return nil, fmt.Errorf("etcd: ETCD_DISCOVERY_SRV: %q: no record _etcd-client-ssl._tcp or _etcd-client._tcp: %w", domain, lastErr)
}

// tls reads keys and certificates. It is nil where no endpoint uses TLS.
func (c Config) tls() (*tls.Config, error) {
	if !isSecure(c.Endpoints[0]) {
		return nil, nil
	}
	key, err := pem("ETCD_KEY_FILE", c.Key, c.KeyFile)
	if err != nil {
		return nil, err
	}
	cert, err := pem("ETCD_CERT_FILE", c.Cert, c.CertFile)
	if err != nil {
		return nil, err
	}
	ca, err := pem("ETCD_CA_CERT_FILE", c.CACert, c.CACertFile)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("ETCD_CERT_FILE and ETCD_KEY_FILE: %s, %s: %w", c.CertFile, c.KeyFile, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	if ca != nil {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("ETCD_CA_CERT_FILE: %s: holds no certificate in PEM form", c.CACertFile)
		}
	}
	return t, nil
}

// pem is the inline text, or what the file holds; nil if there is neither.
func pem(variable string, inline secret.Text, path string) ([]byte, error) {
	if inline != "" || path == "" {
		if inline == "" {
			return nil, nil
		}
		return []byte(inline), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	return text, nil
}
