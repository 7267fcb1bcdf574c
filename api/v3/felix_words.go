package v3

import (
	"math"
	"strings"
)

// Words is the texts that a field takes, beside none.
type Words struct {
	Field   string // name in JSON
	Allowed []string
	AnyCase bool // the case of letters does not matter
}

// Range is the numbers that a field takes, both ends included.
type Range struct {
	Field     string // name in JSON
	Low, High int
}

// FelixWords lists the settings of a [FelixConfigurationSpec] that are one of a few
// words. [Validate] and the custom resource definition are made of it.
func FelixWords() []Words {
	var all []Words
	for _, w := range []struct{ field, allowed string }{
		{"awsSrcDstCheck", "DoNothing Enable Disable"},
		{"bpfAttachType", "TC TCX Netkit"},
		{"bpfConnectTimeLoadBalancing", "TCP Enabled Disabled"},
		{"bpfConntrackLogLevel", "Off Debug"},
		{"bpfConntrackMode", "Auto Userspace BPFProgram"},
		{"bpfHostNetworkedNATWithoutCTLB", "Enabled Disabled"},
		{"bpfJITHardening", "Auto Strict"},
		{"bpfOverlayHostSourceIP", "TunnelAddress HostAddress"},
		{"bpfProfiling", "Enabled Disabled"},
		{"bpfRedirectToPeer", "Enabled Disabled L2Only"},
		{"deniedConnections", "End Keep"},
		{"floatingIPs", "Enabled Disabled"},
		{"flowLogsLocalReporter", "Enabled Disabled"},
		{"flowLogsPolicyEvaluationMode", "None Continuous"},
		{"ipForwarding", "Enabled Disabled"},
		{"istioAmbientMode", "Enabled Disabled"},
		{"localSubnetL2Reachability", "Disabled PodsAndLoadBalancers"},
		{"logDefaultDeny", "Enabled Disabled"},
		{"natOutgoingExclusions", "IPPoolsOnly IPPoolsAndHostIPs"},
		{"nftablesFlowTableOffload", "Disabled All"},
		{"nftablesMode", "Auto Enabled Disabled"},
		{"programClusterRoutes", "Enabled Disabled EnabledIPIPOnly EnabledNoEncapOnly"},
		{"serviceLoopPrevention", "Drop Reject Disabled"},
		{"windowsManageFirewallRules", "Enabled Disabled"},
		{"wireguardCleartext", "Allow Drop"},
	} {
		all = append(all, Words{Field: w.field, Allowed: strings.Fields(w.allowed)})
	}
	for _, w := range []struct{ field, allowed string }{
		{"bpfEnforceRPF", "Disabled Strict Loose"},
		{"bpfExternalServiceMode", "Tunnel DSR"},
		{"bpfLogLevel", "Off Info Debug"},
		{"bpfMapSizeConntrackScaling", "Disabled DoubleIfFull"},
		{"chainInsertMode", "Insert Append"},
		{"defaultEndpointToHostAction", "Drop Accept Return"},
		{"iptablesBackend", "Auto Legacy NFT"},
		{"iptablesFilterAllowAction", "Accept Return"},
		{"iptablesFilterDenyAction", "Drop Reject"},
		{"iptablesMangleAllowAction", "Accept Return"},
		{"logSeverityFile", "Trace Debug Info Warning Error Fatal"},
		{"logSeverityScreen", "Trace Debug Info Warning Error Fatal"},
		{"logSeveritySys", "Trace Debug Info Warning Error Fatal"},
		{"nftablesFilterAllowAction", "Accept Return"},
		{"nftablesFilterDenyAction", "Drop Reject"},
		{"nftablesMangleAllowAction", "Accept Return"},
		{"routeSource", "CalicoIPAM WorkloadIPs"},
		{"workloadSourceSpoofing", "Disabled Any"},
	} {
		all = append(all, Words{Field: w.field, Allowed: strings.Fields(w.allowed), AnyCase: true})
	}
	return all
}

// FelixRanges lists the settings of a [FelixConfigurationSpec] that are numbers within
// a range, but for the masks.
func FelixRanges() []Range {
	const greatest = math.MaxInt32
	return []Range{
		{"bpfKubeProxyHealthzPort", 0, 65535},
		{"bpfMapSizeConntrackCleanupQueue", 1, greatest},
		{"debugPort", 0, 65535},
		{"deviceRouteProtocol", 0, 255},
		{"healthPort", 0, 65535},
		{"ipipMTU", 0, 65535},
		{"ipv4ElevatedRoutePriority", 1, greatest - 1},
		{"ipv4NormalRoutePriority", 1, greatest - 1},
		{"ipv6ElevatedRoutePriority", 1, greatest - 1},
		{"ipv6NormalRoutePriority", 1, greatest - 1},
		{"logActionRateLimitBurst", 0, 9999},
		{"maxIpsetSize", 1, greatest},
		{"metadataPort", 0, 65535},
		{"prometheusMetricsPort", 0, 65535},
		{"vxlanMTU", 0, 65535},
		{"vxlanMTUV6", 0, 65535},
		{"vxlanPort", 1, 65535},
		{"vxlanVNI", 0, 1<<24 - 1},
		{"wireguardListeningPort", 0, 65535},
		{"wireguardListeningPortV6", 0, 65535},
		{"wireguardMTU", 0, 65535},
		{"wireguardMTUV6", 0, 65535},
		{"wireguardRoutingRulePriority", 1, 32765},
	}
}
