package v3

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ASNumber is a number of an autonomous system. In JSON it is a number; text in
// decimal or in the form "high.low" (RFC 5396 asdot+) is read too.
type ASNumber uint32

// ParseASNumber reads decimal or "high.low" text.
func ParseASNumber(s string) (ASNumber, error) {
	high, low, dotted := strings.Cut(s, ".")
	if !dotted {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("AS number: %q: must be 0 to 4294967295 or \"high.low\" with 0 to 65535 each", s)
		}
		return ASNumber(n), nil
	}
	h, errHigh := strconv.ParseUint(high, 10, 16)
	l, errLow := strconv.ParseUint(low, 10, 16)
	if errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("AS number: %q: must be 0 to 4294967295 or \"high.low\" with 0 to 65535 each", s)
	}
	return ASNumber(h<<16 | l), nil
}

// UnmarshalJSON reads a number or text.
func (n *ASNumber) UnmarshalJSON(data []byte) error {
	s, err := numberOrText(data)
	if err != nil {
		return fmt.Errorf("AS number: %w", err)
	}
	*n, err = ParseASNumber(s)
	return err
}

// Protocol is an IP protocol by name (TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite) or by
// number (1 to 255); one of the two is set. It is comparable. The zero Protocol
// prints as 0 and is not valid.
type Protocol struct {
	Name   string
	Number uint8
}

// String returns the name, or the number in decimal.
func (p Protocol) String() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}

// MarshalJSON prints a number or a string.
func (p Protocol) MarshalJSON() ([]byte, error) {
	if p.Name != "" {
		return json.Marshal(p.Name)
	}
	return strconv.AppendUint(nil, uint64(p.Number), 10), nil
}

// UnmarshalJSON reads a number or a string; a string of digits is a number.
func (p *Protocol) UnmarshalJSON(data []byte) error {
	s, err := numberOrText(data)
	if err != nil {
		return fmt.Errorf("protocol: %w", err)
	}
	n, err := strconv.ParseUint(s, 10, 8)
	switch {
	case err == nil:
		*p = Protocol{Number: uint8(n)}
	case data[0] == '"' && !isDigits(s):
		*p = Protocol{Name: s}
	default:
		return fmt.Errorf("protocol: %s: must be a name or 1 to 255", s)
	}
	return nil
}

// Port is a port, a range of ports, or the name of a port. Either Name is set, or
// Min and Max with Min ≤ Max. It is comparable.
type Port struct {
	Min, Max uint16
	Name     string
}

// String prints "80", "8000:8100" or the name.
func (p Port) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Min == p.Max:
		return strconv.Itoa(int(p.Min))
	default:
		return fmt.Sprintf("%d:%d", p.Min, p.Max)
	}
}

// ParsePort reads the text of a port, a range or a name.
func ParsePort(s string) (Port, error) {
	if isDigits(s) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return Port{}, fmt.Errorf("port: %s: must be 0 to 65535", s)
		}
		return Port{Min: uint16(n), Max: uint16(n)}, nil
	}
	low, high, isRange := strings.Cut(s, ":")
	if !isRange {
		if !isPortName(s) {
			return Port{}, fmt.Errorf("port: %q: must be a number, a range \"a:b\" or a name of 1 to 128 letters, digits, '_', '.' and '-'", s)
		}
		return Port{Name: s}, nil
	}
	from, errFrom := strconv.ParseUint(low, 10, 16)
	to, errTo := strconv.ParseUint(high, 10, 16)
	if errFrom != nil || errTo != nil || from > to {
		return Port{}, fmt.Errorf("port: %q: a range must be \"a:b\" with a ≤ b, 0 to 65535", s)
	}
	return Port{Min: uint16(from), Max: uint16(to)}, nil
}

// MarshalJSON prints a number or a string.
func (p Port) MarshalJSON() ([]byte, error) {
	if p.Name == "" && p.Min == p.Max {
		return strconv.AppendUint(nil, uint64(p.Min), 10), nil
	}
	return json.Marshal(p.String())
}

// UnmarshalJSON reads a number or a string.
func (p *Port) UnmarshalJSON(data []byte) error {
	s, err := numberOrText(data)
	if err != nil {
		return fmt.Errorf("port: %w", err)
	}
	if data[0] != '"' && !isDigits(s) {
		return fmt.Errorf("port: %s: must be 0 to 65535", s)
	}
	*p, err = ParsePort(s)
	return err
}

// DSCP is a differentiated services code point, 0 to 63, or its name. Exactly as
// the user wrote it, text or number.
type DSCP struct {
	Name   string
	Number uint8
}

// MarshalJSON prints a number or a string.
func (d DSCP) MarshalJSON() ([]byte, error) { return Protocol(d).MarshalJSON() }

// UnmarshalJSON reads a number or a string.
func (d *DSCP) UnmarshalJSON(data []byte) error {
	s, err := numberOrText(data)
	if err != nil {
		return fmt.Errorf("DSCP: %w", err)
	}
	if data[0] == '"' && !isDigits(s) {
		*d = DSCP{Name: s}
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n > 63 {
		return fmt.Errorf("DSCP: %s: must be 0 to 63 or a name such as AF11", s)
	}
	*d = DSCP{Number: uint8(n)}
	return nil
}

// rateForm is what rates look like, for errors.
const rateForm = `must be "N/second", "N/minute", "N/hour" or "N/day" with N 1 to 9999`

// ParseRate reads a limit such as "10/minute": packets, 1 to 9999, in a time of one
// second, minute, hour or day.
func ParseRate(s string) (packets uint32, per time.Duration, err error) {
	number, unit, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 32)
	switch unit {
	case "second":
		per = time.Second
	case "minute":
		per = time.Minute
	case "hour":
		per = time.Hour
	case "day":
		per = 24 * time.Hour
	}
	if err != nil || n < 1 || n > 9999 || number[0] == '0' || per == 0 {
		return 0, 0, fmt.Errorf("rate: %q: %s", s, rateForm)
	}
	return uint32(n), per, nil
}

// numberOrText returns the text of a JSON number or string.
func numberOrText(data []byte) (string, error) {
	if len(data) > 0 && data[0] == '"' {
		var s string
		err := json.Unmarshal(data, &s)
		return s, err
	}
	var n json.Number
	if err := json.Unmarshal(data, &n); err != nil || n == "" {
		return "", fmt.Errorf("%s: must be a number or a string", data)
	}
	return n.String(), nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// isPortName reports whether s can be read as the name of a port.
func isPortName(s string) bool {
	return len(s) >= 1 && len(s) <= 128 && consistsOf(s, "_.-")
}

// Timestamp is t as objects hold it: UTC, in whole seconds; nil for the zero time.
func Timestamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.UTC().Truncate(time.Second)}
}
