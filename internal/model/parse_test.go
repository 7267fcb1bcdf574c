package model_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// parse reads a manifest: kind, name, spec (in YAML's flow form).
func parse(t *testing.T, kind, name, spec string) (model.Value, error) {
	t.Helper()
	o, err := v3.Decode([]byte(fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec)))
	if err != nil {
		return nil, err
	}
	return model.Parse(o)
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, name, spec, want string }{
		{"IPPool", "p", "{cidr: 10.0.0.0/16}", "{Name:p CIDR:10.0.0.0/16 BlockBits:26 IPIP:Never VXLAN:Never NATOutgoing:false Disabled:false DisableBGPExport:false NodeSelector:all() NamespaceSelector:all() Uses:Workload, Tunnel Manual:false Terminating:false Created:0001-01-01 00:00:00 +0000 UTC}"},
		{"IPPool", "p", "{cidr: 'fd00::/64', assignmentMode: Manual, allowedUses: [Tunnel], nodeSelector: has(x)}", "{Name:p CIDR:fd00::/64 BlockBits:122 IPIP:Never VXLAN:Never NATOutgoing:false Disabled:false DisableBGPExport:false NodeSelector:has(x) NamespaceSelector:all() Uses:Tunnel Manual:true Terminating:false Created:0001-01-01 00:00:00 +0000 UTC}"},
		{"IPReservation", "r", "{reservedCIDRs: [10.0.0.0/30, 10.0.1.1/32]}", "{Name:r CIDRs:[10.0.0.0/30 10.0.1.1/32]}"},
		{"Node", "node", "{bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: 'fd00::1', asNumber: 64600, routeReflectorClusterID: 244.0.0.1}}", "{Name:node Labels:map[] IPv4:10.0.0.1/24 IPv6:fd00::1/128 ASN:64600 RouteReflector:244.0.0.1 IPIPTunnel:invalid IP VXLANTunnel:invalid IP VXLANTunnelV6:invalid IP VXLANMAC: VXLANMACV6: WireGuardKey:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardKeyV6:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardAddr:invalid IP WireGuardAddrV6:invalid IP Links:[] Addrs:[10.0.0.1 fd00::1] MTU:0 PodCIDRs:[]}"},
		{"Node", "node", "{interfaces: [{name: eth0, addresses: [10.0.0.1, fd00::1]}, {name: odd, addresses: [nonsense]}]}", "{Name:node Labels:map[] IPv4:invalid Prefix IPv6:invalid Prefix ASN:0 RouteReflector:invalid IP IPIPTunnel:invalid IP VXLANTunnel:invalid IP VXLANTunnelV6:invalid IP VXLANMAC: VXLANMACV6: WireGuardKey:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardKeyV6:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardAddr:invalid IP WireGuardAddrV6:invalid IP Links:[{Name:eth0 Addrs:[10.0.0.1 fd00::1]} {Name:odd Addrs:[]}] Addrs:[] MTU:0 PodCIDRs:[]}"},
		{"Node", "node", "{addresses: [{address: 10.0.0.1/24, type: CalicoNodeIP}, {address: 10.0.0.1}, {address: host-a}, {address: 'fd00::9', type: ExternalIP}]}", "{Name:node Labels:map[] IPv4:invalid Prefix IPv6:invalid Prefix ASN:0 RouteReflector:invalid IP IPIPTunnel:invalid IP VXLANTunnel:invalid IP VXLANTunnelV6:invalid IP VXLANMAC: VXLANMACV6: WireGuardKey:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardKeyV6:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardAddr:invalid IP WireGuardAddrV6:invalid IP Links:[] Addrs:[10.0.0.1 fd00::9] MTU:0 PodCIDRs:[]}"},
		{"Node", "node", "{}", "{Name:node Labels:map[] IPv4:invalid Prefix IPv6:invalid Prefix ASN:0 RouteReflector:invalid IP IPIPTunnel:invalid IP VXLANTunnel:invalid IP VXLANTunnelV6:invalid IP VXLANMAC: VXLANMACV6: WireGuardKey:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardKeyV6:[0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] WireGuardAddr:invalid IP WireGuardAddrV6:invalid IP Links:[] Addrs:[] MTU:0 PodCIDRs:[]}"},
		{"Profile", "kns.a", "{labelsToApply: {x: why}}", "{Name:kns.a Labels:map[x:why] Ingress:[] Egress:[]}"},
	} {
		got, err := parse(t, tt.kind, tt.name, tt.spec)
		if err != nil {
			t.Errorf("%s %s: %v", tt.kind, tt.spec, err)
		} else if text := fmt.Sprintf("%+v", got); text != tt.want {
			t.Errorf("%s %s:\n got %s\nwant %s", tt.kind, tt.spec, text, tt.want)
		}
	}
}

func TestParsePeer(t *testing.T) {
	t.Parallel()
	v, err := parse(t, "BGPPeer", "tor", `{nodeSelector: rack == '1', peerIP: '10.0.0.9:1790', asNumber: 64567, password: {secretKeyRef: {name: bgp, key: tor}}, sourceAddress: None, nextHopMode: Self, maxRestartTime: 10s, keepaliveTime: 5s, numAllowedLocalASNumbers: 2, ttlSecurity: 1, reachableBy: 10.0.0.1, localASNumber: 65001}`)
	if err != nil {
		t.Fatal(err)
	}
	p := v.(model.Peer)
	got := fmt.Sprintf("%s %v %d %v %t %s %v %v %d %d %v %d", p.NodeSelector, p.Addr, p.ASN, p.Password, p.NoSourceAddr, p.NextHop, p.RestartTime, p.Keepalive, p.AllowLocalAS, p.TTLSecurity, p.ReachableBy, p.LocalASN)
	if want := `rack == "1" 10.0.0.9:1790 64567 {bgp tor} true Self 10s 5s 2 1 10.0.0.1 65001`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if v, err = parse(t, "BGPPeer", "old", "{peerIP: 'fd00::9', asNumber: 1, keepOriginalNextHop: true}"); err != nil {
		t.Fatal(err)
	}
	if p := v.(model.Peer); p.Addr.Addr().String() != "fd00::9" || p.Addr.Port() != 0 || p.NextHop != model.NextHopKeep || p.NodeSelector != nil {
		t.Errorf("got %+v", p)
	}
}

// TestParseRefuses: one line each, with the field and its value.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	block := func(change string) string {
		fields := map[string]string{"cidr": "10.0.0.0/31", "allocations": "[null, null]", "unallocated": "[0, 1]", "attributes": "[]"}
		k, v, _ := strings.Cut(change, "=")
		fields[k] = v
		var out []string
		for k, v := range fields {
			out = append(out, k+": "+v)
		}
		return "{" + strings.Join(out, ", ") + "}"
	}
	if _, err := parse(t, "IPAMBlock", "b", block("deleted=false")); err != nil {
		t.Fatalf("a good block: %v", err)
	}
	for _, tt := range []struct{ kind, spec, want string }{
		{"IPPool", "{cidr: 10.0.0.1/16}", `spec.cidr: "10.0.0.1/16"`},
		{"IPPool", "{cidr: 10.0.0.0/30}", "at least one block: blockSize is 26"},
		{"IPPool", "{cidr: 10.0.0.0/16, nodeSelector: 'has('}", "spec.nodeSelector"},
		{"Node", "{bgp: {ipv4Address: nonsense}}", "spec.bgp.ipv4Address"},
		{"IPAMBlock", block("affinity=node-a"), "spec.affinity"},
		{"IPAMBlock", block("allocations=[null]"), "spec.allocations: 1 entries: must be 2"},
		{"IPAMBlock", block("allocations=[0, null]"), "spec.allocations[0]: 0: must be an index"},
		{"IPAMBlock", block("unallocated=[0, 2]"), "spec.unallocated[1]: 2"},
		{"IPAMBlock", block("unallocated=[0, 0]"), "spec.unallocated[1]: 0"},
		{"IPAMBlock", block("sequenceNumberForAllocation={\"7\": 1}"), `spec.sequenceNumberForAllocation: "7"`},
		{"IPAMHandle", "{handleID: h, block: {nonsense: 1}}", "spec.block"},
	} {
		_, err := parse(t, tt.kind, "x", tt.spec)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s: got %v; want one line with %s", tt.kind, tt.spec, err, tt.want)
		}
	}
}

// TestParseWhatCalicoWrote: every value of our kinds that Calico's tools stored
// is valid.
func TestParseWhatCalicoWrote(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../test/fixtures/etcd/keys.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	parsed := 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			Key   string
			Value json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatal(err)
		}
		var head struct{ Kind string }
		_ = json.Unmarshal(entry.Value, &head)
		if _, ours := v3.New(head.Kind); !ours {
			continue
		}
		o, err := v3.DecodeStored(entry.Value)
		if err != nil {
			t.Errorf("%s: %v", entry.Key, err)
			continue
		}
		v, err := model.Parse(o)
		if err != nil {
			t.Errorf("%s: %v", entry.Key, err)
			continue
		}
		if v == nil {
			continue // kept, of no use
		}
		parsed++
		if k, err := model.KeyOf(o); err != nil || k != v.Key() {
			t.Errorf("%s: key %v of the object, %v of the value (%v)", entry.Key, k, v.Key(), err)
		}
	}
	if err := lines.Err(); err != nil || parsed < 10 {
		t.Fatalf("parsed %d values, %v", parsed, err)
	}
}

func TestWorldKeepsTheLastGoodVersion(t *testing.T) {
	t.Parallel()
	a, b := model.Pool{Name: "a"}, model.Pool{Name: "b"}
	bad := []model.Invalid{{Key: a.Key()}}
	w := model.World{}.Apply(model.Batch{Reset: true, Puts: []model.Value{a, b}, Synced: true})
	w = w.Apply(model.Batch{Invalids: bad})
	if len(w) != 2 {
		t.Errorf("an invalid object removed something: %v", w)
	}
	w = w.Apply(model.Batch{Reset: true, Invalids: bad, Synced: true})
	if _, ok := w[a.Key()]; !ok || len(w) != 1 {
		t.Errorf("after a snapshot: %v; want pool a, which is invalid now, and not b", w)
	}
	if w = w.Apply(model.Batch{Deletes: []model.Key{a.Key()}}); len(w) != 0 {
		t.Errorf("after the deletion: %v", w)
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	r := &v3.IPReservation{Spec: v3.IPReservationSpec{ReservedCIDRs: []string{"10.0.0.0/24", "10.1.0.0/99", "10.2.0.7", "fd00::1/64", "x"}}}
	got, ok := model.Strict(r).(model.Reservation)
	if text := fmt.Sprint(got.CIDRs); !ok || text != "[10.0.0.0/24 10.2.0.7/32 fd00::/64]" {
		t.Errorf("reservation: %v", got)
	}
	c, ok := model.Strict(&v3.IPAMConfig{Spec: v3.IPAMConfigSpec{MaxBlocksPerHost: -3}}).(model.IPAMConfig)
	if !ok || !c.StrictAffinity || c.MaxBlocksPerHost != 0 {
		t.Errorf("configuration: %+v", c)
	}
	off := false
	b, ok := model.Strict(&v3.BGPConfiguration{Spec: v3.BGPConfigurationSpec{NodeToNodeMeshEnabled: &off}}).(model.BGPConfig)
	if !ok || b.Mesh == nil || *b.Mesh {
		t.Errorf("BGP configuration: %+v", b)
	}
	if v := model.Strict(&v3.IPPool{}); v != nil {
		t.Errorf("pool: %+v: no pool is the strictest", v)
	}
}
