package startup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// NodeName is the name of this node: NODENAME, else HOSTNAME, else the host's
// name in lower case (as Calico chooses it). The error says what a name may be.
func NodeName(getenv func(string) string, hostname func() (string, error)) (string, error) {
	for _, variable := range []string{"NODENAME", "HOSTNAME"} {
		if name := strings.TrimSpace(getenv(variable)); name != "" {
			return checked(variable, name)
		}
	}
	name, err := hostname()
	if err != nil {
		return "", fmt.Errorf("startup: read the host's name: %w: set NODENAME", err)
	}
	return checked("hostname", strings.ToLower(strings.TrimSpace(name)))
}

// checked refuses what is no DNS-1123 subdomain.
func checked(source, name string) (string, error) {
	bad := func(label string) bool {
		return label == "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != ""
	}
	for label := range strings.SplitSeq(name, ".") {
		if bad(label) || len(name) > 253 {
			return "", fmt.Errorf("startup: %s=%q: must be a node name: lower case letters, digits, '-' and '.', at most 253 bytes, each part beginning and ending with a letter or digit", source, name)
		}
	}
	return name, nil
}

// WriteNodeName leaves the node's name in a file for the CNI plugin.
func WriteNodeName(path, name string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("startup: node name file: %w", err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(name), 0o644); err != nil {
		return fmt.Errorf("startup: node name file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("startup: node name file: %w", err)
	}
	return nil
}
