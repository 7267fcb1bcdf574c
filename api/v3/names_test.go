package v3

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type nameFixtures struct {
	HostInterfaceNames []struct {
		Namespace, Pod, Result string
		Prefix                 string `json:"FELIX_INTERFACEPREFIX"`
	} `json:"host_interface_names"`
	EndpointNames []struct {
		EndpointID
		AsListPrefix  bool `json:"as_list_prefix"`
		Result, Error string
	} `json:"workload_endpoint_names"`
	EndpointNamesParsed []struct {
		Name, Error string
		Result      EndpointID
	} `json:"workload_endpoint_names_parsed"`
	HandleIDs []struct {
		Network, Handle string
		ContainerID     string `json:"container_id"`
	} `json:"handle_ids"`
	TunnelHandleIDs []struct{ Use, Node, Result string } `json:"tunnel_handle_ids"`
}

// The names that Calico's own functions give.
func TestCalicoAgreesOnNames(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(fixtures + "naming/names.json")
	if err != nil {
		t.Fatal(err)
	}
	var all nameFixtures
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.HostInterfaceNames)*len(all.EndpointNames)*len(all.EndpointNamesParsed)*len(all.HandleIDs)*len(all.TunnelHandleIDs) == 0 {
		t.Fatal("a list of fixtures is empty")
	}
	for _, c := range all.HostInterfaceNames {
		if got := HostInterfaceName(c.Prefix, c.Namespace, c.Pod); got != c.Result {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for _, c := range all.EndpointNames {
		name := WorkloadEndpointName
		if c.AsListPrefix {
			name = WorkloadEndpointPrefix
		}
		if got, err := name(c.EndpointID); got != c.Result || (err != nil) != (c.Error != "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	for _, c := range all.EndpointNamesParsed {
		got, err := ParseWorkloadEndpointName(c.Name)
		if d := cmp.Diff(c.Result, got); d != "" || (err != nil) != (c.Error != "") {
			t.Errorf("%+v: error %v (-want +got):\n%s", c, err, d)
		}
	}
	for _, c := range all.HandleIDs {
		if got := HandleID(c.Network, c.ContainerID); got != c.Handle {
			t.Errorf("%+v: %s", c, got)
		}
	}
	uses := map[string]Tunnel{
		"IPIP": TunnelIPIP, "VXLAN v4": TunnelVXLAN, "VXLAN v6": TunnelVXLANV6,
		"WireGuard v4": TunnelWireguard, "WireGuard v6": TunnelWireguardV6,
	}
	for _, c := range all.TunnelHandleIDs {
		if got := TunnelHandleID(uses[c.Use], c.Node); got != c.Result {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// A name taken apart gives the same name again, unless a part had dashes at an end.
func FuzzWorkloadEndpointName(f *testing.F) {
	f.Add("node--a-k8s-web--0-eth0")
	f.Add("a-libnetwork-libnetwork-c")
	f.Fuzz(func(t *testing.T, name string) {
		id, err := ParseWorkloadEndpointName(name)
		if err != nil || strings.Contains(name, "---") {
			return
		}
		if got, err := WorkloadEndpointName(id); err == nil && got != name && id.Orchestrator != OrchestratorLibnetwork {
			t.Errorf("%q is %+v, which is %q", name, id, got)
		}
	})
}
