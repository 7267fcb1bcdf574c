package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// secrets reads BGP passwords from a directory that holds one file NAME/KEY
// for each, the way a Kubernetes secret is mounted. Nothing is cached: a
// changed file counts when the engine looks next.
type secrets string

// lookup returns a secret, without the line break at its end. No error
// contains it.
func (dir secrets) lookup(ref model.SecretRef) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("secret %s/%s: this agent has no directory of secrets: set WEFT_SECRETS_DIR", ref.Name, ref.Key)
	}
	for _, part := range []string{ref.Name, ref.Key} {
		if part == "" || strings.HasPrefix(part, ".") || strings.ContainsAny(part, "/\x00") {
			return "", fmt.Errorf("secret %q/%q: a name and a key of a secret are needed, without '/'", ref.Name, ref.Key)
		}
	}
	text, err := os.ReadFile(filepath.Join(string(dir), ref.Name, ref.Key))
	if err != nil {
		return "", fmt.Errorf("secret %s/%s: %w", ref.Name, ref.Key, err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("secret %s/%s: is empty", ref.Name, ref.Key)
	}
	return password, nil
}
