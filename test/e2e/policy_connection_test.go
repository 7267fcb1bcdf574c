package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// take deletes an object that there is.
func take(t testing.TB, st store.Store, key model.Key) {
	t.Helper()
	eventually(t, "delete "+key.String(), func() error {
		o, err := st.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = st.Commit(t.Context(), store.Op{Verb: store.Delete, Object: o})
		return err
	})
}

// denyPort is a policy for one of the ports of the servers, first of all policies.
const denyPort = `{"order": 1, "selector": "app == 'server'", "types": ["Ingress"], "ingress": [
	{"action": "Deny", "protocol": "TCP", "destination": {"ports": [81]}},
	{"action": "Deny", "protocol": "UDP", "destination": {"ports": [81]}},
	{"action": "Allow"}]}`

// TestDenyEndsConnections: a new Deny ends the connections that it forbids, whoever
// sends in them, and no other; when it is gone, connections can be made at once.
func TestDenyEndsConnections(t *testing.T) {
	t.Parallel()
	for mode, ends := range map[string]bool{"End": true, "Keep": false} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := up(t, "topologies/policy.yaml")
			st := c.store()
			object := func(text string) { t.Helper(); put(t, st, text) }
			if !ends {
				putPolicy(t, object, "FelixConfiguration", "default", `{"deniedConnections": "Keep"}`)
			}
			// A server beside the client, and one on another node.
			for _, server := range []string{"a2", "b1"} {
				c.serve(server, "81", "82")
			}
			client := c.talker("a1")
			var doomed []string
			for _, server := range []string{"a2", "b1"} {
				for family, addr := range c.pod(server).Addresses {
					for _, kind := range []string{talkTCP, talkUDP, talkStream} {
						for _, port := range []string{"81", "82"} {
							name := fmt.Sprintf("%s-%s-%d-%s", server, kind, 4+2*family, port)
							client.begin(name, kind, net.JoinHostPort(addr.String(), port))
							if port == "81" {
								doomed = append(doomed, name)
							}
						}
					}
				}
			}
			client.goOn(t)
			putPolicy(t, object, "NetworkPolicy", "deny", denyPort)
			denied := func() error {
				for i, server := range []string{"a2", "b1"} {
					addr := c.pod(server).Addresses[i].String()
					if err := client.denied([]string{talkUDP, talkTCP}[i], net.JoinHostPort(addr, "81")); err != nil {
						return err
					}
				}
				return nil
			}
			if ends {
				client.ended(t, doomed...)
			}
			eventually(t, "new connections are denied", denied)
			if ends {
				client.goOn(t, doomed...)
			} else {
				client.goOn(t)
			}
			take(t, st, model.Key{Kind: model.KindNetworkPolicy, Namespace: "default", Name: "deny"})
			for _, server := range []string{"a2", "b1"} {
				for _, addr := range c.pod(server).Addresses {
					for _, kind := range []string{talkTCP, talkUDP, talkStream} {
						took := eventually(t, "connect again", func() error {
							if err := client.dial(kind, net.JoinHostPort(addr.String(), "81")); err != nil {
								return errors.Join(fmt.Errorf("%s to %v", kind, addr), err)
							}
							return nil
						})
						t.Logf("%s to %v again after %v", kind, addr, took)
					}
				}
			}
		})
	}
}
