package kv

import (
	"net/netip"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// forms is a short cut for endpoints, of which a snapshot has by far the most.
// Endpoints of one deployment are the same text but for a few fields: names,
// addresses, times. That text without those fields is their form. The first
// endpoint of a form goes the usual way (decode, defaults, validation, Parse);
// what became of it stands for the next ones, in which only the fields left out
// are read and checked. Endpoints of one form share labels, profiles and ports.
//
// Whatever is not certain to come to the same as on the usual way goes the usual
// way: escapes, unknown fields, a field given twice. It is a tenth of the
// work for nine of ten endpoints. FuzzForms holds one way against the other.
//
// The zero forms is ready for use, for one goroutine.
type forms struct {
	known  map[string]form
	size   int // bytes of text in known
	nodes  map[string]string
	mac    string
	text   []byte // of the form at hand
	name   []byte // that it must have
	fields fields
}

// maxFormBytes bounds the text in forms: where nearly all endpoints differ
// remembering is of no use.
const maxFormBytes = 8 << 20

// form is what endpoints of one form have in common. They are of Kubernetes: the
// names of others are made of other fields.
type form struct {
	end   string // of the name: what it says of the endpoint
	value model.Endpoint
}

// field is one that differs among endpoints of a form.
type field uint8

const (
	fieldName field = iota
	fieldUID
	fieldCreated
	fieldNode
	fieldContainer
	fieldPod
	fieldAddrs
	fieldLink
	fieldMAC
	fieldCount
	shared  // belongs to the form
	unknown // nothing is known of it
)

// fields are the texts of the fields of one endpoint, within its value; nil:
// not given. Strings are without quotes, fieldAddrs is a list in brackets.
type fields [fieldCount][]byte

// endpoint reads the value of k. It is false if k must go the usual way, after
// which learn may be told the result.
func (f *forms) endpoint(k model.Key, value []byte) (model.Endpoint, bool) {
	if !f.cut(value) {
		f.text = f.text[:0]
		return model.Endpoint{}, false
	}
	known, ok := f.known[string(f.text)]
	if !ok {
		return model.Endpoint{}, false
	}
	ep := known.value
	if k.Namespace != ep.Namespace || !f.named(k.Name, known.end) || !f.checked() {
		return model.Endpoint{}, false
	}
	ep.Name = k.Name
	if ep.Addrs, ok = addrsIn(f.fields[fieldAddrs]); !ok {
		return model.Endpoint{}, false
	}
	ep.Node = f.node(f.fields[fieldNode])
	ep.Pod, ep.Link = string(f.fields[fieldPod]), string(f.fields[fieldLink])
	if mac := f.fields[fieldMAC]; f.mac != string(mac) {
		f.mac = string(mac)
	}
	ep.MAC = f.mac
	return ep, true
}

// learn remembers what became of the value that endpoint has just refused.
func (f *forms) learn(o *v3.WorkloadEndpoint, ep model.Endpoint) {
	if len(f.text) == 0 || o.Spec.Orchestrator != v3.OrchestratorKubernetes {
		return
	}
	if f.size += len(f.text); f.size > maxFormBytes || f.known == nil {
		f.known, f.nodes, f.size = map[string]form{}, map[string]string{}, len(f.text)
	}
	f.known[string(f.text)] = form{strings.ReplaceAll(o.Spec.Endpoint, "-", "--"), ep}
	f.text = f.text[:0]
}

// named reports whether the endpoint's name is name, and the one that
// [v3.WorkloadEndpointName] gives. end is what it ends with.
func (f *forms) named(name, end string) bool {
	f.name = appendPart(f.name[:0], f.fields[fieldNode])
	f.name = append(f.name, v3.OrchestratorKubernetes+"-"...)
	f.name = appendPart(f.name, f.fields[fieldPod])
	f.name = append(f.name, end...)
	return string(f.fields[fieldName]) == name && string(f.name) == name
}

// appendPart adds a part of a name, its dashes doubled, and the dash behind it; of
// one that must not be, what makes no name.
func appendPart(name, part []byte) []byte {
	if len(part) == 0 || part[0] == '-' || part[len(part)-1] == '-' {
		return append(name, '/')
	}
	for _, c := range part {
		if name = append(name, c); c == '-' {
			name = append(name, c)
		}
	}
	return append(name, '-')
}

// checked reports whether the fields that are neither names nor addresses are
// without doubt valid.
func (f *forms) checked() bool {
	if at := f.fields[fieldCreated]; at != nil {
		if _, err := time.Parse(time.RFC3339, string(at)); err != nil {
			return false
		}
	}
	link := f.fields[fieldLink]
	if len(link) == 0 || len(link) > 15 || !consistsOf(link, "0123456789abcdefghijklmnopqrstuvwxyz") {
		return false
	}
	mac := f.fields[fieldMAC]
	if mac == nil {
		return true
	}
	if len(mac) != len("ee:ee:ee:ee:ee:ee") {
		return false
	}
	for i := range 6 {
		if !consistsOf(mac[3*i:3*i+2], "0123456789abcdef") || i > 0 && mac[3*i-1] != ':' {
			return false
		}
	}
	return true
}

func consistsOf(text []byte, allowed string) bool {
	for _, c := range text {
		if strings.IndexByte(allowed, c) < 0 {
			return false
		}
	}
	return true
}

// node is the name of a node, one string for all of its endpoints.
func (f *forms) node(name []byte) string {
	if known, ok := f.nodes[string(name)]; ok {
		return known
	}
	s := string(name)
	f.nodes[s] = s
	return s
}

// addrsIn reads a list such as ["10.0.0.1/32"], nil included.
func addrsIn(list []byte) ([]netip.Addr, bool) {
	if list == nil {
		return nil, true
	}
	var addrs []netip.Addr
	s := scanner{text: list}
	for more := s.open('['); more; more = s.next(']') {
		text, ok := s.plain()
		p, err := netip.ParsePrefix(string(text))
		if !ok || err != nil || !p.IsSingleIP() || p.Addr().Is4In6() {
			return nil, false
		}
		if addrs == nil {
			addrs = make([]netip.Addr, 0, 1)
		}
		addrs = append(addrs, p.Addr())
	}
	return addrs, !s.bad
}

// cut takes a value apart into its form and its fields.
func (f *forms) cut(value []byte) bool {
	f.text, f.fields = f.text[:0], fields{}
	s, from := scanner{text: value}, 0
	for more := s.open('{'); more; more = s.next('}') {
		var fieldOf func([]byte) field
		switch key, _ := s.key(); string(key) {
		case "kind", "apiVersion":
			s.skip()
			continue
		case "metadata":
			fieldOf = metadataField
		case "spec":
			fieldOf = specField
		default:
			return false
		}
		for more := s.open('{'); more; more = s.next('}') {
			key, _ := s.key()
			which := fieldOf(key)
			if which == shared {
				s.skip()
				continue
			}
			if which == unknown || f.fields[which] != nil {
				return false
			}
			start, end := f.take(&s, which)
			f.text = append(f.text, value[from:start]...)
			from = end
		}
	}
	s.space()
	f.text = append(f.text, value[from:]...)
	return !s.bad && s.at == len(value)
}

// take reads a field and returns where it stands.
func (f *forms) take(s *scanner, which field) (start, end int) {
	s.space()
	start = s.at
	if which == fieldAddrs {
		s.skip()
		f.fields[which] = s.text[start:s.at]
	} else {
		f.fields[which], _ = s.plain()
	}
	return start, s.at
}

// metadataField says which field of the metadata a key is. Names are compared
// exactly: in another case they mean the same to JSON, but not to a form.
func metadataField(key []byte) field {
	switch string(key) {
	case "name":
		return fieldName
	case "uid":
		return fieldUID
	case "creationTimestamp":
		return fieldCreated
	case "namespace", "generateName", "generation", "labels", "annotations", "ownerReferences", "finalizers":
		return shared
	}
	return unknown
}

// specField says which field of the spec a key is. ipNATs is missing: what it may
// hold depends on the addresses.
func specField(key []byte) field {
	switch string(key) {
	case "node":
		return fieldNode
	case "containerID":
		return fieldContainer
	case "pod":
		return fieldPod
	case "ipNetworks":
		return fieldAddrs
	case "interfaceName":
		return fieldLink
	case "mac":
		return fieldMAC
	case "orchestrator", "workload", "endpoint", "serviceAccountName", "ipv4Gateway", "ipv6Gateway", "profiles",
		"ports", "allowSpoofedSourcePrefixes", "qosControls":
		return shared
	}
	return unknown
}
