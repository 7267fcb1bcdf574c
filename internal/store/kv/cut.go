package kv

import "net/netip"

// cut takes a value apart into its form and those of its fields that are below
// limit. The scanner need not check what it passes over: that is part of the form,
// and a form is known only if the decoder has accepted a value that has it.
func (f *forms) cut(value []byte, limit field) bool {
	f.text, f.fields = f.text[:0], fields{}
	s, from := scanner{text: value}, 0
	for more := s.open('{'); more; more = s.next('}') {
		var fieldOf func([]byte) field
		switch key := s.key(); string(key) {
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
			which := fieldOf(s.key())
			if which == shared || which >= limit && which < fieldCount {
				s.skip()
				continue
			}
			if which == unknown || f.fields[which] != nil {
				return false
			}
			start := f.take(&s, which)
			f.text = append(f.text, value[from:start]...)
			from = s.at
		}
	}
	s.space()
	f.text = append(f.text, value[from:]...)
	return !s.bad && s.at == len(value)
}

// take reads a field and returns where it starts.
func (f *forms) take(s *scanner, which field) (start int) {
	s.space()
	start = s.at
	switch which {
	case fieldAddrs, fieldLabels, fieldProfiles:
		s.skip()
		f.fields[which] = s.text[start:s.at]
	default:
		f.fields[which] = s.plain()
	}
	return start
}

// metadataField says which field of the metadata a key is. Names are compared
// exactly: in another case they mean the same to JSON, but not to a form.
func metadataField(key []byte) field {
	switch string(key) {
	case "name":
		return fieldName
	case "namespace":
		return fieldNamespace
	case "uid":
		return fieldUID
	case "creationTimestamp":
		return fieldCreated
	case "labels":
		return fieldLabels
	case "generateName", "generation", "annotations", "ownerReferences", "finalizers":
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
	case "serviceAccountName":
		return fieldAccount
	case "ipNetworks":
		return fieldAddrs
	case "profiles":
		return fieldProfiles
	case "interfaceName":
		return fieldLink
	case "mac":
		return fieldMAC
	case "orchestrator", "workload", "endpoint", "ipv4Gateway", "ipv6Gateway", "ports", "allowSpoofedSourcePrefixes", "qosControls":
		return shared
	}
	return unknown
}

// one is a field as a string that all who have the same text share.
func (f *forms) one(which field) string { return f.interned(f.fields[which]) }

func (f *forms) interned(text []byte) string {
	if known, ok := f.texts[string(text)]; ok {
		return known
	}
	s := string(text)
	if f.size <= maxFormBytes {
		f.texts[s] = s
		f.size += len(s)
	}
	return s
}

// addrsIn reads a list such as ["10.0.0.1/32"]; nil is none.
func addrsIn(list []byte) ([]netip.Addr, bool) {
	if list == nil {
		return nil, true
	}
	var addrs []netip.Addr
	s := scanner{text: list}
	for more := s.open('['); more; more = s.next(']') {
		p, err := netip.ParsePrefix(string(s.plain()))
		if err != nil || !p.IsSingleIP() || p.Addr().Is4In6() {
			return nil, false
		}
		if addrs == nil {
			addrs = make([]netip.Addr, 0, 1)
		}
		addrs = append(addrs, p.Addr())
	}
	return addrs, !s.bad
}

// textList reads a list of plain strings; nil is none.
func (f *forms) textList(list []byte) ([]string, bool) {
	if list == nil {
		return nil, true
	}
	texts := make([]string, 0, 2)
	s := scanner{text: list}
	for more := s.open('['); more; more = s.next(']') {
		texts = append(texts, f.interned(s.plain()))
	}
	return texts, !s.bad
}

// textMap reads a map of plain strings; nil is none.
func (f *forms) textMap(object []byte) (map[string]string, bool) {
	if object == nil {
		return nil, true
	}
	texts := map[string]string{}
	s := scanner{text: object}
	for more := s.open('{'); more; more = s.next('}') {
		key := f.interned(s.key())
		texts[key] = f.interned(s.plain())
	}
	return texts, !s.bad
}
