package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FelixConfiguration holds the node agents' settings: named default for the
// cluster, named node.NAME for one node, or any other name with a node selector.
type FelixConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec FelixConfigurationSpec `json:"spec"`
}

// FelixConfigurationSpec is the settings.
type FelixConfigurationSpec struct {
	LogSeverityScreen string `json:"logSeverityScreen,omitempty"`
}
