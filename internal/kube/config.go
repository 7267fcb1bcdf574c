package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/weft-net/weft/internal/secret"
)

// serviceAccount is the directory in which a pod finds its service account.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// Config says how to reach an API server. The zero Config names none.
type Config struct {
	// Kubeconfig names files, parted as in PATH; of several the first that sets a
	// value wins. Empty: there is none, and Server says where.
	Kubeconfig string
	// Inline is the text of a kubeconfig; it wins over Kubeconfig.
	Inline secret.Text
	// Context is the one to use of Kubeconfig; empty: its current one.
	Context string
	// Server is an http or https URL; if Kubeconfig is set too, Server and the
	// fields below win over what it says.
	Server string
	// Token or the file that holds it; the file is read again when it changes.
	Token     secret.Text
	TokenFile string
	// CAFile is PEM: who signed the server's certificate; empty: the system's. CertFile
	// and KeyFile are this client's, both or none.
	CAFile, CertFile, KeyFile string
	// Insecure does not check who the server is.
	Insecure bool
	// InPod tells that the settings are those that Kubernetes gives every pod.
	InPod bool
	// Version is told to the API server as user agent weft/<version>.
	Version string
}

// ConfigFromEnv reads the settings that Calico's components read:
//
//	KUBECONFIG                     paths of kubeconfig files
//	KUBECONFIG_INLINE              the text of one, which wins
//	K8S_API_ENDPOINT               URL of the API server
//	K8S_API_TOKEN, K8S_CA_FILE, K8S_CERT_FILE, K8S_KEY_FILE
//	K8S_INSECURE_SKIP_TLS_VERIFY   true or false
//	K8S_CURRENT_CONTEXT            of the kubeconfig
//
// and, without a kubeconfig and K8S_API_ENDPOINT, what a pod finds:
// KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and its service account's files.
// lookup returns a variable's value, "" if it is not set. With nothing set the
// Config is one that is not [Config.Found], and no error. The error names the
// variable, its value (never a secret) and what is allowed.
func ConfigFromEnv(lookup func(string) string) (Config, error) {
	c := Config{
		Kubeconfig: lookup("KUBECONFIG"), Inline: secret.Text(lookup("KUBECONFIG_INLINE")), Context: lookup("K8S_CURRENT_CONTEXT"),
		Server: lookup("K8S_API_ENDPOINT"), Token: secret.Text(lookup("K8S_API_TOKEN")),
		CAFile: lookup("K8S_CA_FILE"), CertFile: lookup("K8S_CERT_FILE"), KeyFile: lookup("K8S_KEY_FILE"),
	}
	if v := lookup("K8S_INSECURE_SKIP_TLS_VERIFY"); v != "" {
		insecure, err := strconv.ParseBool(v)
		if err != nil {
			return Config{}, fmt.Errorf("K8S_INSECURE_SKIP_TLS_VERIFY: %q: must be true or false", v)
		}
		c.Insecure = insecure
	}
	if c.Server != "" {
		if err := checkServer(c.Server); err != nil {
			return Config{}, fmt.Errorf("K8S_API_ENDPOINT: %w", err)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return Config{}, errors.New("K8S_CERT_FILE and K8S_KEY_FILE: one is set and the other is not: must be both or none")
	}
	host, port := lookup("KUBERNETES_SERVICE_HOST"), lookup("KUBERNETES_SERVICE_PORT")
	if c.Kubeconfig == "" && c.Inline == "" && c.Server == "" && host != "" && port != "" {
		c.Server, c.InPod = "https://"+net.JoinHostPort(strings.Trim(host, "[]"), port), true
		if c.Token == "" {
			c.TokenFile = serviceAccount + "/token"
		}
		if c.CAFile == "" && !c.Insecure {
			c.CAFile = serviceAccount + "/ca.crt"
		}
	}
	return c, nil
}

// checkServer refuses what is no URL of a server. The URL itself is not printed when it
// can't be read, nor when it holds a password.
func checkServer(server string) error {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return errors.New("is no URL: must be such as https://10.0.0.1:6443")
	case u.User != nil:
		return errors.New("must not hold a user or password: K8S_API_TOKEN or K8S_CERT_FILE do")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q: must be a URL such as https://10.0.0.1:6443", server)
	}
	return nil
}

// Found tells whether any API server is configured. A pod without a service account
// token (automountServiceAccountToken: false) has none.
func (c Config) Found() bool {
	if c.InPod && c.TokenFile != "" {
		if _, err := os.Stat(c.TokenFile); errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return c.Server != "" || c.Kubeconfig != "" || c.Inline != ""
}

// ErrNone says that nothing tells where the API server is.
var ErrNone = errors.New("no Kubernetes API server is configured: set KUBECONFIG or K8S_API_ENDPOINT, or run in a pod with a service account")

// REST is c as client-go takes it: no limit of requests a second, core kinds as
// protobuf. Files are read. The error is one line that names the file or the setting,
// ErrNone if there is none.
func (c Config) REST() (*rest.Config, error) {
	if c.Server == "" && c.Kubeconfig == "" && c.Inline == "" {
		return nil, fmt.Errorf("kube: %w", ErrNone)
	}
	r := &rest.Config{}
	if c.Kubeconfig != "" || c.Inline != "" {
		var err error
		if r, err = c.kubeconfig(); err != nil {
			return nil, err
		}
	}
	if err := c.override(r); err != nil {
		return nil, err
	}
	version := c.Version
	if version == "" {
		version = "unknown"
	}
	r.UserAgent = "weft/" + version
	r.QPS = -1
	r.ContentType = runtime.ContentTypeProtobuf
	r.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return r, nil
}

// kubeconfig reads the kubeconfig. Errors about an inline one don't quote it.
func (c Config) kubeconfig() (*rest.Config, error) {
	name := c.Kubeconfig
	var loaded clientcmd.ClientConfig
	if c.Inline != "" {
		name = "KUBECONFIG_INLINE"
		parsed, err := clientcmd.Load([]byte(c.Inline))
		if err != nil {
			return nil, fmt.Errorf("kube: %s: is no kubeconfig", name)
		}
		loaded = clientcmd.NewNonInteractiveClientConfig(*parsed, c.Context, &clientcmd.ConfigOverrides{}, nil)
	} else {
		loaded = c.files()
	}
	r, err := loaded.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kube: kubeconfig %s: %s", name, oneLine(err))
	}
	if r.ExecProvider != nil || r.AuthProvider != nil {
		return nil, fmt.Errorf("kube: kubeconfig %s: the user's credentials come from another program, and weft starts none: use a token, a token file or a client certificate", name)
	}
	return r, nil
}

// files is the kubeconfig that the files of c.Kubeconfig make together.
func (c Config) files() clientcmd.ClientConfig {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: strings.FieldsFunc(c.Kubeconfig, func(r rune) bool { return r == os.PathListSeparator })}
	if len(rules.Precedence) == 1 {
		rules.ExplicitPath = rules.Precedence[0] // then a missing file is an error
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.Context})
}

// override puts c's own settings over those of r.
func (c Config) override(r *rest.Config) error {
	if c.Server != "" {
		r.Host = c.Server
	}
	if c.Token != "" {
		r.BearerToken, r.BearerTokenFile = string(c.Token), ""
	}
	if c.TokenFile != "" {
		token, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return fmt.Errorf("kube: token: %w", err)
		}
		r.BearerToken, r.BearerTokenFile = strings.TrimSpace(string(token)), c.TokenFile
	}
	if c.CAFile != "" {
		r.CAFile, r.CAData = c.CAFile, nil
	}
	if c.CertFile != "" {
		r.CertFile, r.CertData, r.KeyFile, r.KeyData = c.CertFile, nil, c.KeyFile, nil
	}
	if c.Insecure {
		r.Insecure, r.CAFile, r.CAData = true, "", nil
	}
	for _, file := range []string{r.CAFile, r.CertFile, r.KeyFile} {
		if file == "" {
			continue
		}
		if _, err := os.ReadFile(file); err != nil {
			return fmt.Errorf("kube: certificates: %w", err)
		}
	}
	return nil
}

// oneLine is err's text without line breaks.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
