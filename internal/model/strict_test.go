package model_test

import (
	"fmt"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// TestStrictPolicy: a policy with a mistake denies what it selects; one that selects
// nobody knows whom is nothing.
func TestStrictPolicy(t *testing.T) {
	t.Parallel()
	badRule := func(object string) string {
		return object + "[{action: Allow}, {action: Allow, source: {selector: 'x ='}}]"
	}
	for name, tt := range map[string]struct{ kind, spec, want string }{
		"a bad rule": {
			"GlobalNetworkPolicy", "{tier: t, order: 7, selector: has(x), " + badRule("ingress: ") + "}",
			lines("t 7 has(x)", "ingress spec Deny"),
		},
		"by types": {
			"GlobalNetworkPolicy", "{selector: has(x), types: [Ingress, Egress], " + badRule("ingress: ") + "}",
			lines("default +Inf has(x)", "ingress spec Deny", "egress spec Deny"),
		},
		"by rules": {
			"GlobalNetworkPolicy", "{selector: has(x), " + badRule("egress: ") + "}",
			lines("default +Inf has(x)", "egress spec Deny"),
		},
		"a bad type": {
			"GlobalNetworkPolicy", "{types: [Sideways]}",
			lines("default +Inf all()", "ingress spec Deny", "egress spec Deny"),
		},
		"of a namespace": {
			"NetworkPolicy", "{" + badRule("ingress: ") + "}",
			lines(`default +Inf projectcalico.org/namespace == "default"`, "ingress spec Deny"),
		},
		"preDNAT and doNotTrack": {
			"GlobalNetworkPolicy", "{preDNAT: true, doNotTrack: true, applyOnForward: true, types: [Ingress, Egress]}",
			lines("default +Inf preDNAT forward all()", "ingress spec Deny"),
		},
		"a bad selector":      {"GlobalNetworkPolicy", "{selector: 'has('}", ""},
		"a bad namespace":     {"GlobalNetworkPolicy", "{namespaceSelector: 'has('}", ""},
		"a bad staged policy": {"StagedGlobalNetworkPolicy", "{" + badRule("ingress: ") + "}", ""},
	} {
		o, err := decodeIn("", tt.kind, "p", tt.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v, err := model.Parse(o); err == nil {
			t.Errorf("%s: parsed as %+v", name, v)
		}
		got := ""
		if v := model.Strict(o); v != nil {
			got = policyText(v.(model.Policy))
			if k, err := model.KeyOf(o); err != nil || k != v.Key() {
				t.Errorf("%s: key %v of the object, %v of the value", name, k, v.Key())
			}
		}
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
	}
}

// TestStrictOthers: what can be read of the rest stays.
func TestStrictOthers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ kind, spec, want string }{
		"network set":              {"GlobalNetworkSet", "{nets: [10.0.0.0/8, nonsense, 'fd00::1']}", "{ x [10.0.0.0/8 fd00::1/128] map[] []}"},
		"host endpoint":            {"HostEndpoint", "{node: n1, interfaceName: eth0, profiles: [p], expectedIPs: [nonsense, 10.0.0.1], ports: [{name: a, protocol: GRE, port: 1}, {name: b, protocol: TCP, port: 2}]}", "{x n1 eth0 [10.0.0.1] map[] [p] [{b 6 2}]}"},
		"host endpoint of no node": {"HostEndpoint", "{interfaceName: eth0}", "<nil>"},
		"host endpoint nowhere":    {"HostEndpoint", "{node: n1, expectedIPs: [nonsense]}", "<nil>"},
		"tier":                     {"Tier", "{order: 5, defaultAction: Allow}", "{x 5 Deny}"},
		"profile":                  {"Profile", "{labelsToApply: {a: b}, ingress: [{action: Allow}, {action: Accept}]}", "{x map[a:b] [] []}"},
	} {
		o, err := decodeIn("", tt.kind, "x", tt.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v, err := model.Parse(o); err == nil {
			t.Errorf("%s: parsed as %+v", name, v)
		}
		if got := fmt.Sprint(model.Strict(o)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
	}
}

func TestStrictEndpointSlice(t *testing.T) {
	t.Parallel()
	gre, low := "GRE", int32(0)
	o := &v3.KubernetesEndpointSlice{
		AddressType: "IPv4",
		Endpoints:   []v3.KubernetesEndpoint{{Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"nonsense", "10.0.0.2"}}},
		Ports:       []v3.KubernetesEndpointPort{{Protocol: &gre}, {Port: &low}, {}},
	}
	o.Name, o.Namespace = "s", "a"
	if v, err := model.Parse(o); err == nil {
		t.Errorf("parsed as %+v", v)
	}
	if got, want := fmt.Sprint(model.Strict(o)), "{a s { } [10.0.0.1 10.0.0.2] [{ 6 0}]}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestStrictFelixConfig: a mistake in the settings does not let interfaces out of
// policy's reach.
func TestStrictFelixConfig(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"{interfacePrefix: 'tap,a*,much-too-long-a-name,cali', ipipMTU: -5, routeRefreshInterval: -1s, failsafeInboundHostPorts: [], failsafeOutboundHostPorts: [{protocol: GRE, port: 1}]}": "[tap cali] true true",
		"{interfacePrefix: tap, nodeSelector: 'has('}": "nil",
	} {
		o, err := decodeIn("", "FelixConfiguration", "x", spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		if v, err := model.Parse(o); err == nil {
			t.Errorf("%s: parsed as %+v", spec, v)
		}
		got := "nil"
		if c, ok := model.Strict(o).(model.FelixConfig); ok {
			got = fmt.Sprint(c.InterfacePrefixes, c.Filter.FailsafeIn != nil, c.Filter.FailsafeOut == nil)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", spec, got, want)
		}
	}
}

// TestFilterConfig: what settings say, and that they say nothing where they do not.
func TestFilterConfig(t *testing.T) {
	t.Parallel()
	v, err := parse(t, "FelixConfiguration", "default", "{}")
	if err != nil {
		t.Fatal(err)
	}
	if c := v.(model.FelixConfig); len(c.Unbuilt) != 0 || fmt.Sprintf("%+v", c.Filter) != fmt.Sprintf("%+v", model.FilterConfig{}) || c.Filter.FailsafeIn != nil {
		t.Errorf("of nothing: %+v", c)
	}
	v, err = parse(t, "FelixConfiguration", "default", `{defaultEndpointToHostAction: ACCEPT, disableConntrackInvalidCheck: true,
		allowVXLANPacketsFromWorkloads: true, allowIPIPPacketsFromWorkloads: false, vxlanPort: 8472, chainInsertMode: append,
		nftablesFilterAllowAction: Return, nftablesMangleAllowAction: Accept, nftablesFilterDenyAction: reject, workloadSourceSpoofing: Any,
		logPrefix: x, logActionRateLimit: 10/minute, logActionRateLimitBurst: 3, nftablesRefreshInterval: 5s, ipv6Support: false,
		maxIpsetSize: 12, deniedConnections: Keep, logDefaultDeny: Enabled, failsafeInboundHostPorts: [{port: 22}, {protocol: UDP, port: 68, net: 10.0.0.1/8}], failsafeOutboundHostPorts: []}`)
	if err != nil {
		t.Fatal(err)
	}
	c := v.(model.FelixConfig)
	f := c.Filter
	got := fmt.Sprint(*f.ToHost, *f.KeepInvalid, *f.AllowVXLAN, *f.AllowIPIP, *f.VXLANPort, *f.Append, *f.FilterReturn, *f.MangleReturn,
		*f.Reject, *f.SpoofAny, " "+*f.LogPrefix, *f.LogRate, *f.LogBurst, *f.Refresh, *f.IPv6, *f.MaxSetSize, *f.KeepDenied, *f.LogDenied, f.FailsafeIn, f.FailsafeOut, f.FailsafeOut != nil, c.Unbuilt)
	if want := "Allow true true false 8472 true true false true true x{10 1m0s} 3 5s false 12 true true [{6 22 invalid Prefix} {17 68 10.0.0.0/8}] [] true []"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if in, out := fmt.Sprint(model.DefaultFailsafeIn()), fmt.Sprint(model.DefaultFailsafeOut()); len(model.DefaultFailsafeIn()) != 9 || len(model.DefaultFailsafeOut()) != 9 {
		t.Errorf("by default %s, %s", in, out)
	}
}
