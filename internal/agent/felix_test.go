package agent

import (
	"fmt"
	"os"
	"path/filepath"
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
		"not built":      {"FELIX_WIREGUARDENABLED=true FELIX_IPIPMTU=1400", "prefixes=[] log= unbuilt=[ipipMTU wireguardEnabled]"},
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
