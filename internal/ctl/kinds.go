package ctl

import (
	"fmt"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// kindOf finds the kind that a user names: by its name, plural or short name, in any case.
// calicoctl knows fewer than weft: not those that address management keeps for itself, nor
// those of Kubernetes.
func (c *client) kindOf(name string) (v3.Kind, error) {
	kind, ok := v3.KindByName(name)
	switch {
	case c.calico && (!ok || !offered(kind, name)):
		return v3.Kind{}, &kindError{name: name, calico: true}
	case !ok:
		near, _ := v3.NearestKind(name)
		return v3.Kind{}, &UsageError{&kindError{name: name, near: strings.ToLower(near.Name)}}
	}
	return kind, nil
}

// offered reports whether calicoctl has the kind under this name.
func offered(kind v3.Kind, name string) bool {
	switch kind.Name {
	case "BlockAffinity", "IPAMBlock", "IPAMHandle",
		"KubernetesClusterNetworkPolicy", "KubernetesEndpointSlice", "KubernetesNetworkPolicy":
		return false
	case "FelixConfiguration":
		return !strings.EqualFold(name, "fc") && !strings.EqualFold(name, "fcs")
	}
	return true
}

// kindError says that there is no such kind.
type kindError struct {
	name, near string
	calico     bool
}

func (e *kindError) Error() string {
	switch {
	case e.calico:
		return fmt.Sprintf("resource type '%s' is not supported", e.name)
	case e.near != "":
		return fmt.Sprintf("unknown kind %q: is %s meant?", e.name, e.near)
	}
	return fmt.Sprintf("unknown kind %q: must be one of %s", e.name, kindNames())
}

// kindNames are all kinds as users type them.
func kindNames() string {
	var names []string
	for _, k := range v3.Kinds() {
		names = append(names, strings.ToLower(k.Name))
	}
	return strings.Join(names, ", ")
}
