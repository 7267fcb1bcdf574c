package cni_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// The fake gives out what Calico's IPAM gave out in the recorded scenario; the
// plugin must print it as Calico's did.
func TestIPAMRolePrintsAsCalicos(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"ipam-01.json", "ipam-07.json", "ipam-15.json"} {
		raw, err := os.ReadFile(filepath.Join("..", "..", "test", "fixtures", "ipam", file))
		if err != nil {
			t.Fatal(err)
		}
		var scenario struct {
			Steps []struct {
				Do, Pod, Args string
				OK            bool
				IPAM          map[string]any
				Result        struct {
					CNIVersion string
					IPs        []struct{ Address netip.Prefix }
					Routes     []struct{ Dst netip.Prefix }
				}
			}
		}
		if err := json.Unmarshal(raw, &scenario); err != nil {
			t.Fatal(err)
		}
		n := newNode(t)
		for i, s := range scenario.Steps {
			if s.Do != "ADD" || !s.OK {
				continue
			}
			p := n.pod(s.Pod)
			p.args += ";" + s.Args
			ipam, _ := json.Marshal(merge(map[string]any{"type": "calico-ipam", "assign_ipv4": "true"}, s.IPAM))
			want := s.Result
			addrs := []netip.Prefix{}
			for _, a := range want.IPs {
				addrs = append(addrs, a.Address)
			}
			n.agent.script(addrs)
			out := n.mustRun("calico-ipam", "ADD", with(plainConf, "ipam="+string(ipam)), p)
			got := want
			got.IPs, got.Routes = nil, nil
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s step %d: got\n%s\nwant\n%+v", file, i, out, want)
			}
			if asked := n.agent.asked(p.container); asked.Endpoint != nil || len(asked.Address.Exact) != 0 != (s.Args != "") ||
				asked.Address.IPv6 != (ipamValue(s.IPAM, "assign_ipv6") == "true") || asked.Address.IPv4 == (ipamValue(s.IPAM, "assign_ipv4") == "false") {
				t.Errorf("%s step %d: the agent was asked %+v", file, i, asked)
			}
			n.mustRun("calico-ipam", "DEL", with(plainConf, "ipam="+string(ipam)), p)
			if n.agent.count() != 0 {
				t.Errorf("%s step %d: not released", file, i)
			}
		}
	}
}

func merge(a, b map[string]any) map[string]any {
	for k, v := range b {
		a[k] = v
	}
	return a
}

func ipamValue(m map[string]any, key string) any { return m[key] }

// Another network plugin with our IPAM: its DEL must not touch an endpoint.
func TestIPAMRoleWithDeadAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	n.mustRun("weft-ipam", "ADD", plainConf, p)
	n.stop()
	n.refused("weft-ipam", "ADD", plainConf, n.pod("web-1"), 11, "no node agent")
	n.mustRun("weft-ipam", "DEL", plainConf, p)
	n.agent.serve(t, n.socket)
	n.mustRun("weft-ipam", "ADD", plainConf, p)
	if last := n.agent.dels[len(n.agent.dels)-1]; !last.AddressesOnly || last.HostLink != "" {
		t.Errorf("the queued DEL was %+v", last)
	}
	prev := n.mustRun("weft-ipam", "ADD", plainConf, p)
	n.mustRun("weft-ipam", "CHECK", with(plainConf, "prevResult="+prev), p)
}
