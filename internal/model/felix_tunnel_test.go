package model_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

func felix(t *testing.T, spec string) (model.FelixConfig, error) {
	t.Helper()
	v, err := parse(t, "FelixConfiguration", "default", spec)
	c, _ := v.(model.FelixConfig)
	return c, err
}

// everyTunnelField sets each field about tunnels and NAT that weft acts upon.
const everyTunnelField = `{ipipEnabled: true, vxlanEnabled: false, ipipMTU: 1440, vxlanMTU: 1410, vxlanMTUV6: 1390, vxlanVNI: 0,
 mtuIfacePattern: '^eth', requireMTUFile: true, featureDetectOverride: 'ChecksumOffloadBroken=false', externalNodesList: [10.0.0.1, 10.1.2.3/16],
 routeTableRanges: [{min: 1, max: 9}, {min: 20, max: 30}], wireguardEnabled: true, wireguardEnabledV6: true, wireguardHostEncryptionEnabled: true,
 wireguardListeningPort: 1, wireguardListeningPortV6: 2, wireguardInterfaceName: wg4, wireguardInterfaceNameV6: wg6, wireguardMTU: 1400, wireguardMTUV6: 1380,
 wireguardRoutingRulePriority: 5, wireguardKeepAlive: 25s, wireguardThreadingEnabled: true, wireguardCleartext: Drop,
 natPortRange: '1000:2000', natOutgoingAddress: 10.9.9.9, natOutgoingExclusions: IPPoolsAndHostIPs, iptablesNATOutgoingInterfaceFilter: eth0}`

func TestTunnelFields(t *testing.T) {
	t.Parallel()
	c, err := felix(t, everyTunnelField)
	if err != nil || len(c.Unbuilt) != 0 {
		t.Fatalf("%v, without effect %v", err, c.Unbuilt)
	}
	u := c.Tunnel
	got := fmt.Sprintf("%t %t %d %d %d %d %s %t %t %v %v | %t %t %t %d %d %s %s %d %d %d %v %t %t | %d %d %v %t %s", *u.IPIP, *u.VXLAN, *u.IPIPMTU, *u.VXLANMTU, *u.VXLANMTUV6, *u.VNI, u.MTUPattern, *u.RequireMTUFile, *u.ChecksumBroken, u.ExternalNodes, u.Tables,
		*u.WireGuard, *u.WireGuardV6, *u.WireGuardHosts, *u.WireGuardPort, *u.WireGuardPortV6, u.WireGuardLink, u.WireGuardLinkV6, *u.WireGuardMTU, *u.WireGuardMTUV6, *u.WireGuardPriority, *u.WireGuardKeepalive, *u.WireGuardThreaded, *u.WireGuardStrict,
		c.NAT.FirstPort, c.NAT.LastPort, c.NAT.Addr, *c.NAT.ExcludeHosts, c.NAT.Link)
	const want = "true false 1440 1410 1390 0 ^eth true false [10.0.0.1/32 10.1.0.0/16] [{1 9} {20 30}] | true true true 1 2 wg4 wg6 1400 1380 5 25s true true | 1000 2000 10.9.9.9 true eth0"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	none, err := felix(t, "{}")
	if err != nil || !reflect.DeepEqual(none.Tunnel, model.TunnelConfig{}) || none.NAT != (model.NATConfig{}) {
		t.Errorf("of an empty object: %+v, %+v, %v", none.Tunnel, none.NAT, err)
	}
}

// TestOver: every field of the stronger counts, and every field of the weaker where the
// stronger says nothing, whatever fields there will be.
func TestOver(t *testing.T) {
	t.Parallel()
	c, err := felix(t, everyTunnelField)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := 0, reflect.ValueOf(c.Tunnel); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not set by the object of this test", v.Type().Field(i).Name)
		}
	}
	if got := (model.TunnelConfig{}).Over(c.Tunnel); !reflect.DeepEqual(got, c.Tunnel) {
		t.Errorf("nothing over all: %+v", got)
	}
	if got := (model.NATConfig{}).Over(c.NAT); got != c.NAT {
		t.Errorf("nothing over all: %+v", got)
	}
	other, err := felix(t, "{ipipEnabled: false, ipipMTU: 1, externalNodesList: [], wireguardInterfaceName: x, natPortRange: 7, natOutgoingExclusions: IPPoolsOnly}")
	if err != nil {
		t.Fatal(err)
	}
	u, n := other.Tunnel.Over(c.Tunnel), other.NAT.Over(c.NAT)
	if got, want := fmt.Sprintln(*u.IPIP, *u.IPIPMTU, len(u.ExternalNodes), u.WireGuardLink, *u.VXLANMTU, n.FirstPort, n.LastPort, *n.ExcludeHosts, n.Link), "false 1 0 x 1410 7 7 false eth0\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTunnelFieldsWithoutEffect(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"{featureDetectOverride: 'SNATFullyRandom=true,ChecksumOffloadBroken=true'}":        "[featureDetectOverride]",
		"{featureDetectOverride: 'ChecksumOffloadBroken='}":                                 "[]",
		"{programClusterRoutes: Enabled}":                                                   "[programClusterRoutes]",
		"{wireguardListeningPort: 0, prometheusMetricsCAFile: /ca}":                         "[prometheusMetricsCAFile]",
		"{routeTableRange: {min: 3, max: 4}, featureDetectOverride: 'IPIPDeviceIsL3=true'}": "[featureDetectOverride]",
	} {
		if c, err := felix(t, spec); err != nil || fmt.Sprint(c.Unbuilt) != want {
			t.Errorf("%s: %v, %v; want %s", spec, c.Unbuilt, err, want)
		}
	}
	if c, err := felix(t, "{wireguardListeningPort: 0}"); err != nil || c.Tunnel.WireGuardPort != nil {
		t.Errorf("port 0: %v, %v; want the default", c.Tunnel.WireGuardPort, err)
	}
}

func TestTunnelFieldsRefused(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"{vxlanVNI: 16777216}":                                   "spec.vxlanVNI",
		"{ipipMTU: -1}":                                          "spec.ipipMTU",
		"{mtuIfacePattern: '('}":                                 "spec.mtuIfacePattern",
		"{externalNodesList: [10.0.0.1, x]}":                     "spec.externalNodesList[1]",
		"{natOutgoingAddress: 'fd00::1'}":                        "spec.natOutgoingAddress",
		"{natPortRange: 0}":                                      "spec.natPortRange",
		"{natOutgoingExclusions: All}":                           "spec.natOutgoingExclusions",
		"{iptablesNATOutgoingInterfaceFilter: 'e+th'}":           "spec.iptablesNATOutgoingInterfaceFilter",
		"{iptablesNATOutgoingInterfaceFilter: a23456789abcdef0}": "spec.iptablesNATOutgoingInterfaceFilter",
		"{wireguardInterfaceName: 'a b'}":                        "spec.wireguardInterfaceName",
		"{routeTableRanges: [{min: 5, max: 4}]}":                 "spec.routeTableRanges[0]",
		"{wireguardKeepAlive: -1s}":                              "spec.wireguardKeepAlive",
	} {
		if _, err := felix(t, spec); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v; want one line with %s", spec, err, want)
		}
	}
}

// TestStrictKeepsEncryption: a mistake elsewhere in the object must not let packets out
// in clear.
func TestStrictKeepsEncryption(t *testing.T) {
	t.Parallel()
	on, vni := true, 1<<24
	o := &v3.FelixConfiguration{Spec: v3.FelixConfigurationSpec{WireguardEnabled: &on, WireguardEnabledV6: &on, WireguardHostEncryptionEnabled: &on, VXLANVNI: &vni}}
	o.Name = "default"
	c, ok := model.Strict(o).(model.FelixConfig)
	if u := c.Tunnel; !ok || u.WireGuard == nil || u.WireGuardV6 == nil || u.WireGuardHosts == nil || u.VNI != nil {
		t.Errorf("got %+v", c.Tunnel)
	}
}

func TestNodeTunnels(t *testing.T) {
	t.Parallel()
	key := "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
	o := &v3.Node{}
	o.Name, o.Annotations = "node-a", map[string]string{model.MTUAnnotation: "9001"}
	o.Spec = v3.NodeSpec{
		IPv4VXLANTunnelAddr: "10.0.0.1", IPv6VXLANTunnelAddr: "fd00::1", VXLANTunnelMACAddr: "66-AB-00-00-00-01", VXLANTunnelMACAddrV6: "66:ab:00:00:00:02",
		Wireguard: &v3.NodeWireguardSpec{InterfaceIPv4Address: "10.0.0.2", InterfaceIPv6Address: "fd00::2"},
	}
	o.Status.WireguardPublicKey, o.Status.WireguardPublicKeyV6 = key, key
	v, err := model.Parse(o)
	if err != nil {
		t.Fatal(err)
	}
	n := v.(model.Node)
	got := fmt.Sprintln(n.VXLANTunnel, n.VXLANTunnelV6, n.VXLANMAC, n.VXLANMACV6, n.WireGuardAddr, n.WireGuardAddrV6, n.MTU, n.WireGuardKey[31], n.WireGuardKeyV6[0])
	if want := "10.0.0.1 fd00::1 66:ab:00:00:00:01 66:ab:00:00:00:02 10.0.0.2 fd00::2 9001 32 1\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{"", "many", "-5", "70000"} {
		o.Annotations[model.MTUAnnotation] = bad
		if v, err := model.Parse(o); err != nil || v.(model.Node).MTU != 0 {
			t.Errorf("MTU %q: %v, %v; want a node whose MTU is not known", bad, v, err)
		}
	}
	o.Status.WireguardPublicKey = "AAAA"
	if _, err := model.Parse(o); err == nil || !strings.Contains(err.Error(), "status.wireguardPublicKey") {
		t.Errorf("a short key: %v", err)
	}
}

// TestVTEPMAC: `printf node-a | sha1sum`.
func TestVTEPMAC(t *testing.T) {
	t.Parallel()
	if got, want := model.VTEPMAC("node-a", false)+" "+model.VTEPMAC("node-a", true), "66:07:02:c1:cc:60 66:d4:d5:51:3d:42"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := model.VTEPMAC("b", false)+" "+model.VTEPMAC("b", true), "66:e9:d7:1f:5e:e7 66:05:90:f3:54:e9"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
