package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// env makes a lookup of "NAME=value" words.
func env(words string) func(string) string {
	values := map[string]string{}
	for word := range strings.FieldsSeq(words) {
		name, value, _ := strings.Cut(word, "=")
		values[name] = value
	}
	return func(name string) string { return values[name] }
}

// write makes a file in a directory of the test's own.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const head = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n"

// Which datastore is meant, of all the places that may name one.
func TestOrder(t *testing.T) {
	t.Parallel()
	home, empty := t.TempDir(), t.TempDir()
	kubeconfig := write(t, filepath.Join(home, ".kube", "config"), "")
	etcdFile := write(t, filepath.Join(home, "etcd.cfg"), head+"  datastoreType: etcdv3\n  etcdEndpoints: http://file:1\n")
	kubeFile := write(t, filepath.Join(home, "kube.cfg"), head+"  kubeconfig: /file\n  k8sCurrentContext: of-file\n")
	silent := write(t, filepath.Join(home, "silent.cfg"), head)
	none := filepath.Join(empty, "none.cfg")
	for name, tt := range map[string]struct {
		file, def, context, env string
		plugin                  bool
		want                    string // type, and what says where
	}{
		"file":                                {file: etcdFile, want: "etcdv3 http://file:1"},
		"default file":                        {def: etcdFile, want: "etcdv3 http://file:1"},
		"a file hides the environment":        {file: etcdFile, env: "ETCD_ENDPOINTS=http://env:1 DATASTORE_TYPE=kubernetes", want: "etcdv3 http://file:1"},
		"named file hides the default":        {file: kubeFile, def: etcdFile, want: "kubernetes /file of-file"},
		"default need not exist":              {def: none, env: "ETCD_ENDPOINTS=http://env:1", want: "etcdv3 http://env:1"},
		"the default may be named":            {file: none, def: none, env: "ETCD_ENDPOINTS=http://env:1", want: "etcdv3 http://env:1"},
		"type decides":                        {env: "DATASTORE_TYPE=kubernetes ETCD_ENDPOINTS=http://env:1 KUBECONFIG=/env", want: "kubernetes /env"},
		"endpoints mean etcd":                 {env: "ETCD_ENDPOINTS=http://env:1 KUBECONFIG=/env", want: "etcdv3 http://env:1"},
		"so does a domain":                    {env: "ETCD_DISCOVERY_SRV=example.org KUBECONFIG=/env", want: "etcdv3 "},
		"kubeconfig":                          {env: "KUBECONFIG=/env", want: "kubernetes /env"},
		"kubeconfig of the home":              {env: "HOME=" + home, want: "kubernetes " + kubeconfig},
		"of the home after a silent file":     {file: silent, env: "HOME=" + home, want: "kubernetes " + kubeconfig},
		"server":                              {env: "K8S_API_ENDPOINT=https://env:1 HOME=" + home, want: "kubernetes https://env:1"},
		"pod":                                 {env: "KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_SERVICE_PORT=443", want: "kubernetes "},
		"home before pod":                     {env: "KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_SERVICE_PORT=443 HOME=" + home, want: "kubernetes " + kubeconfig},
		"CALICO_ wins":                        {env: "CALICO_ETCD_ENDPOINTS=http://c:1 ETCD_ENDPOINTS=http://env:1", want: "etcdv3 http://c:1"},
		"plugin":                              {plugin: true, env: "ETCD_ENDPOINTS=http://env:1 KUBECONFIG=/env", want: "kubernetes /env"},
		"plugin obeys the type":               {plugin: true, env: "DATASTORE_TYPE=etcdv3 ETCD_ENDPOINTS=http://env:1", want: "etcdv3 http://env:1"},
		"context of the flag wins":            {file: kubeFile, context: "flag", want: "kubernetes /file flag"},
		"context of the environment":          {env: "KUBECONFIG=/env K8S_CURRENT_CONTEXT=c", want: "kubernetes /env c"},
		"etcd without endpoints":              {env: "DATASTORE_TYPE=etcdv3", want: "etcdv3 endpointless"},
		"nothing":                             {def: none, env: "HOME=" + empty, want: "no datastore is set: tried in this order: " + none + " does not exist; DATASTORE_TYPE, ETCD_ENDPOINTS, ETCD_DISCOVERY_SRV, KUBECONFIG and K8S_API_ENDPOINT are not set; " + empty + "/.kube/config does not exist; this is no pod: name a file with --config, or set ETCD_ENDPOINTS or KUBECONFIG"},
		"nothing in a file":                   {file: silent, want: "no datastore is set: tried in this order: " + silent + " names none; this is no pod: name a file with --config, or set ETCD_ENDPOINTS or KUBECONFIG"},
		"a plugin without a server":           {plugin: true, want: "no datastore is set: for kubernetes: tried in this order: KUBECONFIG and K8S_API_ENDPOINT are not set; this is no pod: name a file with --config, or set ETCD_ENDPOINTS or KUBECONFIG"},
		"unknown type":                        {env: "DATASTORE_TYPE=mongo", want: `DATASTORE_TYPE: "mongo": must be etcdv3 or kubernetes`},
		"missing file":                        {file: none, env: "ETCD_ENDPOINTS=http://env:1", want: "--config: stat " + none + ": no such file or directory"},
		"a directory is no file":              {file: home, want: "--config: read " + home + ": is a directory"},
		"nothing of what the tools do not do": {env: "ETCD_ENDPOINTS=http://env:1 K8S_DISABLE_NODE_POLL=true", want: "etcdv3 http://env:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Read(Request{File: tt.file, Default: tt.def, Context: tt.context, Plugin: tt.plugin, Getenv: env(tt.env)})
			got := s.Type()
			switch {
			case err != nil:
				if wrong := (*Error)(nil); !errors.As(err, &wrong) {
					t.Errorf("%v is a %T", err, err)
				}
				got = err.Error()
			case s.Endpointless():
				got += " endpointless"
			case got == Etcd:
				got += " " + s.Get("ETCD_ENDPOINTS")
			default:
				got += " " + s.Get("KUBECONFIG") + s.Get("K8S_API_ENDPOINT")
				if c := s.Get("K8S_CURRENT_CONTEXT"); c != "" {
					got += " " + c
				}
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// What a file may hold, in both voices.
func TestFile(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, variable, value, want, calico string }{
		"all cases":  {text: head + "  ETCDENDPOINTS: http://a:1\n", variable: "ETCD_ENDPOINTS", value: "http://a:1"},
		"JSON":       {text: `{"apiVersion":"projectcalico.org/v3","kind":"CalicoAPIConfig","spec":{"etcdEndpoints":"http://a:1"}}`, variable: "ETCD_ENDPOINTS", value: "http://a:1"},
		"boolean":    {text: head + "  k8sAPIEndpoint: https://a\n  k8sInsecureSkipTLSVerify: true\n", variable: "K8S_INSECURE_SKIP_TLS_VERIFY", value: "true"},
		"number":     {text: head + "  k8sAPIEndpoint: https://a\n  k8sClientQPS: 12.5\n", variable: "K8S_CLIENT_QPS", value: "12.5"},
		"inline":     {text: head + "  etcdEndpoints: https://a:1\n  etcdCACert: |\n    -----BEGIN\n", variable: "ETCD_CA_CERT", value: "-----BEGIN\n"},
		"null":       {text: head + "  etcdEndpoints: https://a:1\n  etcdPassword: null\n", variable: "ETCD_PASSWORD"},
		"kubeconfig": {text: head + "  kubeconfigInline: abc\n", variable: "KUBECONFIG_INLINE", value: "abc"},
		"unknown": {
			text: head + "  datastoreTyp: etcdv3\n", want: "FILE: spec.datastoreTyp: unknown field: did you mean spec.datastoreType?",
			calico: `syntax error in FILE: failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: unknown field "datastoreTyp"`,
		},
		"unknown, far": {text: head + "  frobnicate: etcdv3\n", want: "FILE: spec.frobnicate: unknown field", calico: `syntax error in FILE: failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: unknown field "frobnicate"`},
		"unknown, top": {text: head + "metadat: {}\n", want: "FILE: metadat: unknown field: did you mean metadata?", calico: `syntax error in FILE: failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: unknown field "metadat"`},
		"kind":         {text: "apiVersion: projectcalico.org/v3\nkind: IPPool\n", want: `FILE: kind: "IPPool": must be CalicoAPIConfig`, calico: "syntax error in FILE: invalid config file: expected kind 'CalicoAPIConfig', got 'IPPool'"},
		"version":      {text: "apiVersion: v1\nkind: CalicoAPIConfig\n", want: `FILE: apiVersion: "v1": must be projectcalico.org/v3`, calico: "syntax error in FILE: invalid config file: unknown APIVersion 'v1'"},
		"empty":        {text: "", want: `FILE: apiVersion: "": must be projectcalico.org/v3`, calico: "syntax error in FILE: invalid config file: unknown APIVersion ''"},
		"list":         {text: "- a\n", want: "FILE: is no settings file: must be a document of kind CalicoAPIConfig", calico: "syntax error in FILE: failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: is no object"},
		"twice":        {text: head + "  etcdEndpoints: a\n  etcdEndpoints: b\n", want: `FILE: yaml: unmarshal errors: line 6: key "etcdEndpoints" already set in map`, calico: "syntax error in FILE: failed to parse config as YAML/JSON: yaml: unmarshal errors:\n  line 6: key \"etcdEndpoints\" already set in map"},
		"syntax":       {text: "a: b: c\n", want: "FILE: yaml: mapping values are not allowed in this context", calico: "syntax error in FILE: failed to parse config as YAML/JSON: yaml: mapping values are not allowed in this context"},
		"a list where text belongs": {
			text: head + "  etcdPassword: [hush]\n", want: "FILE: spec.etcdPassword: must be text",
			calico: "syntax error in FILE: failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: spec.etcdPassword: wrong type",
		},
		"number where text belongs": {
			text: head + "  etcdPassword: 31337\n", want: "FILE: spec.etcdPassword: must be text",
			calico: "syntax error in FILE: failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: spec.etcdPassword: wrong type",
		},
		"unknown type": {text: head + "  datastoreType: mongo\n", want: `FILE: spec.datastoreType: "mongo": must be etcdv3 or kubernetes`, calico: "unknown datastore type: mongo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := write(t, filepath.Join(t.TempDir(), "c.cfg"), tt.text)
			s, err := Read(Request{File: file, Getenv: env("")})
			if tt.want == "" {
				if err != nil || s.Get(tt.variable) != tt.value {
					t.Errorf("%s is %q, %v; want %q", tt.variable, s.Get(tt.variable), err, tt.value)
				}
				return
			}
			wrong := (*Error)(nil)
			if !errors.As(err, &wrong) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if got := strings.ReplaceAll(err.Error(), file, "FILE"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if got := strings.ReplaceAll(wrong.Calico, file, "FILE"); got != tt.calico {
				t.Errorf("got  %s\nwant %s", got, tt.calico)
			}
		})
	}
}

// Every field has a variable, and a value arrives under it.
func TestEveryField(t *testing.T) {
	t.Parallel()
	for _, k := range known() {
		value := map[string]string{"text": "x", "a number": "7", "true or false": "true"}[wanted(k.field)]
		if k.field == "datastoreType" {
			value = Etcd
		}
		rest := ""
		if k.field != "datastoreType" {
			rest = "  datastoreType: etcdv3\n"
		}
		file := write(t, filepath.Join(t.TempDir(), "c.cfg"), head+rest+"  "+k.field+": "+value+"\n")
		s, err := Read(Request{File: file, Getenv: env("HOME=/h " + k.variable + "=of-the-environment")})
		if err != nil || s.Get(k.variable) != value || s.Get("HOME") != "/h" {
			t.Errorf("%s: %s is %q, want %q; HOME is %q; %v", k.field, k.variable, s.Get(k.variable), value, s.Get("HOME"), err)
		}
	}
}

// An error of a door speaks of the variable; the user wrote a field.
func TestExplain(t *testing.T) {
	t.Parallel()
	cause := errors.New("ETCD_CERT_FILE and ETCD_KEY_FILE: MY_ETCD_KEY: must be both or none")
	of := Settings{file: "c.cfg"}
	if got, want := of.Explain(cause), "c.cfg: spec.etcdCertFile and spec.etcdKeyFile: MY_ETCD_KEY: must be both or none"; got.Error() != want || !errors.Is(got, cause) {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	other := errors.New("etcd: http://a:1: connection refused")
	if got := of.Explain(other); !errors.Is(got, other) || got.Error() != other.Error() {
		t.Errorf("got %v", got)
	}
	if got := (Settings{}).Explain(cause); got.Error() != cause.Error() {
		t.Errorf("got %v", got)
	}
}

// No file makes Read panic, and what is wrong with one is said in one line.
func FuzzFile(f *testing.F) {
	f.Add(head + "  etcdEndpoints: http://a:1\n")
	f.Add("{")
	f.Add("spec: 1")
	f.Add("- : -")
	f.Fuzz(func(t *testing.T, text string) {
		file := write(t, filepath.Join(t.TempDir(), "c.cfg"), text)
		if _, err := Read(Request{File: file, Getenv: env("")}); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q", err.Error())
		}
	})
}
