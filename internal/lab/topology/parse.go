package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Parse reads a topology; file is its name, for errors. The error is one line.
func Parse(file string, data []byte) (*Topology, error) {
	t, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("topology: %s: %w", file, err)
	}
	return t, nil
}

func parse(data []byte) (*Topology, error) {
	raw, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, errors.New(oneLine(err))
	}
	var doc any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	t := &Topology{}
	if _, ok := doc.(map[string]any); !ok {
		return nil, fmt.Errorf("not a mapping: must have the fields %s", strings.Join(fields(reflect.TypeFor[Topology]()), ", "))
	}
	if err := decode("", doc, reflect.ValueOf(t).Elem()); err != nil {
		return nil, err
	}
	for _, step := range []func() error{t.fillRacks, t.checkNames, t.fillPlaces, t.fillAddresses, t.fillOutside, t.checkRouters, t.checkPods, t.checkSecrets, t.checkResources, t.checkExpectations} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// oneLine is the message of the YAML library without its preamble and line breaks.
func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	for _, prefix := range []string{"error converting YAML to JSON: ", "yaml: ", "unmarshal errors: "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}

// validName is a DNS label. Names become file names and arguments, too.
var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// validDottedName is a DNS subdomain, as pod names are.
var validDottedName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

const nameRule = "must be 1 to 63 of a to z, 0 to 9 and -, with a letter or digit at both ends"

// fillRacks gives every topology a rack and every rack a subnet.
func (t *Topology) fillRacks() error {
	if len(t.Racks) == 0 {
		t.Racks = []Rack{{Name: "rack-1"}}
	}
	if len(t.Racks) > 250 {
		return fmt.Errorf("racks: %d: must be 250 at most", len(t.Racks))
	}
	for i := range t.Racks {
		r := &t.Racks[i]
		if len(r.Subnets) == 0 {
			r.Subnets = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(i + 1), 0}), 24)}
		}
		for j, p := range r.Subnets {
			at := fmt.Sprintf("racks[%d].subnets[%d]: %v", i, j, p)
			switch {
			case p != p.Masked() || p.Addr().Is4In6():
				return fmt.Errorf("%s: must be masked: %v", at, p.Masked())
			case p.Addr().BitLen()-p.Bits() < 3 || p.Bits() < 8:
				return fmt.Errorf("%s: must have a length of 8 to 29, or 8 to 125 for IPv6", at)
			case j > 1 || j == 1 && p.Addr().Is4() == r.Subnets[0].Addr().Is4():
				return fmt.Errorf("%s: a rack has at most one subnet of each family", at)
			}
			if k := slices.IndexFunc(t.Racks[:i], func(o Rack) bool { return slices.ContainsFunc(o.Subnets, p.Overlaps) }); k >= 0 {
				return fmt.Errorf("%s: overlaps a subnet of rack %s", at, t.Racks[k].Name)
			}
		}
		if err := r.fillQuality(fmt.Sprintf("racks[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

// The limits of an MTU, in bytes: what every IPv4 and every IPv6 network carries
// (RFC 791, RFC 8200), and what a bridge takes.
const (
	defaultMTU = 1500
	leastMTU   = 68
	leastMTU6  = 1280
)

// fillQuality completes what r does to packets.
func (r *Rack) fillQuality(path string) error {
	if r.MTU == 0 {
		r.MTU = defaultMTU
	}
	if r.MTU < leastMTU {
		return fmt.Errorf("%s.mtu: %d: must be %d to 65535 bytes", path, r.MTU, leastMTU)
	}
	if r.MTU < leastMTU6 && r.Has(true) {
		return fmt.Errorf("%s.mtu: %d: must be %d at least, as the rack has an IPv6 subnet", path, r.MTU, leastMTU6)
	}
	if r.Loss < 0 || r.Loss > 100 {
		return fmt.Errorf("%s.loss: %v: must be 0 to 100 percent of packets", path, r.Loss)
	}
	return nil
}

// checkNames makes sure that a name stands for one thing.
func (t *Topology) checkNames() error {
	seen := map[string]string{
		Fabric: "the router between the racks", "pods": "all pods", "nodes": "all nodes", "outside": "all hosts outside",
		SourceOwn: "the sender's own address", SourceNode: "the sender's node",
	}
	check := func(path, name string) error {
		if !validName.MatchString(name) {
			return fmt.Errorf("%s.name: %q: %s", path, name, nameRule)
		}
		if other, ok := seen[name]; ok {
			return fmt.Errorf("%s.name: %q: that is the name of %s already", path, name, other)
		}
		seen[name] = path
		return nil
	}
	for i, n := range t.Nodes {
		if err := check(fmt.Sprintf("nodes[%d]", i), n.Name); err != nil {
			return err
		}
	}
	for i, r := range t.Routers {
		if err := check(fmt.Sprintf("routers[%d]", i), r.Name); err != nil {
			return err
		}
	}
	for i, o := range t.Outside {
		if err := check(fmt.Sprintf("outside[%d]", i), o.Name); err != nil {
			return err
		}
	}
	racks := map[string]bool{}
	for i, r := range t.Racks {
		if !validName.MatchString(r.Name) {
			return fmt.Errorf("racks[%d].name: %q: %s", i, r.Name, nameRule)
		}
		if racks[r.Name] {
			return fmt.Errorf("racks[%d].name: %q: that is the name of another rack", i, r.Name)
		}
		racks[r.Name] = true
	}
	return nil
}

// fillPlaces puts nodes and routers without a rack into the only one.
func (t *Topology) fillPlaces() error {
	place := func(path string, rack *string) error {
		if *rack == "" && len(t.Racks) == 1 {
			*rack = t.Racks[0].Name
		}
		if !slices.ContainsFunc(t.Racks, func(r Rack) bool { return r.Name == *rack }) {
			return fmt.Errorf("%s.rack: %q: must be one of %s", path, *rack, names(t.Racks, func(r Rack) string { return r.Name }))
		}
		return nil
	}
	for i := range t.Nodes {
		if err := place(fmt.Sprintf("nodes[%d]", i), &t.Nodes[i].Rack); err != nil {
			return err
		}
		for j := range t.Nodes[i].Links {
			if err := place(fmt.Sprintf("nodes[%d].links[%d]", i, j), &t.Nodes[i].Links[j].Rack); err != nil {
				return err
			}
		}
	}
	for i := range t.Routers {
		if err := place(fmt.Sprintf("routers[%d]", i), &t.Routers[i].Rack); err != nil {
			return err
		}
	}
	return nil
}

// checkRouters looks at peers and loopbacks, and fills in the AS number.
func (t *Topology) checkRouters() error {
	for i := range t.Routers {
		r := &t.Routers[i]
		if r.ASN == 0 {
			r.ASN = DefaultASN
		}
		if len(r.Peers) == 0 {
			for _, n := range t.Nodes {
				r.Peers = append(r.Peers, n.Name)
			}
		}
		for j, p := range r.Peers {
			if !slices.ContainsFunc(t.Nodes, func(n Node) bool { return n.Name == p }) {
				return fmt.Errorf("routers[%d].peers[%d]: %q: must be one of %s", i, j, p, names(t.Nodes, func(n Node) string { return n.Name }))
			}
		}
		for j, p := range r.Announce {
			if p != p.Masked() {
				return fmt.Errorf("routers[%d].announce[%d]: %v: must be masked: %v", i, j, p, p.Masked())
			}
		}
		if strings.ContainsAny(r.Password, "\"\\\n") || len(r.Password) > 80 {
			return fmt.Errorf("routers[%d].password: must be at most 80 bytes without quotes, backslashes and line breaks", i)
		}
	}
	return nil
}

// checkPods makes sure that each pod has a node and a name of its own, and that
// each namespace is listed once.
func (t *Topology) checkPods() error {
	listed := map[string]bool{}
	for i, n := range t.Namespaces {
		switch {
		case !validName.MatchString(n.Name):
			return fmt.Errorf("namespaces[%d].name: %q: %s", i, n.Name, nameRule)
		case listed[n.Name]:
			return fmt.Errorf("namespaces[%d].name: %q: that is the name of another namespace", i, n.Name)
		}
		listed[n.Name] = true
	}
	seen := map[Target]bool{}
	for i := range t.Pods {
		p := &t.Pods[i]
		if p.Namespace == "" {
			p.Namespace = "default"
		}
		if !validName.MatchString(p.Namespace) {
			return fmt.Errorf("pods[%d].namespace: %q: %s", i, p.Namespace, nameRule)
		}
		if !validDottedName.MatchString(p.Name) || len(p.Name) > 253 {
			return fmt.Errorf("pods[%d].name: %q: must be a DNS name of at most 253 characters", i, p.Name)
		}
		if seen[p.Target()] {
			return fmt.Errorf("pods[%d].name: %q: namespace %s has a pod of that name already", i, p.Name, p.Namespace)
		}
		seen[p.Target()] = true
		if !listed[p.Namespace] {
			listed[p.Namespace] = true
			t.Namespaces = append(t.Namespaces, Namespace{Name: p.Namespace})
		}
		if !slices.ContainsFunc(t.Nodes, func(n Node) bool { return n.Name == p.Node }) {
			return fmt.Errorf("pods[%d].node: %q: must be one of %s", i, p.Node, names(t.Nodes, func(n Node) string { return n.Name }))
		}
	}
	return nil
}

// checkSecrets makes sure that names and keys can be file names.
func (t *Topology) checkSecrets() error {
	for _, name := range sortedKeys(t.Secrets) {
		if !validDottedName.MatchString(name) || len(name) > 253 {
			return fmt.Errorf("secrets.%s: must be a DNS name of at most 253 characters", name)
		}
		for _, key := range sortedKeys(t.Secrets[name]) {
			if !validKey.MatchString(key) || strings.HasPrefix(key, ".") {
				return fmt.Errorf("secrets.%s.%s: must be 1 to 253 letters, digits, -, _ and ., not starting with a dot", name, key)
			}
		}
	}
	return nil
}

// validKey is a key of a Kubernetes secret.
var validKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// checkResources looks at the frame only; what is in it is the store's to judge.
func (t *Topology) checkResources() error {
	for i, r := range t.Resources {
		for _, field := range []string{"apiVersion", "kind"} {
			if s, ok := r[field].(string); !ok || s == "" {
				return fmt.Errorf("resources[%d].%s: missing: must be that of a resource, such as projectcalico.org/v3 and IPPool", i, field)
			}
		}
	}
	return nil
}

// names lists what may be referred to.
func names[T any](all []T, name func(T) string) string {
	if len(all) == 0 {
		return "none, as the topology has none"
	}
	var out []string
	for _, x := range all {
		out = append(out, name(x))
	}
	return strings.Join(out, ", ")
}
