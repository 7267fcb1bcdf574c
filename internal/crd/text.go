package crd

import (
	"slices"
	"strings"
)

// Patterns of texts, as regular expressions of RE2 without the marks of beginning and
// end.
const (
	octet      = `(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	ipv4Text   = `(` + octet + `\.){3}` + octet
	ipv4Prefix = ipv4Text + `/([0-9]|[12][0-9]|3[0-2])`
	ipv6Prefix = `[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/(0|[1-9][0-9]*)` // the form only: the format says the rest
	// mapped is an IPv4 address in the clothes of IPv6, which is neither.
	mapped = `[0:]*:[fF]{4}:([0-9]+\.|[0-9a-fA-F]+:[0-9a-fA-F]+(/|$))`

	label     = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	subdomain = label + `(\.` + label + `)*`

	number16 = `0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])`
	number32 = `0*([0-9]{1,9}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}|` +
		`42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-5])`
	number31 = `0*([0-9]{1,9}|1[0-9]{9}|20[0-9]{8}|21[0-3][0-9]{7}|214[0-6][0-9]{6}|2147[0-3][0-9]{5}|` +
		`21474[0-7][0-9]{4}|214748[0-2][0-9]{3}|2147483[0-5][0-9]{2}|21474836[0-3][0-9]|214748364[0-7])`
	number15 = `0*([0-9]{1,4}|[12][0-9]{4}|3[01][0-9]{3}|32[0-6][0-9]{2}|327[0-5][0-9]|3276[0-7])`

	interfaceText = `[a-zA-Z0-9._-]{1,15}`
	labelValue    = `([a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?)?`
	labelKey      = `(` + subdomain + `/)?[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?`
	// portText is the name of a port: lower-case letters, digits and single inner
	// dashes, with a letter. Its length, at most 15, is said apart.
	portText = `([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*`

	community = `(` + number16 + `:` + number16 + `|` + number32 + `:` + number32 + `:` + number32 + `)`
)

// Pieces of the language of selectors; see package selector. A pattern can't count
// brackets, which is why they may stand anywhere around a term here.
const (
	blank       = `[ \t]*`
	quoted      = `('[^']*'|"[^"]*")`
	labelKeySel = `[a-zA-Z0-9_./-]{1,512}`
	set         = `\{` + blank + `(` + quoted + blank + `(,` + blank + quoted + blank + `)*(,` + blank + `)?)?\}`
	term        = `(all\(` + blank + `\)|global\(` + blank + `\)|has\(` + blank + labelKeySel + blank + `\)|` +
		labelKeySel + `(` + blank + `(==|!=)` + blank + quoted +
		`|[ \t]+(contains|starts` + blank + `with|ends` + blank + `with)` + blank + quoted +
		`|[ \t]+(in|not` + blank + `in)` + blank + set + `))`
	opened       = `([!(]` + blank + `)*` + term + blank + `(\)` + blank + `)*`
	selectorText = blank + `(` + opened + `((&&|\|\|)` + blank + opened + `)*)?`
)

// maxSelector is the greatest length of a selector in characters.
const maxSelector = 1024

func whole(pattern string) string { return "^" + pattern + "$" }

// words allows the texts, and none.
func words(s *Schema, allowed ...string) {
	s.Enum = nil
	for _, w := range append(slices.Clone(allowed), "") {
		s.Enum = append(s.Enum, w)
	}
}

// only allows the texts.
func only(s *Schema, allowed ...string) {
	s.Enum = nil
	for _, w := range allowed {
		s.Enum = append(s.Enum, w)
	}
}

// wordsAnyCase allows the texts in any case, and none.
func wordsAnyCase(s *Schema, allowed ...string) {
	s.Pattern = "^(?i:" + strings.Join(allowed, "|") + ")?$"
}

func logLevel(s *Schema) { wordsAnyCase(s, "Trace", "Debug", "Info", "Warning", "Error", "Fatal") }

func switched(s *Schema) { words(s, "Enabled", "Disabled") }

// prefix is a CIDR of either family, its host bits as they may be.
func prefix(s *Schema) {
	s.most(maxPrefix)
	s.AnyOf = []*Schema{{Pattern: whole(ipv4Prefix)}, {Format: "cidr", Pattern: whole(ipv6Prefix)}}
	s.Not = &Schema{Pattern: "^" + mapped}
}

// maxPrefix is the length of the longest text of an IPv6 prefix.
const maxPrefix = 43

// masked is a CIDR without host bits.
func masked(s *Schema) {
	prefix(s)
	s.rule("[cidr(self)].all(c, c.masked() == c)", "must have no bits beyond the prefix length")
}

// optionalMasked is a CIDR without host bits, or empty.
func optionalMasked(s *Schema) {
	prefix(s)
	s.rule("self == '' || cidr(self).masked() == cidr(self)", "must have no bits beyond the prefix length")
	s.AnyOf = append(s.AnyOf, &Schema{MaxLength: new(int)})
}

// address is an IP address; see family.
func address(s *Schema, families ...string) {
	for _, f := range families {
		switch f {
		case "ipv4":
			s.AnyOf = append(s.AnyOf, &Schema{Pattern: whole(ipv4Text)})
		case "ipv6":
			s.AnyOf = append(s.AnyOf, &Schema{Format: "ipv6", Pattern: ":"})
		case "none":
			s.AnyOf = append(s.AnyOf, &Schema{MaxLength: new(int)})
		}
	}
	s.Not = &Schema{Pattern: "^" + mapped}
}

// name is that of an object.
func name(s *Schema) {
	s.Pattern = whole(subdomain)
	s.most(253)
}

// optionalName is that of an object, or empty.
func optionalName(s *Schema) {
	s.Pattern = whole("(" + subdomain + ")?")
	s.most(253)
}

// duration is a length of time that is not negative.
func duration(s *Schema) {
	s.rule("duration(self) >= duration('0s')", `must be a duration with a unit, such as "90s" or "1h30m", and not negative`)
}

// regex is a regular expression of Go, whose syntax is that of CEL: one that can't be
// read is an error on both sides.
func regex(s *Schema) {
	s.rule("''.matches(self) || !''.matches(self)", "must be a regular expression of Go")
}

// sel is a selector in which global() may not stand.
func sel(s *Schema) {
	anySelector(s)
	s.rule("self.split('(').size() == self.split(')').size()", "must close every bracket")
	ruleSelector(s)
}

// ruleSelector is sel for rules of policies. There are so many of them that the server
// would not count brackets.
func ruleSelector(s *Schema) {
	anySelector(s)
	s.rule("!self.contains('global(')", "must not use global(): it is for the namespaceSelector of a rule")
}

// anySelector is a selector.
func anySelector(s *Schema) {
	s.most(maxSelector)
	s.Pattern = whole(selectorText)
}

// asNumber is a number of an autonomous system: text or a number, at most most. Two
// numbers with a dot between them are the upper and the lower half (RFC 5396).
func asNumber(s *Schema, most int64) {
	s.between(0, most)
	s.Pattern = whole(`(` + number32 + `|` + number16 + `\.` + number16 + `)`)
	if most < 1<<32-1 {
		s.Pattern = whole(`(` + number31 + `|` + number15 + `\.` + number16 + `)`)
	}
}

// protocol is the name or the number of an IP protocol.
func protocol(s *Schema) {
	s.between(1, 255)
	s.Pattern = `^(TCP|UDP|ICMP|ICMPv6|SCTP|UDPLite|0*([1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]))$`
}

// notText refuses texts, and no numbers.
func notText(s *Schema, pattern string) {
	s.AnyOf = []*Schema{{MaxLength: new(int)}, {Not: &Schema{Pattern: pattern}}}
}

// portful is the name or the number of a protocol that has ports.
func portful(s *Schema) {
	only(s, "TCP", "UDP", "SCTP", "6", "17", "132")
	for _, n := range []int{6, 17, 132} {
		s.Enum = append(s.Enum, n)
	}
}

// portName is the name of a port.
func portName(s *Schema) {
	s.Pattern = whole(portText)
	s.most(15)
}

// maskOfMark is the bits of a packet mark.
func maskOfMark(s *Schema) { s.between(0, 1<<32-1) }
