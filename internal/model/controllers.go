package model

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/selector"
)

// The kinds that only controllers, sessions and reports are about.
const (
	KindBGPFilter                    Kind = "BGPFilter"
	KindCalicoNodeStatus             Kind = "CalicoNodeStatus"
	KindKubeControllersConfiguration Kind = "KubeControllersConfiguration"
)

// Periods of controllers whose configuration names none.
const (
	defaultReconcilerPeriod = 5 * time.Minute
	defaultCompactionPeriod = 10 * time.Minute
)

// ControllersConfig is the setting of the Kubernetes controllers (Name "default"). A
// controller that is nil does not run. Environment variables, which win over it, are
// not part of it; who has none stored uses [DefaultControllers].
type ControllersConfig struct {
	Name             string
	LogSeverity      string        // Trace, Debug, Info, Warning, Error or Fatal in any case; empty: Info
	HealthChecks     bool          // serve the health page
	CompactionPeriod time.Duration // how often etcd's history is cut; 0: never
	MetricsPort      uint16        // 0: no metrics
	ProfilePort      uint16        // 0: no profiles
	Node             *NodeController
	Policy           *Controller
	WorkloadEndpoint *Controller
	ServiceAccount   *Controller
	Namespace        *Controller
	LoadBalancer     *LoadBalancerController
	MigrateNames     bool // drop the tier from names of policies of older versions
}

// Key implements [Value].
func (c ControllersConfig) Key() Key {
	return Key{Kind: KindKubeControllersConfiguration, Name: c.Name}
}

// Controller is the setting of a controller that copies objects.
type Controller struct {
	Period time.Duration // between comparisons of everything; 0: never
}

// NodeController is the setting of the controller that cleans up after nodes.
type NodeController struct {
	Period        time.Duration // between comparisons of everything; 0: never
	SyncLabels    bool          // labels of nodes follow those of Kubernetes
	LeakGrace     time.Duration // how long an address may have no owner; 0: none is released
	HostEndpoints HostEndpointMaker
}

// HostEndpointMaker says which host endpoints are made of each node.
type HostEndpointMaker struct {
	Enabled   bool // false: none at all, and those made before go
	Default   bool // one for all interfaces of the node
	Templates []HostEndpointTemplate
}

// HostEndpointTemplate is the form of a host endpoint that is made of the nodes it
// selects.
type HostEndpointTemplate struct {
	GenerateName string             // tells templates apart in the endpoints' names
	CIDRs        []netip.Prefix     // which addresses of the node are the endpoint's; none: all
	Interfaces   *regexp.Regexp     // one endpoint for each interface with such a name; nil: one of no interface
	Labels       map[string]string  // beside those of the node; not to be changed
	Annotations  map[string]string  // not to be changed
	NodeSelector *selector.Selector // nil: all nodes
}

// LoadBalancerController is the setting of the controller that gives addresses to
// services.
type LoadBalancerController struct {
	RequestedOnly bool // only to services that ask by an annotation
}

// DefaultControllers is what holds where no configuration is stored. With etcd as
// datastore what Kubernetes holds is copied; where Kubernetes is the datastore there
// is nothing to copy.
func DefaultControllers(etcd bool) ControllersConfig {
	o := &v3.KubeControllersConfiguration{ObjectMeta: v3.ObjectMeta{Name: "default"}}
	of := &o.Spec.Controllers
	of.Node, of.LoadBalancer = &v3.NodeControllerConfig{}, &v3.LoadBalancerControllerConfig{}
	if etcd {
		of.Policy, of.WorkloadEndpoint = &v3.ControllerConfig{}, &v3.ControllerConfig{}
		of.ServiceAccount, of.Namespace = &v3.ControllerConfig{}, &v3.ControllerConfig{}
	}
	v3.Default(o)
	c, err := parseControllers(o)
	if err != nil {
		panic(fmt.Sprintf("model: controllers without settings: %v", err)) // has no text to parse
	}
	return c
}

func parseControllers(o *v3.KubeControllersConfiguration) (ControllersConfig, error) {
	s := &o.Spec
	c := ControllersConfig{
		Name: o.Name, LogSeverity: s.LogSeverityScreen, HealthChecks: s.HealthChecks != "Disabled",
		CompactionPeriod: period(s.EtcdV3CompactionPeriod, defaultCompactionPeriod),
		Policy:           controller(s.Controllers.Policy),
		WorkloadEndpoint: controller(s.Controllers.WorkloadEndpoint),
		ServiceAccount:   controller(s.Controllers.ServiceAccount),
		Namespace:        controller(s.Controllers.Namespace),
	}
	if p := s.PrometheusMetricsPort; p != nil {
		c.MetricsPort = uint16(*p)
	}
	if p := s.DebugProfilePort; p != nil {
		c.ProfilePort = uint16(*p)
	}
	if l := s.Controllers.LoadBalancer; l != nil {
		c.LoadBalancer = &LoadBalancerController{RequestedOnly: l.AssignIPs == "RequestedServicesOnly"}
	}
	if m := s.Controllers.Migration; m != nil {
		c.MigrateNames = m.PolicyNameMigrator != "Disabled"
	}
	n := s.Controllers.Node
	if n == nil {
		return c, nil
	}
	c.Node = &NodeController{
		Period: period(n.ReconcilerPeriod, defaultReconcilerPeriod), SyncLabels: n.SyncLabels != "Disabled",
		LeakGrace: period(n.LeakGracePeriod, 0),
	}
	var err error
	if n.HostEndpoint != nil {
		c.Node.HostEndpoints, err = parseHostEndpointMaker("spec.controllers.node.hostEndpoint", n.HostEndpoint)
	}
	return c, err
}

func parseHostEndpointMaker(field string, h *v3.AutoHostEndpointConfig) (HostEndpointMaker, error) {
	m := HostEndpointMaker{Enabled: h.AutoCreate == "Enabled", Default: h.CreateDefaultHostEndpoint != "Disabled"}
	var e first
	for i, t := range h.Templates {
		f := at(field+".templates", i)
		to := HostEndpointTemplate{
			GenerateName: t.GenerateName, Labels: maps.Clone(t.Labels), Annotations: maps.Clone(t.Annotations),
			NodeSelector: try(&e, sel, f+".nodeSelector", t.NodeSelector),
		}
		for k, text := range t.InterfaceCIDRs {
			to.CIDRs = append(to.CIDRs, try(&e, prefix, at(f+".interfaceCIDRs", k), text))
		}
		if t.InterfacePattern != "" {
			var err error
			if to.Interfaces, err = regexp.Compile(t.InterfacePattern); err != nil {
				e.fail("%s.interfacePattern: %q: must be a regular expression of Go: %w", f, t.InterfacePattern, err)
			}
		}
		m.Templates = append(m.Templates, to)
	}
	return m, e.err
}

// controller is nil for a controller that does not run.
func controller(c *v3.ControllerConfig) *Controller {
	if c == nil {
		return nil
	}
	return &Controller{Period: period(c.ReconcilerPeriod, defaultReconcilerPeriod)}
}

// period is d, or what holds where nothing is given.
func period(d *v3.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.Duration
}
