package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// fabric is what the cases of TestTunnels begin with: a and b are in one subnet, c is in
// another one; each has a block of each family.
const fabric = "node a 10.1.0.1/24 fd01::1/64 ipip=10.0.0.1 vxlan=10.0.0.2 vxlan6=fd00::2, " +
	"node b 10.1.0.2/24 fd01::2/64 ipip=10.0.1.1 vxlan=10.0.1.2 vxlan6=fd00::1:2, " +
	"node c 10.2.0.3/24 fd02::3/64 ipip=10.0.2.1 vxlan=10.0.2.2 vxlan6=fd00::2:2, " +
	"block 10.0.0.0/26 a, block 10.0.1.0/26 b, block 10.0.2.0/26 c, " +
	"block fd00::/122 a, block fd00::1:0/122 b, block fd00::2:0/122 c; mtu 1500; "

// own is what a has in any case.
const own = "blackhole 10.0.0.0/26 proto 12; blackhole fd00::/122 proto 12; "

const (
	tunl0   = "device tunl0 ipip mtu 1480 address 10.0.0.1; "
	vxlanA  = "device vxlan.calico vxlan mtu 1450 address 10.0.0.2 lladdr 66:86:f7:e4:37:fa id 4096 local 10.1.0.1 dstport 4789; "
	vxlan6A = "device vxlan-v6.calico vxlan mtu 1430 address fd00::2 lladdr 66:b0:25:93:68:b9 id 4096 local fd01::1 dstport 4789; "
	vtepB   = "vtep 10.0.1.2 dev vxlan.calico lladdr 66:e9:d7:1f:5e:e7 dst 10.1.0.2; "
	vtepC   = "vtep 10.0.2.2 dev vxlan.calico lladdr 66:84:a5:16:84:1b dst 10.2.0.3; "
	vtep6B  = "vtep fd00::1:2 dev vxlan-v6.calico lladdr 66:05:90:f3:54:e9 dst fd01::2; "
	vtep6C  = "vtep fd00::2:2 dev vxlan-v6.calico lladdr 66:b4:d5:b2:91:47 dst fd02::3; "
	ipipB   = "10.0.1.0/26 via 10.1.0.2 dev tunl0 proto 12 onlink; "
	ipipC   = "10.0.2.0/26 via 10.2.0.3 dev tunl0 proto 12 onlink; "
	vxlanB  = "10.0.1.0/26 via 10.0.1.2 dev vxlan.calico proto 12 onlink; "
	vxlanC  = "10.0.2.0/26 via 10.0.2.2 dev vxlan.calico proto 12 onlink; "
	vxlan6B = "fd00::1:0/122 via fd00::1:2 dev vxlan-v6.calico proto 12 onlink; "
	vxlan6C = "fd00::2:0/122 via fd00::2:2 dev vxlan-v6.calico proto 12 onlink; "
	nearB   = "10.0.1.0/26 via 10.1.0.2 proto 12; "
	near6B  = "fd00::1:0/122 via fd01::2 proto 12; "
)

func TestTunnels(t *testing.T) {
	for name, tt := range map[string]struct{ steps, want string }{
		"no pool":       {"", ""},
		"Never":         {"pool p 10.0.0.0/16 ipip=Never", ""},
		"IPIP":          {"pool p 10.0.0.0/16 ipip=Always", tunl0 + ipipB + ipipC},
		"IPIP crossing": {"pool p 10.0.0.0/16 ipip=CrossSubnet", tunl0 + nearB + ipipC},
		"VXLAN":         {"pool p 10.0.0.0/16 vxlan=Always", vxlanA + vtepB + vtepC + vxlanB + vxlanC},
		"VXLAN crossing": {
			"pool p 10.0.0.0/16 vxlan=CrossSubnet",
			vxlanA + vtepB + vtepC + nearB + vxlanC,
		},
		"VXLAN of IPv6":          {"pool p fd00::/48 vxlan=Always", vxlan6A + vtep6B + vtep6C + vxlan6B + vxlan6C},
		"VXLAN of IPv6 crossing": {"pool p fd00::/48 vxlan=CrossSubnet", vxlan6A + vtep6B + vtep6C + near6B + vxlan6C},
		"both families": {
			"pool p 10.0.0.0/16 ipip=Always, pool q fd00::/48 vxlan=Always",
			tunl0 + ipipB + ipipC + vxlan6A + vtep6B + vtep6C + vxlan6B + vxlan6C,
		},
		"several at once": {
			"pool p 10.0.1.0/24 ipip=Always, pool q 10.0.2.0/24 vxlan=Always, pool r fd00::/48",
			tunl0 + ipipB + vxlanA + vtepB + vtepC + vxlanC,
		},
		"smallest pool counts":  {"pool p 10.0.0.0/16 ipip=Always, pool q 10.0.2.0/24", tunl0 + ipipB},
		"pool goes":             {"pool p 10.0.0.0/16 ipip=Always; -pool p 10.0.0.0/16", ""},
		"pool changes":          {"pool p 10.0.0.0/16 ipip=Always; pool p 10.0.0.0/16 vxlan=CrossSubnet", vxlanA + vtepB + vtepC + nearB + vxlanC},
		"pool invalid stays":    {"pool p 10.0.0.0/16 ipip=Always; !pool p 10.0.0.0/16", tunl0 + ipipB + ipipC},
		"pool gone in snapshot": {"pool p 10.0.0.0/16 ipip=Always; reset, " + strings.TrimSuffix(fabric, "; mtu 1500; ") + "; synced", ""},
		"IPIP on IPv6":          {"pool p fd00::/48 ipip=Always, pool q 10.0.0.0/16 ipip=Always", tunl0 + ipipB + ipipC},
		"both modes":            {"pool p 10.0.1.0/24 ipip=Always vxlan=Always, pool q 10.0.2.0/24 ipip=Always", tunl0 + ipipC},

		"off":              {"pool p 10.0.0.0/16 ipip=Always, felix default ipip=false", ""},
		"off, and on":      {"pool p 10.0.0.0/16 ipip=Always, felix default ipip=false; felix default", tunl0 + ipipB + ipipC},
		"VXLAN off":        {"pool p 10.0.0.0/16 vxlan=Always, pool q fd00::/48 vxlan=Always, felix default vxlan=false", vxlan6A + vtep6B + vtep6C + vxlan6B + vxlan6C},
		"on without pools": {"felix default ipip=true vxlan=true", tunl0 + vxlanA + vtepB + vtepC},
		"MTU set":          {"pool p 10.0.0.0/16 ipip=Always, felix default ipipmtu=1400", strings.Replace(tunl0, "1480", "1400", 1) + ipipB + ipipC},
		"MTU changes":      {"pool p 10.0.0.0/16 ipip=Always; mtu 9000", strings.Replace(tunl0, "1480", "8980", 1) + ipipB + ipipC},
		"MTU unknown":      {"pool p 10.0.0.0/16 ipip=Always; mtu 0", strings.Replace(tunl0, "1480", "0", 1) + ipipB + ipipC},
		"MTU too small":    {"pool p 10.0.0.0/16 ipip=Always, pool q fd00::/48 vxlan=CrossSubnet; mtu 1349", strings.Replace(tunl0, "1480", "1329", 1) + ipipB + ipipC + near6B},
		"settings of VXLAN": {
			"pool p 10.0.0.0/16 vxlan=Always, felix default vni=7 port=8472 vxlanmtu=1400 badsum=true",
			strings.NewReplacer("4096", "7", "4789", "8472 no checksum offload", "1450", "1400").Replace(vxlanA) + vtepB + vtepC + vxlanB + vxlanC,
		},
		"metric": {
			"pool p 10.0.0.0/16 ipip=CrossSubnet, felix default metric4=7",
			tunl0 + strings.ReplaceAll(nearB, "proto 12", "proto 12 metric 7") + strings.ReplaceAll(ipipC, "onlink", "onlink metric 7"),
		},

		"no tunnel address yet": {"node a 10.1.0.1/24 fd01::1/64, pool p 10.0.0.0/16 ipip=Always", strings.Replace(tunl0, " address 10.0.0.1", "", 1) + ipipB + ipipC},
		"no VTEP yet":           {"node b 10.1.0.2/24 fd01::2/64, pool p 10.0.0.0/16 vxlan=Always", vxlanA + vtepC + vxlanC},
		"no VTEP, but near":     {"node b 10.1.0.2/24 fd01::2/64, pool p 10.0.0.0/16 vxlan=CrossSubnet", vxlanA + vtepC + nearB + vxlanC},
		"VTEP comes":            {"node b 10.1.0.2/24 fd01::2/64, pool p 10.0.0.0/16 vxlan=Always; node b 10.1.0.2/24 fd01::2/64 vxlan=10.0.1.2", vxlanA + vtepB + vtepC + vxlanB + vxlanC},
		"MAC of the record":     {"node b 10.1.0.2/24 vxlan=10.0.1.2 mac=66:00:00:00:00:01, pool p 10.0.0.0/16 vxlan=Always", vxlanA + strings.Replace(vtepB, "66:e9:d7:1f:5e:e7", "66:00:00:00:00:01", 1) + vtepC + vxlanB + vxlanC},
		"own VTEP elsewhere":    {"node b 10.1.0.2/24 vxlan=10.0.0.2, pool p 10.0.0.0/16 vxlan=Always", vxlanA + vtepC + vxlanC},
		"own address elsewhere": {"node b 10.1.0.1/24, pool p 10.0.0.0/16 ipip=CrossSubnet", tunl0 + ipipC},
		"node goes":             {"pool p 10.0.0.0/16 vxlan=Always; -node b", vxlanA + vtepC + vxlanC},
		"node moves":            {"pool p 10.0.0.0/16 ipip=CrossSubnet; node c 10.1.0.3/24", tunl0 + nearB + "10.0.2.0/26 via 10.1.0.3 proto 12"},
		"this node moves":       {"pool p 10.0.0.0/16 ipip=CrossSubnet; node a 10.2.0.1/24 fd01::1/64 ipip=10.0.0.1", tunl0 + ipipB + "10.0.2.0/26 via 10.2.0.3 proto 12"},
		"mask of this node":     {"pool p 10.0.0.0/16 ipip=CrossSubnet; node a 10.1.0.1/8 ipip=10.0.0.1", tunl0 + nearB + "10.0.2.0/26 via 10.2.0.3 proto 12"},
		"no mask":               {"pool p 10.0.0.0/16 ipip=CrossSubnet; node a 10.1.0.1/32 ipip=10.0.0.1", tunl0 + ipipB + ipipC},
		"no address of this":    {"pool p 10.0.0.0/16 ipip=Always, pool q fd00::/48 vxlan=Always; node a 10.1.0.1/24 ipip=10.0.0.1", tunl0 + ipipB + ipipC},
		"no address of that":    {"pool p 10.0.0.0/16 ipip=Always; node c fd02::3/64", tunl0 + ipipB},

		"borrowed from us":    {"pool p 10.0.0.0/16 ipip=Always, block 10.0.0.0/26 a 10.0.0.9@c", tunl0 + ipipB + ipipC + "10.0.0.9/32 via 10.2.0.3 dev tunl0 proto 12 onlink"},
		"borrowed from b":     {"pool p 10.0.0.0/16 ipip=Always, block 10.0.1.0/26 b 10.0.1.9@c", tunl0 + ipipB + ipipC + "10.0.1.9/32 via 10.2.0.3 dev tunl0 proto 12 onlink"},
		"borrowed by us":      {"pool p 10.0.0.0/16 ipip=Always, block 10.0.1.0/26 b 10.0.1.9@a", tunl0 + ipipB + ipipC},
		"borrowed IPv6":       {"pool p fd00::/48 vxlan=Always, block fd00::1:0/122 b fd00::1:9@c", vxlan6A + vtep6B + vtep6C + vxlan6B + vxlan6C + "fd00::1:9/128 via fd00::2:2 dev vxlan-v6.calico proto 12 onlink"},
		"given back":          {"pool p 10.0.0.0/16 ipip=Always, block 10.0.0.0/26 a 10.0.0.9@c; block 10.0.0.0/26 a", tunl0 + ipipB + ipipC},
		"without an owner":    {"pool p 10.0.0.0/16 ipip=Always, block 10.0.1.0/26 - 10.0.1.9@c", tunl0 + ipipC + "10.0.1.9/32 via 10.2.0.3 dev tunl0 proto 12 onlink"},
		"block being deleted": {"pool p 10.0.0.0/16 ipip=Always, block 10.0.1.0/26 b deleted 10.0.1.9@c", tunl0 + ipipC},
		"block moves":         {"pool p 10.0.0.0/16 ipip=Always; block 10.0.1.0/26 c", tunl0 + "10.0.1.0/26 via 10.2.0.3 dev tunl0 proto 12 onlink; " + ipipC},
		"block of nobody":     {"pool p 10.0.0.0/16 ipip=Always, block 10.0.1.0/26 stranger", tunl0 + ipipC},
		"node then has it":    {"pool p 10.0.0.0/16 ipip=Always, block 10.0.1.0/26 d; node d 10.4.0.4/24", tunl0 + "10.0.1.0/26 via 10.4.0.4 dev tunl0 proto 12 onlink; " + ipipC},
		"block of one":        {"pool p 10.0.0.0/16 ipip=Always, block 10.0.3.1/32 c", tunl0 + ipipB + ipipC + "10.0.3.1/32 via 10.2.0.3 dev tunl0 proto 12 onlink"},
		"of two blocks":       {"pool p 10.0.0.0/16 ipip=Always, block 10.0.1.0/26 - 10.0.1.9@b, block 10.0.1.8/31 - 10.0.1.9@c; block 10.0.1.0/30 b, block 10.0.1.0/26 - 10.0.1.9@a", tunl0 + "10.0.1.0/30 via 10.1.0.2 dev tunl0 proto 12 onlink; 10.0.1.9/32 via 10.2.0.3 dev tunl0 proto 12 onlink; " + ipipC},
		"workload over loan":  {"pool p 10.0.0.0/16 ipip=Always, block 10.0.0.0/26 a 10.0.0.9@c, ep web a cali1 10.0.0.9", tunl0 + ipipB + ipipC + "10.0.0.9/32 dev cali1 proto 3; link cali1 v4=true v6=false"},

		"learned too":            {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.1.0/26 10.1.0.2", tunl0 + ipipB + ipipC},
		"learned of no block":    {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.9.0/24 10.2.0.3", tunl0 + ipipB + ipipC + "10.0.9.0/24 via 10.2.0.3 dev tunl0 proto 12 onlink"},
		"learned, VXLAN":         {"pool p 10.0.0.0/16 vxlan=Always; learn 10.0.9.0/24 10.2.0.3", vxlanA + vtepB + vtepC + vxlanB + vxlanC + "10.0.9.0/24 via 10.0.2.2 dev vxlan.calico proto 12 onlink"},
		"learned, crossing":      {"pool p 10.0.0.0/16 ipip=CrossSubnet; learn 10.0.9.0/24 10.1.0.2, learn 10.0.8.0/24 10.2.0.3", tunl0 + nearB + ipipC + "10.0.9.0/24 via 10.1.0.2 proto 12; 10.0.8.0/24 via 10.2.0.3 dev tunl0 proto 12 onlink"},
		"learned, IPv6":          {"pool p fd00::/48 vxlan=Always; learn fd00::9:0/122 fd02::3", vxlan6A + vtep6B + vtep6C + vxlan6B + vxlan6C + "fd00::9:0/122 via fd00::2:2 dev vxlan-v6.calico proto 12 onlink"},
		"learned from a router":  {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.9.0/24 10.1.0.254", tunl0 + ipipB + ipipC + "10.0.9.0/24 via 10.1.0.254 proto 12"},
		"learned from several":   {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.9.0/24 10.1.0.2+10.2.0.3", tunl0 + ipipB + ipipC + "10.0.9.0/24 via 10.1.0.2 via 10.2.0.3 proto 12"},
		"learned, wider":         {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.0.0/15 10.2.0.3", tunl0 + ipipB + ipipC + "10.0.0.0/15 via 10.2.0.3 proto 12"},
		"learned, outside":       {"pool p 10.0.0.0/16 ipip=Always; learn 10.5.0.0/24 10.2.0.3", tunl0 + ipipB + ipipC + "10.5.0.0/24 via 10.2.0.3 proto 12"},
		"learned, then the pool": {"learn 10.0.9.0/24 10.2.0.3; pool p 10.0.0.0/16 ipip=Always", tunl0 + ipipB + ipipC + "10.0.9.0/24 via 10.2.0.3 dev tunl0 proto 12 onlink"},
		"learned, pool goes":     {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.9.0/24 10.2.0.3, learn 10.0.1.0/26 10.1.0.2; -pool p 10.0.0.0/16", "10.0.9.0/24 via 10.2.0.3 proto 12; " + nearB},
		"learned, then the node": {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.9.0/24 10.4.0.4; node d 10.4.0.4/24", tunl0 + ipipB + ipipC + "10.0.9.0/24 via 10.4.0.4 dev tunl0 proto 12 onlink"},
		"learned, node goes":     {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.9.0/24 10.2.0.3; -node c", tunl0 + ipipB + "10.0.9.0/24 via 10.2.0.3 proto 12"},
		"learned, VTEP goes":     {"pool p 10.0.0.0/16 vxlan=Always; learn 10.0.9.0/24 10.2.0.3; node c 10.2.0.3/24", vxlanA + vtepB + vxlanB},
		"learned withdrawn":      {"pool p 10.0.0.0/16 ipip=Always; learn 10.0.9.0/24 10.2.0.3, learn 10.0.1.0/26 10.1.0.2; -learn 10.0.9.0/24, -learn 10.0.1.0/26", tunl0 + ipipB + ipipC},
		"fixed over stored":      {"pool p 10.0.0.0/16 ipip=Always; fix 10.0.1.0/26 10.1.0.9", tunl0 + "10.0.1.0/26 via 10.1.0.9 proto 12; " + ipipC},
		"own subnet is no block": {"pool p 10.1.0.0/16 ipip=Always, block 10.1.0.0/24 b", tunl0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			for _, e := range events(t, fabric+tt.steps) {
				w.step(t, e)
			}
			w.expect(t, own+tt.want)
		})
	}
}

// Where there is no BGP, the routes to all blocks come from the datastore.
func TestNoBGP(t *testing.T) {
	for name, tt := range map[string]struct{ steps, want, problem string }{
		"no encapsulation": {
			"pool p 10.0.0.0/16, pool q fd00::/48", nearB + near6B,
			"IPPool/p: no route to its addresses on node c (10.2.0.3): in another subnet than this node, there is no BGP, and the pool has no encapsulation; set its vxlanMode to CrossSubnet or Always|" +
				"IPPool/q: no route to its addresses on node c (fd02::3): in another subnet than this node, there is no BGP, and the pool has no encapsulation; set its vxlanMode to CrossSubnet or Always",
		},
		"several nodes": {
			"pool p 10.0.0.0/16, -block fd00::2:0/122, node d 10.4.0.4/24, block 10.0.3.0/26 d, node e 10.4.0.5/24, block 10.0.0.0/26 a 10.0.0.9@e", nearB + near6B,
			"IPPool/p: no route to its addresses on node c (10.2.0.3) and 2 more: in another subnet than this node, there is no BGP, and the pool has no encapsulation; set its vxlanMode to CrossSubnet or Always",
		},
		"one subnet": {"pool p 10.0.0.0/16, pool q fd00::/48, node c 10.1.0.3/24 fd01::3/64", nearB + near6B + "10.0.2.0/26 via 10.1.0.3 proto 12; fd00::2:0/122 via fd01::3 proto 12", ""},
		"VXLAN":      {"pool p 10.0.0.0/16 vxlan=CrossSubnet, pool q fd00::/48 vxlan=Always", vxlanA + vtepB + vtepC + nearB + vxlanC + vxlan6A + vtep6B + vtep6C + vxlan6B + vxlan6C, ""},
		"no pool": {
			"pool q fd00::/48 vxlan=Always", nearB + vxlan6A + vtep6B + vtep6C + vxlan6B + vxlan6C,
			"blocks in no pool: no route to those on node c (10.2.0.3): in another subnet than this node, and there is no BGP; create a pool with vxlanMode CrossSubnet or Always for them",
		},
		"problem ends": {"pool p 10.0.0.0/16, pool q fd00::/48; pool p 10.0.0.0/16 vxlan=CrossSubnet, -block fd00::2:0/122", vxlanA + vtepB + vtepC + nearB + vxlanC + near6B, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwinOf(Options{Node: "a", NoBGP: true})
			for _, e := range events(t, fabric+tt.steps) {
				w.step(t, e)
				w.graph.Problems()
			}
			w.expect(t, own+tt.want)
			if got := problems(w.graph); got != tt.problem {
				t.Errorf("problems\n got %s\nwant %s", got, tt.problem)
			}
		})
	}
}

func (w *twin) expect(t *testing.T, want string) {
	t.Helper()
	got := strings.ReplaceAll(strings.ReplaceAll(w.got.String(), "route ", ""), "\n", "; ")
	if got, want := sorted(got), sorted(strings.Trim(want, "; ")); got != want {
		t.Errorf("\n got %s\nwant %s", strings.ReplaceAll(got, "; ", "\n     "), strings.ReplaceAll(want, "; ", "\n     "))
	}
}

func problems(g *Graph) string {
	var out []string
	for _, p := range g.Problems() {
		out = append(out, p.String())
	}
	return strings.Join(out, "|")
}

// A change must say no more than what changes.
func TestTunnelChanges(t *testing.T) {
	const pools = "pool p 10.0.1.0/24 ipip=CrossSubnet, pool q 10.0.2.0/24 ipip=CrossSubnet, pool r fd00::/48 vxlan=Always; "
	for name, tt := range map[string]struct{ step, want string }{
		"same":               {"pool p 10.0.1.0/24 ipip=CrossSubnet, node b 10.1.0.2/24 fd01::2/64 ipip=10.0.1.1 vxlan=10.0.1.2 vxlan6=fd00::1:2", ""},
		"labels of others":   {"node b 10.1.0.2/24 fd01::2/64 ipip=10.0.1.1 vxlan=10.0.1.2 vxlan6=fd00::1:2 x=y", ""},
		"mode of a pool":     {"pool p 10.0.1.0/24 ipip=Always", "+10.0.1.0/26 via 10.1.0.2 dev tunl0 proto 12 onlink"},
		"mode of another":    {"pool q 10.0.2.0/24 ipip=Always", ""},
		"pool loses its":     {"pool q 10.0.2.0/24", "-10.0.2.0/26"},
		"node comes":         {"node d 10.4.0.4/24 fd04::4/64 vxlan6=fd00::3:2, block 10.0.2.64/26 d, block fd00::3:0/122 d", "+10.0.2.64/26 via 10.4.0.4 dev tunl0 proto 12 onlink +fd00::3:0/122 via fd00::3:2 dev vxlan-v6.calico proto 12 onlink +vtep fd00::3:2"},
		"node goes":          {"-node c", "-10.0.2.0/26 -fd00::2:0/122 -vtep fd00::2:2"},
		"MTU":                {"mtu 9000", "+tunl0 +vxlan-v6.calico"},
		"last of a kind":     {"-pool r fd00::/48", "-fd00::1:0/122 -fd00::2:0/122 -vxlan-v6.calico -vtep fd00::1:2 -vtep fd00::2:2"},
		"tunnel address":     {"node a 10.1.0.1/24 fd01::1/64 ipip=10.0.0.7 vxlan6=fd00::2", "+tunl0"},
		"address in a block": {"block 10.0.1.0/26 b 10.0.1.9@b", ""},
		"too little for v6":  {"mtu 1349", "-fd00::1:0/122 -fd00::2:0/122 +tunl0 -vxlan-v6.calico -vtep fd00::1:2 -vtep fd00::2:2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			for _, e := range events(t, fabric+pools+tt.step) {
				w.step(t, e)
			}
			if got := strings.TrimSpace(w.last); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A restarted agent must not send packets another way while it reads the datastore.
func TestFirstSnapshotIsOneChange(t *testing.T) {
	w := newTwinOf(Options{Node: "a", NoBGP: true})
	for _, e := range events(t, "mtu 1500; reset, block 10.0.1.0/26 b, node a 10.1.0.1/24 ipip=10.0.0.1; node b 10.1.0.2/24; learn 10.0.9.0/24 10.1.0.2") {
		if w.step(t, e); w.last != "" {
			t.Errorf("changes %s", w.last)
		}
	}
	for _, e := range events(t, "pool p 10.0.0.0/16 ipip=Always, synced") {
		w.step(t, e)
	}
	w.expect(t, tunl0+ipipB+"10.0.9.0/24 via 10.1.0.2 dev tunl0 proto 12 onlink")
}

func TestTunnelProblems(t *testing.T) {
	for name, tt := range map[string]struct{ steps, want string }{
		"none":         {"pool p 10.0.0.0/16 ipip=Always, pool q fd00::/48 vxlan=Always", ""},
		"IPIP on IPv6": {"pool q fd00::/48 ipip=Always", "IPPool/q: ipipMode Always: fd00::/48 is IPv6, which IPIP can't carry: its packets are not encapsulated; use vxlanMode"},
		"both modes":   {"pool p 10.0.0.0/16 ipip=Always vxlan=CrossSubnet", "IPPool/p: ipipMode Always and vxlanMode CrossSubnet exclude each other: its packets are not encapsulated; one of them must be Never"},
		"IPIP off":     {"pool p 10.0.0.0/16 ipip=Always, felix node.a ipip=false", "IPPool/p: ipipMode Always: ipipEnabled is false on this node: its packets are not encapsulated; unset ipipEnabled, or set the mode to Never"},
		"VXLAN off":    {"pool p 10.0.0.0/16 vxlan=Always, felix node.a vxlan=false", "IPPool/p: vxlanMode Always: vxlanEnabled is false on this node: its packets are not encapsulated; unset vxlanEnabled, or set the mode to Never"},
		"too small for VXLAN": {
			"pool q fd00::/48 vxlan=Always; mtu 1349",
			"IPPool/q: vxlanMode Always: no device vxlan-v6.calico: the underlay's MTU of 1349 less 70, or vxlanMTUV6, is below the 1280 that IPv6 needs (RFC 8200): " +
				"no encapsulated route to its addresses on other nodes; other pools keep working; raise the MTU of the underlay",
		},
		"too small for pods": {
			"pool p 10.0.0.0/16 ipip=Always, pool q fd00::/48; mtu 1299",
			"Node/a: MTU of pods: the underlay's MTU of 1299 less what tunl0 adds, or what is set for it, leaves 1279, IPv6 needs at least 1280 (RFC 8200): " +
				"IPv6 of this node's pods does not work; IPv4 pools keep working; raise the MTU of the underlay",
		},
		"too small at all": {
			"pool q fd00::/48; mtu 1200",
			"Node/a: MTU of pods: the underlay's MTU of 1200 leaves 1200, IPv6 needs at least 1280 (RFC 8200): " +
				"IPv6 of this node's pods does not work; IPv4 pools keep working; raise the MTU of the underlay",
		},
		"no IPv6 address": {
			"pool p 10.0.0.0/16 ipip=Always, pool q fd00::/48 vxlan=Always, node a 10.1.0.1/24",
			"IPPool/q: vxlan-v6.calico: node a has no IPv6 address: no encapsulated route to the pool's addresses on other nodes; give the node an address, or keep the pool's pods off it",
		},
		"no address yet":      {"pool p 10.0.0.0/16 ipip=Always, pool q fd00::/48 vxlan=Always, node a", ""},
		"enough without IPv6": {"pool p 10.0.0.0/16 ipip=Always; mtu 1000", ""},
		"shared VTEP":         {"pool p 10.0.0.0/16 vxlan=Always, node c 10.2.0.3/24 vxlan=10.0.1.2", "Node/c: VXLAN tunnel address 10.0.1.2: node b has it, too: its packets go there; a tunnel address belongs to one node"},
		"shared no more":      {"pool p 10.0.0.0/16 vxlan=Always, node c 10.2.0.3/24 vxlan=10.0.1.2; -node b", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			for _, e := range events(t, fabric+tt.steps) {
				w.step(t, e)
			}
			if got := problems(w.graph); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestPodMTU(t *testing.T) {
	for name, tt := range map[string]struct {
		steps   string
		tunnels string // of which the node takes part
		want    int
	}{
		"no tunnel":          {"pool p 10.0.0.0/16", "", 1500},
		"IPIP":               {"pool p 10.0.0.0/16 ipip=Always", "ipip", 1480},
		"VXLAN":              {"pool p 10.0.0.0/16 vxlan=CrossSubnet", "vxlan", 1450},
		"VXLAN over IPv6":    {"pool q fd00::/48 vxlan=Always", "vxlan6", 1430},
		"the largest counts": {"pool p 10.0.0.0/16 ipip=Always, pool q 10.9.0.0/16 vxlan=Always", "ipip vxlan", 1450},
		"WireGuard":          {"pool p 10.0.0.0/16 ipip=Always, felix default wg=true", "ipip wg", 1440},
		"WireGuard of both":  {"felix default wg=true wg6=true", "wg wg6", 1420},
		"none without node":  {"felix default wg=true wg6=true, pool p 10.0.0.0/16 ipip=Always, node a fd01::1/64", "wg6", 1420},
		"set":                {"pool p 10.0.0.0/16 ipip=Always, felix default ipipmtu=1300", "ipip", 1300},
		"set, not in use":    {"pool p 10.0.0.0/16 ipip=Always, felix default vxlanmtu=1300", "ipip", 1480},
		"set for WireGuard":  {"pool p 10.0.0.0/16 ipip=Always, felix default wg=true wgmtu=1300", "ipip wg", 1300},
		"unknown":            {"pool p 10.0.0.0/16 ipip=Always; mtu 0", "ipip", 0},
		"changes":            {"pool p 10.0.0.0/16 ipip=Always; mtu 9000", "ipip", 8980},
		"smallest":           {"pool p 10.0.0.0/16 ipip=Always; mtu 580", "ipip", 576},
		"off":                {"pool p 10.0.0.0/16 ipip=Always, felix default ipip=false", "", 1500},
		"too small for v6":   {"pool q fd00::/48 vxlan=Always; mtu 1349", "", 1349},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			for _, e := range events(t, fabric+tt.steps) {
				w.step(t, e)
			}
			var names []string
			in := w.graph.Tunnels()
			for i, on := range []bool{in.IPIP, in.VXLAN, in.VXLAN6, in.WireGuard, in.WireGuard6} {
				if on {
					names = append(names, []string{"ipip", "vxlan", "vxlan6", "wg", "wg6"}[i])
				}
			}
			if got := strings.Join(names, " "); got != tt.tunnels || w.graph.PodMTU() != tt.want {
				t.Errorf("%q, MTU %d; want %q, %d", got, w.graph.PodMTU(), tt.tunnels, tt.want)
			}
		})
	}
}

func TestTunnelSettings(t *testing.T) {
	usual := Tunnel{VNI: 4096, VXLANPort: 4789, MTUPattern: model.DefaultMTUPattern}
	for name, tt := range map[string]struct {
		configs string
		want    func(*Tunnel)
	}{
		"nothing said":   {"felix default", func(*Tunnel) {}},
		"the node wins":  {"felix default ipip=true vni=5 port=6, felix node.a ipip=false vni=7", func(t *Tunnel) { t.IPIP, t.VNI, t.VXLANPort = Off, 7, 6 }},
		"not of another": {"felix node.b ipip=false", func(*Tunnel) {}},
		"MTUs": {"felix default ipipmtu=1 vxlanmtu=2 vxlanmtu6=3 wgmtu=4, felix node.a ipipmtu=0", func(t *Tunnel) {
			t.VXLANMTU, t.VXLANMTU6, t.WireGuardMTU = 2, 3, 4
		}},
		"switches": {"felix default vxlan=true wg=true wg6=true badsum=true", func(t *Tunnel) {
			t.VXLAN, t.WireGuard, t.WireGuard6, t.ChecksumBroken = On, true, true, true
		}},
	} {
		want := usual
		tt.want(&want)
		w := newTwin()
		for _, e := range events(t, tt.configs) {
			w.step(t, e)
		}
		if got := w.graph.Settings().Tunnel; got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	w := newTwin()
	for _, e := range events(t, fabric+"pool p 10.0.0.0/16 vxlan=CrossSubnet, pool q 10.5.0.0/16 ipip=Always, pool r fd00::/48 vxlan=Always, "+
		"block 10.5.0.0/26 c, block 10.6.0.0/26 c, block 10.0.0.0/26 a 10.0.0.9@c, ep web a cali1 10.0.0.5") {
		w.step(t, e)
	}
	self := w.world[model.Node{Name: "a"}.Key()].(model.Node)
	self.MTU = 1500
	w.world[self.Key()] = self
	for addr, want := range map[string]string{
		"10.0.0.5":  "10.0.0.5/32 dev cali1 proto 3",
		"10.0.0.6":  "blackhole 10.0.0.0/26 proto 12",
		"10.0.0.9":  "10.0.0.9/32 via 10.0.2.2 dev vxlan.calico proto 12 onlink; vxlan.calico to 10.2.0.3 from 10.1.0.1 mtu 1450",
		"10.0.1.7":  "10.0.1.0/26 via 10.1.0.2 proto 12",
		"10.0.2.7":  "10.0.2.0/26 via 10.0.2.2 dev vxlan.calico proto 12 onlink; vxlan.calico to 10.2.0.3 from 10.1.0.1 mtu 1450",
		"10.5.0.7":  "10.5.0.0/26 via 10.2.0.3 dev tunl0 proto 12 onlink; tunl0 to 10.2.0.3 from 10.1.0.1 mtu 1480",
		"10.6.0.7":  "10.6.0.0/26 via 10.2.0.3 proto 12",
		"fd00::2:7": "fd00::2:0/122 via fd00::2:2 dev vxlan-v6.calico proto 12 onlink; vxlan-v6.calico to fd02::3 from fd01::1 mtu 1430",
		"1.1.1.1":   "nowhere",
	} {
		got := "nowhere"
		if p, ok := PathFrom(Options{Node: "a"}, w.world, addrs(addr)[0]); ok {
			if got = p.Route.String(); p.Device != (plan.Device{}) {
				got += fmt.Sprintf("; %s to %v from %v mtu %d", p.Device.Name, p.To, p.From, p.Device.MTU)
			}
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", addr, got, want)
		}
	}
}

func TestLookup(t *testing.T) {
	route := func(dst string, table, metric uint32) plan.Route {
		return plan.Route{RouteKey: plan.RouteKey{Dst: netip.MustParsePrefix(dst), Table: table, Priority: metric}}
	}
	n := plan.Node{}.Apply(plan.Delta{PutRoutes: []plan.Route{
		route("0.0.0.0/0", plan.TableMain, 0), route("10.0.0.0/8", plan.TableMain, 9), route("10.0.0.0/8", plan.TableMain, 7),
		route("10.1.0.0/16", 7, 0), route("::/0", plan.TableMain, 3),
	}})
	for addr, want := range map[string]string{"10.1.0.1": "10.0.0.0/8 proto 0 metric 7", "11.0.0.1": "0.0.0.0/0 proto 0", "fd00::1": "::/0 proto 0 metric 3"} {
		if r, ok := lookup(n, netip.MustParseAddr(addr)); !ok || r.String() != want {
			t.Errorf("%s: %v, %t; want %s", addr, r, ok, want)
		}
	}
	if r, ok := lookup(plan.Node{}, netip.MustParseAddr("fd00::1")); ok {
		t.Errorf("an empty node has %v", r)
	}
}

// What is gone must leave nothing behind.
func TestGraphForgets(t *testing.T) {
	w := newTwin()
	for _, e := range events(t, fabric+"pool p 10.0.0.0/16 vxlan=Always, block 10.0.0.0/26 a 10.0.0.9@c; reset, synced") {
		w.step(t, e)
	}
	g := w.graph
	if n := len(g.known) + len(g.configs) + len(g.blocks) + len(g.loans) + len(g.homes) + len(g.addrs) + len(g.vteps); n > 0 {
		t.Errorf("%d things are kept of an empty world: %+v", n, g)
	}
}
