package crd

import (
	"fmt"
	"math"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
)

// greatestPriority is the greatest metric of a route that users may ask for; the
// kernel's own end is left to it.
const greatestPriority = math.MaxInt32 - 1

// rules is what holds of each type beyond its Go form, wherever it is used.
func rules() map[reflect.Type]func(*Schema) {
	return map[reflect.Type]func(*Schema){
		reflect.TypeFor[metav1.Duration]():                     duration,
		reflect.TypeFor[v3.ASNumber]():                         func(s *Schema) { asNumber(s, math.MaxUint32) },
		reflect.TypeFor[v3.Protocol]():                         protocol,
		reflect.TypeFor[v3.DSCP]():                             dscp,
		reflect.TypeFor[v3.IPPoolSpec]():                       ippool,
		reflect.TypeFor[v3.IPReservationSpec]():                func(s *Schema) { prefix(s.at("reservedCIDRs", "[]")) },
		reflect.TypeFor[v3.IPAMConfigurationSpec]():            ipamConfiguration,
		reflect.TypeFor[v3.IPAMBlockSpec]():                    ipamBlock,
		reflect.TypeFor[v3.BlockAffinitySpec]():                blockAffinity,
		reflect.TypeFor[v3.Tier]():                             tier,
		reflect.TypeFor[v3.TierSpec]():                         func(s *Schema) { words(s.at("defaultAction"), "Deny", "Pass") },
		reflect.TypeFor[v3.BGPConfiguration]():                 bgpConfiguration,
		reflect.TypeFor[v3.BGPConfigurationSpec]():             bgpConfigurationSpec,
		reflect.TypeFor[v3.BGPPeerSpec]():                      bgpPeer,
		reflect.TypeFor[v3.SecretKeySelector]():                func(s *Schema) { s.MapType = "atomic" },
		reflect.TypeFor[v3.BGPFilterSpec]():                    bgpFilter,
		reflect.TypeFor[v3.BGPFilterRule]():                    bgpFilterRule,
		reflect.TypeFor[v3.BGPFilterOperation]():               bgpFilterOperation,
		reflect.TypeFor[v3.FelixConfiguration]():               felixConfiguration,
		reflect.TypeFor[v3.FelixConfigurationSpec]():           felix,
		reflect.TypeFor[v3.BPFConntrackTimeouts]():             conntrackTimeouts,
		reflect.TypeFor[v3.ProtoPort]():                        protoPort,
		reflect.TypeFor[v3.KubeControllersConfigurationSpec](): kubeControllers,
		reflect.TypeFor[v3.AutoHostEndpointConfig]():           autoHostEndpoint,
		reflect.TypeFor[v3.CalicoNodeStatusSpec]():             nodeStatus,
		reflect.TypeFor[v3.NetworkSetSpec]():                   networkSet,
		reflect.TypeFor[v3.HostEndpointSpec]():                 hostEndpoint,
		reflect.TypeFor[v3.EndpointPort]():                     endpointPort,

		reflect.TypeFor[v3.Rule]():                              rule,
		reflect.TypeFor[v3.EntityRule]():                        entityRule,
		reflect.TypeFor[v3.ICMPFields]():                        icmp,
		reflect.TypeFor[v3.HTTPMatch]():                         httpMatch,
		reflect.TypeFor[v3.NetworkPolicy]():                     networkPolicyName,
		reflect.TypeFor[v3.NetworkPolicySpec]():                 networkPolicy,
		reflect.TypeFor[v3.GlobalNetworkPolicy]():               globalPolicyName,
		reflect.TypeFor[v3.GlobalNetworkPolicySpec]():           globalPolicy,
		reflect.TypeFor[v3.StagedNetworkPolicy]():               stagedPolicyName,
		reflect.TypeFor[v3.StagedNetworkPolicySpec]():           stagedPolicy,
		reflect.TypeFor[v3.StagedGlobalNetworkPolicy]():         globalPolicyName,
		reflect.TypeFor[v3.StagedGlobalNetworkPolicySpec]():     stagedGlobalPolicy,
		reflect.TypeFor[v3.StagedKubernetesNetworkPolicySpec](): stagedKubernetesPolicy,
		reflect.TypeFor[v3.KubernetesNetworkPolicyPort]():       kubernetesPort,
		reflect.TypeFor[v3.KubernetesNetworkPolicyPeer]():       kubernetesPeer,
		reflect.TypeFor[metav1.LabelSelector]():                 labelSelector,
		reflect.TypeFor[metav1.LabelSelectorRequirement]():      labelRequirement,
	}
}

func dscp(s *Schema) {
	s.between(0, 63)
	s.Pattern = `^([^0-9]|0*([0-9]|[1-5][0-9]|6[0-3])$|[0-9]*[^0-9])|^$`
}

// on is an expression that says whether a mode of encapsulation is in use.
func on(field string) string {
	return "(has(self." + field + ") && self." + field + " != '' && self." + field + " != 'Never')"
}

func ippool(s *Schema) {
	s.require("cidr")
	masked(s.at("cidr"))
	s.at("blockSize").Format = "int32"
	for _, mode := range []string{"ipipMode", "vxlanMode"} {
		words(s.at(mode), "Never", "Always", "CrossSubnet")
		s.at(mode).Default = "Never"
	}
	words(s.at("assignmentMode"), "Automatic", "Manual")
	s.at("assignmentMode").Default = "Automatic"
	s.at("allowedUses").MaxItems = v3.MaxAllowedUses
	words(s.at("allowedUses", "[]"), "Workload", "Tunnel", "LoadBalancer")
	s.at("allowedUses").Default = []string{"Workload", "Tunnel"}
	sel(s.at("nodeSelector"))
	s.at("nodeSelector").Default = "all()"
	sel(s.at("namespaceSelector"))

	s.ruleAt(".vxlanMode", "!"+on("ipipMode")+" || !"+on("vxlanMode"), "must be Never with an ipipMode other than Never")
	const v6, size = "self.cidr.contains(':')", "(has(self.blockSize) && self.blockSize != 0 ? self.blockSize : (self.cidr.contains(':') ? 122 : 26))"
	s.ruleAt(".ipipMode", "!"+v6+" || !"+on("ipipMode"), "must be Never: IP in IP carries no IPv6, use vxlanMode")
	s.ruleAt(".blockSize", size+" >= ("+v6+" ? 116 : 20) && "+size+" <= ("+v6+" ? 128 : 32)", "must be 20 to 32 for IPv4, 116 to 128 for IPv6")
	s.ruleAt(".cidr", "!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() <= "+size+" || (has(self.disabled) && self.disabled)",
		"must hold at least one block")
	s.ruleAt(".cidr", "!isCIDR(self.cidr) || !cidr('169.254.0.0/16').containsCIDR(self.cidr) && !cidr(self.cidr).containsCIDR('169.254.0.0/16')"+
		" && !cidr('fe80::/10').containsCIDR(self.cidr) && !cidr(self.cidr).containsCIDR('fe80::/10')", "must not overlap the link-local range")

	const balancer = "(has(self.allowedUses) && self.allowedUses.exists(u, u == 'LoadBalancer'))"
	s.ruleAt(".allowedUses", "!"+balancer+" || self.allowedUses.all(u, u == 'LoadBalancer' || u == '')", "LoadBalancer must stand alone")
	s.ruleAt(".allowedUses", "!"+balancer+" || !"+on("ipipMode")+" && !"+on("vxlanMode"), "LoadBalancer needs ipipMode and vxlanMode Never")
	s.ruleAt(".disableBGPExport", "!"+balancer+" || !has(self.disableBGPExport) || !self.disableBGPExport", "must be false with the use LoadBalancer")
	s.ruleAt(".nodeSelector", "!"+balancer+" || !has(self.nodeSelector) || self.nodeSelector == '' || self.nodeSelector.trim() == 'all()'",
		"must be all() with the use LoadBalancer")

	const before = "(has(oldSelf.blockSize) && oldSelf.blockSize != 0 ? oldSelf.blockSize : (oldSelf.cidr.contains(':') ? 122 : 26))"
	s.ruleAt(".cidr", "!isCIDR(self.cidr) || !isCIDR(oldSelf.cidr) || cidr(self.cidr) == cidr(oldSelf.cidr)", "can't change: delete the pool and make another")
	s.ruleAt(".blockSize", size+" == "+before, "can't change: delete the pool and make another")
}

func ipamConfiguration(s *Schema) {
	s.at("strictAffinity").Default = false
	s.at("autoAllocateBlocks").Default = true
	s.at("maxBlocksPerHost").between(0, 1000000)
	s.at("ipCooldownSeconds").between(0, 1200)
	switched(s.at("kubeVirtVMAddressPersistence"))
	s.ruleAt(".autoAllocateBlocks", "has(self.strictAffinity) && self.strictAffinity || !has(self.autoAllocateBlocks) || self.autoAllocateBlocks", "must be true unless strictAffinity is true")
}

func ipamBlock(s *Schema) {
	s.require("cidr")
	prefix(s.at("cidr"))
}

func blockAffinity(s *Schema) {
	s.require("cidr")
	prefix(s.at("cidr"))
	words(s.at("state"), "confirmed", "pending", "pendingDeletion")
}

// tier: the order and the action of a tier that none are given for depend on its name, so
// there is no default here; who reads them knows it.
func tier(s *Schema) {
	s.at("metadata", "name").Pattern = whole(label)
	s.at("metadata", "name").most(63)
	for _, t := range v3.BuiltinTiers() {
		is := "self.metadata.name != '" + t.Name + "' || "
		s.ruleAt(".spec.order", is+"!has(self.spec.order) || self.spec.order == "+decimal(*t.Spec.Order), fmt.Sprintf("of tier %s must be %.0f", t.Name, *t.Spec.Order))
		s.ruleAt(".spec.defaultAction", is+"!has(self.spec.defaultAction) || self.spec.defaultAction == '"+string(*t.Spec.DefaultAction)+"'",
			"of tier "+t.Name+" must be "+string(*t.Spec.DefaultAction))
	}
}

func nodeStatus(s *Schema) {
	s.require("node", "classes", "updatePeriodSeconds")
	name(s.at("node"))
	s.at("classes").MinItems = 1
	s.at("classes").ListType = "set"
	only(s.at("classes", "[]"), "Agent", "BGP", "Routes")
	s.at("updatePeriodSeconds").between(0, 86400)
}

func kubeControllers(s *Schema) {
	logLevel(s.at("logSeverityScreen"))
	switched(s.at("healthChecks"))
	s.at("healthChecks").Default = "Enabled"
	s.at("prometheusMetricsPort").between(0, 65535)
	s.at("prometheusMetricsPort").Default = 9094
	s.at("debugProfilePort").between(0, 65535)
	node := s.at("controllers", "node")
	switched(node.at("syncLabels"))
	node.at("leakGracePeriod").Default = "15m0s"
	balancer := s.at("controllers", "loadBalancer", "assignIPs")
	words(balancer, "AllServices", "RequestedServicesOnly")
	balancer.Default = "AllServices"
	switched(s.at("controllers", "migration", "policyNameMigrator"))
}

func autoHostEndpoint(s *Schema) {
	switched(s.at("autoCreate"))
	switched(s.at("createDefaultHostEndpoint"))
	s.at("templates").MaxItems = v3.MaxTemplates
	t := s.at("templates", "[]")
	optionalName(t.at("generateName"))
	prefix(t.at("interfaceCIDRs", "[]"))
	t.at("interfacePattern").most(v3.MaxPattern)
	regex(t.at("interfacePattern"))
	t.at("labels").AdditionalProperties.Pattern = whole(labelValue)
	sel(t.at("nodeSelector"))
}

func networkSet(s *Schema) {
	n := s.at("nets", "[]")
	prefix(n)
	address(n, "ipv4", "ipv6", "none")
}

func hostEndpoint(s *Schema) {
	s.require("node")
	name(s.at("node"))
	s.at("interfaceName").Pattern = whole(`(\*|` + interfaceText + `)?`)
	address(s.at("expectedIPs", "[]"), "ipv4", "ipv6")
	name(s.at("profiles", "[]"))
	s.ruleAt(".interfaceName", "has(self.interfaceName) && self.interfaceName != '' || has(self.expectedIPs) && self.expectedIPs.size() > 0",
		"must be set, or else expectedIPs")
}

func endpointPort(s *Schema) {
	s.require("name", "protocol", "port")
	portName(s.at("name"))
	portful(s.at("protocol"))
	s.at("port").between(1, 65535)
}
