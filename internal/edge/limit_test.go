package edge

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

func TestLimitsAndFloatingAddresses(t *testing.T) {
	t.Parallel()
	const pools = "set all-hosts {\n\ttype addr\n}\nset all-ipam-pools {\n\ttype addr; flags interval\n}\n"
	for name, tt := range map[string]struct{ world, want string }{
		"of another node": {"felix default floating, ep w b cali1 10.65.0.1 float=192.0.2.7>10.65.0.1 in=1 dscp=1", ""},
		"floating is off": {"ep w a cali1 10.65.0.1 float=192.0.2.7>10.65.0.1", ""},
		"floating": {
			"felix default floating, ep w a cali1 10.65.0.1 float=192.0.2.7>10.65.0.1 float=2001:db8::7>fd65::1, ep x a cali2 10.65.0.2 float=192.0.2.7>10.65.0.2",
			"chain nat-output {\n\ttype nat hook output priority -100; policy accept;\n\tdaddr 192.0.2.7 counter dnat to 10.65.0.1 comment \"floating address of 10.65.0.1\"\n}\n" +
				"chain nat-postrouting {\n\ttype nat hook postrouting priority srcnat; policy accept;\n\tsaddr 10.65.0.1 daddr 10.65.0.1 counter snat to 192.0.2.7 comment \"floating address of 10.65.0.1\"\n}\n" +
				"chain nat-prerouting {\n\ttype nat hook prerouting priority dstnat; policy accept;\n\tdaddr 192.0.2.7 counter dnat to 10.65.0.1 comment \"floating address of 10.65.0.1\"\n}\n",
		},
		"to a workload": {
			"ep w a cali1 10.65.0.1 in=100 inconns=7",
			"map limit-to-chains {\n\ttype ifname : verdict\n\t\"cali1\" : limit-to-cali1\n}\nmap limit-to-links {\n\ttype ifname : ifname\n\t\"cali1\" : cali1\n}\n" +
				"chain limit-forward-to {\n\ttype filter hook forward priority -19; policy accept;\n\toifname map @limit-to-links vmap @limit-to-chains\n}\n" +
				"chain limit-output {\n\ttype filter hook output priority -19; policy accept;\n\toifname map @limit-to-links vmap @limit-to-chains\n}\n" +
				"chain limit-to-cali1 {\n\tlimit rate over 100/second burst 5 packets counter drop comment \"ingressPacketRate of shop/w\"\n\tct state new ct count over 7 counter reject comment \"ingressMaxConnections of shop/w\"\n}\n",
		},
		"from a workload": {
			"ep w a cali1 10.65.0.1 out=100/9",
			"map limit-from-chains {\n\ttype ifname : verdict\n\t\"cali1\" : limit-from-cali1\n}\nmap limit-from-links {\n\ttype ifname : ifname\n\t\"cali1\" : cali1\n}\n" +
				"chain limit-forward {\n\ttype filter hook forward priority -19; policy accept;\n\tiifname map @limit-from-links vmap @limit-from-chains\n}\n" +
				"chain limit-from-cali1 {\n\tlimit rate over 100/second burst 9 packets counter drop comment \"egressPacketRate of shop/w\"\n}\n" +
				"chain limit-input {\n\ttype filter hook input priority -19; policy accept;\n\tiifname map @limit-from-links vmap @limit-from-chains\n}\n",
		},
		"DSCP": {
			"ep w a cali1 10.65.0.1 fd65::1 dscp=46",
			pools + "chain limit-mark-leaving {\n\ttype filter hook postrouting priority -150; policy accept;\n\tsaddr 10.65.0.1 daddr != @all-ipam-pools daddr != @all-hosts dscp set 46 comment \"dscp of shop/w\"\n}\n",
		},
		"bandwidth alone": {"ep w a cali1 10.65.0.1 inbits=1000", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := Compile(options(), model.World{}.Apply(batch(t, tt.world)))
			if d := cmp.Diff(tt.want, f.V4.Text(false)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestShapes(t *testing.T) {
	t.Parallel()
	world := model.World{}.Apply(batch(t, "ep w a cali1 inbits=1000/5, ep x a cali1 inbits=9, ep y a cali2 outbits=2000, ep z b cali3 inbits=3, ep v a cali4 in=1"))
	want := map[string]plan.Shape{
		"cali1": {Link: "cali1", Ingress: plan.Rate{Bits: 1000, Burst: 5}},
		"cali2": {Link: "cali2", Egress: plan.Rate{Bits: 2000}},
	}
	if got := Shapes(options(), world); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
