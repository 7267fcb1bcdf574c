package plan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestHops(t *testing.T) {
	t.Parallel()
	for _, s := range [][]string{{}, {"10.0.0.1"}, {"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fe80::1"}} {
		var in []netip.Addr
		for _, a := range s {
			in = append(in, netip.MustParseAddr(a))
		}
		h := MakeHops(in...)
		out := h.Addrs()
		if len(out) != len(in) {
			t.Fatalf("%v came back as %v", in, out)
		}
		for i := range in {
			if in[i] != out[i] {
				t.Errorf("%v came back as %v", in, out)
			}
		}
		if h != MakeHops(in...) {
			t.Errorf("%v: two packings differ", in)
		}
	}
}

func TestApplyAndDiff(t *testing.T) {
	t.Parallel()
	pod := Route{
		RouteKey{Dst: netip.MustParsePrefix("10.0.0.1/32"), Table: TableMain},
		RouteAttrs{Proto: ProtoBoot, Link: "cali1"},
	}
	block := Route{
		RouteKey{Dst: netip.MustParsePrefix("10.0.1.0/26"), Table: TableMain},
		RouteAttrs{Proto: ProtoBird, Via: MakeHops(netip.MustParseAddr("192.0.2.1"))},
	}
	neighbor := Neighbor{NeighborKey{"cali1", netip.MustParseAddr("10.0.0.1")}, "ee:ee:ee:ee:ee:ee"}
	n := Node{}.Apply(Delta{PutRoutes: []Route{pod, block}, PutLinks: []Link{{Name: "cali1", V4: true}}, PutNeighbors: []Neighbor{neighbor}})
	want := "link cali1 v4=true v6=false\nneighbor 10.0.0.1 dev cali1 lladdr ee:ee:ee:ee:ee:ee\n" +
		"route 10.0.0.1/32 dev cali1 proto 3\nroute 10.0.1.0/26 via 192.0.2.1 proto 12"
	if n.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", n, want)
	}
	blackhole := Route{block.RouteKey, RouteAttrs{Type: Blackhole, Proto: ProtoBird}}
	other := Node{}.Apply(Delta{PutRoutes: []Route{pod, blackhole}})
	wantDiff := "+route blackhole 10.0.1.0/26 proto 12\n-link cali1 v4=true v6=false\n" +
		"-neighbor 10.0.0.1 dev cali1 lladdr ee:ee:ee:ee:ee:ee\n-route 10.0.1.0/26 via 192.0.2.1 proto 12"
	got := strings.Split(Diff(n, other), "\n")
	slices.Sort(got)
	if strings.Join(got, "\n") != wantDiff {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), wantDiff)
	}
	gone := n.Apply(Delta{
		DeleteRoutes: []RouteKey{pod.RouteKey, block.RouteKey}, DeleteLinks: []string{"cali1"},
		DeleteNeighbors: []NeighborKey{neighbor.NeighborKey},
	})
	if d := Diff(Node{}, gone); d != "" {
		t.Errorf("after all deletes:\n%s", d)
	}
}
