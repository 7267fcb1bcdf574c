package want_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/selector"
)

func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func TestProfiles(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"team": "web"}
	p := want.NamespaceProfile("shop", labels)
	if got, want := fmt.Sprintln(p.Name, p.Spec.LabelsToApply, len(p.Spec.Ingress), len(p.Spec.Egress)),
		"kns.shop map[pcns.projectcalico.org/name:shop pcns.team:web] 1 1\n"; got != want {
		t.Errorf("namespace: got %s, want %s", got, want)
	}
	p = want.AccountProfile("shop", "default", labels)
	if got, want := fmt.Sprintln(p.Name, p.Spec.LabelsToApply, len(p.Spec.Ingress), len(p.Spec.Egress)),
		"ksa.shop.default map[pcsa.projectcalico.org/name:default pcsa.team:web] 0 0\n"; got != want {
		t.Errorf("service account: got %s, want %s", got, want)
	}
}

func TestEndpointLabels(t *testing.T) {
	t.Parallel()
	forged := map[string]string{"app": "a", "projectcalico.org/namespace": "kube-system", "projectcalico.org/serviceaccount": "root"}
	got := fmt.Sprint(want.EndpointLabels("shop", "", forged))
	if want := "map[app:a projectcalico.org/namespace:shop projectcalico.org/orchestrator:k8s]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNodeLabels(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		have, synced string // labels of the record, and those that came from Kubernetes
		kube         string
		want         string
		changed      bool
	}{
		"first":         {have: "mine=1", kube: "zone=a", want: "map[mine:1 zone:a]", changed: true},
		"none at all":   {want: "map[]", changed: true},
		"nothing new":   {have: "zone=a", synced: `{"zone":"a"}`, kube: "zone=a", want: "map[zone:a]"},
		"gone":          {have: "mine=1 zone=a", synced: `{"zone":"a"}`, want: "map[mine:1]", changed: true},
		"changed":       {have: "zone=a", synced: `{"zone":"a"}`, kube: "zone=b", want: "map[zone:b]", changed: true},
		"changed by us": {have: "zone=x", synced: `{"zone":"a"}`, kube: "zone=a", want: "map[zone:a]", changed: true},
		"unreadable":    {have: "mine=1", synced: `[`, kube: "zone=a", want: "map[mine:1 zone:a]", changed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &v3.Node{}
			n.Labels = pairs(tt.have)
			if tt.synced != "" {
				n.Annotations = map[string]string{want.SyncedLabels: tt.synced}
			}
			got, changed := want.NodeLabels(n, pairs(tt.kube))
			if fmt.Sprint(got.Labels) != tt.want || changed != tt.changed {
				t.Errorf("got %v, changed %v, want %s, %v", got.Labels, changed, tt.want, tt.changed)
			}
			if _, again := want.NodeLabels(got, pairs(tt.kube)); again {
				t.Error("a second time changes something again")
			}
		})
	}
}

func pairs(text string) map[string]string {
	var out map[string]string
	for f := range strings.FieldsSeq(text) {
		if out == nil {
			out = map[string]string{}
		}
		k, v, _ := strings.Cut(f, "=")
		out[k] = v
	}
	return out
}

func TestBudget(t *testing.T) {
	t.Parallel()
	b := want.Budget{Share: 0.2, Min: 3, Window: time.Minute}
	for name, tt := range map[string]struct {
		n, total, listed, unseen, confirmed int
		spent                               want.Ledger
		want                                string
	}{
		"none":              {total: 100, want: ""},
		"within the share":  {n: 20, total: 100, listed: 80},
		"above the share":   {n: 21, total: 100, listed: 79, want: "21 of 100 x would be removed at once, and 20 may be: nothing is removed"},
		"small cluster":     {n: 3, total: 4, listed: 1},
		"all of a small":    {n: 4, total: 4, listed: 1, want: "4 of 4 x would be removed at once, and 3 may be: nothing is removed"},
		"empty list":        {n: 1, total: 1, unseen: 1, want: "the API server's list of x is empty, and 1 are stored: nothing is removed"},
		"the last was seen": {n: 1, total: 1},
		"confirmed":         {n: 21, total: 100, listed: 79, confirmed: 21},
		"too few confirmed": {n: 21, total: 100, listed: 79, confirmed: 20, want: "21 of 100 x would be removed at once, and 20 may be: nothing is removed"},
		"a little at once":  {n: 1, total: 80, listed: 79, spent: want.Ledger{{At: noon().Add(-time.Second), N: 20}}, want: "21 of 100 x would be removed at once, and 20 may be: nothing is removed"},
		"long ago":          {n: 1, total: 80, listed: 79, spent: want.Ledger{{At: noon().Add(-time.Minute), N: 20}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := b.Check("x", tt.n, tt.total, tt.listed, tt.unseen, tt.confirmed, tt.spent, noon()); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if l := (want.Ledger{{At: noon().Add(-time.Hour), N: 9}}).With(2, time.Minute, noon()).With(0, time.Minute, noon()); len(l) != 1 || l.Spent(time.Minute, noon()) != 2 {
		t.Errorf("ledger: %v", l)
	}
}

// hosts is host endpoints: name, interface, addresses, labels.
func hosts(list []*v3.HostEndpoint) string {
	var out []string
	for _, h := range list {
		delete(h.Labels, "projectcalico.org/created-by")
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %v %v %v", h.Name, h.Spec.InterfaceName, h.Spec.ExpectedIPs, h.Labels, h.Spec.Profiles)))
	}
	return strings.Join(out, "\n")
}

func TestHostEndpoints(t *testing.T) {
	t.Parallel()
	n := &v3.Node{}
	n.Name, n.Labels = "a", map[string]string{"zone": "one"}
	n.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: "192.168.0.1/24", IPv6Address: "fd00::1/64", IPv4IPIPTunnelAddr: "10.0.0.1"}
	n.Spec.Addresses = []v3.NodeAddress{{Address: "192.168.0.1/24"}, {Address: "203.0.113.5", Type: v3.AddressExternalIP}, {Address: "a.example"}}
	n.Spec.IPv4VXLANTunnelAddr = "10.0.0.2"
	n.Spec.Wireguard = &v3.NodeWireguardSpec{InterfaceIPv4Address: "10.0.0.3"}
	n.Spec.Interfaces = []v3.NodeInterface{{Name: "eth0", Addresses: []string{"192.168.0.1"}}, {Name: "eth1.7", Addresses: []string{"172.16.0.1"}}, {Name: "lo"}}
	s, err := selector.Parse("zone == 'two'")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		maker model.HostEndpointMaker
		want  string
	}{
		"off":     {maker: model.HostEndpointMaker{Default: true}},
		"default": {maker: model.HostEndpointMaker{Enabled: true, Default: true}, want: "a-auto-hep * [192.168.0.1 fd00::1 10.0.0.1 203.0.113.5 10.0.0.2 10.0.0.3] map[zone:one] [projectcalico-default-allow]"},
		"range": {
			maker: model.HostEndpointMaker{Enabled: true, Templates: []model.HostEndpointTemplate{{GenerateName: "in", CIDRs: prefixes("192.168.0.0/16"), Labels: map[string]string{"side": "in"}}}},
			want:  "a-in-auto-hep  [192.168.0.1] map[side:in zone:one] []",
		},
		"range without an address": {maker: model.HostEndpointMaker{Enabled: true, Templates: []model.HostEndpointTemplate{{GenerateName: "in", CIDRs: prefixes("198.51.100.0/24")}}}},
		"interfaces": {
			maker: model.HostEndpointMaker{Enabled: true, Templates: []model.HostEndpointTemplate{{GenerateName: "eth", Interfaces: regexp.MustCompile("^eth")}}},
			want:  "a-eth-eth0-auto-hep eth0 [192.168.0.1] map[zone:one] []\na-eth-eth1.7-auto-hep eth1.7 [172.16.0.1] map[zone:one] []",
		},
		"interfaces and range": {
			maker: model.HostEndpointMaker{Enabled: true, Templates: []model.HostEndpointTemplate{{GenerateName: "eth", Interfaces: regexp.MustCompile("."), CIDRs: prefixes("172.16.0.0/12")}}},
			want:  "a-eth-eth1.7-auto-hep eth1.7 [172.16.0.1] map[zone:one] []",
		},
		"other node": {maker: model.HostEndpointMaker{Enabled: true, Templates: []model.HostEndpointTemplate{{GenerateName: "in", NodeSelector: s}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := want.HostEndpoints(n, tt.maker)
			for _, h := range list {
				if !want.IsMade(h) {
					t.Errorf("%s is not marked as made", h.Name)
				}
				v3.Default(h)
				if err := v3.Validate(h); err != nil {
					t.Error(err)
				}
			}
			if got := hosts(list); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func prefixes(text string) []netip.Prefix {
	var out []netip.Prefix
	for f := range strings.FieldsSeq(text) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func TestOurs(t *testing.T) {
	t.Parallel()
	ours, other := want.LoadBalancerClass, "somebody.else"
	asks := map[string]string{want.Pools4Annotation: `["p"]`}
	for name, tt := range map[string]struct {
		s        want.Service
		all, few bool
	}{
		"other type":         {s: want.Service{Annotations: asks}},
		"plain":              {s: want.Service{LoadBalancer: true}, all: true},
		"our class":          {s: want.Service{LoadBalancer: true, Class: &ours}, all: true, few: true},
		"another class":      {s: want.Service{LoadBalancer: true, Class: &other, Annotations: asks}},
		"with an annotation": {s: want.Service{LoadBalancer: true, Annotations: asks}, all: true, few: true},
	} {
		if got := tt.s.Ours(false); got != tt.all {
			t.Errorf("%s: AllServices: got %v", name, got)
		}
		if got := tt.s.Ours(true); got != tt.few {
			t.Errorf("%s: RequestedServicesOnly: got %v", name, got)
		}
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		v4, v6                bool
		addrs, pools4, pools6 string
		want                  string
	}{
		"one family":        {v4: true, want: "1[] 0[] []"},
		"both":              {v4: true, v6: true, want: "1[] 1[] []"},
		"pools":             {v4: true, v6: true, pools4: `["a","10.0.0.0/24"]`, pools6: `["b"]`, want: "1[a 10.0.0.0/24] 1[b] []"},
		"address":           {v4: true, v6: true, addrs: `["192.0.2.1"]`, want: "0[] 1[] [192.0.2.1]"},
		"both addresses":    {v4: true, v6: true, addrs: `["192.0.2.1", "fd00::1"]`, want: "0[] 0[] [192.0.2.1 fd00::1]"},
		"two of one family": {addrs: `["192.0.2.1", "192.0.2.2"]`, want: `annotation projectcalico.org/loadBalancerIPs: "[\"192.0.2.1\", \"192.0.2.2\"]": must be a list of at most one IPv4 and one IPv6 address, such as ["192.0.2.1"]`},
		"no address":        {addrs: `["web"]`, want: `annotation projectcalico.org/loadBalancerIPs: "[\"web\"]": must be a list of at most one IPv4 and one IPv6 address, such as ["192.0.2.1"]`},
		"no list":           {pools4: "a", want: `annotation projectcalico.org/ipv4pools: "a": must be a list in JSON, such as ["a", "b"]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := want.Service{Namespace: "d", Name: "web", UID: "u", V4: tt.v4, V6: tt.v6, Annotations: map[string]string{
				want.AddressesAnnotation: tt.addrs, want.Pools4Annotation: tt.pools4, want.Pools6Annotation: tt.pools6,
			}}
			r, err := s.Claim(noon())
			got := fmt.Sprintf("%d%v %d%v %v", r.V4.Count, r.V4.Pools, r.V6.Count, r.V6.Pools, r.Addrs)
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	// SHA-256 of "web-d-u" in URL-safe base64, without its dashes and underscores.
	if got, want := (want.Service{Namespace: "d", Name: "Web", UID: "u"}).Handle(), "lb-G7uIr0cJ6tLi4BTrMvFRuUhrtsU4ivC0YyOpo9oE"; got != want {
		t.Errorf("handle: got %s, want %s", got, want)
	}
}

func TestSuits(t *testing.T) {
	t.Parallel()
	pools := []model.Pool{{Name: "a", CIDR: netip.MustParsePrefix("192.0.2.0/24")}, {Name: "six", CIDR: netip.MustParsePrefix("fd00::/64")}}
	for name, tt := range map[string]struct {
		have string
		s    want.Service
		want bool
	}{
		"none":                 {s: want.Service{V4: true}},
		"one":                  {have: "192.0.2.1", s: want.Service{V4: true}, want: true},
		"too many":             {have: "192.0.2.1 192.0.2.2", s: want.Service{V4: true}},
		"wrong family":         {have: "fd00::1", s: want.Service{V4: true}},
		"in the pool":          {have: "192.0.2.1", s: want.Service{V4: true, Annotations: map[string]string{want.Pools4Annotation: `["a"]`}}, want: true},
		"in the pool by range": {have: "192.0.2.1", s: want.Service{V4: true, Annotations: map[string]string{want.Pools4Annotation: `["192.0.2.0/24"]`}}, want: true},
		"in another pool":      {have: "198.51.100.1", s: want.Service{V4: true, Annotations: map[string]string{want.Pools4Annotation: `["a"]`}}},
		"named":                {have: "192.0.2.1", s: want.Service{V4: true, Annotations: map[string]string{want.AddressesAnnotation: `["192.0.2.1"]`}}, want: true},
		"not the named":        {have: "192.0.2.2", s: want.Service{V4: true, Annotations: map[string]string{want.AddressesAnnotation: `["192.0.2.1"]`}}},
	} {
		r, err := tt.s.Claim(noon())
		if err != nil {
			t.Fatal(err)
		}
		var have []netip.Addr
		for f := range strings.FieldsSeq(tt.have) {
			have = append(have, netip.MustParseAddr(f))
		}
		if got := want.Suits(have, r, pools); got != tt.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	pools := []model.Pool{
		{Name: "a", CIDR: netip.MustParsePrefix("10.0.0.0/24"), Created: noon()},
		{Name: "b", CIDR: netip.MustParsePrefix("10.0.0.0/25"), Created: noon().Add(time.Hour)},
		{Name: "c", CIDR: netip.MustParsePrefix("10.1.0.0/24"), Disabled: true},
		{Name: "d", CIDR: netip.MustParsePrefix("10.2.0.0/24"), Terminating: true},
	}
	var got []string
	for _, p := range pools {
		c := want.PoolCondition(p, pools)
		got = append(got, fmt.Sprint(c.Holds, " ", c.Reason))
	}
	if got, want := strings.Join(got, ", "), "true OK, false CIDROverlap, false PoolDisabled, false Terminating"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, tt := range map[string]struct {
		deleting bool
		policies int
		want     string
	}{
		"in force": {want: "true OK"}, "deleted": {deleting: true, want: "false Terminating"}, "waits": {deleting: true, policies: 2, want: "false Terminating"},
	} {
		if c := want.TierCondition(tt.deleting, tt.policies); fmt.Sprint(c.Holds, " ", c.Reason) != tt.want {
			t.Errorf("tier %s: %+v", name, c)
		}
	}
}
