package model_test

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

func parseControllers(t *testing.T, spec string) (model.ControllersConfig, error) {
	t.Helper()
	o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\nkind: KubeControllersConfiguration\nmetadata: {name: default}\nspec: " + spec))
	if err != nil {
		t.Fatal(err)
	}
	v, err := model.Parse(o)
	if err != nil {
		return model.ControllersConfig{}, err
	}
	return v.(model.ControllersConfig), nil
}

func TestControllersConfig(t *testing.T) {
	t.Parallel()
	const five, ten = 5 * time.Minute, 10 * time.Minute
	plain := model.ControllersConfig{Name: "default", HealthChecks: true, CompactionPeriod: ten, MetricsPort: 9094}
	for spec, change := range map[string]func(*model.ControllersConfig){
		"{controllers: {}}": func(*model.ControllersConfig) {},
		"{healthChecks: Disabled, prometheusMetricsPort: 0, etcdV3CompactionPeriod: 0s, debugProfilePort: 6060, logSeverityScreen: debug, controllers: {}}": func(c *model.ControllersConfig) {
			*c = model.ControllersConfig{Name: "default", ProfilePort: 6060, LogSeverity: "debug"}
		},
		"{controllers: {node: {}, policy: {}, namespace: {reconcilerPeriod: 0s}}}": func(c *model.ControllersConfig) {
			c.Node = &model.NodeController{Period: five, SyncLabels: true, LeakGrace: 15 * time.Minute}
			c.Policy, c.Namespace = &model.Controller{Period: five}, &model.Controller{}
		},
		"{controllers: {node: {leakGracePeriod: 0s, syncLabels: Disabled, hostEndpoint: {autoCreate: Enabled}}}}": func(c *model.ControllersConfig) {
			c.Node = &model.NodeController{Period: five, HostEndpoints: model.HostEndpointMaker{Enabled: true, Default: true}}
		},
		"{controllers: {loadBalancer: {assignIPs: RequestedServicesOnly}, migration: {policyNameMigrator: Disabled}}}": func(c *model.ControllersConfig) {
			c.LoadBalancer = &model.LoadBalancerController{RequestedOnly: true}
		},
		"{controllers: {loadBalancer: {}, migration: {}}}": func(c *model.ControllersConfig) {
			c.LoadBalancer, c.MigrateNames = &model.LoadBalancerController{}, true
		},
	} {
		want := plain
		change(&want)
		if got, err := parseControllers(t, spec); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", spec, got, err, want)
		}
	}
}

func TestHostEndpointTemplate(t *testing.T) {
	t.Parallel()
	got, err := parseControllers(t, `{controllers: {node: {hostEndpoint: {createDefaultHostEndpoint: Disabled, templates: [
		{generateName: ext, interfaceCIDRs: [10.0.0.0/8, "fd00::/8"], interfacePattern: eth.*, labels: {a: b}, annotations: {c: d}, nodeSelector: has(x)}]}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	made := got.Node.HostEndpoints
	if made.Enabled || made.Default || len(made.Templates) != 1 {
		t.Fatalf("got %+v", made)
	}
	tpl := made.Templates[0]
	if tpl.GenerateName != "ext" || tpl.Labels["a"] != "b" || tpl.Annotations["c"] != "d" ||
		!reflect.DeepEqual(tpl.CIDRs, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}) ||
		!tpl.Interfaces.MatchString("eth0") || tpl.NodeSelector.String() != "has(x)" {
		t.Errorf("got %+v", tpl)
	}
}

func TestControllersRefused(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"{controllers: {node: {hostEndpoint: {templates: [{interfacePattern: '('}]}}}}": "kubecontrollersconfiguration default: spec.controllers.node.hostEndpoint.templates[0].interfacePattern: \"(\": must be a regular expression of Go: error parsing regexp: missing closing ): `(`",
		"{controllers: {node: {reconcilerPeriod: -1s}}}":                                "kubecontrollersconfiguration default: spec.controllers.node.reconcilerPeriod: -1s: must not be negative",
	} {
		if _, err := parseControllers(t, spec); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", spec, err, want)
		}
	}
}

// With etcd the controllers copy what Kubernetes holds; else there is nothing to copy.
func TestDefaultControllers(t *testing.T) {
	t.Parallel()
	for _, etcd := range []bool{true, false} {
		c := model.DefaultControllers(etcd)
		if copies := c.Policy != nil && c.WorkloadEndpoint != nil && c.ServiceAccount != nil && c.Namespace != nil; copies != etcd {
			t.Errorf("etcd %v: got %+v", etcd, c)
		}
		if c.Node == nil || c.LoadBalancer == nil || c.Node.LeakGrace != 15*time.Minute || c.Node.HostEndpoints.Enabled || c.MigrateNames {
			t.Errorf("etcd %v: got %+v", etcd, c)
		}
	}
}
