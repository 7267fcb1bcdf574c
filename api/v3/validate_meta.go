package v3

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// metadata checks name, namespace, labels and annotations.
func (c *checker) metadata(o Object) {
	m := o.Meta()
	switch o.(type) {
	case *IPAMBlock, *BlockAffinity, *IPAMHandle, *IPAMConfig:
		return // named by the system, in etcd not at all
	case *WorkloadEndpoint:
		// its name is checked against its fields
	case *Tier:
		if !isDNSLabel(m.Name) {
			c.fail("metadata.name", m.Name, "must be 1 to 63 lower-case letters, digits and inner dashes, no dots")
		}
	default:
		if !isDNSSubdomain(m.Name) {
			c.fail("metadata.name", m.Name, "must be 1 to 253 lower-case letters, digits, inner dashes and inner dots")
		}
	}
	if !KindOf(o).Namespaced && m.Namespace != "" {
		c.fail("metadata.namespace", m.Namespace, "must be empty: the kind has no namespaces")
	}
	c.labels("metadata.labels", m.Labels)
	c.annotations("metadata.annotations", m.Annotations)
}

// annotations checks keys, in any case, and the size of all together.
func (c *checker) annotations(field string, annotations map[string]string) {
	const most = 256 << 10
	size := 0
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		c.qualifiedName(field, strings.ToLower(key))
		size += len(key) + len(annotations[key])
	}
	if size > most {
		c.fail(field, nil, fmt.Sprintf("have %d bytes: must be at most %d", size, most))
	}
}

func (c *checker) labels(field string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		c.qualifiedName(field, key)
		c.labelValue(field+"["+key+"]", labels[key])
	}
}

// labelValue checks the value of a label; empty is allowed.
func (c *checker) labelValue(field, value string) {
	if value != "" && (len(value) > 63 || !isLabelText(value)) {
		c.fail(field, value, "must be at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends")
	}
}

// qualifiedName checks a key of labels or annotations: "name" or "domain/name".
func (c *checker) qualifiedName(field, key string) {
	domain, name, qualified := strings.Cut(key, "/")
	if !qualified {
		domain, name = "", key
	}
	if name == "" || len(name) > 63 || !isLabelText(name) || qualified && !isDNSSubdomain(domain) {
		c.fail(field, key, `must be "name" or "domain/name", the domain in lower case, the name 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends`)
	}
}
