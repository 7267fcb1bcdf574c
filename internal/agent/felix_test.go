package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
)

func describeFelix(c model.FelixConfig) string {
	out := fmt.Sprintf("prefixes=%v log=%s", c.InterfacePrefixes, c.LogSeverity)
	if c.DeviceRouteProtocol != nil {
		out += fmt.Sprintf(" proto=%d", *c.DeviceRouteProtocol)
	}
	if c.RemoveExternal != nil {
		out += fmt.Sprintf(" removeExternal=%t", *c.RemoveExternal)
	}
	if c.RouteRefresh != nil {
		out += fmt.Sprintf(" refresh=%v", *c.RouteRefresh)
	}
	if len(c.Unbuilt) > 0 {
		out += fmt.Sprintf(" unbuilt=%v", c.Unbuilt)
	}
	return out
}

func TestFelixFromEnv(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ env, want string }{
		"nothing":        {"PATH=/bin", "prefixes=[] log="},
		"fields":         {"FELIX_INTERFACEPREFIX=cali,tap FELIX_DEVICEROUTEPROTOCOL=80 FELIX_REMOVEEXTERNALROUTES=false FELIX_LOGSEVERITYSCREEN=debug", "prefixes=[cali tap] log=debug proto=80 removeExternal=false"},
		"seconds":        {"FELIX_ROUTEREFRESHINTERVAL=1.5", "prefixes=[] log= refresh=1.5s"},
		"duration":       {"FELIX_ROUTEREFRESHINTERVAL=2m", "prefixes=[] log= refresh=2m0s"},
		"not built":      {"FELIX_BPFENABLED=true FELIX_PROGRAMCLUSTERROUTES=Enabled", "prefixes=[] log= unbuilt=[bpfEnabled programClusterRoutes]"},
		"of the process": {"FELIX_ETCDADDR=x FELIX_TYPHAADDR=y", "prefixes=[] log="},
		"empty":          {"FELIX_DEVICEROUTEPROTOCOL=", "prefixes=[] log="},
	} {
		got, ignored, err := FelixFromEnv(strings.Fields(tt.env))
		if err != nil || describeFelix(got) != tt.want {
			t.Errorf("%s: got %s, %v; want %s", name, describeFelix(got), err, tt.want)
		}
		if name == "of the process" && len(ignored) != 2 {
			t.Errorf("%s: ignored %v, want both", name, ignored)
		}
	}
	for _, bad := range []string{"FELIX_DEVICEROUTEPROTOCOL=many", "FELIX_REMOVEEXTERNALROUTES=perhaps", "FELIX_ROUTEREFRESHINTERVAL=soon", "FELIX_FAILSAFEINBOUNDHOSTPORTS=ssh", "FELIX_FAILSAFEOUTBOUNDHOSTPORTS=tcp:22,"} {
		_, _, err := FelixFromEnv([]string{bad})
		name, value, _ := strings.Cut(bad, "=")
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), value) {
			t.Errorf("%s: got %v, want an error that names both", bad, err)
		}
	}
}

// TestTunnelsFromEnv: the names and forms of Calico's variables about tunnels and NAT.
func TestTunnelsFromEnv(t *testing.T) {
	t.Parallel()
	c, ignored, err := FelixFromEnv([]string{
		"FELIX_IPINIPENABLED=true", "FELIX_IPINIPMTU=1440", "FELIX_VXLANENABLED=false", "FELIX_VXLANMTU=1410", "FELIX_VXLANMTUV6=1390", "FELIX_VXLANVNI=7",
		"FELIX_MTUIFACEPATTERN=^(a|b)$", "FELIX_REQUIREMTUFILE=true", "FELIX_FEATUREDETECTOVERRIDE=ChecksumOffloadBroken=true",
		"FELIX_EXTERNALNODESCIDRLIST=10.0.0.1,10.1.0.0/16", "FELIX_ROUTETABLERANGES=1-100,200-250",
		"FELIX_WIREGUARDENABLED=true", "FELIX_WIREGUARDPERSISTENTKEEPALIVE=25", "FELIX_WIREGUARDLISTENINGPORT=1234",
		"FELIX_NATPORTRANGE=32768:65535", "FELIX_NATOUTGOINGADDRESS=10.0.0.9", "FELIX_IPTABLESNATOUTGOINGINTERFACEFILTER=eth+",
	})
	if err != nil || len(ignored)+len(c.Unbuilt) != 0 {
		t.Fatalf("%v, ignored %v, without effect %v", err, ignored, c.Unbuilt)
	}
	u := c.Tunnel
	got := fmt.Sprintf("%t %d %t %d %d %d %s %t %t %v %v %t %v %d %+v", *u.IPIP, *u.IPIPMTU, *u.VXLAN, *u.VXLANMTU, *u.VXLANMTUV6, *u.VNI, u.MTUPattern, *u.RequireMTUFile,
		*u.ChecksumBroken, u.ExternalNodes, u.Tables, *u.WireGuard, *u.WireGuardKeepalive, *u.WireGuardPort, c.NAT)
	const want = "true 1440 false 1410 1390 7 ^(a|b)$ true true [10.0.0.1/32 10.1.0.0/16] [{1 100} {200 250}] true 25s 1234 {FirstPort:32768 LastPort:65535 Addr:10.0.0.9 ExcludeHosts:<nil> Link:eth+ FloatingIPs:false}"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if c, _, err := FelixFromEnv([]string{"FELIX_EXTERNALNODESCIDRLIST=none", "FELIX_ROUTETABLERANGE=7-9"}); err != nil || c.Tunnel.ExternalNodes == nil || len(c.Tunnel.ExternalNodes) != 0 || fmt.Sprint(c.Tunnel.Tables) != "[{7 9}]" {
		t.Errorf("got %+v, %v", c.Tunnel, err)
	}
	for _, bad := range []string{
		"FELIX_IPINIPMTU=70000", "FELIX_EXTERNALNODESCIDRLIST=10.0.0.1,nonsense", "FELIX_ROUTETABLERANGES=1-2,x", "FELIX_NATPORTRANGE=9:1",
		"FELIX_MTUIFACEPATTERN=(", "FELIX_NATOUTGOINGADDRESS=fd00::1", "FELIX_WIREGUARDINTERFACENAME=a/b", "FELIX_NATOUTGOINGEXCLUSIONS=Some",
		"FELIX_IPTABLESNATOUTGOINGINTERFACEFILTER=e+th",
	} {
		_, _, err := FelixFromEnv([]string{bad})
		_, value, _ := strings.Cut(bad, "=")
		if value = value[strings.LastIndexByte(value, ',')+1:]; err == nil || !strings.Contains(err.Error(), value) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v; want one line that has the value", bad, err)
		}
	}
}

// TestPortsFromEnv reads failsafe ports as Calico's manifests have them, and as JSON.
func TestPortsFromEnv(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"none":                 "[]",
		"22":                   "[{6 22 invalid Prefix}]",
		"tcp:22, UDP:68":       "[{6 22 invalid Prefix} {17 68 invalid Prefix}]",
		"tcp:10.0.0.0/8:22":    "[{6 22 10.0.0.0/8}]",
		"tcp:22:10.0.0.0/8":    "[{6 22 10.0.0.0/8}]",
		"sctp:[fd00::/8]:22":   "[{132 22 fd00::/8}]",
		"udp:22:[fd00::/8],23": "[{17 22 fd00::/8} {6 23 invalid Prefix}]",
		"[]":                   "[]",
		`[ {"port": 22} ]`:     "[{6 22 invalid Prefix}]",
		`[{"protocol":"udp","port":7,"net":"10.0.0.0/8"}]`: "[{17 7 10.0.0.0/8}]",
	} {
		c, _, err := FelixFromEnv([]string{"FELIX_FAILSAFEINBOUNDHOSTPORTS=" + text})
		if got := fmt.Sprint(c.Filter.FailsafeIn); err != nil || got != want || c.Filter.FailsafeIn == nil {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestFelixFromFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "felix.cfg")
	if c, _, err := FelixFromFile(path); err != nil || len(c.InterfacePrefixes) != 0 {
		t.Fatalf("no file: %+v, %v", c, err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[global]\n# a comment\nInterfacePrefix = tap\n\nDatastoreType=etcdv3\n")
	c, ignored, err := FelixFromFile(path)
	if err != nil || describeFelix(c) != "prefixes=[tap] log=" || len(ignored) != 1 {
		t.Fatalf("got %s, %v, %v", describeFelix(c), ignored, err)
	}
	write("[global]\nnonsense\n")
	if _, _, err := FelixFromFile(path); err == nil || !strings.Contains(err.Error(), "felix.cfg:2:") {
		t.Fatalf("got %v, want the line", err)
	}
}

// TestUnknownSettings: a variable that is no setting is named, with the one that was meant.
func TestUnknownSettings(t *testing.T) {
	t.Parallel()
	_, ignored, err := FelixFromEnv([]string{"FELIX_INTERFACEPREFX=tap", "FELIX_ETCDADDR=x", "FELIX_LOGSEVERITYSCREEN=Info"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range unknownSettings(append(ignored, "wireguardMTUU")) {
		got = append(got, p.String())
	}
	want := []string{
		"FELIX_ETCDADDR: no such setting in this version: without effect",
		"FELIX_INTERFACEPREFX: no such setting in this version: without effect: did you mean FELIX_INTERFACEPREFIX?",
		"wireguardMTUU: no such setting in this version: without effect: did you mean wireguardMTU?",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
