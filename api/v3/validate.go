package v3

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-net/weft/internal/selector"
)

// Limits of lists beside those of policies. They are far above what anybody needs: a server
// that checks what is in a list wants to know its greatest length.
const (
	MaxAllowedUses   = 10   // of a pool
	MaxServiceBlocks = 500  // of each sort
	MaxFilterRules   = 1000 // of each direction and family
	MaxCommunityName = 255  // characters
	MaxTemplates     = 100  // of host endpoints
	MaxPattern       = 1024 // characters of a template's pattern of interfaces
	MaxStagedEntries = 500  // ports, and peers, of a rule of a StagedKubernetesNetworkPolicy
)

// maxErrors is how many things that are wrong are told of one object.
const maxErrors = 50

// Validate checks o by the rules of its kind, after [Default]. The error joins one
// [FieldError] for each thing that is wrong, 50 at most. What needs other objects to
// decide (overlapping pools, missing filters, [CheckTier]) is not checked here.
func Validate(o Object) error {
	c := checker{object: Describe(o)}
	c.metadata(o)
	switch o := o.(type) {
	case *IPPool:
		c.ippool(&o.Spec)
	case *IPReservation:
		for i, cidr := range o.Spec.ReservedCIDRs {
			c.prefix(index("spec.reservedCIDRs", i), cidr)
		}
	case *IPAMConfiguration:
		c.ipamConfiguration(&o.Spec)
	case *IPAMBlock:
		c.prefix("spec.cidr", o.Spec.CIDR)
	case *BlockAffinity:
		c.prefix("spec.cidr", o.Spec.CIDR)
		c.oneOf("spec.state", string(o.Spec.State), "confirmed", "pending", "pendingDeletion")
	case *Node:
		c.node(o)
	case *WorkloadEndpoint:
		c.endpoint(o)
	case *Profile:
		c.profile(&o.Spec)
	case *Tier:
		c.tier(o)
	case *BGPConfiguration:
		c.bgpConfiguration(o)
	case *BGPPeer:
		c.bgpPeer(&o.Spec)
	case *BGPFilter:
		c.bgpFilter(&o.Spec)
	case *FelixConfiguration:
		c.felix(o)
	case *KubeControllersConfiguration:
		c.kubeControllers(&o.Spec)
	case *CalicoNodeStatus:
		c.nodeStatus(&o.Spec)
	case *NetworkSet:
		c.networkSet(o.Labels, &o.Spec)
	case *GlobalNetworkSet:
		c.networkSet(o.Labels, &o.Spec)
	case *HostEndpoint:
		c.hostEndpoint(&o.Spec)
	case *StagedKubernetesNetworkPolicy:
		c.stagedKubernetesPolicy(&o.Spec)
	case *KubernetesNetworkPolicy:
		c.kubernetesPolicy(&o.Spec)
	case *KubernetesClusterNetworkPolicy:
		c.clusterPolicy(&o.Spec)
	case *KubernetesEndpointSlice:
		c.endpointSlice(o)
	}
	if p, ok := policyOf(o); ok {
		c.policy(o, p)
	}
	return c.result()
}

// ValidateUpdate checks what may not change from one version of an object to the
// next, in addition to [Validate]. Both are of one kind and name.
func ValidateUpdate(before, after Object) error {
	c := checker{object: Describe(after)}
	if b, ok := before.(*IPPool); ok {
		a := after.(*IPPool)
		if a.Spec.CIDR != b.Spec.CIDR {
			c.fail("spec.cidr", a.Spec.CIDR, fmt.Sprintf("must stay %s: delete the pool and make another", b.Spec.CIDR))
		}
		if a.Spec.BlockSize != b.Spec.BlockSize {
			c.fail("spec.blockSize", a.Spec.BlockSize, fmt.Sprintf("must stay %d: delete the pool and make another", b.Spec.BlockSize))
		}
	}
	return c.result()
}

// CheckWritable reports whether a user may write o: some objects are the system's.
func CheckWritable(o Object) error {
	c := checker{object: Describe(o)}
	switch o := o.(type) {
	case *ClusterInformation, *IPAMBlock, *BlockAffinity, *IPAMHandle:
		c.fail("", nil, "read-only: the system writes it")
	case *Profile:
		if o.Name == DefaultAllowProfile {
			c.fail("", nil, "read-only: the profile is built in")
		}
	case *NetworkPolicy:
		if strings.HasPrefix(o.Name, "knp.default.") {
			c.fail("", nil, "read-only: it is that of a NetworkPolicy of Kubernetes, which is changed there")
		}
	}
	return c.result()
}

// DefaultAllowProfile is the built-in profile that allows everything.
const DefaultAllowProfile = "projectcalico-default-allow"

// checker collects what is wrong with one object.
type checker struct {
	object  string
	errs    []error // at most maxErrors
	further int     // errors beyond those
}

func (c *checker) fail(field string, value any, reason string) {
	if len(c.errs) == maxErrors {
		c.further++
		return
	}
	c.errs = append(c.errs, &FieldError{Object: c.object, Field: field, Value: valueText(value), Reason: reason})
}

// result is what was wrong, joined.
func (c *checker) result() error {
	if c.further > 0 {
		c.errs = append(c.errs, &FieldError{Object: c.object, Reason: fmt.Sprintf("has %d more such errors", c.further)})
	}
	return errors.Join(c.errs...)
}

func index(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// oneOf allows the listed texts and none.
func (c *checker) oneOf(field, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		c.fail(field, value, "must be "+orList(allowed))
	}
}

// oneOfFold is oneOf in any case.
func (c *checker) oneOfFold(field, value string, allowed ...string) {
	if value != "" && !slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, value) }) {
		c.fail(field, value, "must be "+orList(allowed)+", in any case")
	}
}

// optional is the text of a field that may be absent.
func optional(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// number checks a range; nil is allowed.
func (c *checker) number(field string, n *int, low, high int) {
	if n != nil && (*n < low || *n > high) {
		c.fail(field, *n, fmt.Sprintf("must be %d to %d", low, high))
	}
}

// selector checks the syntax of a selector in which global() may not stand.
func (c *checker) selector(field, text string) {
	s, err := selector.Parse(text)
	if err != nil {
		c.fail(field, nil, err.Error())
		return
	}
	s.Walk(func(e selector.Expr) {
		if _, ok := e.(selector.Global); ok {
			c.fail(field, text, "must not use global(): it is for the namespaceSelector of a rule")
		}
	})
}

// families of addresses, as bits.
type family int

const (
	ipv4 family = 1 << iota
	ipv6
	anyFamily = ipv4 | ipv6
)

func (f family) String() string { return [...]string{"", "IPv4", "IPv6", "IPv4 or IPv6"}[f] }

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// addr checks an address without a prefix length; empty is allowed.
func (c *checker) addr(field, text string, want family) {
	if text == "" {
		return
	}
	a, err := netip.ParseAddr(text)
	if err != nil || familyOf(a)&want == 0 || !isPlain(a) {
		c.fail(field, text, fmt.Sprintf("must be an %v address", want))
	}
}

// prefix checks a CIDR; its host bits may be set.
func (c *checker) prefix(field, text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	ok := err == nil && isPlain(p.Addr())
	if !ok {
		c.fail(field, text, `must be a prefix such as "10.0.0.0/8" or "fd00::/8"`)
	}
	return p, ok
}

// isPlain reports whether a has no zone and is no IPv4 address in the form of IPv6:
// those are the addresses that packets have.
func isPlain(a netip.Addr) bool { return a.Zone() == "" && !a.Is4In6() }

// masked checks a CIDR whose host bits are zero.
func (c *checker) masked(field, text string) (netip.Prefix, bool) {
	p, ok := c.prefix(field, text)
	if ok && p.Masked() != p {
		c.fail(field, text, fmt.Sprintf("must have no bits beyond the prefix length: %v is meant", p.Masked()))
		return p, false
	}
	return p, ok
}

// addrOrPrefix reads "10.0.0.1" as "10.0.0.1/32".
func addrOrPrefix(text string) (netip.Prefix, bool) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		return p, err == nil && isPlain(p.Addr())
	}
	a, err := netip.ParseAddr(text)
	return netip.PrefixFrom(a, a.BitLen()), err == nil && isPlain(a)
}

// mac checks a hardware address of six bytes; empty is allowed.
func (c *checker) mac(field, text string) {
	parts := strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '-' })
	ok := len(parts) == 6 && len(text) == 17
	for _, p := range parts {
		_, err := strconv.ParseUint(p, 16, 8)
		ok = ok && err == nil && len(p) == 2
	}
	if text != "" && !ok {
		c.fail(field, text, `must be six bytes such as "ee:ee:ee:ee:ee:ee"`)
	}
}

// interfaceName checks a name of a network interface.
func (c *checker) interfaceName(field, name string) {
	if !isInterfaceName(name) {
		c.fail(field, name, "must be 1 to 15 letters, digits, '.', '_' and '-'")
	}
}

func isInterfaceName(s string) bool {
	return len(s) >= 1 && len(s) <= 15 && consistsOf(s, "._-")
}

// consistsOf reports whether s has only ASCII letters, digits and the others.
func consistsOf(s, others string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune(others, r) }) < 0
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// isLabelText reports whether s may be a label's value or name, its length aside.
func isLabelText(s string) bool {
	return s != "" && consistsOf(s, "-_.") && isAlnum(rune(s[0])) && isAlnum(rune(s[len(s)-1]))
}

func isDNSLabel(s string) bool {
	return len(s) <= 63 && isDNSText(s)
}

// isDNSSubdomain reports whether s is dot-separated DNS text of 1 to 253 bytes; its
// parts may be longer than DNS labels, as in Kubernetes.
func isDNSSubdomain(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !isDNSText(part) {
			return false
		}
	}
	return len(s) <= 253
}

func isDNSText(s string) bool {
	return isLabelText(s) && consistsOf(s, "-") && strings.ToLower(s) == s
}
