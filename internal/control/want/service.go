package want

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// The annotations by which services ask for addresses: each a JSON list.
const (
	Pools4Annotation    = "projectcalico.org/ipv4pools"
	Pools6Annotation    = "projectcalico.org/ipv6pools"
	AddressesAnnotation = "projectcalico.org/loadBalancerIPs"
)

// LoadBalancerClass is the spec.loadBalancerClass of services that are ours.
const LoadBalancerClass = "calico"

// LoadBalancerOwner is the virtual owner of the blocks that services get addresses of.
const LoadBalancerOwner = "load-balancer"

// Service is what matters of a service to address assignment.
type Service struct {
	Namespace, Name, UID string
	LoadBalancer         bool    // spec.type is LoadBalancer
	Class                *string // spec.loadBalancerClass
	Annotations          map[string]string
	V4, V6               bool // families that it wants, spec.ipFamilies
}

// Handle is what holds the addresses of the service. It is Calico's, and another
// service of the same name has another.
func (s Service) Handle() string {
	sum := sha256.Sum256([]byte(strings.ToLower(s.Name + "-" + s.Namespace + "-" + s.UID)))
	text := base64.RawURLEncoding.EncodeToString(sum[:])
	return HandlePrefix + strings.NewReplacer("-", "", "_", "", ".", "").Replace(text)
}

// HandlePrefix begins the handles of services.
const HandlePrefix = "lb-"

// Ours reports whether the service gets its addresses from us.
func (s Service) Ours(requestedOnly bool) bool {
	if !s.LoadBalancer || s.Class != nil && *s.Class != LoadBalancerClass {
		return false
	}
	if !requestedOnly || s.Class != nil {
		return true
	}
	for _, key := range []string{Pools4Annotation, Pools6Annotation, AddressesAnnotation} {
		if s.Annotations[key] != "" {
			return true
		}
	}
	return false
}

// Claim is what the service asks of address assignment. Addresses that it names come
// instead of others of their family. The error names the annotation that can't be
// read, its value and what is allowed.
func (s Service) Claim(now time.Time) (ipam.Request, error) {
	r := ipam.Request{Use: model.UseLoadBalancer, Holder: model.Attribute{Handle: s.Handle(), Secondary: map[string]string{
		"type": "loadBalancer", "service": s.Name, "namespace": s.Namespace, "timestamp": now.UTC().String(),
	}}}
	if s.V4 {
		r.V4.Count = 1
	}
	if s.V6 {
		r.V6.Count = 1
	}
	var err error
	if r.V4.Pools, err = s.list(Pools4Annotation); err != nil {
		return r, err
	}
	if r.V6.Pools, err = s.list(Pools6Annotation); err != nil {
		return r, err
	}
	texts, err := s.list(AddressesAnnotation)
	if err != nil {
		return r, err
	}
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		family := &r.V4
		if err == nil && a.Unmap().Is6() {
			family = &r.V6
		}
		twice := slices.ContainsFunc(r.Addrs, func(b netip.Addr) bool { return b.Is6() == a.Unmap().Is6() })
		if err != nil || twice || a.Zone() != "" {
			return r, fmt.Errorf("annotation %s: %q: must be a list of at most one IPv4 and one IPv6 address, such as [\"192.0.2.1\"]",
				AddressesAnnotation, s.Annotations[AddressesAnnotation])
		}
		r.Addrs = append(r.Addrs, a.Unmap())
		family.Count, family.Pools = 0, nil
	}
	return r, nil
}

// list reads an annotation.
func (s Service) list(key string) ([]string, error) {
	text := s.Annotations[key]
	if text == "" {
		return nil, nil
	}
	var out []string
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("annotation %s: %q: must be a list in JSON, such as [\"a\", \"b\"]", key, text)
	}
	return out, nil
}

// Suits reports whether the addresses that a service has are what r asks for. Pools
// that r names by CIDR or, in pools, by name must hold those of their family.
func Suits(have []netip.Addr, r ipam.Request, pools []model.Pool) bool {
	if len(have) != len(r.Addrs)+r.V4.Count+r.V6.Count {
		return false
	}
	for _, a := range r.Addrs {
		if !slices.Contains(have, a) {
			return false
		}
	}
	n4, n6 := 0, 0
	for _, a := range have {
		if slices.Contains(r.Addrs, a) {
			continue
		}
		family := r.V4
		if a.Is6() {
			family = r.V6
			n6++
		} else {
			n4++
		}
		in := func(name string) bool {
			return slices.ContainsFunc(pools, func(p model.Pool) bool {
				return (p.Name == name || p.CIDR.String() == name) && p.CIDR.Contains(a)
			})
		}
		if len(family.Pools) > 0 && !slices.ContainsFunc(family.Pools, in) {
			return false
		}
	}
	return n4 == r.V4.Count && n6 == r.V6.Count
}
