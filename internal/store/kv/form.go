package kv

import (
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// forms is a short cut for endpoints, of which a snapshot has by far the most. The
// values of endpoints are the same text but for a few fields. That text without
// those fields is their form:
//
//   - A close form leaves out names, addresses and times: endpoints of one
//     deployment have the same. What became of the first of them stands for the
//     next ones, in which only the fields left out are read and checked. They share
//     labels, profiles and ports.
//   - A wide form leaves out the namespace, the labels, the service account and the
//     profiles as well. The first one's object, with these fields set, takes the
//     usual way from defaults on, which spares it the decoder.
//
// The first of a wide form goes the usual way, and so does whatever is not certain
// to come to the same: escapes, unknown fields, a field given twice. That is a
// tenth of the work for a close form, a third for a wide one. FuzzForms holds one
// way against the other.
//
// The zero forms is ready for use, for one goroutine.
type forms struct {
	close  map[string]closeForm
	wide   map[string]*v3.WorkloadEndpoint
	size   int               // bytes of text in close and wide
	texts  map[string]string // one copy of what many endpoints have: names of nodes and the like
	text   []byte            // of the form at hand
	name   []byte            // that it must have
	fields fields
}

// maxFormBytes bounds the text in forms: where nearly all endpoints differ
// remembering is of no use.
const maxFormBytes = 8 << 20

// closeForm is what endpoints of one close form have in common. They are of Kubernetes:
// the names of others are made of other fields.
type closeForm struct {
	end   string // of the name: what it says of the endpoint
	value model.Endpoint
}

// field is one that differs among endpoints of a form.
type field uint8

// The fields; those from fieldNamespace on differ in wide forms only.
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
	fieldNamespace
	fieldLabels
	fieldAccount
	fieldProfiles
	fieldCount
	shared  // belongs to every form
	unknown // nothing is known of it
)

// fields are the texts of the fields of one endpoint, within its value; nil:
// not given. Strings are without quotes, lists and maps with their brackets.
type fields [fieldCount][]byte

// endpoint reads the value of k. It is false if k must go the usual way, after
// which learn may be told the result.
func (f *forms) endpoint(k model.Key, value []byte) (model.Endpoint, bool) {
	if !f.cut(value, fieldNamespace) || !f.isBorn() {
		return model.Endpoint{}, false
	}
	if known, ok := f.close[string(f.text)]; ok {
		return f.filled(k, known)
	}
	if !f.cut(value, fieldCount) {
		return model.Endpoint{}, false
	}
	first, ok := f.wide[string(f.text)]
	if !ok {
		return model.Endpoint{}, false
	}
	o, ok := f.assembled(k, first)
	if !ok {
		return model.Endpoint{}, false
	}
	v, err := model.Parse(o)
	ep, ok := v.(model.Endpoint)
	if err != nil || !ok {
		return model.Endpoint{}, false
	}
	f.learnClose(o, value, ep)
	return ep, true
}

// learn remembers what became of a value that endpoint has refused: the object
// that it is, with its defaults, and what Parse made of it.
func (f *forms) learn(o *v3.WorkloadEndpoint, value []byte, ep model.Endpoint) {
	if f.close == nil || f.size > maxFormBytes {
		*f = forms{close: map[string]closeForm{}, wide: map[string]*v3.WorkloadEndpoint{}, texts: map[string]string{}}
	}
	f.learnClose(o, value, ep)
	if f.cut(value, fieldCount) {
		f.size += len(f.text)
		f.wide[string(f.text)] = o
	}
}

func (f *forms) learnClose(o *v3.WorkloadEndpoint, value []byte, ep model.Endpoint) {
	if o.Spec.Orchestrator == v3.OrchestratorKubernetes && f.size <= maxFormBytes && f.cut(value, fieldNamespace) {
		f.size += len(f.text)
		f.close[string(f.text)] = closeForm{strings.ReplaceAll(o.Spec.Endpoint, "-", "--"), ep}
	}
}

// isBorn reports whether the time of creation can be read.
func (f *forms) isBorn() bool {
	at := f.fields[fieldCreated]
	if at == nil {
		return true
	}
	_, err := time.Parse(time.RFC3339, string(at))
	return err == nil
}

// filled is the endpoint with what it has in common with others, and the fields.
func (f *forms) filled(k model.Key, known closeForm) (model.Endpoint, bool) {
	ep := known.value
	if k.Namespace != ep.Namespace || !f.isNamed(k.Name, known.end) || !f.hasLink() {
		return model.Endpoint{}, false
	}
	addrs, ok := addrsIn(f.fields[fieldAddrs])
	ep.Name, ep.Addrs, ep.Node, ep.MAC = k.Name, addrs, f.one(fieldNode), f.one(fieldMAC)
	ep.Pod, ep.Link = string(f.fields[fieldPod]), string(f.fields[fieldLink])
	return ep, ok
}

// assembled is the object that the value holds, made of another one of its form.
func (f *forms) assembled(k model.Key, first *v3.WorkloadEndpoint) (*v3.WorkloadEndpoint, bool) {
	if string(f.fields[fieldName]) != k.Name || string(f.fields[fieldNamespace]) != k.Namespace {
		return nil, false
	}
	o := *first
	o.Name, o.Namespace = k.Name, f.one(fieldNamespace)
	o.Spec.Node, o.Spec.ServiceAccountName, o.Spec.MAC = f.one(fieldNode), f.one(fieldAccount), f.one(fieldMAC)
	o.Spec.Pod, o.Spec.ContainerID = string(f.fields[fieldPod]), string(f.fields[fieldContainer])
	o.Spec.InterfaceName = string(f.fields[fieldLink])
	var ok1, ok2, ok3 bool
	o.Labels, ok1 = f.textMap(f.fields[fieldLabels])
	o.Spec.Profiles, ok2 = f.textList(f.fields[fieldProfiles])
	o.Spec.IPNetworks, ok3 = f.textList(f.fields[fieldAddrs])
	return &o, ok1 && ok2 && ok3
}

// isNamed reports whether the endpoint's name is name, and the one that
// [v3.WorkloadEndpointName] gives. end is what it ends with.
func (f *forms) isNamed(name, end string) bool {
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

// hasLink reports whether the link and its MAC are without doubt valid.
func (f *forms) hasLink() bool {
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
