// Package settings finds out which datastore a command is to work on. It reads what
// Calico's tools read: a file calicoctl.cfg or else the environment, in that order, never
// a mixture of both.
//
//	--config FILE ──┐ must exist
//	/etc/calico/calicoctl.cfg ──┐ if there is one
//	environment: DATASTORE_TYPE, ETCD_*, KUBECONFIG, K8S_* ──► Settings ──► datastore.Open
//	~/.kube/config, a pod's service account ──┘ if nothing else names a datastore
//
// The file is a document of kind CalicoAPIConfig; its spec has the names of the variables in
// camel case. A setting is known by the name of its variable wherever it came from, so that
// what opens the datastore reads one vocabulary. A variable may also be written with CALICO_
// before it, and then wins, as with Calico's tools.
//
// The type of the datastore that nobody names follows from the rest: etcdv3 where endpoints of
// etcd are set, else kubernetes where any way to an API server is found. A kubectl plugin takes
// kubernetes.
//
// The package opens nothing and judges no value but the type; the doors do (packages
// store/etcd and kube). Their errors name variables: [Settings.Explain] turns those into what
// the user wrote, and says where.
//
// Invariant: no value of a setting is in an error of this package but that of the type.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultFile is read when no file is named. It need not exist.
const DefaultFile = "/etc/calico/calicoctl.cfg"

// The types of a datastore, values of DATASTORE_TYPE.
const (
	Etcd       = "etcdv3"
	Kubernetes = "kubernetes"
)

// Request says where to look.
type Request struct {
	// File must exist, unless it is Default.
	File string
	// Default is read if File is empty or the same, and it exists. Empty: there is none.
	Default string
	// Context is that of the kubeconfig to use, from the command line; it wins.
	Context string
	// Plugin says that kubectl started us: then an API server is meant, unless a file or
	// DATASTORE_TYPE says otherwise.
	Plugin bool
	// Getenv gives a variable of the environment, empty when it is not set.
	Getenv func(string) string
}

// Settings are what names a datastore. The zero Settings names none.
type Settings struct {
	values map[string]string
	getenv func(string) string
	file   string // they are from; empty: the environment
	// endpointless says that the type is etcdv3 and neither endpoints nor a domain are set.
	endpointless bool
}

// ErrNone says that nothing names a datastore. Its text lists what was tried.
var ErrNone = errors.New("no datastore is set")

// Error is what is wrong with the settings.
type Error struct {
	Err error
	// Missing is the file that was named and can't be read; empty for other errors.
	Missing string
	// Calico is how calicoctl says it; empty: it has no words of its own.
	Calico string
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Read finds the settings. The error is an *Error; it wraps ErrNone when nothing names a
// datastore.
func Read(r Request) (Settings, error) {
	s := Settings{values: map[string]string{}, getenv: r.Getenv}
	file, err := r.choose()
	if err != nil {
		return Settings{}, err
	}
	if file != "" {
		s.file = file
		if s.values, err = readFile(file); err != nil {
			return Settings{}, err
		}
	} else {
		for _, k := range known() {
			if v := r.Getenv("CALICO_" + k.variable); v != "" {
				s.values[k.variable] = v
			} else if v := r.Getenv(k.variable); v != "" {
				s.values[k.variable] = v
			}
		}
	}
	if r.Context != "" {
		s.values["K8S_CURRENT_CONTEXT"] = r.Context
	}
	return s, s.settle(r)
}

// choose is the file to read; empty: the environment is what counts.
func (r Request) choose() (string, error) {
	named := r.File != "" && r.File != r.Default
	file := r.File
	if !named {
		file = r.Default
	}
	if file == "" {
		return "", nil
	}
	if _, err := os.Stat(file); err != nil {
		if !named && errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return "", &Error{Err: fmt.Errorf("--config: %w", err), Missing: file}
	}
	return file, nil
}

// settle decides the type of the datastore where none is named, and takes the user's own
// kubeconfig where nothing else leads to an API server.
func (s *Settings) settle(r Request) error {
	etcd := s.values["ETCD_ENDPOINTS"] != "" || s.values["ETCD_DISCOVERY_SRV"] != ""
	kind := s.values["DATASTORE_TYPE"]
	switch {
	case kind != "":
	case etcd && !r.Plugin:
		kind = Etcd
	case s.toServer(r) || r.Plugin:
		kind = Kubernetes
	default:
		return &Error{Err: fmt.Errorf("%w: %s", ErrNone, s.tried(r))}
	}
	s.values["DATASTORE_TYPE"] = kind
	switch kind {
	case Etcd:
		s.endpointless = !etcd
		return nil
	case Kubernetes:
		if s.toServer(r) {
			return nil
		}
		return &Error{Err: fmt.Errorf("%w: for %s: %s", ErrNone, Kubernetes, s.tried(r))}
	}
	err := fmt.Errorf("DATASTORE_TYPE: %q: must be %s or %s", kind, Etcd, Kubernetes)
	return &Error{Err: s.Explain(err), Calico: "unknown datastore type: " + kind}
}

// toServer reports whether there is a way to an API server. If it is the kubeconfig in the
// user's home, it becomes the setting.
func (s *Settings) toServer(r Request) bool {
	if s.values["KUBECONFIG"]+s.values["K8S_API_ENDPOINT"]+s.values["KUBECONFIG_INLINE"] != "" {
		return true
	}
	if home := homeConfig(r.Getenv); home != "" {
		if _, err := os.Stat(home); err == nil {
			s.values["KUBECONFIG"] = home
			return true
		}
	}
	return r.Getenv("KUBERNETES_SERVICE_HOST") != "" && r.Getenv("KUBERNETES_SERVICE_PORT") != ""
}

// homeConfig is where kubectl has its settings; empty without a home directory.
func homeConfig(getenv func(string) string) string {
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".kube", "config")
	}
	return ""
}

// tried lists where a datastore might have been named, in order, and what to do.
func (s *Settings) tried(r Request) string {
	var at []string
	if s.file != "" {
		at = append(at, s.file+" names none")
	} else {
		if r.Default != "" {
			at = append(at, r.Default+" does not exist")
		}
		at = append(at, "DATASTORE_TYPE, ETCD_ENDPOINTS, ETCD_DISCOVERY_SRV, KUBECONFIG and K8S_API_ENDPOINT are not set")
		if kind := s.values["DATASTORE_TYPE"]; kind == Kubernetes || r.Plugin {
			at[len(at)-1] = "KUBECONFIG and K8S_API_ENDPOINT are not set"
		}
	}
	if home := homeConfig(r.Getenv); home != "" {
		at = append(at, home+" does not exist")
	}
	at = append(at, "this is no pod")
	return "tried in this order: " + strings.Join(at, "; ") +
		": name a file with --config, or set ETCD_ENDPOINTS or KUBECONFIG"
}

// Get is the value of a setting by the name of its variable; empty when it is not set.
// Variables that are no settings of the datastore come from the environment.
func (s Settings) Get(name string) string {
	if value, ok := s.values[name]; ok {
		return value
	}
	for _, k := range known() {
		if k.variable == name {
			return ""
		}
	}
	if s.getenv == nil {
		return ""
	}
	return s.getenv(name)
}

// Environ is the settings as an environment has them, NAME=value, sorted. There are secrets
// among them.
func (s Settings) Environ() []string {
	out := make([]string, 0, len(s.values))
	for name, value := range s.values {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// Type is etcdv3 or kubernetes.
func (s Settings) Type() string { return s.values["DATASTORE_TYPE"] }

// Endpointless reports whether etcd is meant and no endpoint is named: then weft takes that
// of the same machine, and calicoctl gives up.
func (s Settings) Endpointless() bool { return s.endpointless }

// Explain makes err, which names variables, speak of what the user wrote: fields of a file,
// and which file.
func (s Settings) Explain(err error) error {
	if err == nil || s.file == "" {
		return err
	}
	text, changed := err.Error(), false
	for _, k := range known() {
		if strings.Contains(text, k.variable) {
			text, changed = replaceWord(text, k.variable, "spec."+k.field), true
		}
	}
	if !changed {
		return err
	}
	return worded{fmt.Sprintf("%s: %s", s.file, text), err}
}

// replaceWord replaces a variable's name where it stands alone.
func replaceWord(text, word, by string) string {
	var b strings.Builder
	for {
		i := strings.Index(text, word)
		if i < 0 {
			return b.String() + text
		}
		end := i + len(word)
		alone := (i == 0 || !partOfName(text[i-1])) && (end == len(text) || !partOfName(text[end]))
		b.WriteString(text[:i])
		if alone {
			b.WriteString(by)
		} else {
			b.WriteString(word)
		}
		text = text[end:]
	}
}

func partOfName(c byte) bool { return c == '_' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' }

// worded is an error with other words.
type worded struct {
	text string
	error
}

// Error implements error.
func (w worded) Error() string { return w.text }

// Unwrap gives the cause.
func (w worded) Unwrap() error { return w.error }
