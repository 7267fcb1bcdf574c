package v3

import (
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxUpdatePeriod is the longest period of a node's reports, in seconds: a day.
const maxUpdatePeriod = 86400

func (c *checker) kubeControllers(s *KubeControllersConfigurationSpec) {
	c.logLevel("spec.logSeverityScreen", s.LogSeverityScreen)
	c.switched("spec.healthChecks", s.HealthChecks)
	c.period("spec.etcdV3CompactionPeriod", s.EtcdV3CompactionPeriod)
	c.number("spec.prometheusMetricsPort", s.PrometheusMetricsPort, 0, 65535)
	if p := s.DebugProfilePort; p != nil && (*p < 0 || *p > 65535) {
		c.fail("spec.debugProfilePort", *p, "must be 0 to 65535")
	}
	of := &s.Controllers
	for _, f := range []struct {
		field  string
		config *ControllerConfig
	}{
		{"policy", of.Policy},
		{"workloadEndpoint", of.WorkloadEndpoint},
		{"serviceAccount", of.ServiceAccount},
		{"namespace", of.Namespace},
	} {
		if f.config != nil {
			c.period("spec.controllers."+f.field+".reconcilerPeriod", f.config.ReconcilerPeriod)
		}
	}
	if n := of.Node; n != nil {
		c.period("spec.controllers.node.reconcilerPeriod", n.ReconcilerPeriod)
		c.period("spec.controllers.node.leakGracePeriod", n.LeakGracePeriod)
		c.switched("spec.controllers.node.syncLabels", n.SyncLabels)
		if n.HostEndpoint != nil {
			c.autoHostEndpoint("spec.controllers.node.hostEndpoint", n.HostEndpoint)
		}
	}
	if l := of.LoadBalancer; l != nil {
		c.oneOf("spec.controllers.loadBalancer.assignIPs", l.AssignIPs, "AllServices", "RequestedServicesOnly")
	}
	if m := of.Migration; m != nil {
		c.switched("spec.controllers.migration.policyNameMigrator", m.PolicyNameMigrator)
	}
}

func (c *checker) autoHostEndpoint(field string, h *AutoHostEndpointConfig) {
	c.switched(field+".autoCreate", h.AutoCreate)
	c.switched(field+".createDefaultHostEndpoint", h.CreateDefaultHostEndpoint)
	if !c.atMost(field+".templates", len(h.Templates), MaxTemplates) {
		return
	}
	for i := range h.Templates {
		t, f := &h.Templates[i], index(field+".templates", i)
		if t.GenerateName != "" && !isDNSSubdomain(t.GenerateName) {
			c.fail(f+".generateName", t.GenerateName, "must be a part of a name: lower-case letters, digits, inner dashes and dots")
		}
		c.prefixes(f+".interfaceCIDRs", t.InterfaceCIDRs)
		if utf8.RuneCountInString(t.InterfacePattern) > MaxPattern {
			c.fail(f+".interfacePattern", t.InterfacePattern, fmt.Sprintf("must have at most %d characters", MaxPattern))
		} else if _, err := regexp.Compile(t.InterfacePattern); err != nil {
			c.fail(f+".interfacePattern", t.InterfacePattern, "must be a regular expression of Go: "+err.Error())
		}
		c.labels(f+".labels", t.Labels)
		c.annotations(f+".annotations", t.Annotations)
		c.selector(f+".nodeSelector", t.NodeSelector)
	}
}

// switched checks a switch; empty is allowed.
func (c *checker) switched(field, value string) { c.oneOf(field, value, "Enabled", "Disabled") }

// period checks an interval; nil is allowed.
func (c *checker) period(field string, d *metav1.Duration) {
	if d != nil && d.Duration < 0 {
		c.fail(field, d.Duration, "must not be negative")
	}
}

func (c *checker) nodeStatus(s *CalicoNodeStatusSpec) {
	if s.Node == "" {
		c.fail("spec.node", nil, "must be set")
	} else if !isDNSSubdomain(s.Node) {
		c.fail("spec.node", s.Node, "must be the name of a node: lower-case letters, digits, inner dashes and dots")
	}
	if len(s.Classes) == 0 {
		c.fail("spec.classes", nil, "must have an entry")
	}
	for i, class := range s.Classes {
		switch {
		case class != NodeStatusAgent && class != NodeStatusBGP && class != NodeStatusRoutes:
			c.fail(index("spec.classes", i), string(class), "must be Agent, BGP or Routes")
		case slices.Contains(s.Classes[:i], class):
			c.fail(index("spec.classes", i), string(class), "must stand once")
		}
	}
	if p := s.UpdatePeriodSeconds; p == nil {
		c.fail("spec.updatePeriodSeconds", nil, fmt.Sprintf("must be set, 0 to %d", maxUpdatePeriod))
	} else if *p > maxUpdatePeriod {
		c.fail("spec.updatePeriodSeconds", *p, fmt.Sprintf("must be 0 to %d", maxUpdatePeriod))
	}
}
