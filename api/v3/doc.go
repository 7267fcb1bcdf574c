// Package v3 declares the resources of the API group projectcalico.org/v3: what
// users write in YAML, what is kept in the datastore, and what the custom
// resource definitions describe. The three objects of the Kubernetes API that
// policy is made of stand beside them, under the kind and version of Kubernetes.
//
// It is the first of the three shapes of weft (api/v3, model, plan). Values are
// kept as the user wrote them: a CIDR is a string here and becomes a
// netip.Prefix only in package model. The package holds the fields, their JSON
// form, their defaults ([Default]), their rules ([Validate], [ValidateUpdate])
// and the names that are computed from them. It does no I/O, knows no datastore
// keys and no revision arithmetic.
//
//	YAML or JSON ──Decode──► Object ──Default──► Validate ──Encode──► stored bytes
//	stored bytes ──DecodeStored──► Object ──change──► Merge(stored bytes, Object)
//
// Two properties are kept. Encoding is byte-stable and prints fields in the order
// in which Calico stores them, so that two implementations can share one etcd.
// And nothing is lost: [Decode] refuses a field that it does not know, while
// [DecodeStored] passes over it and [Merge] carries it into the next version.
//
// Zero values: an absent optional field is a nil pointer where absent and zero
// mean different things, else the zero value.
package v3
