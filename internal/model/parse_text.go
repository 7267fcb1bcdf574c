package model

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weft-net/weft/internal/selector"
)

// first keeps the first error of a row of conversions.
type first struct{ err error }

// fail records an error, unless there is one.
func (e *first) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

// within takes over the error of a row of conversions that name fields of the
// object at place.
func (e *first) within(place string, in first) {
	if in.err != nil {
		e.fail("%s.%w", place, in.err)
	}
}

// try converts text with f, unless an earlier conversion failed.
func try[T any](e *first, f func(field, text string) (T, error), field, text string) T {
	var zero T
	if e.err != nil {
		return zero
	}
	v, err := f(field, text)
	if err != nil {
		e.err = err
		return zero
	}
	return v
}

// prefix parses a CIDR; host bits are cut off, as Calico does.
func prefix(field, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s: %q: must be a CIDR such as 10.0.0.0/16 or fd00::/64", field, s)
	}
	return p.Masked(), nil
}

// nodeAddr parses an address with the length of its subnet; without one it is
// alone in its subnet. Empty is none.
func nodeAddr(field, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
		return p, nil
	}
	a, err := addr(field, s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s: %q: must be an address, with or without a prefix length", field, s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// addr parses an address; empty is the zero Addr.
func addr(field, s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s: %q: must be an IPv4 or IPv6 address", field, s)
	}
	return a, nil
}

// addrPort parses an address that may have a port; empty is the zero AddrPort.
func addrPort(field, s string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil && !ap.Addr().Is4In6() {
		return ap, nil
	}
	a, err := addr(field, s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: %q: must be an address, or ADDRESS:PORT, or [ADDRESS]:PORT for IPv6", field, s)
	}
	return netip.AddrPortFrom(a, 0), nil
}

// sel parses a selector; empty is nil, which selects everything.
func sel(field, s string) (*selector.Selector, error) {
	if s == "" {
		return nil, nil
	}
	out, err := selector.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return out, nil
}

// try1 is try for the i-th text of a list. It names the element only if there is an
// error, since lists are long.
func try1[T any](e *first, f func(field, text string) (T, error), list string, i int, text string) T {
	v, err := f("", text)
	if err != nil {
		return try(e, f, at(list, i), text)
	}
	return v
}

// canonicalMAC is a hardware address, which was checked before, in lower case with colons.
func canonicalMAC(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", ":") }

// publicKey parses a WireGuard key; empty is the zero key.
func publicKey(field, s string) (key [32]byte, err error) {
	raw, err := base64.StdEncoding.DecodeString(s)
	if s != "" && (err != nil || len(raw) != len(key)) {
		return key, fmt.Errorf("%s: %q: must be 32 bytes in base64", field, s)
	}
	copy(key[:], raw)
	return key, nil
}
