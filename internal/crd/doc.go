// Package crd makes the custom resource definitions of Kubernetes from the types of
// api/v3, so that `kubectl apply` refuses what weft would refuse, and `kubectl
// explain` says what the comments there say.
//
// It is a generator: `make crds` runs it, a test fails when deploy/crds is not what it
// makes, and the product does not contain it.
//
//	api/v3 types ─── reflection ──► structure: fields, types, bounds of integers
//	api/v3 comments ── go/parser ─► descriptions
//	tables of this package ───────► words, ranges, patterns, lengths, defaults, CEL
//
// The tables say once more, as a schema, what [v3.Validate] says as code: a schema can't
// be made from code, and a server runs no code of ours. So that the two stay one, the words
// and numbers of FelixConfiguration, which are most, are read from one list by both
// ([v3.FelixWords], [v3.FelixRanges]), and all else is compared by a test that gives documents
// to both, the fixtures of Calico among them, and knows each difference by name. See
// docs/conformance.md.
//
// Where there is a choice, a rule is schema first (an enum, a bound, a pattern), since that
// costs the server nothing, and CEL where values are compared: one field with another,
// the old value with the new, a prefix with its masked form. The server bounds what the
// CEL of a definition may cost at worst, from the greatest lengths in the schema; so
// lists that CEL looks into have a greatest length.
//
// [Legacy] makes the definitions of Calico's older group crd.projectcalico.org/v1, without
// any structure. Only tests install those: where weft finds them, Calico did.
package crd
