package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Profile is rules and labels for the endpoints that name it.
type Profile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec ProfileSpec `json:"spec"`
}

// ProfileSpec is the rules and labels.
type ProfileSpec struct {
	Ingress []Rule `json:"ingress,omitempty"`
	Egress  []Rule `json:"egress,omitempty"`
	// LabelsToApply are inherited by the endpoints; their own labels win.
	LabelsToApply map[string]string `json:"labelsToApply,omitempty"`
}

// Tier is a stage of policy evaluation.
type Tier struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   TierSpec   `json:"spec"`
	Status TierStatus `json:"status"`
}

// TierSpec is the tier's place and its last word.
type TierSpec struct {
	// Order sorts tiers, lower first; nil is last.
	Order *float64 `json:"order,omitempty"`
	// DefaultAction, Deny or Pass, applies when a policy of the tier selected the
	// endpoint and no rule matched. Default Deny.
	DefaultAction *Action `json:"defaultAction,omitempty"`
}

// TierStatus is what the system reports about a tier. It is stored even when empty.
type TierStatus struct {
	// Conditions holds the condition Ready.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ClusterInformation describes the cluster; its name is default. The system
// writes it.
type ClusterInformation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec ClusterInformationSpec `json:"spec"`
}

// ClusterInformationSpec is the description.
type ClusterInformationSpec struct {
	// ClusterGUID is 32 hexadecimal digits.
	ClusterGUID string `json:"clusterGUID,omitempty"`
	// ClusterType lists how the cluster was made, such as "k8s,bgp,kubeadm".
	ClusterType string `json:"clusterType,omitempty"`
	// CalicoVersion is the version that last ran its start-up.
	CalicoVersion string `json:"calicoVersion,omitempty"`
	// DatastoreReady false keeps agents from acting while the store is migrated.
	DatastoreReady *bool `json:"datastoreReady,omitempty"`
	// Variant names the product's flavour.
	Variant string `json:"variant,omitempty"`
}
