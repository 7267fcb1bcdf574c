package edge_test

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// TestSeen: who a pod talks to outside of all pools sees its node, and policy there must
// be asked about that.
func TestSeen(t *testing.T) {
	t.Parallel()
	fixed := model.FelixConfig{Name: "default", NAT: model.NATConfig{Addr: netip.MustParseAddr("10.1.0.99")}}
	for name, tt := range map[string]struct {
		src, dst, want string
		felix          model.FelixConfig
	}{
		"to another node":    {"10.65.0.1", "10.1.0.2", "10.1.0.1", model.FelixConfig{Name: "default"}},
		"to a fixed address": {"10.65.0.1", "10.1.0.2", "10.1.0.99", fixed},
		"to a pod":           {"10.65.0.1", "10.65.9.9", "", fixed},
		"of a bare pool":     {"10.66.0.1", "10.1.0.2", "", model.FelixConfig{Name: "default"}},
		"of the node itself": {"10.1.0.1", "10.1.0.2", "", model.FelixConfig{Name: "default"}},
	} {
		w := model.World{}
		for _, v := range []model.Value{
			model.Node{Name: "a", IPv4: netip.MustParsePrefix("10.1.0.1/24")},
			model.Pool{Name: "nat", CIDR: netip.MustParsePrefix("10.65.0.0/16"), NATOutgoing: true},
			model.Pool{Name: "bare", CIDR: netip.MustParsePrefix("10.66.0.0/16")},
			tt.felix,
		} {
			w[v.Key()] = v
		}
		p := plan.Packet{Src: netip.MustParseAddr(tt.src), Dst: netip.MustParseAddr(tt.dst), Protocol: 6, DstPort: 80}
		src, why, changed := edge.Seen(edge.Options{Node: "a"}, w, p)
		if changed != (tt.want != "") || changed && src.String() != tt.want || changed && why == "" {
			t.Errorf("%s: %v, changed %t (%s), want %q", name, src, changed, why, tt.want)
		}
	}
}
