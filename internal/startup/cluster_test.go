package startup

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
)

func prefixes(list string) []netip.Prefix {
	var out []netip.Prefix
	for s := range strings.FieldsSeq(list) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestPoolsOfTheCluster: kubeadm's range is taken where none is set, and no new pool lies over
// services.
func TestPoolsOfTheCluster(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ env, machine, pods, services, want string }{
		"kubeadm's": {
			"IP=autodetect", "eth0 10.0.0.5/24", "10.244.0.0/16", "10.96.0.0/12",
			"default-ipv4-ippool 10.244.0.0/16/26 ipip=Never",
		},
		"both families, though the node speaks one": {
			"IP=autodetect CALICO_IPV4POOL_IPIP=Always", "eth0 10.0.0.5/24", "10.244.0.0/16 fd00:244::/56", "10.96.0.0/12",
			"default-ipv4-ippool 10.244.0.0/16/26 ipip=Always; default-ipv6-ippool fd00:244::/56/122 ipip=Never",
		},
		"set by hand": {
			"IP=autodetect CALICO_IPV4POOL_CIDR=10.10.0.0/16", "eth0 10.0.0.5/24", "10.244.0.0/16", "10.96.0.0/12",
			"default-ipv4-ippool 10.10.0.0/16/26 ipip=Never",
		},
		"none wanted": {"IP=autodetect NO_DEFAULT_POOLS=true", "eth0 10.0.0.5/24", "10.244.0.0/16", "10.96.0.0/12", ""},
		"chosen beside services": {
			"IP=autodetect", "eth0 10.0.0.5/24", "", "192.168.0.0/20 172.16.0.0/16",
			"default-ipv4-ippool 172.17.0.0/16/26 ipip=Never",
		},
		"set over services": {
			"IP=autodetect CALICO_IPV4POOL_CIDR=10.0.0.0/8", "eth0 10.0.0.5/24", "", "10.96.0.0/12",
			"startup: default pool 10.0.0.0/8 from CALICO_IPV4POOL_*: overlaps the range 10.96.0.0/12 of the cluster's services: set CALICO_IPV4POOL_CIDR to another range",
		},
		"kubeadm's over services": {
			"IP=autodetect IP6=autodetect", "eth0 10.0.0.5/24 fd00::5/64", "10.244.0.0/16 fd00:96::/64", "10.96.0.0/12 fd00:96::/112",
			"startup: default pool fd00:96::/64 from kubeadm's podSubnet (configmap kube-system/kubeadm-config) and CALICO_IPV6POOL_*: overlaps the range fd00:96::/112",
		},
		"too small for its blocks": {
			"IP=autodetect", "eth0 10.0.0.5/24", "10.244.0.0/28", "",
			"startup: default pool from kubeadm's podSubnet",
		},
	} {
		s, err := SettingsFrom("node-a", env(tt.env))
		if err != nil {
			t.Fatal(err)
		}
		s.Cluster = Cluster{Kubeadm: tt.pods != "", PodCIDRs: prefixes(tt.pods), ServiceCIDRs: prefixes(tt.services)}
		st := mem.New()
		host := Host{Links: func() ([]Link, error) { return links(t, tt.machine), nil }}
		_, err = Prepare(t.Context(), st, s, host, quiet)
		got := pools(t, st)
		if err != nil {
			if got != "" {
				t.Errorf("%s: a start that failed made pools: %s", name, got)
			}
			got = err.Error()
			if nodes, _ := st.List(t.Context(), model.KindNode, ""); len(nodes) != 0 {
				t.Errorf("%s: a start that failed wrote the node", name)
			}
		}
		if got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) || strings.Contains(got, "\n") {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
	}
}

// TestOverlapOfAPool: a pool that is there is never changed, and starts all the same.
func TestOverlapOfAPool(t *testing.T) {
	t.Parallel()
	st := mem.New()
	if _, err := prepare(t, st, "node-a", "IP=autodetect CALICO_IPV4POOL_CIDR=10.96.0.0/16", "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	s, err := SettingsFrom("node-b", env("IP=autodetect CALICO_IPV4POOL_CIDR=10.96.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	s.Cluster.ServiceCIDRs = prefixes("10.96.0.0/12")
	host := Host{Links: func() ([]Link, error) { return links(t, "eth0 10.0.0.6/24"), nil }}
	if _, err := Prepare(t.Context(), st, s, host, quiet); err != nil {
		t.Errorf("a pool that exists keeps a node from starting: %v", err)
	}
	all := []model.Pool{{Name: "a", CIDR: netip.MustParsePrefix("10.96.0.0/16")}, {Name: "b", CIDR: netip.MustParsePrefix("10.0.0.0/16")}, {Name: "c", CIDR: netip.MustParsePrefix("fd00::/64")}}
	got := Overlaps(all, prefixes("10.96.0.0/12 fd01::/112"))
	if len(got) != 1 || got[0].Key.Name != "a" || !strings.Contains(got[0].Text, "10.96.0.0/16 overlaps the range 10.96.0.0/12") {
		t.Errorf("got %v", got)
	}
	if got := Overlaps(all, nil); len(got) != 0 {
		t.Errorf("nothing known of services: got %v", got)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		have, env string
		kubeadm   bool
		want      string
	}{
		"nothing":        {"", "", false, ""},
		"first":          {"", "k8s,bgp", false, "k8s,bgp"},
		"kubeadm":        {"", "k8s,bgp", true, "k8s,bgp,kubeadm"},
		"kubeadm alone":  {"", "", true, "kubeadm"},
		"there already":  {"k8s,bgp,kubeadm", "k8s, bgp", true, "k8s,bgp,kubeadm"},
		"of two":         {"typha,kdd", "k8s,bgp", false, "typha,kdd,k8s,bgp"},
		"part of a word": {"k8sish", "k8s", false, "k8sish,k8s"},
	} {
		st := mem.New()
		if err := store.Initialise(t.Context(), st); err != nil {
			t.Fatal(err)
		}
		set := func(f func(*v3.ClusterInformation)) {
			o, err := st.Get(t.Context(), model.Key{Kind: model.KindClusterInformation, Name: "default"})
			if err != nil {
				t.Fatal(err)
			}
			f(o.Object.(*v3.ClusterInformation))
			if _, err := st.Commit(t.Context(), store.Op{Verb: store.Update, Object: o}); err != nil {
				t.Fatal(err)
			}
		}
		set(func(c *v3.ClusterInformation) { c.Spec.ClusterType, c.Spec.CalicoVersion = tt.have, "v3.33.0" })
		s, err := SettingsFrom("node-a", func(k string) string { return map[string]string{"CLUSTER_TYPE": tt.env}[k] })
		if err != nil {
			t.Fatal(err)
		}
		s.Cluster.Kubeadm = tt.kubeadm
		for range 2 {
			if err := Describe(t.Context(), st, s); err != nil {
				t.Fatal(err)
			}
		}
		o, _ := st.Get(t.Context(), model.Key{Kind: model.KindClusterInformation, Name: "default"})
		got := o.Object.(*v3.ClusterInformation).Spec
		if got.ClusterType != tt.want || got.CalicoVersion != "v3.33.0" || got.ClusterGUID == "" || !*got.DatastoreReady {
			t.Errorf("%s: got %+v, want type %q", name, got, tt.want)
		}
	}
}

// counting counts what a node asks of its datastore.
type counting struct {
	store.Store
	calls int
}

func (c *counting) Get(ctx context.Context, k model.Key) (store.Object, error) {
	c.calls++
	return c.Store.Get(ctx, k)
}

func (c *counting) List(ctx context.Context, k model.Kind, ns string) ([]store.Object, error) {
	c.calls++
	return c.Store.List(ctx, k, ns)
}

// TestRefresherAtRest: as long as nothing changes the datastore is not asked; when the node's
// address or its record changes, the record is right again.
func TestRefresherAtRest(t *testing.T) {
	t.Parallel()
	st := &counting{Store: mem.New()}
	const environment = "IP=autodetect"
	if _, err := prepare(t, st, "node-a", environment, "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	s, err := SettingsFrom("node-a", env(environment))
	if err != nil {
		t.Fatal(err)
	}
	machine := "eth0 10.0.0.5/24"
	r := &Refresher{Store: st, Settings: s, Log: quiet, Host: Host{Links: func() ([]Link, error) { return links(t, machine), nil }}}
	refresh := func(what, want string, asked bool) {
		t.Helper()
		before := st.calls
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := st.calls != before; got != asked {
			t.Errorf("%s: the datastore was asked: %t", what, got)
		}
		if got := getNode(t, st, "node-a").Spec.BGP.IPv4Address; got != want {
			t.Errorf("%s: address %s, want %s", what, got, want)
		}
	}
	refresh("first", "10.0.0.5/24", true)
	for i := range 10 {
		refresh(fmt.Sprintf("at rest %d", i), "10.0.0.5/24", false)
	}
	machine = "eth0 10.0.0.7/24"
	refresh("another address", "10.0.0.7/24", true)
	refresh("at rest", "10.0.0.7/24", false)
	o, _ := st.Store.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "node-a"})
	o.Object.(*v3.Node).Spec.BGP.IPv4Address = "10.9.9.9/24"
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Update, Object: o}); err != nil {
		t.Fatal(err)
	}
	r.Forget()
	refresh("somebody else's", "10.0.0.7/24", true)
	refresh("at rest", "10.0.0.7/24", false)
}
