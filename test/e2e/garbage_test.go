package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestGarbageInStore writes what is no object under the keys of objects: agents say
// so, keep what they had, start again with it there, and serve.
func TestGarbageInStore(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/pair.yaml")
	c.established("node-a", 2)
	c.awaitRoute("node-a", `192\.168\..*/26 via 10\.1\.0\.12 dev eth0 proto bird`)
	client := c.etcd()
	const resources = "/calico/resources/v3/projectcalico.org/"
	watch := c.watchRoutes("node-a")
	for key, value := range map[string]string{
		resources + "nodes/node-b":                                   "{", // good before: the last good one stays
		resources + "nodes/node-z":                                   "no JSON",
		resources + "bgppeers/odd":                                   `{"kind":"BGPPeer","apiVersion":"projectcalico.org/v3","metadata":{"name":"odd"},"spec":{"peerIP":"not an address","asNumber":"many"}}`,
		resources + "bgpconfigurations/default":                      "[1, 2]",
		resources + "felixconfigurations/default":                    `{"spec":{"routeRefreshInterval":"often"}}`,
		resources + "workloadendpoints/default/node--a-k8s-odd-eth0": "\x00\xff",
		resources + "ippools/unknown-things":                         `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"unknown-things"},"spec":{"cidr":"10.77.0.0/99"}}`,
		"/calico/ipam/v2/assignment/ipv4/block/192.168.9.0-26":       "{}",
		"/calico/ipam/v2/host/node-a/ipv4/block/10.0.0.0-99":         "?",
		"/calico/resources/v3/projectcalico.org/nodes/":              "nameless",
		"/calico/ipam/v2/handle/odd":                                 "odd",
		"/calico/entirely/else":                                      "else",
	} {
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	told := func() error {
		s, err := c.agentStatus("node-a")
		if err != nil {
			return err
		}
		all := strings.Join(s.Notes, "\n")
		for _, object := range []string{"Node/node-z", "BGPPeer/odd", "IPPool/unknown-things", "BGPConfiguration/default", "FelixConfiguration/default"} {
			if !strings.Contains(all, object) {
				return fmt.Errorf("the status does not mention %s:\n%s", object, all)
			}
		}
		return nil
	}
	eventually(t, "notes", told)
	for _, change := range watch.changes() {
		t.Errorf("a route was changed: %s", change)
	}
	h := c.runtime("node-a")
	h.must("ADD", "among-garbage")
	c.sh("pod/default/a1").run(ping(c.addr("b1")))
	c.stop("node-a", true)
	c.start("node-a")
	eventually(t, "notes after a restart", told)
	h.must("DEL", "among-garbage")
	h.must("ADD", "again")
	h.must("DEL", "again")
}
