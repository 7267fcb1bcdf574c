package kv

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-net/weft/internal/model"
)

func TestLayout(t *testing.T) {
	t.Parallel()
	l := newLayout()
	for key, want := range map[string]string{
		"/calico/resources/v3/projectcalico.org/ippools/p":                  "IPPool/p",
		"/calico/resources/v3/projectcalico.org/felixconfigurations/node.a": "FelixConfiguration/node.a",
		"/calico/resources/v3/projectcalico.org/workloadendpoints/shop/w-1": "WorkloadEndpoint/shop/w-1",
		"/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26":                 "IPAMBlock/10.0.0.0-26",
		"/calico/ipam/v2/assignment/ipv6/block/fd00::-122":                  "IPAMBlock/fd00::-122",
		"/calico/ipam/v2/host/node-a/ipv4/block/10.0.0.0-26":                "BlockAffinity/host/node-a/10.0.0.0-26",
		"/calico/ipam/v2/virtual/load-balancer/ipv6/block/fd00::-122":       "BlockAffinity/virtual/load-balancer/fd00::-122",
		"/calico/ipam/v2/handle/k8s-pod-network.c1":                         "IPAMHandle/k8s-pod-network.c1",
		"/calico/ipam/v2/config":                                            "IPAMConfig/default",
		"/calico/resources/v3/projectcalico.org/globalnetworkpolicies/gnp":  "GlobalNetworkPolicy/gnp",

		"/calico/resources/v3/projectcalico.org/networkpolicies/shop/np":                "NetworkPolicy/shop/np",
		"/calico/resources/v3/projectcalico.org/kubernetesendpointslices/shop/web-1":    "KubernetesEndpointSlice/shop/web-1",
		"/calico/resources/v3/projectcalico.org/kubernetesnetworkpolicies/shop/np":      "KubernetesNetworkPolicy/shop/np",
		"/calico/resources/v3/projectcalico.org/kubernetesclusternetworkpolicies/block": "KubernetesClusterNetworkPolicy/block",
		"/calico/resources/v3/projectcalico.org/kubernetesendpointslices/web-1":         "",
		"/calico/resources/v3/projectcalico.org/bgpfilters/f":                           "BGPFilter/f",
		"/calico/resources/v3/projectcalico.org/caliconodestatuses/a":                   "CalicoNodeStatus/a",
		"/calico/resources/v3/projectcalico.org/kubecontrollersconfigurations/default":  "KubeControllersConfiguration/default",
		"/calico/resources/v3/projectcalico.org/livemigrations/shop/vm":                 "",

		"/calico/resources/v3/projectcalico.org/ipamblocks/10-0-0-0-26":     "",
		"/calico/resources/v3/projectcalico.org/ippools/":                   "",
		"/calico/resources/v3/projectcalico.org/ippools/a/b":                "",
		"/calico/resources/v3/projectcalico.org/workloadendpoints/w":        "",
		"/calico/resources/v3/projectcalico.org/workloadendpoints/shop/a/b": "",
		"/calico/resources/v3/projectcalico.org/workloadendpoints//w":       "",
		"/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-26":                 "",
		"/calico/ipam/v2/assignment/ipv4/block/here":                        "",
		"/calico/ipam/v2/assignment/ipv4/chunk/10.0.0.0-26":                 "",
		"/calico/ipam/v2/handle/a/b":                                        "",
		"/calico/ipam/v2/handle/":                                           "",
		"/calico/ipam/v2/host//ipv4/block/10.0.0.0-26":                      "",
		"/calico/ipam/v2/guest/node-a/ipv4/block/10.0.0.0-26":               "",
		"/calico/ipam/v2/":           "",
		"/calico/v1/Ready":           "",
		"/registry/pods/default/web": "",
		"":                           "",
	} {
		k, ok := l.parse(key)
		if ok != (want != "") || ok && k.String() != want {
			t.Errorf("parse %s: %v, %t; want %q", key, k, ok, want)
		}
		if !ok {
			continue
		}
		if back, err := l.keyFor(k); back != key || err != nil {
			t.Errorf("key for %v: %s, %v; want %s", k, back, err, key)
		}
		spans, err := l.spans(k.Kind, k.Namespace)
		inside := 0
		for _, s := range spans {
			if s.from <= key && key < s.to {
				inside++
			}
		}
		if inside != 1 || err != nil {
			t.Errorf("%s is in %d of the spans %v of its kind, %v", key, inside, spans, err)
		}
	}
}

func TestKeyForRefuses(t *testing.T) {
	t.Parallel()
	l := newLayout()
	for want, k := range map[string]model.Key{
		`kind "Chair" is not one of the datastore`: {Kind: "Chair", Name: "a"},
		`name: missing`:                    {Kind: model.KindNode},
		`name "a/b": must not contain '/'`: {Kind: model.KindNode, Name: "a/b"},
		`namespace: missing`:               {Kind: model.KindWorkloadEndpoint, Name: "w"},
		`namespace "x": must be empty: the kind is for the whole cluster`: {Kind: model.KindNode, Namespace: "x", Name: "a"},
		`handle ID: missing`:                                                       {Kind: model.KindIPAMHandle},
		`handle ID "a/b": must not contain '/'`:                                    {Kind: model.KindIPAMHandle, Name: "a/b"},
		`name "10.0.0.0": must hold a CIDR such as 10.0.0.0-26 or fd00::-122`:      {Kind: model.KindIPAMBlock, Name: "10.0.0.0"},
		`name "host/10.0.0.0-26": must be host/NODE/CIDR or virtual/NAME/CIDR`:     {Kind: model.KindBlockAffinity, Name: "host/10.0.0.0-26"},
		`name "host/a/b/10.0.0.0-26": must be host/NODE/CIDR or virtual/NAME/CIDR`: {Kind: model.KindBlockAffinity, Name: "host/a/b/10.0.0.0-26"},
		`name "guest/a/10.0.0.0-26": must be host/NODE/CIDR or virtual/NAME/CIDR`:  {Kind: model.KindBlockAffinity, Name: "guest/a/10.0.0.0-26"},
	} {
		if key, err := l.keyFor(k); err == nil || err.Error() != want {
			t.Errorf("key for %v: %s, %v; want error %s", k, key, err, want)
		}
	}
}

func FuzzLayout(f *testing.F) {
	f.Add("/calico/ipam/v2/host/node-a/ipv4/block/10.0.0.0-26")
	f.Add("/calico/resources/v3/projectcalico.org/workloadendpoints/shop/w-1")
	f.Add("/calico/ipam/v2/assignment/ipv6/block/fd00::%eth0-122")
	l := newLayout()
	f.Fuzz(func(t *testing.T, key string) {
		k, ok := l.parse(key)
		if !ok {
			return
		}
		if back, err := l.keyFor(k); back != key || err != nil {
			t.Errorf("%q is parsed as %v, whose key is %q, %v", key, k, back, err)
		}
	})
}

// FuzzValue reads hostile values; one that can be read is written back as it was,
// and a change keeps what is not known.
func FuzzValue(f *testing.F) {
	keys := []model.Key{
		{Kind: model.KindIPAMBlock, Name: "10.0.0.0-30"},
		{Kind: model.KindBlockAffinity, Name: "host/a/10.0.0.0-26"},
		model.HandleKey("h"), model.IPAMConfig{}.Key(),
		{Kind: model.KindNode, Name: "a"},
	}
	for i, seed := range []string{
		`{"cidr":"10.0.0.0/30","allocations":[null],"attributes":[{"handle_id":"a","x":1},{"handle_id":"a"}],"Affinity":"host:a","affinity":null}`,
		`{"state":"confirmed","deleted":false,"deleted":true}`,
		`{"block":{"10.0.0.0/30":1},"other":[{}]}`,
		`{"strict_affinity":true,"STRICT_affinity":false}`,
		`{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"a","x":{"y":1}},"spec":{"bgp":null}}`,
	} {
		f.Add(i, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, i int, value []byte) {
		if i < 0 || i >= len(keys) {
			return
		}
		o, err := decode(keys[i], value, 1)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		same, err := encode(o.Object, value, time.Time{})
		if err != nil || !bytes.Equal(same, value) {
			t.Errorf("%s is written back as %s, %v", value, same, err)
		}
		fresh, err := encode(o.Object, nil, time.Time{})
		if err != nil {
			t.Fatalf("%s can't be written: %v", value, err)
		}
		if _, err := decode(keys[i], fresh, 1); err != nil {
			t.Errorf("%s is written as %s, which can't be read: %v", value, fresh, err)
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := Backoff{Min: 50 * time.Millisecond, Max: 10 * time.Second}
	for failures, most := range map[int]time.Duration{1: 50 * time.Millisecond, 2: 100 * time.Millisecond, 5: 800 * time.Millisecond, 9: 10 * time.Second, 1000: 10 * time.Second} {
		for range 100 {
			if got := b.after(failures); got < most/2 || got > most {
				t.Fatalf("after %d failures: %v, want %v to %v", failures, got, most/2, most)
			}
		}
	}
}

var errDead = errors.New("dead")

// deadDB fails every read.
type deadDB struct{ DB }

func (deadDB) Range(_ context.Context, _, _ string, _ int, _ int64) (Page, error) {
	return Page{}, errDead
}

// TestWatchWaits counts the attempts of a watch on a dead datastore: they grow
// rarer.
func TestWatchWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(deadDB{}, time.Now, DefaultBackoff())
		begun, attempts := time.Now(), 0
		for b, err := range s.Watch(t.Context()) {
			if err == nil {
				t.Fatalf("delivered %v", b)
			}
			if attempts++; time.Since(begun) > 10*time.Minute {
				break
			}
		}
		// 10 s at most, 5 s at least, and 8 sooner ones.
		if attempts < 60 || attempts > 130 {
			t.Errorf("%d attempts in 10 minutes", attempts)
		}
	})
}
