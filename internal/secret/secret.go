// Package secret is text that must not be seen: passwords, tokens and private keys among
// settings.
//
// A setting is printed, logged and marshalled together with what stands beside it, by people
// who look for something else. A [Text] takes part in all of that and says only that it is
// there. Who needs the text itself converts it: string(t).
//
// Deliberately not here: where secrets are kept, and files that hold them. It is no protection
// against code that wants the text, or against who reads the process's memory.
//
// Invariant: no verb of fmt, no slog handler and no encoder that asks a value how it wants to
// be written shows a Text.
package secret

import (
	"log/slog"
	"strconv"
)

// Text is text that is never printed. The zero Text is none, and prints as nothing.
type Text string

// String implements fmt.Stringer.
func (t Text) String() string {
	if t == "" {
		return ""
	}
	return "(secret)"
}

// GoString implements fmt.GoStringer.
func (t Text) GoString() string { return strconv.Quote(t.String()) }

// LogValue implements slog.LogValuer.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements encoding.TextMarshaler.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
