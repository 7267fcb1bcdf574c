package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Where things are unless the environment says otherwise.
const (
	defaultNetDir = "/etc/cni/net.d" // on the node
	defaultBinDir = "/opt/cni/bin"   // on the node, and in the image
	mounted       = "/host"          // where the node's directories are in the container
	weftName      = "10-weft.conflist"
	calicoName    = "10-calico.conflist"
	networkName   = "k8s-pod-network"
)

// Config is what an Installer must be told. ConfigFromEnv makes one.
type Config struct {
	ConfDir string // of network configurations, as this process sees it
	BinDir  string // of plugins, as this process sees it
	Source  string // directory of the executables to install

	ConfName    string // of the conflist's file; empty: 10-calico.conflist if there is one, else 10-weft.conflist
	OldConfName string // a file to remove once the conflist is there; empty: none
	// Template is a conflist with placeholders such as __CNI_MTU__; empty: weft's own.
	Template     string
	node         string            // as its agent calls it
	values       map[string]string // of placeholders
	MTU          int               // of pods, in weft's own conflist, bytes; 0: the agent says
	PodCIDR      bool              // addresses come from the node's range, by host-local
	SkipBinaries []string          // executables that are not installed
	KeepBinaries bool              // executables that are there stay as they are
	Log          *slog.Logger
}

// ConfigFromEnv reads the variables of Calico's install-cni container for the node of that name;
// wanted says whether the plugin is to be installed: CALICO_MANAGE_CNI, and if that is not set,
// whether the node's directory is mounted at /host/etc/cni/net.d. The error names the variable,
// its value and what is allowed.
func ConfigFromEnv(node string, getenv func(string) string, log *slog.Logger) (c Config, wanted bool, err error) {
	netDir := or(getenv("CNI_NET_DIR"), defaultNetDir)
	c = Config{
		ConfDir: or(getenv("WEFT_CNI_CONF_DIR"), mount(netDir, defaultNetDir)), BinDir: or(getenv("WEFT_CNI_BIN_DIR"), mount(defaultBinDir, defaultBinDir)),
		Source:   or(getenv("WEFT_CNI_SOURCE"), defaultBinDir),
		ConfName: getenv("CNI_CONF_NAME"), OldConfName: or(getenv("CNI_OLD_CONF_NAME"), calicoName),
		Template: getenv("CNI_NETWORK_CONFIG"), SkipBinaries: words(getenv("SKIP_CNI_BINARIES")), Log: log,
	}
	switch manage := getenv("CALICO_MANAGE_CNI"); manage {
	case "true":
		wanted = true
	case "":
		_, statErr := os.Stat(c.ConfDir)
		wanted = getenv("WEFT_CNI_CONF_DIR") != "" || statErr == nil && strings.HasPrefix(c.ConfDir, mounted+"/")
	case "false":
	default:
		return c, false, fmt.Errorf("CALICO_MANAGE_CNI=%q: must be true, false or empty", manage)
	}
	if !wanted {
		return c, false, nil
	}
	for name, value := range map[string]string{"CNI_CONF_NAME": c.ConfName, "CNI_OLD_CONF_NAME": c.OldConfName} {
		if value != "" && (filepath.Base(value) != value || strings.HasPrefix(value, ".")) {
			return c, true, fmt.Errorf("%s=%q: must be the name of a file, without a directory", name, value)
		}
	}
	if update := getenv("UPDATE_CNI_BINARIES"); update != "" {
		yes, err := strconv.ParseBool(update)
		if err != nil {
			return c, true, fmt.Errorf("UPDATE_CNI_BINARIES=%q: must be true or false", update)
		}
		c.KeepBinaries = !yes
	}
	if mtu := getenv("CNI_MTU"); mtu != "" {
		if c.MTU, err = strconv.Atoi(mtu); err != nil || c.MTU != 0 && (c.MTU < 68 || c.MTU > 65535) {
			return c, true, fmt.Errorf("CNI_MTU=%q: must be 68 to 65535, or 0 for what the tunnels leave", mtu)
		}
	}
	if pod := getenv("USE_POD_CIDR"); pod != "" { // which start-up has found valid
		c.PodCIDR, _ = strconv.ParseBool(strings.ToLower(pod))
	}
	if file := getenv("CNI_NETWORK_CONFIG_FILE"); c.Template == "" && file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return c, true, fmt.Errorf("CNI_NETWORK_CONFIG_FILE: %w", err)
		}
		c.Template = string(text)
	}
	c.node, c.values = node, values(node, netDir, getenv)
	if _, err := c.Conflist(Families{V4: true}); err != nil {
		return c, true, err
	}
	return c, true, nil
}

// mount is where this process sees a directory of the node: below /host if that is mounted.
// Calico's manifests mount the usual path there, whatever the directory is called on the node.
func mount(dir, usual string) string {
	for _, d := range []string{dir, usual} {
		if _, err := os.Stat(mounted + d); err == nil {
			return mounted + d
		}
	}
	return dir
}

// values are those of the placeholders of Calico's templates, with its defaults.
func values(node, netDir string, getenv func(string) string) map[string]string {
	v := map[string]string{
		"KUBERNETES_NODE_NAME": or(getenv("KUBERNETES_NODE_NAME"), node),
		"KUBECONFIG_FILEPATH":  netDir + "/calico-kubeconfig",
		"SERVICEACCOUNT_TOKEN": "", // the plugin needs none
	}
	for name, usual := range map[string]string{
		"LOG_LEVEL": "info", "LOG_FILE_PATH": "/var/log/calico/cni/cni.log", "LOG_FILE_MAX_SIZE": "100", "LOG_FILE_MAX_AGE": "30", "LOG_FILE_MAX_COUNT": "10",
		"DATASTORE_TYPE": "kubernetes", "CNI_MTU": "1500", "KUBERNETES_SERVICE_HOST": "", "KUBERNETES_SERVICE_PORT": "",
		"ETCD_ENDPOINTS": "", "ETCD_DISCOVERY_SRV": "", "ETCD_KEY_FILE": "", "ETCD_CERT_FILE": "", "ETCD_CA_CERT_FILE": "",
	} {
		v[name] = or(getenv(name), usual)
	}
	for _, name := range []string{"KEY", "CERT", "CA"} { // as they are called in calico.yaml
		if v["ETCD_"+name] = getenv("CNI_CONF_ETCD_" + name); v["ETCD_"+name] != "" {
			file := map[string]string{"KEY": "ETCD_KEY_FILE", "CERT": "ETCD_CERT_FILE", "CA": "ETCD_CA_CERT_FILE"}[name]
			v[file] = v["ETCD_"+name]
		}
	}
	return v
}

// placeholder is what a template has for a value.
var placeholder = regexp.MustCompile(`__[A-Z][A-Z0-9_]*[A-Z0-9]__`)

// Conflist is the text of the network configuration list. The error says what is wrong with
// the template.
func (c Config) Conflist(f Families) ([]byte, error) {
	if c.Template == "" {
		return c.own(f)
	}
	var unknown []string
	text := placeholder.ReplaceAllStringFunc(c.Template, func(p string) string {
		value, ok := c.values[strings.Trim(p, "_")]
		if !ok {
			unknown = append(unknown, p)
		}
		return value
	})
	if len(unknown) > 0 {
		return nil, fmt.Errorf("CNI_NETWORK_CONFIG: %s: unknown placeholder", unknown[0])
	}
	var list struct {
		Name    string            `json:"name"`
		Plugins []json.RawMessage `json:"plugins"`
		Type    string            `json:"type"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("CNI_NETWORK_CONFIG: is no JSON once its placeholders are filled in: %w", err)
	}
	if list.Name == "" || len(list.Plugins) == 0 && list.Type == "" {
		return nil, errors.New("CNI_NETWORK_CONFIG: must have a name, and plugins or a type")
	}
	return []byte(text), nil
}

// own is weft's own conflist. A portmap plugin that is nowhere is left out: a pod without host
// ports needs none. Bandwidth is weft's own job.
func (c Config) own(f Families) ([]byte, error) {
	type object = map[string]any
	weft := object{"type": "weft-cni", "datastore_type": c.values["DATASTORE_TYPE"], "nodename": c.node, "ipam": c.ipam(f), "capabilities": object{"bandwidth": true}}
	if c.MTU != 0 {
		weft["mtu"] = c.MTU
	}
	plugins := []object{weft}
	if c.has("portmap") {
		plugins = append(plugins, object{"type": "portmap", "snat": true, "capabilities": object{"portMappings": true}})
	}
	text, err := json.MarshalIndent(object{"name": networkName, "cniVersion": "1.0.0", "plugins": plugins}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cni: conflist: %w", err)
	}
	return append(text, '\n'), nil
}

// ipam is the section of that name.
func (c Config) ipam(f Families) map[string]any {
	if c.PodCIDR {
		return map[string]any{"type": "host-local", "subnet": "usePodCidr"}
	}
	// As text, as Calico's have it.
	return map[string]any{"type": "weft-ipam", "assign_ipv4": strconv.FormatBool(f.V4), "assign_ipv6": strconv.FormatBool(f.V6)}
}

// has reports whether a plugin of others is to be installed, or is there.
func (c Config) has(name string) bool {
	for _, dir := range []string{c.Source, c.BinDir} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// name is that of the conflist's file.
func (c Config) name() (string, error) {
	if c.ConfName != "" {
		return c.ConfName, nil
	}
	switch _, err := os.Stat(filepath.Join(c.ConfDir, calicoName)); {
	case err == nil:
		return calicoName, nil
	case errors.Is(err, fs.ErrNotExist):
		return weftName, nil
	default:
		return "", c.confError(err)
	}
}

func (c Config) confError(err error) error {
	return fmt.Errorf("cni: install configuration: %w: is the node's directory of CNI configurations mounted at %s and writable?", err, c.ConfDir)
}

// removeOld removes the configuration that ours replaces under another name.
func (c Config) removeOld(name string) {
	if c.OldConfName == "" || c.OldConfName == name {
		return
	}
	path := filepath.Join(c.ConfDir, c.OldConfName)
	switch err := os.Remove(path); {
	case err == nil:
		c.Log.Info("removed the CNI configuration that ours replaces", "file", path)
	case !errors.Is(err, fs.ErrNotExist):
		c.Log.Warn("the CNI configuration that ours replaces is still there", "err", err)
	}
}

// warnOfOthers says when a runtime, which takes the first configuration by name, would take
// another one than ours.
func (c Config) warnOfOthers(name string) {
	entries, err := os.ReadDir(c.ConfDir) // sorted
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Name() == name {
			return
		}
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			c.Log.Error("another network comes first: the runtime takes the configuration whose name sorts first; remove it if pods are to be on weft's network", "file", filepath.Join(c.ConfDir, e.Name()), "ours", name)
			return
		}
	}
}

// executable is one to install.
type executable struct {
	name, source string
	like         string // an executable before it that is the same file; empty: none
}

// executables are the plugins in the image, and weft's under all its names.
func (c Config) executables() ([]executable, error) {
	weft := filepath.Join(c.Source, "weft-cni")
	if _, err := os.Stat(weft); err != nil {
		return nil, fmt.Errorf("cni: install executables: %w: is WEFT_CNI_SOURCE the directory of weft-cni?", err)
	}
	var out []executable
	for _, name := range []string{"weft-cni", "calico", "calico-ipam", "weft-ipam"} {
		e := executable{name: name, source: weft}
		if name != "weft-cni" && !slices.Contains(c.SkipBinaries, "weft-cni") {
			e.like = "weft-cni"
		}
		out = append(out, e)
	}
	entries, err := os.ReadDir(c.Source)
	if err != nil {
		return nil, fmt.Errorf("cni: install executables: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if !slices.ContainsFunc(out, func(o executable) bool { return o.name == e.Name() }) {
			out = append(out, executable{name: e.Name(), source: filepath.Join(c.Source, e.Name())})
		}
	}
	return out, nil
}

// forWeft reports whether a configuration names weft's plugin by a name that is weft's only.
func forWeft(text []byte) bool {
	var list struct {
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	_ = json.Unmarshal(text, &list) // what is no JSON names nothing
	for _, p := range list.Plugins {
		if p.Type == "weft-cni" {
			return true
		}
	}
	return false
}

// words splits a list with commas.
func words(list string) []string {
	var out []string
	for w := range strings.SplitSeq(list, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
