package crd

import "regexp"

// Why the server can't say what weft says. docs/conformance.md tells users.
const (
	otherObjects = "a rule sees one object, not whether another exists"
	labels       = "a rule sees the name of an object, not its labels"
	rights       = "who may write what the system writes is a matter of RBAC"
	mapKeys      = "the names in a map, of which there may be many in each rule, would cost the server too much"
	noNamespace  = "kubectl and the server pass over the namespace of an object that has none"
	brackets     = "brackets are counted without looking for quotes, and not in rules of policies, which are too many"
	parts        = "each exception against its prefix would cost the server too much"
	names        = "each name against each of a list would cost the server too much"
	perServer    = "the server fills in autoAllocateBlocks: true, Calico's tool with etcd does not"
)

// differences are the cases of test/fixtures/validation on which the server's verdict
// is not weft's, with the reason.
func differences() map[string]string {
	return map[string]string{
		"np-112":      mapKeys,
		"gnp-013":     otherObjects,
		"gnp-023":     otherObjects,
		"gnp-025":     noNamespace,
		"snp-010":     otherObjects,
		"gnetset-003": labels,
		"ci-001":      rights,
	}
}

// exemption is a sort of difference in random documents: one of the two refuses with
// such an error what the other accepts.
type exemption struct {
	weft    bool // it is weft that refuses
	says    *regexp.Regexp
	why     string
	example string // a document that shows it, from its kind on
}

func (e exemption) covers(weft, server error) bool {
	err := server
	if e.weft {
		err = weft
	}
	return err != nil && e.says.MatchString(err.Error())
}

func exemptions() []exemption {
	return []exemption{
		{true, regexp.MustCompile(`spec\.(in|e)gress\[0\]\.\S+elector: selector: .* invalid selector: unexpected ('\)'|end, want \))`), brackets, "NetworkPolicy\nmetadata: {name: a}\nspec: {ingress: [{action: Allow, source: {selector: (has(a)}}]}"},
		{false, regexp.MustCompile(`"a == 'global\('": must (not use|close)`), brackets, "BGPPeer\nmetadata: {name: a}\nspec: {peerSelector: a == 'global('}"},
		{true, regexp.MustCompile(`spec.prefixAdvertisements\[0\].communities\[0\]: .* or a name from spec.communities`), names, "BGPConfiguration\nmetadata: {name: default}\nspec: {communities: [{name: a, value: '1:2'}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [b]}]}"},
		{true, regexp.MustCompile(`ipBlock.except\[0\]: .* must be a part of`), parts, "StagedKubernetesNetworkPolicy\nmetadata: {name: a}\nspec: {egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}]}"},
		{true, regexp.MustCompile(`ipamconfiguration \S+: spec.autoAllocateBlocks`), perServer, "IPAMConfiguration\nmetadata: {name: default}\nspec: {}"},
	}
}
