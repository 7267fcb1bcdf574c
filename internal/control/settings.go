package control

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// The controllers, by the names that ENABLED_CONTROLLERS has for them.
const (
	Policy           = "policy"
	Namespace        = "namespace"
	ServiceAccount   = "serviceaccount"
	WorkloadEndpoint = "workloadendpoint"
	Node             = "node"
	LoadBalancer     = "loadbalancer"
)

// copying are the controllers that copy from Kubernetes: with etcd as datastore only.
func copying() []string { return []string{Policy, Namespace, ServiceAccount, WorkloadEndpoint} }

func allControllers() []string { return append(copying(), Node, LoadBalancer) }

// Env is the settings that the environment gives: they win over the stored
// KubeControllersConfiguration. The zero Env changes nothing.
type Env struct {
	logLevel, health, syncLabels, autoHostEndpoints string
	enabled                                         []string // nil: not said
	period, compaction                              *time.Duration
	workers                                         map[string]int
	vars                                            map[string]string
}

// Share is how much may be removed at once where WEFT_MAX_RELEASE_SHARE does not say.
const Share = 0.2

// EnvFrom reads LOG_LEVEL, RECONCILER_PERIOD, ENABLED_CONTROLLERS, COMPACTION_PERIOD,
// HEALTH_ENABLED, SYNC_NODE_LABELS, AUTO_HOST_ENDPOINTS and *_WORKERS, as Calico's
// kube-controllers does. lookup returns a variable's value, "" if it is not set. The
// error names the variable, its value and what is allowed.
func EnvFrom(lookup func(string) string) (Env, error) {
	e := Env{workers: map[string]int{}, vars: map[string]string{}}
	get := func(name string) string {
		v := lookup(name)
		if v != "" {
			e.vars[name] = v
		}
		return v
	}
	e.logLevel = get("LOG_LEVEL")
	var err error
	if e.enabled, err = enabled(get("ENABLED_CONTROLLERS")); err != nil {
		return Env{}, err
	}
	for name, to := range map[string]**time.Duration{"RECONCILER_PERIOD": &e.period, "COMPACTION_PERIOD": &e.compaction} {
		if *to, err = duration(name, get(name)); err != nil {
			return Env{}, err
		}
	}
	for name, to := range map[string]*string{
		"HEALTH_ENABLED": &e.health, "SYNC_NODE_LABELS": &e.syncLabels, "AUTO_HOST_ENDPOINTS": &e.autoHostEndpoints,
	} {
		if *to, err = enabledOr(name, get(name)); err != nil {
			return Env{}, err
		}
	}
	for name, variable := range map[string]string{
		Policy: "POLICY_WORKERS", Namespace: "PROFILE_WORKERS", ServiceAccount: "PROFILE_WORKERS",
		WorkloadEndpoint: "WORKLOAD_ENDPOINT_WORKERS", Node: "NODE_WORKERS",
	} {
		text := get(variable)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 64 {
			return Env{}, fmt.Errorf("%s: %q: must be 1 to 64", variable, text)
		}
		e.workers[name] = n
	}
	return e, nil
}

func enabled(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	var out []string
	for name := range strings.SplitSeq(text, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(allControllers(), name) {
			return nil, fmt.Errorf("ENABLED_CONTROLLERS: %q: must be some of %s, parted by commas", name, strings.Join(allControllers(), ","))
		}
		out = append(out, name)
	}
	return out, nil
}

func duration(name, text string) (*time.Duration, error) {
	if text == "" {
		return nil, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return nil, fmt.Errorf("%s: %q: must be a duration such as 5m, 0 for never", name, text)
	}
	return &d, nil
}

// enabledOr reads a switch: Enabled or Disabled; empty: not said.
func enabledOr(name, text string) (string, error) {
	switch strings.ToLower(text) {
	case "":
		return "", nil
	case "true", "enabled":
		return "Enabled", nil
	case "false", "disabled":
		return "Disabled", nil
	}
	return "", fmt.Errorf("%s: %q: must be enabled or disabled", name, text)
}

// ShareFrom reads WEFT_MAX_RELEASE_SHARE.
func ShareFrom(text string) (float64, error) {
	if text == "" {
		return Share, nil
	}
	share, err := strconv.ParseFloat(text, 64)
	if err != nil || !(share >= 0 && share <= 1) {
		return 0, fmt.Errorf("WEFT_MAX_RELEASE_SHARE: %q: must be 0 to 1, such as 0.2", text)
	}
	return share, nil
}

// Running is the settings in force: spec with what the environment says in its place.
// spec is not changed.
func (e Env) Running(spec v3.KubeControllersConfigurationSpec) v3.KubeControllersConfigurationSpec {
	if e.logLevel != "" {
		spec.LogSeverityScreen = e.logLevel
	}
	if e.health != "" {
		spec.HealthChecks = e.health
	}
	if e.compaction != nil {
		spec.EtcdV3CompactionPeriod = &metav1.Duration{Duration: *e.compaction}
	}
	c := spec.Controllers
	if e.enabled != nil {
		c = chosen(c, e.enabled)
	}
	for _, p := range []**v3.ControllerConfig{&c.Policy, &c.Namespace, &c.ServiceAccount, &c.WorkloadEndpoint} {
		if *p != nil && e.period != nil {
			*p = &v3.ControllerConfig{ReconcilerPeriod: &metav1.Duration{Duration: *e.period}}
		}
	}
	if c.Node != nil {
		c.Node = e.node(*c.Node)
	}
	spec.Controllers = c
	return spec
}

func (e Env) node(n v3.NodeControllerConfig) *v3.NodeControllerConfig {
	if e.period != nil {
		n.ReconcilerPeriod = &metav1.Duration{Duration: *e.period}
	}
	if e.syncLabels != "" {
		n.SyncLabels = e.syncLabels
	}
	if e.autoHostEndpoints != "" {
		h := v3.AutoHostEndpointConfig{}
		if n.HostEndpoint != nil {
			h = *n.HostEndpoint
		}
		h.AutoCreate = e.autoHostEndpoints
		n.HostEndpoint = &h
	}
	return &n
}

// chosen is c with the named controllers, and no others.
func chosen(c v3.ControllersConfig, names []string) v3.ControllersConfig {
	out := v3.ControllersConfig{Migration: c.Migration}
	for _, name := range names {
		switch name {
		case Policy:
			out.Policy = or(c.Policy)
		case Namespace:
			out.Namespace = or(c.Namespace)
		case ServiceAccount:
			out.ServiceAccount = or(c.ServiceAccount)
		case WorkloadEndpoint:
			out.WorkloadEndpoint = or(c.WorkloadEndpoint)
		case Node:
			out.Node = or(c.Node)
		case LoadBalancer:
			out.LoadBalancer = or(c.LoadBalancer)
		}
	}
	return out
}

// or is p, or a pointer to the zero value.
func or[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}

// defaultConfiguration is what is created where there is no configuration.
func defaultConfiguration(etcd bool) *v3.KubeControllersConfiguration {
	o, _ := v3.New(string(model.KindKubeControllersConfiguration))
	c := o.(*v3.KubeControllersConfiguration)
	c.Name = "default"
	names := []string{Node, LoadBalancer}
	if etcd {
		names = allControllers()
	}
	c.Spec.Controllers = chosen(v3.ControllersConfig{}, names)
	v3.Default(c)
	return c
}

// settings are those in force.
type settings struct {
	model.ControllersConfig
	running v3.KubeControllersConfigurationSpec
	vars    map[string]string
	workers map[string]int
}

// settingsFor parses what the environment and the stored configuration say together.
func settingsFor(e Env, stored *v3.KubeControllersConfiguration) (settings, error) {
	c := *stored
	c.Spec = e.Running(stored.Spec)
	v3.Default(&c)
	if err := v3.Validate(&c); err != nil {
		return settings{}, err
	}
	v, err := model.Parse(&c)
	if err != nil {
		return settings{}, err
	}
	return settings{v.(model.ControllersConfig), c.Spec, maps.Clone(e.vars), e.workers}, nil
}

// periodOf is how often the controller compares everything; 0: never.
func (s settings) periodOf(name string) time.Duration {
	c := map[string]*model.Controller{
		Policy: s.Policy, Namespace: s.Namespace, ServiceAccount: s.ServiceAccount, WorkloadEndpoint: s.WorkloadEndpoint,
	}[name]
	switch {
	case c != nil:
		return c.Period
	case name == Node && s.Node != nil:
		return s.Node.Period
	}
	return 5 * time.Minute
}

// runs lists the controllers that are to run.
func (s settings) runs() []string {
	var out []string
	for name, on := range map[string]bool{
		Policy: s.Policy != nil, Namespace: s.Namespace != nil, ServiceAccount: s.ServiceAccount != nil,
		WorkloadEndpoint: s.WorkloadEndpoint != nil, Node: s.Node != nil, LoadBalancer: s.LoadBalancer != nil,
	} {
		if on {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
