package settings

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/internal/spelling"
)

// setting is one that a file or the environment may have.
type setting struct{ field, variable string }

// known are all settings of the datastore: the field of the file's spec, and the variable.
// Those that weft takes and needs not are there too, so that Calico's files stay valid.
func known() []setting {
	return []setting{
		{"datastoreType", "DATASTORE_TYPE"},
		{"etcdEndpoints", "ETCD_ENDPOINTS"},
		{"etcdDiscoverySrv", "ETCD_DISCOVERY_SRV"},
		{"etcdUsername", "ETCD_USERNAME"},
		{"etcdPassword", "ETCD_PASSWORD"},
		{"etcdKeyFile", "ETCD_KEY_FILE"},
		{"etcdCertFile", "ETCD_CERT_FILE"},
		{"etcdCACertFile", "ETCD_CA_CERT_FILE"},
		{"etcdKey", "ETCD_KEY"},
		{"etcdCert", "ETCD_CERT"},
		{"etcdCACert", "ETCD_CA_CERT"},
		{"kubeconfig", "KUBECONFIG"},
		{"kubeconfigInline", "KUBECONFIG_INLINE"},
		{"k8sAPIEndpoint", "K8S_API_ENDPOINT"},
		{"k8sKeyFile", "K8S_KEY_FILE"},
		{"k8sCertFile", "K8S_CERT_FILE"},
		{"k8sCAFile", "K8S_CA_FILE"},
		{"k8sAPIToken", "K8S_API_TOKEN"},
		{"k8sInsecureSkipTLSVerify", "K8S_INSECURE_SKIP_TLS_VERIFY"},
		{"k8sCurrentContext", "K8S_CURRENT_CONTEXT"},
		{"calicoAPIGroup", "CALICO_API_GROUP"},
		// Calico's tools limit their own requests, watch nodes and make blocks of pod
		// ranges by these; weft's find out what they need.
		{"k8sDisableNodePoll", "K8S_DISABLE_NODE_POLL"},
		{"k8sClientQPS", "K8S_CLIENT_QPS"},
		{"usePodCIDR", "USE_POD_CIDR"},
	}
}

// The identity of a settings document.
const (
	fileKind    = "CalicoAPIConfig"
	fileVersion = "projectcalico.org/v3"
)

// readFile gives the settings of a file, by the names of their variables. As everywhere in
// Calico's documents, letters of field names may be of either case.
func readFile(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("--config: %w", err), Missing: file}
	}
	wrong := func(ours error, calico string) error {
		return &Error{Err: fmt.Errorf("%s: %w", file, ours), Calico: "syntax error in " + file + ": " + calico}
	}
	body, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, wrong(oneLine(err), "failed to parse config as YAML/JSON: "+err.Error())
	}
	var document struct {
		APIVersion string                     `json:"apiVersion"`
		Kind       string                     `json:"kind"`
		Metadata   json.RawMessage            `json:"metadata"`
		Spec       map[string]json.RawMessage `json:"spec"`
	}
	unmarshalling := "failed to parse config as YAML/JSON: error unmarshaling JSON: while decoding JSON: json: "
	var top map[string]json.RawMessage
	if err := json.Unmarshal(body, &top); err != nil {
		return nil, wrong(fmt.Errorf("is no settings file: must be a document of kind %s", fileKind), unmarshalling+"is no object")
	}
	for _, field := range sorted(top) {
		if name, ok := match(field, []string{"apiVersion", "kind", "metadata", "spec"}); !ok {
			return nil, wrong(unknown(field, name), unmarshalling+fmt.Sprintf("unknown field %q", field))
		}
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, wrong(fmt.Errorf("apiVersion and kind must be text, spec must hold settings: %w", oneLine(err)), unmarshalling+err.Error())
	}
	switch {
	case document.APIVersion != fileVersion:
		return nil, wrong(fmt.Errorf("apiVersion: %q: must be %s", document.APIVersion, fileVersion), "invalid config file: unknown APIVersion '"+document.APIVersion+"'")
	case document.Kind != fileKind:
		return nil, wrong(fmt.Errorf("kind: %q: must be %s", document.Kind, fileKind), "invalid config file: expected kind '"+fileKind+"', got '"+document.Kind+"'")
	}
	fields, variables := make([]string, 0, len(known())), map[string]string{}
	for _, k := range known() {
		fields, variables[k.field] = append(fields, k.field), k.variable
	}
	values := map[string]string{}
	for _, field := range sorted(document.Spec) {
		name, ok := match(field, fields)
		if !ok {
			near := name
			if near != "" {
				near = "spec." + near
			}
			return nil, wrong(unknown("spec."+field, near), unmarshalling+fmt.Sprintf("unknown field %q", field))
		}
		value, ok := scalar(name, document.Spec[field])
		if !ok {
			return nil, wrong(fmt.Errorf("spec.%s: must be %s", name, wanted(name)), unmarshalling+"spec."+name+": wrong type")
		}
		if value != "" {
			values[variables[name]] = value
		}
	}
	return values, nil
}

// scalar is the text of a value; a value that is no text, nor what the field takes instead, is
// refused. It is never printed: it may be a password.
func scalar(field string, raw json.RawMessage) (string, bool) {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return "", false
	}
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, wanted(field) == "text"
	case bool:
		return strconv.FormatBool(v), wanted(field) == "true or false"
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), wanted(field) == "a number"
	}
	return "", false
}

// wanted says what a field takes.
func wanted(field string) string {
	switch field {
	case "k8sInsecureSkipTLSVerify", "k8sDisableNodePoll", "usePodCIDR":
		return "true or false"
	case "k8sClientQPS":
		return "a number"
	}
	return "text"
}

// match finds the field that is meant. If there is none it gives the nearest name, or none.
func match(field string, fields []string) (string, bool) {
	for _, f := range fields {
		if strings.EqualFold(f, field) {
			return f, true
		}
	}
	near, least := "", 1+len(field)/4
	for _, f := range fields {
		if d := spelling.Edits(f, field); d <= least {
			near, least = f, d-1
		}
	}
	return near, false
}

// unknown is the error about a field; near is the one that may be meant, or empty.
func unknown(field, near string) error {
	if near != "" {
		return fmt.Errorf("%s: unknown field: did you mean %s?", field, near)
	}
	return fmt.Errorf("%s: unknown field", field)
}

// sorted are the keys of m in order.
func sorted(m map[string]json.RawMessage) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// oneLine is err without line breaks.
func oneLine(err error) error { return worded{strings.Join(strings.Fields(err.Error()), " "), err} }
