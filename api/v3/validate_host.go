package v3

// networkSet checks the addresses: prefixes with or without zero host bits, bare
// addresses, and empty entries, which stand for nothing. They may repeat and overlap.
func (c *checker) networkSet(labels map[string]string, s *NetworkSetSpec) {
	if _, ok := labels[LabelNamespace]; ok {
		c.fail("metadata.labels", LabelNamespace, "must be left out: the system sets it")
	}
	for i, n := range s.Nets {
		if _, ok := addrOrPrefix(n); n != "" && !ok {
			c.fail(index("spec.nets", i), n, `must be a prefix such as "10.0.0.0/8" or an address`)
		}
	}
}

func (c *checker) hostEndpoint(s *HostEndpointSpec) {
	if s.Node == "" {
		c.fail("spec.node", nil, "must be set")
	} else if !isDNSSubdomain(s.Node) {
		c.fail("spec.node", s.Node, "must be the name of a node: lower-case letters, digits, inner dashes and dots")
	}
	switch s.InterfaceName {
	case "":
		if len(s.ExpectedIPs) == 0 {
			c.fail("spec.interfaceName", nil, "must be set, or else expectedIPs")
		}
	case "*":
	default:
		c.interfaceName("spec.interfaceName", s.InterfaceName)
	}
	for i, text := range s.ExpectedIPs {
		if text == "" {
			c.fail(index("spec.expectedIPs", i), text, "must be an address")
		}
		c.addr(index("spec.expectedIPs", i), text, anyFamily)
	}
	for i, name := range s.Profiles {
		if !isDNSSubdomain(name) {
			c.fail(index("spec.profiles", i), name, "must be the name of a profile: lower-case letters, digits, inner dashes and dots")
		}
	}
	for i, p := range s.Ports {
		field := index("spec.ports", i)
		c.portName(field+".name", p.Name)
		if !p.Protocol.hasPorts() {
			c.fail(field+".protocol", p.Protocol.String(), "must be TCP, UDP or SCTP")
		}
		if p.Port == 0 {
			c.fail(field+".port", p.Port, "must be 1 to 65535")
		}
	}
}
