package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FelixConfiguration holds the node agents' settings: named default for the
// cluster, named node.NAME for one node, or any other name with a node selector.
type FelixConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec FelixConfigurationSpec `json:"spec"`
}

// FelixConfigurationSpec is the settings. A setting that is absent (nil or empty)
// takes its value from the next wider configuration, and in the end the default
// that its comment gives after a semicolon; the few defaults marked "Default" are
// stored with the object. The file is one long list because the resource is.
type FelixConfigurationSpec struct {
	// What the configuration applies to.

	// NodeSelector: chooses the nodes of a configuration that is neither default nor
	// node.NAME.
	NodeSelector string `json:"nodeSelector,omitempty"`

	// Dataplane and kernel refresh.

	// UseInternalDataplaneDriver: false starts an external dataplane driver.
	UseInternalDataplaneDriver *bool `json:"useInternalDataplaneDriver,omitempty"`
	// DataplaneDriver: the file of that driver.
	DataplaneDriver string `json:"dataplaneDriver,omitempty"`
	// DataplaneWatchdogTimeout: when a silent dataplane counts as dead; 90s.
	// HealthTimeoutOverrides replaces it.
	DataplaneWatchdogTimeout *metav1.Duration `json:"dataplaneWatchdogTimeout,omitempty"`
	// IPv6Support: whether IPv6 is programmed; true.
	IPv6Support *bool `json:"ipv6Support,omitempty"`
	// RouteRefreshInterval: how often routes are read back; 90s, 0 never.
	RouteRefreshInterval *metav1.Duration `json:"routeRefreshInterval,omitempty"`
	// InterfaceRefreshInterval: how often interfaces are read again; 90s, 0 never.
	InterfaceRefreshInterval *metav1.Duration `json:"interfaceRefreshInterval,omitempty"`
	// IptablesRefreshInterval: how often rules are read back; 180s, 0 never.
	IptablesRefreshInterval *metav1.Duration `json:"iptablesRefreshInterval,omitempty"`
	// NftablesRefreshInterval: the same for nftables; 90s, 0 never.
	NftablesRefreshInterval *metav1.Duration `json:"nftablesRefreshInterval,omitempty"`
	// IptablesPostWriteCheckInterval: when rules are read back after a write; 5s.
	IptablesPostWriteCheckInterval *metav1.Duration `json:"iptablesPostWriteCheckInterval,omitempty"`
	// IptablesLockProbeInterval: how often the xtables lock is tried; 50ms.
	IptablesLockProbeInterval *metav1.Duration `json:"iptablesLockProbeInterval,omitempty"`
	// IpsetsRefreshInterval: how often address sets are read back; 90s, 0 never.
	IpsetsRefreshInterval *metav1.Duration `json:"ipsetsRefreshInterval,omitempty"`
	// MaxIpsetSize: the greatest number of entries of an address set; 1048576.
	MaxIpsetSize *int `json:"maxIpsetSize,omitempty"`
	// NetlinkTimeout: how long the kernel may take to answer; 10s.
	NetlinkTimeout *metav1.Duration `json:"netlinkTimeout,omitempty"`
	// IptablesBackend: Auto, Legacy or NFT, in any case; Auto.
	IptablesBackend string `json:"iptablesBackend,omitempty"`
	// XDPRefreshInterval: how often XDP programs are checked; 90s, 0 never.
	XDPRefreshInterval *metav1.Duration `json:"xdpRefreshInterval,omitempty"`
	// XDPEnabled: whether untracked denials are moved to XDP; true.
	XDPEnabled *bool `json:"xdpEnabled,omitempty"`
	// GenericXDPEnabled: whether XDP is used without driver support; false.
	GenericXDPEnabled *bool `json:"genericXDPEnabled,omitempty"`

	// Identity of interfaces and OpenStack.

	// MetadataAddr: the OpenStack metadata server, or none; 127.0.0.1.
	MetadataAddr string `json:"metadataAddr,omitempty"`
	// MetadataPort: its port; 8775.
	MetadataPort *int `json:"metadataPort,omitempty"`
	// OpenstackRegion: the OpenStack region: a DNS label of at most 46 characters, or
	// empty.
	OpenstackRegion string `json:"openstackRegion,omitempty"`
	// InterfacePrefix: a comma-separated list of what names of workload interfaces
	// begin with; cali.
	InterfacePrefix string `json:"interfacePrefix,omitempty"`
	// InterfaceExclude: interfaces left out of host endpoints, a comma-separated list
	// of names and /patterns/; kube-ipvs0.
	InterfaceExclude string `json:"interfaceExclude,omitempty"`

	// Policy and chains.

	// ChainInsertMode: Insert or Append, in any case: where the jump into our chains
	// goes; Insert.
	ChainInsertMode string `json:"chainInsertMode,omitempty"`
	// DefaultEndpointToHostAction: Drop, Accept or Return, in any case: workload to
	// its own host, after egress policy; Drop.
	DefaultEndpointToHostAction string `json:"defaultEndpointToHostAction,omitempty"`
	// IptablesFilterAllowAction: Accept or Return, in any case; Accept.
	IptablesFilterAllowAction string `json:"iptablesFilterAllowAction,omitempty"`
	// IptablesMangleAllowAction: the same for pre-DNAT policy; Accept.
	IptablesMangleAllowAction string `json:"iptablesMangleAllowAction,omitempty"`
	// IptablesFilterDenyAction: Drop or Reject, in any case; Drop.
	IptablesFilterDenyAction string `json:"iptablesFilterDenyAction,omitempty"`
	// NftablesFilterAllowAction: Accept or Return, in any case; Accept.
	NftablesFilterAllowAction string `json:"nftablesFilterAllowAction,omitempty"`
	// NftablesMangleAllowAction: the same for pre-DNAT policy; Accept.
	NftablesMangleAllowAction string `json:"nftablesMangleAllowAction,omitempty"`
	// NftablesFilterDenyAction: Drop or Reject, in any case; Drop.
	NftablesFilterDenyAction string `json:"nftablesFilterDenyAction,omitempty"`
	// DisableConntrackInvalidCheck: true lets packets through that connection tracking
	// calls invalid; false.
	DisableConntrackInvalidCheck *bool `json:"disableConntrackInvalidCheck,omitempty"`
	// AllowVXLANPacketsFromWorkloads: whether workloads may wrap packets in VXLAN
	// themselves; false.
	AllowVXLANPacketsFromWorkloads *bool `json:"allowVXLANPacketsFromWorkloads,omitempty"`
	// AllowIPIPPacketsFromWorkloads: whether workloads may wrap packets in IP in IP
	// themselves; false.
	AllowIPIPPacketsFromWorkloads *bool `json:"allowIPIPPacketsFromWorkloads,omitempty"`
	// WorkloadSourceSpoofing: Disabled or Any, in any case: whether pods may ask for
	// other source prefixes; Disabled.
	WorkloadSourceSpoofing string `json:"workloadSourceSpoofing,omitempty"`
	// PolicySyncPathPrefix: the directory of the policy socket; empty for none.
	PolicySyncPathPrefix string `json:"policySyncPathPrefix,omitempty"`
	// ServiceLoopPrevention: Drop, Reject or Disabled: what happens to traffic for
	// unused service addresses; Drop.
	ServiceLoopPrevention string `json:"serviceLoopPrevention,omitempty"`

	// Logs.

	// LogFilePath: the log file, or none; /var/log/calico/felix.log.
	LogFilePath string `json:"logFilePath,omitempty"`
	// LogSeverityFile: the lowest level written to the file: Trace, Debug, Info,
	// Warning, Error or Fatal in any case; Info.
	LogSeverityFile string `json:"logSeverityFile,omitempty"`
	// LogSeverityScreen: the same for standard output; Info.
	LogSeverityScreen string `json:"logSeverityScreen,omitempty"`
	// LogSeveritySys: the same for the system log; Info.
	LogSeveritySys string `json:"logSeveritySys,omitempty"`
	// LogDebugFilenameRegex: limits debug messages to source files that match.
	LogDebugFilenameRegex string `json:"logDebugFilenameRegex,omitempty"`
	// LogPrefix: begins the kernel's log lines of Log rules; letters, digits and "%:
	// /_-", with %t tier, %k kind, %n name, %p qualified name; calico-packet.
	LogPrefix string `json:"logPrefix,omitempty"`
	// LogActionRateLimit: limits Log rules, "N/second", "N/minute", "N/hour" or
	// "N/day" with N 1 to 9999; empty for no limit. See [ParseRate].
	LogActionRateLimit string `json:"logActionRateLimit,omitempty"`
	// LogActionRateLimitBurst: 0 to 9999 lines beyond that limit at once; 5.
	LogActionRateLimitBurst *int `json:"logActionRateLimitBurst,omitempty"`

	// Overlays.

	// IPIPEnabled: overrides whether the IP in IP device exists; nil derives it from
	// the pools.
	IPIPEnabled *bool `json:"ipipEnabled,omitempty"`
	// IPIPMTU: the MTU of tunl0; 0 finds it.
	IPIPMTU *int `json:"ipipMTU,omitempty"`
	// VXLANEnabled: overrides whether the VXLAN device exists; nil derives it from the
	// pools.
	VXLANEnabled *bool `json:"vxlanEnabled,omitempty"`
	// VXLANMTU: the MTU of vxlan.calico; 0 finds it.
	VXLANMTU *int `json:"vxlanMTU,omitempty"`
	// VXLANMTUV6: the MTU of vxlan-v6.calico; 0 finds it.
	VXLANMTUV6 *int `json:"vxlanMTUV6,omitempty"`
	// VXLANPort: the UDP port; 4789.
	VXLANPort *int `json:"vxlanPort,omitempty"`
	// VXLANVNI: the network identifier; 4096.
	VXLANVNI *int `json:"vxlanVNI,omitempty"`
	// ExternalNodesCIDRList: IPv4 prefixes or addresses of nodes outside the cluster
	// that may send tunnel packets.
	ExternalNodesCIDRList []string `json:"externalNodesList,omitzero"`

	// Reports.

	// ReportingInterval: how often the agent reports its status; 30s, 0 never.
	ReportingInterval *metav1.Duration `json:"reportingInterval,omitempty"`
	// ReportingTTL: how long such a report is valid; 90s.
	ReportingTTL *metav1.Duration `json:"reportingTTL,omitempty"`
	// EndpointReportingEnabled: whether endpoints are reported to OpenStack; false.
	EndpointReportingEnabled *bool `json:"endpointReportingEnabled,omitempty"`
	// EndpointReportingDelay: the delay of those reports; 1s.
	EndpointReportingDelay *metav1.Duration `json:"endpointReportingDelay,omitempty"`
	// EndpointStatusPathPrefix: the directory of endpoint status files;
	// /var/run/calico, empty for none.
	EndpointStatusPathPrefix string `json:"endpointStatusPathPrefix,omitempty"`
	// UsageReportingEnabled: kept for Calico. weft sends no usage reports.
	UsageReportingEnabled *bool `json:"usageReportingEnabled,omitempty"`
	// UsageReportingInitialDelay: kept for Calico.
	UsageReportingInitialDelay *metav1.Duration `json:"usageReportingInitialDelay,omitempty"`
	// UsageReportingInterval: kept for Calico.
	UsageReportingInterval *metav1.Duration `json:"usageReportingInterval,omitempty"`

	// Health, metrics, debugging.

	// HealthEnabled: whether the health page is served; false.
	HealthEnabled *bool `json:"healthEnabled,omitempty"`
	// HealthHost: the address it is served on; localhost.
	HealthHost string `json:"healthHost,omitempty"`
	// HealthPort: the port it is served on; 9099.
	HealthPort *int `json:"healthPort,omitempty"`
	// HealthTimeoutOverrides: longer or shorter patience with parts of the agent.
	HealthTimeoutOverrides []HealthTimeoutOverride `json:"healthTimeoutOverrides,omitzero"`
	// PrometheusMetricsEnabled: whether metrics are served; false.
	PrometheusMetricsEnabled *bool `json:"prometheusMetricsEnabled,omitempty"`
	// PrometheusMetricsHost: the address they are served on; empty for all.
	PrometheusMetricsHost string `json:"prometheusMetricsHost,omitempty"`
	// PrometheusMetricsPort: the port they are served on; 9091.
	PrometheusMetricsPort *int `json:"prometheusMetricsPort,omitempty"`
	// PrometheusMetricsCAFile: the file with the authority of clients' certificates.
	PrometheusMetricsCAFile string `json:"prometheusMetricsCAFile,omitempty"`
	// PrometheusMetricsCertFile: the file with the server's certificate.
	PrometheusMetricsCertFile string `json:"prometheusMetricsCertFile,omitempty"`
	// PrometheusMetricsKeyFile: the file with the server's key.
	PrometheusMetricsKeyFile string `json:"prometheusMetricsKeyFile,omitempty"`
	// PrometheusMetricsClientAuth: how clients are checked, a name of Go's crypto/tls;
	// RequireAndVerifyClientCert.
	PrometheusMetricsClientAuth string `json:"prometheusMetricsClientAuth,omitempty"`
	// PrometheusGoMetricsEnabled: whether metrics of the Go runtime are among them;
	// true.
	PrometheusGoMetricsEnabled *bool `json:"prometheusGoMetricsEnabled,omitempty"`
	// PrometheusProcessMetricsEnabled: whether metrics of the process are among them;
	// true.
	PrometheusProcessMetricsEnabled *bool `json:"prometheusProcessMetricsEnabled,omitempty"`
	// PrometheusWireGuardMetricsEnabled: whether metrics of WireGuard are among them;
	// true.
	PrometheusWireGuardMetricsEnabled *bool `json:"prometheusWireGuardMetricsEnabled,omitempty"`
	// DebugDisableLogDropping: true waits for slow log files instead of dropping
	// lines; false.
	DebugDisableLogDropping *bool `json:"debugDisableLogDropping,omitempty"`
	// DebugHost: the address of the debugging page; localhost.
	DebugHost string `json:"debugHost,omitempty"`
	// DebugPort: its port; nil for none.
	DebugPort *int `json:"debugPort,omitempty"`
	// DebugMemoryProfilePath: the file for a memory profile on a signal.
	DebugMemoryProfilePath string `json:"debugMemoryProfilePath,omitempty"`
	// DebugSimulateCalcGraphHangAfter: for tests of the watchdog.
	DebugSimulateCalcGraphHangAfter *metav1.Duration `json:"debugSimulateCalcGraphHangAfter,omitempty"`
	// DebugSimulateDataplaneApplyDelay: for tests of a slow kernel.
	DebugSimulateDataplaneApplyDelay *metav1.Duration `json:"debugSimulateDataplaneApplyDelay,omitempty"`
	// DebugSimulateDataplaneHangAfter: for tests of the watchdog.
	DebugSimulateDataplaneHangAfter *metav1.Duration `json:"debugSimulateDataplaneHangAfter,omitempty"`
	// GoGCThreshold: percent of heap growth before collection; 40, -1 never.
	GoGCThreshold *int `json:"goGCThreshold,omitempty"`
	// GoMaxProcs: the greatest number of processors; -1 for all.
	GoMaxProcs *int `json:"goMaxProcs,omitempty"`
	// GoMemoryLimitMB: a soft limit of memory in MB; -1 for none.
	GoMemoryLimitMB *int `json:"goMemoryLimitMB,omitempty"`

	// Host endpoints.

	// FailsafeInboundHostPorts: ports of the host that policy never closes; nil for
	// the built-in list, empty for none.
	FailsafeInboundHostPorts []ProtoPort `json:"failsafeInboundHostPorts,omitzero"`
	// FailsafeOutboundHostPorts: the same for what the host sends.
	FailsafeOutboundHostPorts []ProtoPort `json:"failsafeOutboundHostPorts,omitzero"`

	// Node ports and source NAT.

	// KubeNodePortRanges: the node ports of services, at most 7 entries; 30000:32767.
	KubeNodePortRanges []Port `json:"kubeNodePortRanges,omitzero"`
	// NATPortRange: the source ports of outgoing NAT; nil leaves the choice to the
	// kernel.
	NATPortRange *Port `json:"natPortRange,omitempty"`
	// NATOutgoingAddress: the IPv4 source address of outgoing NAT; empty for that of
	// the interface.
	NATOutgoingAddress string `json:"natOutgoingAddress,omitempty"`
	// NATOutgoingExclusions: IPPoolsOnly or IPPoolsAndHostIPs: where no NAT is done;
	// IPPoolsOnly.
	NATOutgoingExclusions string `json:"natOutgoingExclusions,omitempty"`
	// IptablesNATOutgoingInterfaceFilter: limits outgoing NAT to matching interfaces,
	// with + for any ending.
	IptablesNATOutgoingInterfaceFilter string `json:"iptablesNATOutgoingInterfaceFilter,omitempty"`

	// Packet marks.

	// IptablesMarkMask: the bits of the packet mark that are ours, 32 bits;
	// 0xffff0000.
	IptablesMarkMask *int64 `json:"iptablesMarkMask,omitempty"`
	// NftablesMarkMask: the same for nftables; 0xffff0000.
	NftablesMarkMask *int64 `json:"nftablesMarkMask,omitempty"`
	// NftablesMode: Auto, Enabled or Disabled. Default Auto.
	NftablesMode string `json:"nftablesMode,omitempty"`
	// NftablesFlowTableOffload: Disabled or All: whether established flows take the
	// flow table. Default Disabled.
	NftablesFlowTableOffload string `json:"nftablesFlowTableOffload,omitempty"`

	// eBPF dataplane.

	// BPFEnabled: whether the eBPF dataplane is used; false.
	BPFEnabled *bool `json:"bpfEnabled,omitempty"`
	// BPFDisableUnprivileged: whether unprivileged use of eBPF is forbidden; true.
	BPFDisableUnprivileged *bool `json:"bpfDisableUnprivileged,omitempty"`
	// BPFJITHardening: Auto or Strict: whether a slow kernel setting is relaxed; Auto.
	BPFJITHardening string `json:"bpfJITHardening,omitempty"`
	// BPFLogLevel: Off, Info or Debug, in any case; stored even when empty, which
	// means Off.
	BPFLogLevel string `json:"bpfLogLevel"`
	// BPFConntrackLogLevel: Off or Debug; Off.
	BPFConntrackLogLevel string `json:"bpfConntrackLogLevel,omitempty"`
	// BPFLogFilters: pcap filters by interface name, or all, weps, heps.
	BPFLogFilters map[string]string `json:"bpfLogFilters,omitempty"`
	// BPFCTLBLogFilter: all, or empty: whether connect-time load balancing is logged
	// with filters set.
	BPFCTLBLogFilter string `json:"bpfCTLBLogFilter,omitempty"`
	// BPFDataIfacePattern: a pattern of the interfaces to the network.
	BPFDataIfacePattern string `json:"bpfDataIfacePattern,omitempty"`
	// BPFL3IfacePattern: a pattern of tunnel devices of others.
	BPFL3IfacePattern string `json:"bpfL3IfacePattern,omitempty"`
	// BPFConnectTimeLoadBalancingEnabled: the older form of
	// BPFConnectTimeLoadBalancing.
	BPFConnectTimeLoadBalancingEnabled *bool `json:"bpfConnectTimeLoadBalancingEnabled,omitempty"`
	// BPFConnectTimeLoadBalancing: TCP, Enabled or Disabled. Default TCP.
	BPFConnectTimeLoadBalancing string `json:"bpfConnectTimeLoadBalancing,omitempty"`
	// BPFHostNetworkedNATWithoutCTLB: Enabled or Disabled. Default Enabled.
	BPFHostNetworkedNATWithoutCTLB string `json:"bpfHostNetworkedNATWithoutCTLB,omitempty"`
	// BPFExternalServiceMode: Tunnel or DSR, in any case; Tunnel.
	BPFExternalServiceMode string `json:"bpfExternalServiceMode,omitempty"`
	// BPFDSROptoutCIDRs: clients for whom DSR is not used.
	BPFDSROptoutCIDRs []string `json:"bpfDSROptoutCIDRs,omitzero"`
	// BPFExtToServiceConnmark: a mark on connections from outside to services, 32
	// bits; 0.
	BPFExtToServiceConnmark *int `json:"bpfExtToServiceConnmark,omitempty"`
	// BPFKubeProxyIptablesCleanupEnabled: whether rules of kube-proxy are removed;
	// true.
	BPFKubeProxyIptablesCleanupEnabled *bool `json:"bpfKubeProxyIptablesCleanupEnabled,omitempty"`
	// BPFKubeProxyMinSyncPeriod: the least time between updates of services; 1s.
	BPFKubeProxyMinSyncPeriod *metav1.Duration `json:"bpfKubeProxyMinSyncPeriod,omitempty"`
	// BPFKubeProxyHealthzPort: the port of the health page for load balancers; 10256,
	// 0 for none.
	BPFKubeProxyHealthzPort *int `json:"bpfKubeProxyHealthzPort,omitempty"`
	// BPFPSNATPorts: ports for colliding source ports; 20000:29999.
	BPFPSNATPorts *Port `json:"bpfPSNATPorts,omitempty"`
	// BPFMapSizeNATFrontend: entries of the map of service addresses.
	BPFMapSizeNATFrontend *int `json:"bpfMapSizeNATFrontend,omitempty"`
	// BPFMapSizeNATBackend: entries of the map of service endpoints.
	BPFMapSizeNATBackend *int `json:"bpfMapSizeNATBackend,omitempty"`
	// BPFMapSizeNATAffinity: entries of the map of session affinity.
	BPFMapSizeNATAffinity *int `json:"bpfMapSizeNATAffinity,omitempty"`
	// BPFMapSizeRoute: entries of the map of routes.
	BPFMapSizeRoute *int `json:"bpfMapSizeRoute,omitempty"`
	// BPFMapSizeConntrack: entries of the map of connections.
	BPFMapSizeConntrack *int `json:"bpfMapSizeConntrack,omitempty"`
	// BPFMapSizePerCPUConntrack: the same per processor; it overrides
	// BPFMapSizeConntrack when above 0.
	BPFMapSizePerCPUConntrack *int `json:"bpfMapSizePerCpuConntrack,omitempty"`
	// BPFMapSizeConntrackCleanupQueue: entries of the queue of connections to remove,
	// at least 1.
	BPFMapSizeConntrackCleanupQueue *int `json:"bpfMapSizeConntrackCleanupQueue,omitempty"`
	// BPFMapSizeConntrackScaling: Disabled or DoubleIfFull, in any case; DoubleIfFull.
	BPFMapSizeConntrackScaling string `json:"bpfMapSizeConntrackScaling,omitempty"`
	// BPFMapSizeIPSets: entries of the map of address sets.
	BPFMapSizeIPSets *int `json:"bpfMapSizeIPSets,omitempty"`
	// BPFMapSizeIfState: entries of the map of interfaces.
	BPFMapSizeIfState *int `json:"bpfMapSizeIfState,omitempty"`
	// BPFMaglevMaxServices: the greatest number of services with Maglev; 100.
	BPFMaglevMaxServices *int `json:"bpfMaglevMaxServices,omitempty"`
	// BPFMaglevMaxEndpointsPerService: the greatest number of their endpoints; 100.
	BPFMaglevMaxEndpointsPerService *int `json:"bpfMaglevMaxEndpointsPerService,omitempty"`
	// BPFHostConntrackBypass: whether the kernel's connection tracking is passed by;
	// true.
	BPFHostConntrackBypass *bool `json:"bpfHostConntrackBypass,omitempty"`
	// BPFEnforceRPF: Disabled, Strict or Loose, in any case: the reverse path check;
	// Loose.
	BPFEnforceRPF string `json:"bpfEnforceRPF,omitempty"`
	// BPFPolicyDebugEnabled: whether details of policy programs are recorded; true.
	BPFPolicyDebugEnabled *bool `json:"bpfPolicyDebugEnabled,omitempty"`
	// BPFForceTrackPacketsFromIfaces: interfaces whose traffic the kernel tracks all
	// the same; docker+.
	BPFForceTrackPacketsFromIfaces []string `json:"bpfForceTrackPacketsFromIfaces,omitzero"`
	// BPFDisableGROForIfaces: a pattern of interfaces without generic receive offload.
	BPFDisableGROForIfaces string `json:"bpfDisableGROForIfaces,omitempty"`
	// BPFExcludeCIDRsFromNAT: destinations that are not services, such as a DNS cache
	// on the node.
	BPFExcludeCIDRsFromNAT []string `json:"bpfExcludeCIDRsFromNAT,omitzero"`
	// BPFRedirectToPeer: Enabled, Disabled or the older L2Only; Enabled.
	BPFRedirectToPeer string `json:"bpfRedirectToPeer,omitempty"`
	// BPFAttachType: TC, TCX or Netkit; TCX.
	BPFAttachType string `json:"bpfAttachType,omitempty"`
	// BPFExportBufferSizeMB: the buffer of events in MB; 1.
	BPFExportBufferSizeMB *int `json:"bpfExportBufferSizeMB,omitempty"`
	// BPFProfiling: Enabled or Disabled; Disabled.
	BPFProfiling string `json:"bpfProfiling,omitempty"`
	// BPFConntrackMode: Auto, Userspace or BPFProgram: how old connections are
	// removed; Userspace.
	BPFConntrackMode string `json:"bpfConntrackMode,omitempty"`
	// BPFConntrackTimeouts: when a connection counts as gone.
	BPFConntrackTimeouts *BPFConntrackTimeouts `json:"bpfConntrackTimeouts,omitempty"`
	// BPFIPFragTimeout: how long fragments wait for the rest; nil for the kernel's
	// time.
	BPFIPFragTimeout *metav1.Duration `json:"bpfIPFragTimeout,omitempty"`
	// BPFIPFragmentReassemblyEnabled: whether fragments out of order are put together;
	// true.
	BPFIPFragmentReassemblyEnabled *bool `json:"bpfIPFragmentReassemblyEnabled,omitempty"`
	// BPFOverlayHostSourceIP: TunnelAddress or HostAddress: the node's source address
	// in an overlay; TunnelAddress.
	BPFOverlayHostSourceIP string `json:"bpfOverlayHostSourceIP,omitempty"`

	// Routes.

	// RouteSource: CalicoIPAM or WorkloadIPs, in any case: what routes are made from;
	// CalicoIPAM.
	RouteSource string `json:"routeSource,omitempty"`
	// RouteTableRange: the older form of RouteTableRanges, 1 to 250.
	RouteTableRange *RouteTableRange `json:"routeTableRange,omitempty"`
	// RouteTableRanges: the numbers of kernel routing tables that are ours to use.
	RouteTableRanges []RouteTableRange `json:"routeTableRanges,omitzero"`
	// RouteSyncDisabled: true leaves routes alone; false.
	RouteSyncDisabled *bool `json:"routeSyncDisabled,omitempty"`
	// ProgramClusterRoutes: Enabled, Disabled, EnabledIPIPOnly or EnabledNoEncapOnly.
	// weft has one writer of routes: it has no effect.
	ProgramClusterRoutes string `json:"programClusterRoutes,omitempty"`
	// RemoveExternalRoutes: whether routes of others to workload interfaces are
	// removed; true.
	RemoveExternalRoutes *bool `json:"removeExternalRoutes,omitempty"`
	// DeviceRouteSourceAddress: the IPv4 source hint of our routes; empty for the
	// kernel's choice.
	DeviceRouteSourceAddress string `json:"deviceRouteSourceAddress,omitempty"`
	// DeviceRouteSourceAddressIPv6: the IPv6 source hint of our routes.
	DeviceRouteSourceAddressIPv6 string `json:"deviceRouteSourceAddressIPv6,omitempty"`
	// DeviceRouteProtocol: the protocol number of our routes; 3.
	DeviceRouteProtocol *int `json:"deviceRouteProtocol,omitempty"`
	// IPv4NormalRoutePriority: the metric of our IPv4 routes.
	IPv4NormalRoutePriority *int `json:"ipv4NormalRoutePriority,omitempty"`
	// IPv4ElevatedRoutePriority: their metric while a virtual machine moves; 512.
	IPv4ElevatedRoutePriority *int `json:"ipv4ElevatedRoutePriority,omitempty"`
	// IPv6NormalRoutePriority: the metric of our IPv6 routes.
	IPv6NormalRoutePriority *int `json:"ipv6NormalRoutePriority,omitempty"`
	// IPv6ElevatedRoutePriority: their metric while a virtual machine moves; 512.
	IPv6ElevatedRoutePriority *int `json:"ipv6ElevatedRoutePriority,omitempty"`
	// LiveMigrationRouteConvergenceTime: how long that metric stays after the move;
	// 30s.
	LiveMigrationRouteConvergenceTime *metav1.Duration `json:"liveMigrationRouteConvergenceTime,omitempty"`
	// LocalSubnetL2Reachability: Disabled or PodsAndLoadBalancers: whether the node
	// answers ARP and NDP for such addresses; Disabled.
	LocalSubnetL2Reachability string `json:"localSubnetL2Reachability,omitempty"`
	// LocalSubnetL2ReachabilityRefreshInterval: how often it announces them again;
	// 120s, 0 never.
	LocalSubnetL2ReachabilityRefreshInterval *metav1.Duration `json:"localSubnetL2ReachabilityRefreshInterval,omitempty"`
	// IPForwarding: Enabled or Disabled: whether the kernel is told to forward;
	// Enabled.
	IPForwarding string `json:"ipForwarding,omitempty"`

	// WireGuard.

	// WireguardEnabled: whether IPv4 between nodes is encrypted; false.
	WireguardEnabled *bool `json:"wireguardEnabled,omitempty"`
	// WireguardEnabledV6: whether IPv6 between nodes is encrypted; false.
	WireguardEnabledV6 *bool `json:"wireguardEnabledV6,omitempty"`
	// WireguardListeningPort: the IPv4 device's UDP port; 51820.
	WireguardListeningPort *int `json:"wireguardListeningPort,omitempty"`
	// WireguardListeningPortV6: the IPv6 device's UDP port; 51821.
	WireguardListeningPortV6 *int `json:"wireguardListeningPortV6,omitempty"`
	// WireguardRoutingRulePriority: the priority of the routing rule, 1 to 32765; 99.
	WireguardRoutingRulePriority *int `json:"wireguardRoutingRulePriority,omitempty"`
	// WireguardInterfaceName: the IPv4 device; wireguard.cali.
	WireguardInterfaceName string `json:"wireguardInterfaceName,omitempty"`
	// WireguardInterfaceNameV6: the IPv6 device; wg-v6.cali.
	WireguardInterfaceNameV6 string `json:"wireguardInterfaceNameV6,omitempty"`
	// WireguardMTU: the IPv4 device's MTU; 0 finds it.
	WireguardMTU *int `json:"wireguardMTU,omitempty"`
	// WireguardMTUV6: the IPv6 device's MTU; 0 finds it.
	WireguardMTUV6 *int `json:"wireguardMTUV6,omitempty"`
	// WireguardHostEncryptionEnabled: whether traffic of the hosts themselves is
	// encrypted; false.
	WireguardHostEncryptionEnabled *bool `json:"wireguardHostEncryptionEnabled,omitempty"`
	// WireguardPersistentKeepAlive: the interval of keepalive packets; 0 for none.
	WireguardPersistentKeepAlive *metav1.Duration `json:"wireguardKeepAlive,omitempty"`
	// WireguardThreadingEnabled: whether the device uses threaded NAPI; false.
	WireguardThreadingEnabled *bool `json:"wireguardThreadingEnabled,omitempty"`

	// Host MTU.

	// MTUIfacePattern: a pattern of the interfaces whose smallest MTU counts.
	MTUIfacePattern string `json:"mtuIfacePattern,omitempty"`
	// RequireMTUFile: whether the agent waits for the MTU file; false.
	RequireMTUFile *bool `json:"requireMTUFile,omitempty"`

	// Clouds and other systems.

	// AWSSrcDstCheck: DoNothing, Enable or Disable: the check of EC2; DoNothing.
	AWSSrcDstCheck string `json:"awsSrcDstCheck,omitempty"`
	// WindowsManageFirewallRules: Enabled or Disabled: firewall rules on Windows;
	// Disabled.
	WindowsManageFirewallRules string `json:"windowsManageFirewallRules,omitempty"`
	// SidecarAccelerationEnabled: whether traffic to sidecars is shortened; false.
	SidecarAccelerationEnabled *bool `json:"sidecarAccelerationEnabled,omitempty"`
	// IstioAmbientMode: Enabled or Disabled; Disabled.
	IstioAmbientMode string `json:"istioAmbientMode,omitempty"`
	// IstioDSCPMark: marks packets to the mesh's tunnel; 23.
	IstioDSCPMark *DSCP `json:"istioDSCPMark,omitempty"`
	// CgroupV2Path: where the cgroup hierarchy is.
	CgroupV2Path string `json:"cgroupV2Path,omitempty"`
	// FloatingIPs: Enabled or Disabled. Default Disabled.
	FloatingIPs string `json:"floatingIPs,omitempty"`
	// FeatureDetectOverride: overrides what was found out about the kernel,
	// "A=true,B=false,C=".
	FeatureDetectOverride string `json:"featureDetectOverride,omitempty"`
	// FeatureGates: switches features on trial, "A=enabled,B=false".
	FeatureGates string `json:"featureGates,omitempty"`

	// Flow logs.

	// FlowLogsFlushInterval: how often flows are sent; 300s.
	FlowLogsFlushInterval *metav1.Duration `json:"flowLogsFlushInterval,omitempty"`
	// FlowLogsCollectorDebugTrace: true logs them in full; false.
	FlowLogsCollectorDebugTrace *bool `json:"flowLogsCollectorDebugTrace,omitempty"`
	// FlowLogsGoldmaneServer: the server they are sent to; empty for none.
	FlowLogsGoldmaneServer string `json:"flowLogsGoldmaneServer,omitempty"`
	// FlowLogsLocalReporter: Enabled or Disabled: flows on a local socket; Disabled.
	FlowLogsLocalReporter string `json:"flowLogsLocalReporter,omitempty"`
	// FlowLogsPolicyEvaluationMode: None or Continuous: whether running flows are
	// judged again; Continuous.
	FlowLogsPolicyEvaluationMode string `json:"flowLogsPolicyEvaluationMode,omitempty"`

	// Of weft alone. Calico's tools drop these fields when they write the object.

	// DeniedConnections: End or Keep: what becomes of established connections that a
	// change of policy forbids; End.
	DeniedConnections string `json:"deniedConnections,omitempty"`
	// LogDefaultDeny: Enabled or Disabled: whether packets that no rule allowed are
	// logged as Log rules are; Disabled.
	LogDefaultDeny string `json:"logDefaultDeny,omitempty"`
	// WireguardCleartext: Allow or Drop: what becomes of packets to pods of other nodes
	// that WireGuard cannot encrypt, where it is enabled for their family; Allow.
	WireguardCleartext string `json:"wireguardCleartext,omitempty"`
}

// ProtoPort is a port of a host.
type ProtoPort struct {
	// Protocol is tcp, udp or sctp in any case; empty means tcp.
	Protocol string `json:"protocol,omitempty"`
	// Port is 0 to 65535.
	Port uint16 `json:"port"`
	// Net limits the other end to a prefix; empty means all.
	Net string `json:"net,omitempty"`
}

// HealthTimeoutOverride says how long one part of the agent may be silent.
type HealthTimeoutOverride struct {
	Name string `json:"name"`
	// Timeout is not negative; 0 means for ever.
	Timeout metav1.Duration `json:"timeout"`
}

// RouteTableRange is an inclusive range of numbers of kernel routing tables.
type RouteTableRange struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// BPFConntrackTimeouts says when connections are forgotten. Each is a duration, or
// Auto for the kernel's own; empty means the default.
type BPFConntrackTimeouts struct {
	CreationGracePeriod string `json:"creationGracePeriod,omitempty"` // 10s
	TCPSynSent          string `json:"tcpSynSent,omitempty"`          // 20s
	TCPEstablished      string `json:"tcpEstablished,omitempty"`      // 1h
	TCPFinsSeen         string `json:"tcpFinsSeen,omitempty"`         // Auto
	TCPResetSeen        string `json:"tcpResetSeen,omitempty"`        // 40s
	UDPTimeout          string `json:"udpTimeout,omitempty"`          // 60s
	GenericTimeout      string `json:"genericTimeout,omitempty"`      // 10m
	ICMPTimeout         string `json:"icmpTimeout,omitempty"`         // 5s
}
