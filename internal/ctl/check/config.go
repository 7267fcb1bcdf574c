package check

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
)

// configLimit is the most that a kernel's configuration may be, in bytes; they have some
// 300,000.
const configLimit = 16 << 20

// readConfig reads a kernel's configuration: y, m or n by CONFIG_ name.
func readConfig(path string) (map[string]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("kernel configuration: %w", err)
	}
	var text io.Reader = bytes.NewReader(raw)
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		if text, err = gzip.NewReader(text); err != nil {
			return nil, fmt.Errorf("kernel configuration: %s: %w", path, err)
		}
	}
	config := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(text, configLimit))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if name, ok := strings.CutSuffix(line, " is not set"); ok {
			config[strings.TrimPrefix(name, "# ")] = "n"
		} else if name, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(name, "CONFIG_") {
			config[name] = value
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("kernel configuration: %s: %w", path, err)
	}
	if len(config) == 0 {
		return nil, fmt.Errorf("kernel configuration: %s: has no line such as CONFIG_NET=y", path)
	}
	return config, nil
}
