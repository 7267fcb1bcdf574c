package plan

import "slices"

// Apply returns t with d applied. It changes t, as the kernel would its table;
// what d deletes and t has not is no error.
func (t Table) Apply(d TableDelta) Table {
	if t.Sets == nil {
		t.Sets = map[string]*SetContent{}
	}
	if t.Chains == nil {
		t.Chains = map[string]Chain{}
	}
	for _, s := range d.PutSets {
		t.Sets[s.Name] = NewSetContent(s)
	}
	for _, c := range d.Changes {
		if s := t.Sets[c.Set]; s != nil {
			s.Apply(c)
		}
	}
	for _, c := range d.PutChains {
		t.Chains[c.Name] = c
	}
	for _, name := range d.DeleteChains {
		delete(t.Chains, name)
	}
	for _, name := range d.DeleteSets {
		delete(t.Sets, name)
	}
	return t
}

// NewSetContent is an empty set.
func NewSetContent(s Set) *SetContent {
	c := &SetContent{Set: s}
	if s.Type.HasElements() {
		c.Elements = map[Element]struct{}{}
	} else {
		c.Members = map[Member]struct{}{}
	}
	return c
}

// Apply changes what is in s: deletes, then puts.
func (s *SetContent) Apply(c SetChange) {
	for _, m := range c.Delete {
		delete(s.Members, m)
	}
	for _, m := range c.Put {
		s.Members[m] = struct{}{}
	}
	for _, e := range c.DeleteElement {
		s.remove(e)
	}
	for _, e := range c.PutElement {
		s.remove(e)
		s.Elements[e] = struct{}{}
		if s.values != nil {
			s.values[e.Link] = e.Value
		}
	}
}

// remove takes e's key out, whatever its value is.
func (s *SetContent) remove(e Element) {
	if s.Type != MapClasses && s.Type != MapChains {
		delete(s.Elements, e)
		return
	}
	if len(s.values) != len(s.Elements) { // elements were set without Apply
		s.values = make(map[string]string, len(s.Elements))
		for o := range s.Elements {
			s.values[o.Link] = o.Value
		}
	}
	if value, ok := s.values[e.Link]; ok {
		delete(s.Elements, Element{Link: e.Link, Value: value})
		delete(s.values, e.Link)
	}
}

// Apply returns f with d applied; it changes f's tables.
func (f Filter) Apply(d FilterDelta) Filter {
	return Filter{V4: f.V4.Apply(d.V4), V6: f.V6.Apply(d.V6)}
}

// Equal reports whether r and o are the same rule.
func (r Rule) Equal(o Rule) bool {
	same := func(a, b *NFLog) bool { return a == b || a != nil && b != nil && *a == *b }
	disp := func(a, b *Dispatch) bool { return a == b || a != nil && b != nil && *a == *b }
	nat := func(a, b *NAT) bool { return a == b || a != nil && b != nil && *a == *b }
	return slices.Equal(r.Match, o.Match) && r.Update == o.Update && r.Count == o.Count && same(r.Log, o.Log) &&
		r.SetMark == o.SetMark && r.ClearMark == o.ClearMark && r.Track == o.Track && r.SetDSCP == o.SetDSCP && r.DSCP == o.DSCP && r.Verdict == o.Verdict &&
		r.Target == o.Target && nat(r.NAT, o.NAT) && disp(r.Dispatch, o.Dispatch) && r.Comment == o.Comment
}

// Equal reports whether c and o are the same chain: name, hook and rules.
func (c Chain) Equal(o Chain) bool {
	return c.Name == o.Name && (c.Base == nil) == (o.Base == nil) && (c.Base == nil || *c.Base == *o.Base) &&
		slices.EqualFunc(c.Rules, o.Rules, Rule.Equal)
}
