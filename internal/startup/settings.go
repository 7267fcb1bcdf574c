package startup

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
)

// Settings is what the environment asks of start-up, parsed. SettingsFrom
// makes one; the zero value is not valid.
type Settings struct {
	Node           string // node name
	KubernetesName string // CALICO_K8S_NODE_REF: the node's name in Kubernetes; "" for none
	IPv4, IPv6     AddressSetting
	ASN            *v3.ASNumber // nil: keep what the record says
	// SkipAddressCheck lets the node start with an address of another node.
	SkipAddressCheck bool
	// PollInterval is the time between two detections of the address; 0: never.
	PollInterval time.Duration
	// InternalAddrs are the node's InternalIPs as the orchestrator told them.
	InternalAddrs []netip.Addr
	Pools         []PoolSetting // default pools that may be created, by family
	// ClusterType is what CLUSTER_TYPE says of the cluster, such as "k8s,bgp"; see Describe.
	ClusterType string
	// PodCIDR says that pods have addresses of their nodes' ranges in Kubernetes
	// (USE_POD_CIDR), not of blocks.
	PodCIDR bool
	// Cluster is what is known of the cluster's networks from elsewhere.
	Cluster Cluster
}

// Cluster is what Kubernetes says of the networks of the cluster. The zero value: nothing.
type Cluster struct {
	Kubeadm bool
	// PodCIDRs are the ranges that kubeadm was told for pods: default pools are of them
	// unless the environment says otherwise. Masked.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs are the ranges of the addresses of services, which no pool may overlap.
	ServiceCIDRs []netip.Prefix
}

// NeedsInternalIP reports whether an address is to be found by the node's InternalIPs.
func (s Settings) NeedsInternalIP() bool {
	for _, a := range []AddressSetting{s.IPv4, s.IPv6} {
		if a.Mode == DetectAddress && a.Method.Name == "kubernetes-internal-ip" {
			return true
		}
	}
	return false
}

// AddressMode says where a node's address of one family comes from.
type AddressMode uint8

// The modes of AddressSetting.
const (
	KeepAddress   AddressMode = iota // as the record has it
	DetectAddress                    // by the method
	GivenAddress                     // as set
	NoAddress                        // the node has none
)

// AddressSetting is the value of IP or IP6 with its detection method.
type AddressSetting struct {
	V6        bool
	Mode      AddressMode
	Addr      netip.Prefix // GivenAddress: the address; its length counts only with HasLength
	HasLength bool
	Method    Method
}

func (a AddressSetting) name() string {
	if a.V6 {
		return "IP6"
	}
	return "IP"
}

func (a AddressSetting) methodName() string { return a.name() + "_AUTODETECTION_METHOD" }

func (a AddressSetting) text() string {
	switch a.Mode {
	case DetectAddress:
		return "autodetect"
	case NoAddress:
		return "none"
	case GivenAddress:
		return a.Addr.String()
	}
	return `""`
}

// PoolSetting describes the default pool of one family.
type PoolSetting struct {
	V6       bool
	Explicit bool         // the CIDR was set by hand, here or for kubeadm
	CIDR     netip.Prefix // zero: chosen at the time
	Spec     v3.IPPoolSpec
	kubeadm  bool // CIDR is kubeadm's
}

// SettingsFrom reads the settings from the environment, through getenv, for
// the node with that name. The error names the variable, its value and what is
// allowed.
func SettingsFrom(node string, getenv func(string) string) (Settings, error) {
	r := reader{getenv: getenv}
	s := Settings{
		Node:             node,
		KubernetesName:   getenv("CALICO_K8S_NODE_REF"),
		IPv4:             r.address("IP", false),
		IPv6:             r.address("IP6", true),
		ASN:              r.asn("AS"),
		SkipAddressCheck: r.boolean("DISABLE_NODE_IP_CHECK", false),
		PollInterval:     r.seconds("AUTODETECT_POLL_INTERVAL", time.Minute),
		InternalAddrs:    r.addrs("KUBERNETES_INTERNAL_IP"),
		ClusterType:      r.clusterType("CLUSTER_TYPE"),
		PodCIDR:          r.boolean("USE_POD_CIDR", false),
	}
	s.Pools = r.pools()
	return s, r.err
}

// reader reads variables and keeps the first error.
type reader struct {
	getenv func(string) string
	err    error
}

func (r *reader) bad(name, value, allowed string) {
	if r.err == nil {
		r.err = fmt.Errorf("startup: %s=%q: must be %s", name, value, allowed)
	}
}

func (r *reader) address(name string, v6 bool) AddressSetting {
	a := AddressSetting{V6: v6}
	methodText := r.getenv(name + "_AUTODETECTION_METHOD")
	if methodText == "" {
		methodText = "first-found"
	}
	var err error
	if a.Method, err = ParseMethod(methodText); err != nil && r.err == nil {
		r.err = fmt.Errorf("startup: %s_AUTODETECTION_METHOD=%q: %w", name, methodText, err)
	}
	switch text := r.getenv(name); text {
	case "":
	case "autodetect":
		a.Mode = DetectAddress
	case "none":
		a.Mode = NoAddress
	default:
		a.Mode = GivenAddress
		if p, err := netip.ParsePrefix(text); err == nil {
			a.Addr, a.HasLength = p, true
		} else if addr, err := netip.ParseAddr(text); err == nil {
			a.Addr = netip.PrefixFrom(addr, addr.BitLen())
		}
		if !a.Addr.IsValid() || a.Addr.Addr().Is6() != v6 || !a.Addr.Addr().IsGlobalUnicast() || a.Addr.Addr().Is4In6() {
			r.bad(name, text, "autodetect, none, empty, or an "+family(v6)+" address with or without a prefix length")
		}
	}
	return a
}

func (r *reader) asn(name string) *v3.ASNumber {
	text := r.getenv(name)
	if text == "" {
		return nil
	}
	n, err := v3.ParseASNumber(text)
	if err != nil || n == 0 {
		r.bad(name, text, "an AS number: 1 to 4294967295, or HIGH.LOW")
		return nil
	}
	return &n
}

func (r *reader) boolean(name string, otherwise bool) bool {
	text := r.getenv(name)
	if text == "" {
		return otherwise
	}
	b, err := strconv.ParseBool(strings.ToLower(text))
	if err != nil {
		r.bad(name, text, "true or false")
	}
	return b
}

// seconds reads a duration; a bare number is seconds.
func (r *reader) seconds(name string, otherwise time.Duration) time.Duration {
	text := r.getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if n, e := strconv.Atoi(text); e == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		r.bad(name, text, "a duration such as 60s, or 0 for never")
	}
	return d
}

func (r *reader) addrs(name string) []netip.Addr {
	var out []netip.Addr
	for s := range strings.SplitSeq(r.getenv(name), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			r.bad(name, s, "a list of addresses with commas")
			continue
		}
		out = append(out, a)
	}
	return out
}

// clusterType reads a list of words with commas between them.
func (r *reader) clusterType(name string) string {
	text := r.getenv(name)
	for word := range strings.SplitSeq(text, ",") {
		if strings.ContainsFunc(strings.TrimSpace(word), func(c rune) bool { return c <= ' ' || c > '~' }) {
			r.bad(name, text, "words with commas between them, such as k8s,bgp")
		}
	}
	return text
}

// pools reads the settings of the default pools: none when
// NO_DEFAULT_POOLS=true, which contradicts an explicit CIDR.
func (r *reader) pools() []PoolSetting {
	none := r.boolean("NO_DEFAULT_POOLS", false)
	var out []PoolSetting
	for _, v6 := range []bool{false, true} {
		p, wanted := r.pool(v6)
		if none && wanted && p.Explicit {
			r.bad("NO_DEFAULT_POOLS", "true", fmt.Sprintf("false or empty when %s is set", poolVariable(v6, "CIDR")))
		}
		if wanted && !none {
			out = append(out, p)
		}
	}
	return out
}

func poolVariable(v6 bool, field string) string {
	if v6 {
		return "CALICO_IPV6POOL_" + field
	}
	return "CALICO_IPV4POOL_" + field
}

func (r *reader) pool(v6 bool) (PoolSetting, bool) {
	name := func(field string) string { return poolVariable(v6, field) }
	p := PoolSetting{V6: v6}
	text := r.getenv(name("CIDR"))
	if text == "none" {
		return p, false
	}
	if text != "" {
		p.Explicit = true
		cidr, err := netip.ParsePrefix(text)
		if err != nil || cidr.Addr().Is6() != v6 || cidr.Masked() != cidr {
			r.bad(name("CIDR"), text, "none, or a masked "+family(v6)+" CIDR")
		}
		p.CIDR = cidr
	}
	low, high, size := 20, 32, 26
	if v6 {
		low, high, size = 116, 128, 122
	}
	if text := r.getenv(name("BLOCK_SIZE")); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < low || n > high {
			r.bad(name("BLOCK_SIZE"), text, fmt.Sprintf("%d to %d", low, high))
		}
		size = n
	}
	if p.Explicit && p.CIDR.IsValid() && size < p.CIDR.Bits() {
		r.bad(name("BLOCK_SIZE"), strconv.Itoa(size), fmt.Sprintf("at least %d: a block can't be larger than its pool %v", p.CIDR.Bits(), p.CIDR))
	}
	p.Spec = v3.IPPoolSpec{
		BlockSize:        size,
		VXLANMode:        r.encap(name("VXLAN")),
		IPIPMode:         v3.EncapNever,
		NATOutgoing:      r.boolean(name("NAT_OUTGOING"), !v6),
		NodeSelector:     r.getenv(name("NODE_SELECTOR")),
		DisableBGPExport: r.boolean(name("DISABLE_BGP_EXPORT"), false),
	}
	if p.Spec.NodeSelector == "" {
		p.Spec.NodeSelector = "all()"
	}
	if !v6 {
		p.Spec.IPIPMode = r.encap(name("IPIP"))
	}
	if p.Spec.IPIPMode != v3.EncapNever && p.Spec.VXLANMode != v3.EncapNever {
		r.bad(name("VXLAN"), r.getenv(name("VXLAN")), "Never when "+name("IPIP")+" is not: a pool has one encapsulation")
	}
	return p, true
}

// encap reads a mode of encapsulation, in any case.
func (r *reader) encap(name string) v3.EncapMode {
	switch text := r.getenv(name); strings.ToLower(text) {
	case "", "off", "never":
		return v3.EncapNever
	case "always":
		return v3.EncapAlways
	case "crosssubnet", "cross-subnet":
		return v3.EncapCrossSubnet
	default:
		r.bad(name, text, "Always, CrossSubnet, or Never (also Off, or empty)")
		return v3.EncapNever
	}
}
