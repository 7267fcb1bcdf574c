package topology

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Targets gives what ref stands for: all pods for "pods", all nodes for "nodes", all
// hosts outside for "outside", else the one pod, node, router, host or address. The error says what is allowed.
func (t *Topology) Targets(ref string) ([]Target, error) {
	var out []Target
	switch ref {
	case "pods":
		for _, p := range t.Pods {
			out = append(out, p.Target())
		}
		return out, nil
	case "nodes":
		for _, n := range t.Nodes {
			out = append(out, n.Target())
		}
		return out, nil
	case "outside":
		for _, o := range t.Outside {
			out = append(out, o.Target())
		}
		return out, nil
	}
	one, err := t.Target(ref)
	if err != nil {
		return nil, err
	}
	return []Target{one}, nil
}

// Target gives the one thing that ref names.
func (t *Topology) Target(ref string) (Target, error) {
	if ref == Fabric {
		return Target{Kind: ToFabric, Name: Fabric}, nil
	}
	for _, n := range t.Nodes {
		if n.Name == ref {
			return n.Target(), nil
		}
	}
	for _, r := range t.Routers {
		if r.Name == ref {
			return r.Target(), nil
		}
	}
	for _, o := range t.Outside {
		if o.Name == ref {
			return o.Target(), nil
		}
	}
	for _, p := range t.Pods {
		if p.Target().String() == ref {
			return p.Target(), nil
		}
	}
	if a, err := netip.ParseAddr(ref); err == nil && a.Zone() == "" {
		return Target{Kind: ToAddress, Addr: a.Unmap()}, nil
	}
	return Target{}, fmt.Errorf("%q: the lab has no such target: must be %s", ref, t.targetForms())
}

// targetForms lists, for an error, what a target may be in this lab.
func (t *Topology) targetForms() string {
	var names []string
	for _, n := range t.Nodes {
		names = append(names, n.Name)
	}
	for _, r := range t.Routers {
		names = append(names, r.Name)
	}
	for _, o := range t.Outside {
		names = append(names, o.Name)
	}
	names = append(names, Fabric)
	for _, p := range t.Pods {
		names = append(names, p.Target().String())
	}
	const most = 12 // the line stays readable
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return strings.Join(names, ", ")
}

// Matcher compiles the pattern of a [RouteLine]. It matches a whole line, in
// which runs of white space count as one space.
func Matcher(pattern string) (*regexp.Regexp, error) {
	pattern = strings.TrimSpace(pattern)
	if pattern == "" {
		return nil, fmt.Errorf("empty: must be a line of `ip route`, with * for what may vary")
	}
	if len(pattern) > 2 && strings.HasPrefix(pattern, "/") && strings.HasSuffix(pattern, "/") {
		re, err := regexp.Compile(pattern[1 : len(pattern)-1])
		if err != nil {
			return nil, fmt.Errorf("%q: must be a regular expression between slashes: %w", pattern, err)
		}
		return re, nil
	}
	words := strings.Fields(pattern)
	for i, w := range words {
		w = strings.ReplaceAll(regexp.QuoteMeta(w), `\*\*`, `.*`)
		words[i] = strings.ReplaceAll(w, `\*`, `[^ ]*`)
	}
	return regexp.MustCompile("^" + strings.Join(words, " ") + "$"), nil
}
