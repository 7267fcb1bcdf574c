package nft_test

import (
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// TestList: what is in the kernel is listed, without an NFT, and so that a person finds it.
func TestList(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	list := func() string {
		var b strings.Builder
		k.ns.MustDo(func() error { return nft.List(&b) })
		return b.String()
	}
	if got := list(); got != "table ip weft {\n}\ntable ip6 weft {\n}\n" {
		t.Errorf("nothing is there:\n%s", got)
	}
	n, _ := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: sample(false), V6: sample(true)})
	n.Synced()
	k.wait(n)
	k.nft("add table ip other { chain foreign { accept; }; }")
	got := list()
	for _, want := range []string{
		"table ip weft {\n", "table ip6 weft {\n",
		"\tset addrs { type ipv4_addr; elements 2\n", "\t\t10.0.0.2\n", "\t\tfd00::2\n",
		"\tset nets { type ipv4_addr, interval;", "\t\tend before 10.1.2.0\n",
		"\tset linknets { type ifname . ipv6_addr, interval;", "\t\t\"cali1\" . fd03:: to \"cali1\" . fd03::7fff:ffff:ffff:ffff\n",
		"\tset addrports { type ipv4_addr . inet_proto . inet_service; elements 2\n", "\t\t10.0.0.1 . 0x",
		"\t\t\"cali1\" : \"0123456789abcde\"\n", "\t\t\"b\" : goto other\n",
		"\tchain forward { type filter hook forward priority -5;\n", "\tchain other {\n",
		"counter packets 0 bytes 0", "comment \"policy 1\"", "# handle ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(got, "foreign") {
		t.Error("others' tables are listed")
	}
	if t.Failed() {
		t.Logf("%s", got)
	}
}
