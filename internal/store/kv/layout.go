package kv

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// The places of things; see the package comment.
const (
	resourceRoot = "/calico/resources/v3/projectcalico.org/"
	ipamRoot     = "/calico/ipam/v2/"
	blockRoot    = ipamRoot + "assignment/"
	handleRoot   = ipamRoot + "handle/"
	configKey    = ipamRoot + "config"
	// readyKey is what old versions set to false while they changed the layout.
	readyKey = "/calico/v1/Ready"
)

// span is the keys k with from ≤ k < to.
type span struct{ from, to string }

// under is the span of all keys that begin with prefix.
func under(prefix string) span {
	end := []byte(prefix)
	end[len(end)-1]++
	return span{prefix, string(end)}
}

// just is the span of one key.
func just(key string) span { return span{key, key + "\x00"} }

// layout knows where kinds are kept. The zero layout knows none; it does not
// change after newLayout.
type layout struct {
	kinds    map[model.Kind]v3.Kind
	byPlural map[string]v3.Kind
}

func newLayout() layout {
	l := layout{kinds: map[model.Kind]v3.Kind{}, byPlural: map[string]v3.Kind{}}
	for _, k := range v3.Kinds() {
		switch kind := model.Kind(k.Name); kind {
		case model.KindIPAMBlock, model.KindBlockAffinity, model.KindIPAMHandle:
		default:
			l.kinds[kind] = k
			l.byPlural[k.Plural] = k
		}
	}
	return l
}

// all lists the kinds, in byte order of their names.
func (l layout) all() []model.Kind {
	kinds := []model.Kind{model.KindIPAMBlock, model.KindBlockAffinity, model.KindIPAMHandle, model.KindIPAMConfig}
	for k := range l.kinds {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

// spans are the places of the keys of a kind, in key order; of one namespace
// only, if that is not empty and the kind has namespaces.
func (l layout) spans(kind model.Kind, namespace string) ([]span, error) {
	switch kind {
	case model.KindIPAMBlock:
		return []span{under(blockRoot)}, nil
	case model.KindBlockAffinity:
		return []span{under(ipamRoot + "host/"), under(ipamRoot + "virtual/")}, nil
	case model.KindIPAMHandle:
		return []span{under(handleRoot)}, nil
	case model.KindIPAMConfig:
		return []span{just(configKey)}, nil
	}
	k, ok := l.kinds[kind]
	if !ok {
		return nil, fmt.Errorf("kind %q is not one of the datastore", kind)
	}
	prefix := resourceRoot + k.Plural + "/"
	if namespace != "" && k.Namespaced {
		prefix += namespace + "/"
	}
	return []span{under(prefix)}, nil
}

// keyFor is the place of one object. The error says which part of k is missing
// or not allowed.
func (l layout) keyFor(k model.Key) (string, error) {
	switch k.Kind {
	case model.KindIPAMConfig:
		return configKey, nil
	case model.KindIPAMBlock:
		family, err := familyOf(k.Name)
		return blockRoot + family + "/block/" + k.Name, err
	case model.KindIPAMHandle:
		return handleRoot + k.Name, checkName("handle ID", k.Name)
	case model.KindBlockAffinity:
		owner, cidr, ok := cutLast(k.Name, "/")
		if sort, node, _ := strings.Cut(owner, "/"); !ok || sort != "host" && sort != "virtual" || checkName("", node) != nil {
			return "", fmt.Errorf("name %q: must be host/NODE/CIDR or virtual/NAME/CIDR", k.Name)
		}
		family, err := familyOf(cidr)
		return ipamRoot + owner + "/" + family + "/block/" + cidr, err
	}
	kind, ok := l.kinds[k.Kind]
	if !ok {
		return "", fmt.Errorf("kind %q is not one of the datastore", k.Kind)
	}
	key := resourceRoot + kind.Plural + "/"
	if kind.Namespaced {
		if err := checkName("namespace", k.Namespace); err != nil {
			return "", err
		}
		key += k.Namespace + "/"
	} else if k.Namespace != "" {
		return "", fmt.Errorf("namespace %q: must be empty: the kind is for the whole cluster", k.Namespace)
	}
	return key + k.Name, checkName("name", k.Name)
}

// parse is the inverse of keyFor. It is false for keys that hold no kind of ours.
func (l layout) parse(key string) (model.Key, bool) {
	if rest, ok := strings.CutPrefix(key, resourceRoot); ok {
		plural, rest, _ := strings.Cut(rest, "/")
		kind, ok := l.byPlural[plural]
		if !ok {
			return model.Key{}, false
		}
		k := model.Key{Kind: model.Kind(kind.Name), Name: rest}
		if kind.Namespaced {
			k.Namespace, k.Name, _ = strings.Cut(rest, "/")
			ok = k.Namespace != ""
		}
		return k, ok && checkName("", k.Name) == nil
	}
	rest, ok := strings.CutPrefix(key, ipamRoot)
	parts := strings.Split(rest, "/")
	switch {
	case !ok:
	case rest == "config":
		return model.Key{Kind: model.KindIPAMConfig, Name: "default"}, true
	case len(parts) == 2 && parts[0] == "handle" && parts[1] != "":
		return model.HandleKey(parts[1]), true
	case len(parts) == 4 && parts[0] == "assignment" && isBlockPlace(parts[1:]):
		return model.Key{Kind: model.KindIPAMBlock, Name: parts[3]}, true
	case len(parts) == 5 && (parts[0] == "host" || parts[0] == "virtual") && parts[1] != "" && isBlockPlace(parts[2:]):
		return model.Key{Kind: model.KindBlockAffinity, Name: parts[0] + "/" + parts[1] + "/" + parts[4]}, true
	}
	return model.Key{}, false
}

// isBlockPlace reports whether p is ipv4/block/CIDR or ipv6/block/CIDR with a
// CIDR of that family.
func isBlockPlace(p []string) bool {
	family, err := familyOf(p[2])
	return err == nil && p[0] == family && p[1] == "block"
}

// prefixOf reads a CIDR as names hold it: 10.0.0.0-26.
func prefixOf(name string) (netip.Prefix, error) {
	addr, bits, ok := cutLast(name, "-")
	p, err := netip.ParsePrefix(addr + "/" + bits)
	if !ok || err != nil {
		return netip.Prefix{}, fmt.Errorf("name %q: must hold a CIDR such as 10.0.0.0-26 or fd00::-122", name)
	}
	return p, nil
}

func familyOf(name string) (string, error) {
	p, err := prefixOf(name)
	if p.Addr().Is4() {
		return "ipv4", err
	}
	return "ipv6", err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// checkName refuses names that a key can't hold.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s: missing", what)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%s %q: must not contain '/'", what, name)
	}
	return nil
}
