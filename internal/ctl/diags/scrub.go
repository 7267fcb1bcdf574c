package diags

import (
	"bytes"
	"cmp"
	"io"
	"regexp"
	"slices"
	"strings"
)

// hidden stands for what is taken out.
const hidden = "(secret)"

// least is the length of text that is taken out wherever it stands: shorter text, such as a
// password of one letter, would take half of the words with it, and is taken out only behind
// a name that says what it is.
const least = 4

// Scrubber takes secrets out of text. The zero Scrubber takes out what looks like one. It is
// safe for concurrent use.
type Scrubber struct {
	known []string // longest first
}

// NewScrubber makes one that takes out these as well, wherever they stand. Those that consist
// of several lines are taken out line by line.
func NewScrubber(secrets ...string) *Scrubber {
	s := &Scrubber{}
	for _, text := range secrets {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); len(line) >= least {
				s.known = append(s.known, line)
			}
		}
	}
	slices.SortFunc(s.known, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	s.known = slices.Compact(s.known)
	return s
}

// patterns are the looks of secrets, with what stands in their place.
type pattern struct {
	look *regexp.Regexp
	with string
}

// patterns of secrets on one line.
func patterns() []pattern {
	return []pattern{
		// A whole private key on a line, its ends of line perhaps written as \n.
		{regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`), hidden},
		// A JSON web token, as service accounts have it.
		{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?`), hidden},
		// A private key of PEM in base64, as kubeconfigs have it: "-----BEGIN" encoded.
		{regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/=]{16,}`), hidden},
		// Credentials in a URL.
		{regexp.MustCompile(`(://[^/\s:@"']*:)[^/\s@"']+@`), "${1}" + hidden + "@"},
		{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`), "$1 " + hidden},
	}
}

// named finds a value behind a name: name: value, name=value, "name": "value", also where the
// quotes are themselves quoted, as JSON within text has them.
func named() *regexp.Regexp {
	return regexp.MustCompile(`(?i)([\w.-]*(?:passw(?:or)?d|passphrase|token|secret|private[_-]?key|presharedkey|psk|key-?data|credential|etcd_?key|authorization)[\w.-]*)(\\?["']?\s*[:=]\s*)(\\?"(?:[^"\\]|\\[^"])*\\?"|'[^']*'|[^\s,;{}\[\]"']+)`)
}

// harmless are names that look like those of secrets and are about one: which it is, where it
// is, how long it lives.
func harmless(name, value string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{"ref", "name", "file", "path", "seconds", "count", "total", "expiration", "dir", "type"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	switch strings.Trim(value, `\"'`) {
	case "", "true", "false", "null", "nil", "0", hidden:
		return true
	}
	return strings.Contains(name, "secretkeyref") || strings.Contains(name, "public")
}

// Line is one line without what is secret.
func (s *Scrubber) Line(line string) string { return scrubbing(s).line(line) }

// Writer gives a writer that passes on to w what is left. It must be closed; w is not.
func (s *Scrubber) Writer(w io.Writer) io.WriteCloser { return &cleaner{scrub: scrubbing(s), to: w} }

// scrub is a Scrubber at work.
type scrub struct {
	known    []string
	patterns []pattern
	named    *regexp.Regexp
}

func scrubbing(s *Scrubber) scrub {
	out := scrub{patterns: patterns(), named: named()}
	if s != nil {
		out.known = s.known
	}
	return out
}

func (s scrub) line(line string) string {
	for _, text := range s.known {
		line = strings.ReplaceAll(line, text, hidden)
	}
	for _, p := range s.patterns {
		line = p.look.ReplaceAllString(line, p.with)
	}
	return s.named.ReplaceAllStringFunc(line, func(found string) string {
		part := s.named.FindStringSubmatch(found)
		if harmless(part[1], part[3]) {
			return found
		}
		value, quote := part[3], ""
		for _, q := range []string{`\"`, `"`, `'`} {
			if strings.HasPrefix(value, q) {
				quote = q
				break
			}
		}
		return part[1] + part[2] + quote + hidden + quote
	})
}

// cleaner takes secrets out of what is written to it, line by line.
type cleaner struct {
	scrub scrub
	to    io.Writer
	rest  []byte // a line that has not ended
	inKey bool   // between the first and the last line of a private key
}

// Write implements io.Writer.
func (c *cleaner) Write(p []byte) (int, error) {
	c.rest = append(c.rest, p...)
	for {
		i := bytes.IndexByte(c.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		if err := c.put(string(c.rest[:i]), "\n"); err != nil {
			return 0, err
		}
		c.rest = c.rest[i+1:]
	}
}

// put passes a line on. Of a private key there is one line left.
func (c *cleaner) put(line, end string) error {
	begins := strings.Contains(line, "-----BEGIN ") && strings.Contains(line, "PRIVATE KEY-----")
	ends := strings.Contains(line, "-----END ") && strings.Contains(line, "PRIVATE KEY-----")
	switch {
	case c.inKey:
		c.inKey = !ends
		return nil
	case begins && !ends:
		c.inKey = true
		before, _, _ := strings.Cut(line, "-----BEGIN ")
		line = before + hidden
	}
	_, err := io.WriteString(c.to, c.scrub.line(line)+end)
	return err
}

// Close passes on what is left.
func (c *cleaner) Close() error {
	if len(c.rest) == 0 {
		return nil
	}
	line := string(c.rest)
	c.rest = nil
	return c.put(line, "")
}
