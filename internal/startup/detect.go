package startup

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Link is a network interface with its addresses, in the kernel's order.
type Link struct {
	Name  string
	Up    bool
	MTU   int            // bytes
	Addrs []netip.Prefix // unmasked, with the length of their subnet
}

// Method is one way to find a node's address among those of its interfaces:
// the values of IP_AUTODETECTION_METHOD and IP6_AUTODETECTION_METHOD.
type Method struct {
	Name  string           // first-found, can-reach, interface, skip-interface, cidr or kubernetes-internal-ip
	Dest  string           // can-reach: an address or a name
	Regex []*regexp.Regexp // interface, skip-interface
	CIDRs []netip.Prefix   // cidr
	text  string           // as the user wrote it
}

// methodHelp says what is allowed, for errors.
const methodHelp = "first-found, can-reach=DESTINATION, interface=REGEX[,…], skip-interface=REGEX[,…], cidr=CIDR[,…] or kubernetes-internal-ip"

// defaultSkips are interfaces that first-found and skip-interface pass over:
// those of container engines and of the network itself (Calico's list).
const defaultSkips = `^(docker.*|cbr.*|dummy.*|podman.*|virbr.*|lxcbr.*|veth.*|lo|br-.*|cali.*|tunl.*|flannel.*|kube-ipvs.*|cni.*|vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|wg-v6\.cali|nodelocaldns.*)$`

// ParseMethod parses a detection method. The error says what is allowed.
func ParseMethod(s string) (Method, error) {
	name, arg, hasArg := strings.Cut(s, "=")
	m := Method{Name: name, text: s}
	var err error
	switch name {
	case "first-found", "kubernetes-internal-ip":
		if hasArg {
			err = fmt.Errorf("takes no argument")
		}
	case "can-reach":
		if m.Dest = arg; arg == "" {
			err = fmt.Errorf("needs a destination, as in can-reach=8.8.8.8")
		}
	case "interface", "skip-interface":
		m.Regex, err = regexes(arg)
	case "cidr":
		m.CIDRs, err = cidrs(arg)
	default:
		err = fmt.Errorf("is unknown")
	}
	if err != nil {
		return Method{}, fmt.Errorf("method %w; allowed are %s", err, methodHelp)
	}
	return m, nil
}

// String is the method as the user wrote it.
func (m Method) String() string { return m.text }

func regexes(list string) ([]*regexp.Regexp, error) {
	var out []*regexp.Regexp
	for s := range strings.SplitSeq(list, ",") {
		if s == "" {
			return nil, fmt.Errorf("needs a regular expression, as in interface=eth.*")
		}
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("has a bad regular expression %q", s)
		}
		out = append(out, re)
	}
	return out, nil
}

func cidrs(list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for s := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("has a bad CIDR %q", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Candidate is an address of this machine and what detection thinks of it.
type Candidate struct {
	Link   string
	Addr   netip.Prefix // unmasked
	Reason string       // why it is passed over; empty when it may be used
}

// Usable reports whether the address may be the node's.
func (c Candidate) Usable() bool { return c.Reason == "" }

// Rank orders the addresses of one family as the method prefers them: usable
// ones first, the first being the choice, then the others with the reason why
// not. For can-reach, source is the kernel's answer; for kubernetes-internal-ip,
// internal are the addresses that the orchestrator gave.
func Rank(m Method, v6 bool, links []Link, source netip.Addr, internal []netip.Addr) []Candidate {
	var out []Candidate
	for _, l := range links {
		for _, p := range l.Addrs {
			if p.Addr().Is6() != v6 {
				continue
			}
			out = append(out, Candidate{l.Name, p, unfit(m, l, p.Addr(), source, internal)})
		}
	}
	slices.SortStableFunc(out, func(a, b Candidate) int {
		switch {
		case a.Usable() == b.Usable():
			return 0
		case a.Usable():
			return -1
		}
		return 1
	})
	return out
}

// unfit says why an address can't be the node's; empty when it can.
func unfit(m Method, l Link, a, source netip.Addr, internal []netip.Addr) string {
	matches := func(re *regexp.Regexp) bool { return re.MatchString(l.Name) }
	switch m.Name {
	case "can-reach":
		if a != source {
			return fmt.Sprintf("not the source address towards %s", m.Dest)
		}
		return ""
	case "kubernetes-internal-ip":
		if !slices.Contains(internal, a) {
			return "not an InternalIP of the node"
		}
		return ""
	}
	switch {
	case !l.Up:
		return "interface is down"
	case !a.IsGlobalUnicast():
		return "not a global unicast address"
	case m.Name == "interface" && !slices.ContainsFunc(m.Regex, matches):
		return "interface matches none of " + m.text
	case m.Name == "cidr" && !slices.ContainsFunc(m.CIDRs, func(p netip.Prefix) bool { return p.Contains(a) }):
		return "in none of " + m.text
	case m.Name == "skip-interface" && slices.ContainsFunc(m.Regex, matches):
		return "interface matches " + m.text
	case (m.Name == "first-found" || m.Name == "skip-interface") && skipped(l.Name):
		return "interface is of a kind that is passed over"
	}
	return ""
}

// skipped reports whether a link is one that first-found passes over. The
// pattern is constant and the list of links short: nothing is cached.
func skipped(link string) bool { return regexp.MustCompile(defaultSkips).MatchString(link) }

// Detect finds the node's address in the family that want is for. The error
// lists what there is and why none of it will do.
func Detect(ctx context.Context, want AddressSetting, internal []netip.Addr, host Host, links []Link) (netip.Prefix, error) {
	ranked, err := Candidates(ctx, want, internal, host, links)
	if err != nil {
		return netip.Prefix{}, err
	}
	if len(ranked) > 0 && ranked[0].Usable() {
		return ranked[0].Addr, nil
	}
	seen := "this machine has no such address at all"
	if len(ranked) > 0 {
		var s []string
		for _, c := range ranked {
			s = append(s, fmt.Sprintf("%v on %s: %s", c.Addr, c.Link, c.Reason))
		}
		seen = strings.Join(s, "; ")
	}
	return netip.Prefix{}, fmt.Errorf("startup: no %s address for this node by %s=%v: %s: choose another method, or set %s=none for a node without one", family(want.V6), want.methodName(), want.Method, seen, want.name())
}

// Candidates ranks the addresses of the family that want is for.
func Candidates(ctx context.Context, want AddressSetting, internal []netip.Addr, host Host, links []Link) ([]Candidate, error) {
	var source netip.Addr
	if want.Method.Name == "can-reach" {
		var err error
		if source, err = host.SourceTo(ctx, want.Method.Dest, want.V6); err != nil {
			return nil, fmt.Errorf("startup: %s=%v: %w", want.methodName(), want.Method, err)
		}
	}
	return Rank(want.Method, want.V6, links, source, internal), nil
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}
