package rpc

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
)

// Annotations of pods and namespaces that steer an ADD.
const (
	annotationAddrs          = "cni.projectcalico.org/ipAddrs"
	annotationAddrsNoIPAM    = "cni.projectcalico.org/ipAddrsNoIpam"
	annotationIPv4Pools      = "cni.projectcalico.org/ipv4pools"
	annotationIPv6Pools      = "cni.projectcalico.org/ipv6pools"
	annotationFamilies       = "cni.projectcalico.org/ipFamilies"
	annotationFloatingIPs    = "cni.projectcalico.org/floatingIPs"
	annotationMAC            = "cni.projectcalico.org/hwAddr"
	annotationSourcePrefixes = "cni.projectcalico.org/allowedSourcePrefixes"
)

// Features are the annotations that the configuration must allow
// (feature_control); what is false is refused.
type Features struct {
	AddrsNoIPAM bool `json:"addrsNoIPAM,omitempty"` // ip_addrs_no_ipam
	FloatingIPs bool `json:"floatingIPs,omitempty"` // floating_ips
}

// Overlay is what the annotations of a pod and of its namespace say together: the pod's
// win, key by key, and of the two that exclude each other the pod's drives out the
// namespace's. Only what [AddRequest.Annotate] knows is taken from the namespace.
func Overlay(namespace, pod map[string]string) map[string]string {
	out := maps.Clone(pod)
	if out == nil {
		out = map[string]string{}
	}
	for _, key := range []string{
		annotationIPv4Pools, annotationIPv6Pools, annotationFamilies, annotationAddrs, annotationAddrsNoIPAM,
		annotationFloatingIPs, annotationMAC, annotationSourcePrefixes,
	} {
		value, ok := namespace[key]
		_, own := pod[key]
		if !ok || own ||
			key == annotationAddrs && pod[annotationAddrsNoIPAM] != "" || key == annotationAddrsNoIPAM && pod[annotationAddrs] != "" {
			continue
		}
		out[key] = value
	}
	return out
}

// Annotate lets annotations override what r asks for; those it does not know
// are passed over. It is called once for each level, the weaker first
// (configuration, namespace, pod). An error is an [*Error] that names the
// annotation; r is then not to be used. An r without Endpoint takes the address
// annotations only.
func (r *AddRequest) Annotate(annotations map[string]string, f Features) error {
	for _, a := range []struct {
		key   string
		apply func(value string) error
	}{
		{annotationIPv4Pools, func(v string) error { return decodeList(v, "pool names or CIDRs", &r.Address.IPv4Pools) }},
		{annotationIPv6Pools, func(v string) error { return decodeList(v, "pool names or CIDRs", &r.Address.IPv6Pools) }},
		{annotationFamilies, r.setFamilies},
		{annotationAddrs, r.setExact},
		{annotationAddrsNoIPAM, func(v string) error { return r.setGiven(v, f) }},
		{annotationFloatingIPs, func(v string) error { return r.setFloating(v, f) }},
		{annotationMAC, r.setMAC},
		{annotationSourcePrefixes, r.setSourcePrefixes},
	} {
		if value, ok := annotations[a.key]; ok {
			if err := a.apply(value); err != nil {
				return &Error{Code: CodeInvalidConfig, Msg: fmt.Sprintf("annotation %s: %q: %v", a.key, value, err)}
			}
		}
	}
	if annotations[annotationAddrs] != "" && annotations[annotationAddrsNoIPAM] != "" {
		return &Error{Code: CodeInvalidConfig, Msg: fmt.Sprintf("annotations %s and %s exclude each other", annotationAddrs, annotationAddrsNoIPAM)}
	}
	return nil
}

func (r *AddRequest) setFamilies(value string) error {
	var families []string
	if err := decodeList(value, "IPv4 and IPv6", &families); err != nil {
		return err
	}
	for _, f := range families {
		if f != "IPv4" && f != "IPv6" {
			return fmt.Errorf("%q is not a family: IPv4 and IPv6 are", f)
		}
	}
	if len(families) == 0 {
		return fmt.Errorf("no family: want IPv4, IPv6 or both")
	}
	r.Address.IPv4, r.Address.IPv6 = slices.Contains(families, "IPv4"), slices.Contains(families, "IPv6")
	return nil
}

func (r *AddRequest) setExact(value string) error {
	var addrs []netip.Addr
	if err := decodeList(value, "IP addresses", &addrs); err != nil {
		return err
	}
	if err := onePerFamily(addrs); err != nil {
		return err
	}
	r.Address.Exact = addrs
	return nil
}

// setGiven takes addresses that no IPAM knows of.
func (r *AddRequest) setGiven(value string, f Features) error {
	if !f.AddrsNoIPAM {
		return fmt.Errorf("not allowed: feature_control.ip_addrs_no_ipam is not set in the configuration")
	}
	if r.Endpoint == nil {
		return nil
	}
	var addrs []netip.Addr
	if err := decodeList(value, "IP addresses", &addrs); err != nil {
		return err
	}
	if err := onePerFamily(addrs); err != nil {
		return err
	}
	r.Address = AddressWish{}
	r.Endpoint.Given = nil
	for _, a := range addrs {
		r.Endpoint.Given = append(r.Endpoint.Given, netip.PrefixFrom(a, a.BitLen()))
	}
	return nil
}

func (r *AddRequest) setFloating(value string, f Features) error {
	if !f.FloatingIPs {
		return fmt.Errorf("not allowed: feature_control.floating_ips is not set in the configuration")
	}
	if r.Endpoint == nil {
		return nil
	}
	return decodeList(value, "IP addresses", &r.Endpoint.FloatingIPs)
}

func (r *AddRequest) setMAC(value string) error {
	if r.Endpoint == nil {
		return nil
	}
	mac, err := ParseMAC(value)
	if err != nil {
		return err
	}
	r.Endpoint.MAC = mac
	return nil
}

func (r *AddRequest) setSourcePrefixes(value string) error {
	if r.Endpoint == nil {
		return nil
	}
	return decodeList(value, "CIDRs", &r.Endpoint.SourcePrefixes)
}

// ParseMAC gives the canonical form of an Ethernet address that an interface
// may have: six bytes, no group address, not zero.
func ParseMAC(s string) (string, error) {
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return "", fmt.Errorf("not a MAC address: want aa:bb:cc:dd:ee:ff")
	case mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00":
		return "", fmt.Errorf("not a MAC address for an interface: it is a group address or zero")
	}
	return mac.String(), nil
}

// onePerFamily refuses lists from which no interface can be made.
func onePerFamily(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return fmt.Errorf("no address")
	}
	seen := map[bool]netip.Addr{}
	for _, a := range addrs {
		if a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%v is not an address for an interface", a)
		}
		if other, ok := seen[a.Is4()]; ok {
			return fmt.Errorf("%v and %v are of one family: at most one each of IPv4 and IPv6", other, a)
		}
		seen[a.Is4()] = a
	}
	return nil
}

// decodeList reads a JSON list.
func decodeList[T any](value, of string, out *[]T) error {
	var list []T
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		return fmt.Errorf("not a JSON list of %s: %w", of, err)
	}
	*out = list
	return nil
}
