package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KubeControllersConfiguration holds the settings of the Kubernetes controllers; its
// name is default.
type KubeControllersConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   KubeControllersConfigurationSpec   `json:"spec"`
	Status KubeControllersConfigurationStatus `json:"status"`
}

// KubeControllersConfigurationSpec is the settings. Environment variables of the
// controllers' process win over them.
type KubeControllersConfigurationSpec struct {
	// LogSeverityScreen is the lowest level logged: Trace, Debug, Info, Warning,
	// Error or Fatal in any case; empty means Info.
	LogSeverityScreen string `json:"logSeverityScreen,omitempty"`
	// HealthChecks, Enabled or Disabled, serves the health page. Default Enabled.
	HealthChecks string `json:"healthChecks,omitempty"`
	// EtcdV3CompactionPeriod is how often etcd's history is cut; nil means 10m, 0
	// never.
	EtcdV3CompactionPeriod *metav1.Duration `json:"etcdV3CompactionPeriod,omitempty"`
	// PrometheusMetricsPort is the port of the metrics page, 0 for none. Default 9094.
	PrometheusMetricsPort *int `json:"prometheusMetricsPort,omitempty"`
	// Controllers says which controllers run, and how.
	Controllers ControllersConfig `json:"controllers"`
	// DebugProfilePort is the port of the profiling page; nil for none.
	DebugProfilePort *int32 `json:"debugProfilePort,omitempty"`
}

// ControllersConfig is the controllers that run; a nil one does not.
type ControllersConfig struct {
	// Node cleans up after nodes that are gone, and makes host endpoints.
	Node *NodeControllerConfig `json:"node,omitempty"`
	// Policy copies network policies of Kubernetes; with etcd only, as the next three.
	Policy *ControllerConfig `json:"policy,omitempty"`
	// WorkloadEndpoint keeps the labels of endpoints those of their pods.
	WorkloadEndpoint *ControllerConfig `json:"workloadEndpoint,omitempty"`
	// ServiceAccount makes profiles of service accounts.
	ServiceAccount *ControllerConfig `json:"serviceAccount,omitempty"`
	// Namespace makes profiles of namespaces.
	Namespace *ControllerConfig `json:"namespace,omitempty"`
	// LoadBalancer gives addresses to services of type LoadBalancer.
	LoadBalancer *LoadBalancerControllerConfig `json:"loadBalancer,omitempty"`
	// Migration renames what older versions stored.
	Migration *MigrationControllerConfig `json:"migration,omitempty"`
}

// ControllerConfig is what every controller that copies has.
type ControllerConfig struct {
	// ReconcilerPeriod is how often everything is compared; nil means 5m.
	ReconcilerPeriod *metav1.Duration `json:"reconcilerPeriod,omitempty"`
}

// NodeControllerConfig is the settings of the node controller.
type NodeControllerConfig struct {
	// ReconcilerPeriod is how often everything is compared; nil means 5m.
	ReconcilerPeriod *metav1.Duration `json:"reconcilerPeriod,omitempty"`
	// SyncLabels, Enabled or Disabled, keeps the labels of nodes those of Kubernetes;
	// empty means Enabled.
	SyncLabels string `json:"syncLabels,omitempty"`
	// HostEndpoint makes host endpoints of nodes; nil means none are made.
	HostEndpoint *AutoHostEndpointConfig `json:"hostEndpoint,omitempty"`
	// LeakGracePeriod is how long an address may have no owner before it is released;
	// 0 never releases any. Default 15m.
	LeakGracePeriod *metav1.Duration `json:"leakGracePeriod,omitempty"`
}

// AutoHostEndpointConfig is which host endpoints are made of each node.
type AutoHostEndpointConfig struct {
	// AutoCreate is Enabled or Disabled; empty means Disabled.
	AutoCreate string `json:"autoCreate,omitempty"`
	// CreateDefaultHostEndpoint, Enabled or Disabled, makes one for all interfaces of
	// the node; empty means Enabled.
	CreateDefaultHostEndpoint string `json:"createDefaultHostEndpoint,omitempty"`
	// Templates are further ones.
	Templates []HostEndpointTemplate `json:"templates,omitempty"`
}

// HostEndpointTemplate is the form of a host endpoint that is made of each node.
type HostEndpointTemplate struct {
	// GenerateName is the part of the endpoint's name that tells templates apart.
	GenerateName string `json:"generateName,omitempty"`
	// InterfaceCIDRs are the ranges whose addresses of the node are the endpoint's;
	// none means all of its addresses.
	InterfaceCIDRs []string `json:"interfaceCIDRs,omitempty"`
	// InterfacePattern is a regular expression of Go: an endpoint is made for each
	// interface of the node whose name it matches.
	InterfacePattern string `json:"interfacePattern,omitempty"`
	// Labels are given to the endpoint beside those of the node.
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are given to the endpoint.
	Annotations map[string]string `json:"annotations,omitempty"`
	// NodeSelector chooses the nodes; empty means all.
	NodeSelector string `json:"nodeSelector,omitempty"`
}

// LoadBalancerControllerConfig is the settings of the controller for services of type
// LoadBalancer.
type LoadBalancerControllerConfig struct {
	// AssignIPs is AllServices, or RequestedServicesOnly for those that ask by an
	// annotation. Default AllServices.
	AssignIPs string `json:"assignIPs,omitempty"`
}

// MigrationControllerConfig is the settings of the migration controller.
type MigrationControllerConfig struct {
	// PolicyNameMigrator, Enabled or Disabled, drops the tier from the names of
	// policies that older versions stored; empty means Enabled.
	PolicyNameMigrator string `json:"policyNameMigrator,omitempty"`
}

// KubeControllersConfigurationStatus is what the controllers report. It is stored
// even when empty.
type KubeControllersConfigurationStatus struct {
	// RunningConfig is the settings in force, after environment variables.
	RunningConfig *KubeControllersConfigurationSpec `json:"runningConfig,omitempty"`
	// EnvironmentVars are the environment variables that were taken into account.
	EnvironmentVars map[string]string `json:"environmentVars,omitempty"`
}
