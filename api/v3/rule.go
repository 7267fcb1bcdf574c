package v3

// Action is what a rule, or a tier without a matching rule, does with a packet.
type Action string

// The actions. Log goes on with the next rule, Pass with the next tier.
const (
	ActionAllow Action = "Allow"
	ActionDeny  Action = "Deny"
	ActionLog   Action = "Log"
	ActionPass  Action = "Pass"
)

// Rule matches packets by all the fields that are set, and acts on them.
type Rule struct {
	Action Action `json:"action"`
	// IPVersion is 4 or 6; nil matches both.
	IPVersion *int `json:"ipVersion,omitempty"`
	// Protocol and NotProtocol match or exclude one protocol.
	Protocol *Protocol `json:"protocol,omitempty"`
	// ICMP and NotICMP match or exclude ICMP messages.
	ICMP        *ICMPFields `json:"icmp,omitempty"`
	NotProtocol *Protocol   `json:"notProtocol,omitempty"`
	NotICMP     *ICMPFields `json:"notICMP,omitempty"`
	// Source and Destination match the two ends.
	Source      EntityRule `json:"source,omitzero"`
	Destination EntityRule `json:"destination,omitzero"`
	// HTTP matches requests; it needs an application-layer proxy.
	HTTP *HTTPMatch `json:"http,omitempty"`
	// Metadata is carried to whatever the rule becomes.
	Metadata *RuleMetadata `json:"metadata,omitempty"`
}

// EntityRule matches one end of a packet by all the fields that are set.
type EntityRule struct {
	// Nets matches an address in any of the prefixes, at most 256.
	Nets []string `json:"nets,omitempty"`
	// Selector matches endpoints and network sets; see package selector.
	Selector string `json:"selector,omitempty"`
	// NamespaceSelector widens Selector to other namespaces.
	NamespaceSelector string `json:"namespaceSelector,omitempty"`
	// Services matches the endpoints of a service.
	Services *ServiceMatch `json:"services,omitempty"`
	// Ports matches a port, at most 50 entries.
	Ports []Port `json:"ports,omitempty"`
	// NotNets excludes addresses, at most 256 entries.
	NotNets []string `json:"notNets,omitempty"`
	// NotSelector excludes what it selects; addresses of no known endpoint match.
	NotSelector string `json:"notSelector,omitempty"`
	// NotPorts excludes ports, at most 50 entries.
	NotPorts []Port `json:"notPorts,omitempty"`
	// ServiceAccounts matches by the endpoint's service account.
	ServiceAccounts *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
}

// ICMPFields matches ICMP messages.
type ICMPFields struct {
	// Type is 0 to 254.
	Type *int `json:"type,omitempty"`
	// Code is 0 to 255 and needs Type.
	Code *int `json:"code,omitempty"`
}

// ServiceMatch names a Kubernetes service.
type ServiceMatch struct {
	Name string `json:"name,omitempty"`
	// Namespace is that of the policy when empty.
	Namespace string `json:"namespace,omitempty"`
}

// ServiceAccountMatch matches service accounts by name, by label, or by both.
type ServiceAccountMatch struct {
	Names    []string `json:"names,omitempty"`
	Selector string   `json:"selector,omitempty"`
}

// HTTPMatch matches requests by method and path.
type HTTPMatch struct {
	// Methods are at most 20 entries; none matches all.
	Methods []string `json:"methods,omitempty"`
	// Paths are at most 20 entries; none matches all.
	Paths []HTTPPath `json:"paths,omitempty"`
}

// HTTPPath is an exact path or a prefix; exactly one is set.
type HTTPPath struct {
	Exact  string `json:"exact,omitempty"`
	Prefix string `json:"prefix,omitempty"`
}

// RuleMetadata is information about a rule.
type RuleMetadata struct {
	Annotations map[string]string `json:"annotations,omitempty"`
}
