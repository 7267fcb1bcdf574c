package remnant_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/kernel/remnant"
	"github.com/weft-net/weft/internal/testenv"
)

// others is what kube-proxy and an administrator have in the tables that Calico shares.
// Each line is one that must stay; the chain names are made to be mistaken.
const others = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:calico-not - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "not cali:" -j ACCEPT
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -j calico-not
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
:KUBE-SEP-X - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-X
-A KUBE-SVC-X -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-X
-A KUBE-SEP-X -p tcp -m tcp -j DNAT --to-destination 192.0.2.1:6443
COMMIT
`

// calico is what Felix adds to them. The first of a chain's rules go in front.
const calico = `*filter
:cali-FORWARD - [0:0]
:cali-INPUT - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-tw-cali0123 - [0:0]
-I INPUT 1 -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT
-I FORWARD 1 -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
-A KUBE-FORWARD -g cali-INPUT
-A cali-FORWARD -m comment --comment "cali:vjrMJCRpqwy5oRoX" -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-from-wl-dispatch -i cali0123 -g cali-tw-cali0123
-A cali-tw-cali0123 -m comment --comment "cali:x" -j DROP
COMMIT
*nat
:cali-POSTROUTING - [0:0]
:cali-nat-outgoing - [0:0]
-I POSTROUTING 1 -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A cali-POSTROUTING -j cali-nat-outgoing
-A cali-nat-outgoing -j MASQUERADE
COMMIT
*raw
:cali-PREROUTING - [0:0]
-I PREROUTING 1 -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
COMMIT
`

// node is a network namespace with what programs of others do in it.
type node struct {
	*testing.T
	ns *testenv.Namespace
}

func newNode(t *testing.T, programs ...string) node {
	for _, p := range programs {
		testenv.Need(t, p)
	}
	return node{t, testenv.Netns(t)}
}

// restore gives a program of the iptables family rules, beside those that there are.
func (n node) restore(program, rules string) {
	n.Helper()
	file := filepath.Join(n.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		n.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(program, "--noflush", file)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.ns.Start(cmd); err != nil {
		n.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		n.Fatalf("%s: %v: %s", program, err, out.String())
	}
}

// saved are all rules, without counters of chains and times.
func (n node) saved(program string) string {
	n.Helper()
	var out []string
	for line := range strings.Lines(n.ns.MustRun(program)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, ":") {
			line, _, _ = strings.Cut(line, " [")
		}
		out = append(out, strings.TrimSpace(line))
	}
	return strings.Join(out, "\n")
}

// do calls f with what looks at the namespace, in it.
func (n node) do(f func(r *remnant.Remnants) error) {
	n.Helper()
	n.ns.MustDo(func() error {
		r, err := remnant.Open()
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		return f(r)
	})
}

// find is what there is.
func (n node) find() (out remnant.Found) {
	n.Helper()
	n.do(func(r *remnant.Remnants) (err error) { out, err = r.Find(); return err })
	return out
}

func (n node) remove() {
	n.Helper()
	n.do(func(r *remnant.Remnants) error { return r.Remove() })
}

// familyOf is rules for a program of IPv4 or IPv6.
func familyOf(v6 bool, rules string) string {
	if v6 {
		return strings.NewReplacer("10.0.0.0/8", "fd00::/16", "10.96.0.1/32", "fd96::1/128", "192.0.2.1:6443", "[fd02::1]:6443").Replace(rules)
	}
	return rules
}

// TestRemove: Calico's chains, rules and sets go, and what others have in the same tables
// stays as it was, in its order.
func TestRemove(t *testing.T) {
	t.Parallel()
	for name, v6 := range map[string]bool{"iptables": false, "ip6tables": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, name+"-nft-restore", name+"-nft-save")
			n.restore(name+"-nft-restore", familyOf(v6, others))
			before := n.saved(name + "-nft-save")
			if got := n.find(); !got.Empty() {
				t.Fatalf("found without Calico: %+v", got)
			}
			n.remove() // nothing
			n.restore(name+"-nft-restore", calico)
			if got := n.find(); len(got.Chains) != 7 || got.Rules != 7 || len(got.Legacy) != 0 {
				t.Errorf("found %+v, want 7 chains and 7 rules", got)
			}
			n.remove()
			after := n.saved(name + "-nft-save")
			// A table that was not there before is empty.
			after = strings.ReplaceAll(after, "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\nCOMMIT", "")
			if strings.TrimSpace(after) != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if got := n.find(); !got.Empty() {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

// TestRemoveTables: the tables of Calico's nftables mode go, others stay.
func TestRemoveTables(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nft")
	for _, table := range []string{"ip calico", "ip6 calico", "ip weft", "inet calico", "ip calico-mine"} {
		n.ns.MustRun("nft", "add", "table", table)
	}
	n.ns.MustRun("nft", "add", "chain", "ip calico", "filter-FORWARD", "{ type filter hook forward priority 0; }")
	n.ns.MustRun("nft", "add", "chain", "ip weft", "cali-mine")
	n.ns.MustRun("nft", "add", "rule", "ip weft", "cali-mine", "drop")
	if got := strings.Join(n.find().Tables, ", "); got != "ip calico, ip6 calico" {
		t.Errorf("found %s", got)
	}
	n.remove()
	if got, want := n.ns.MustRun("nft", "list", "tables"), "table ip weft\ntable inet calico\ntable ip calico-mine\n"; got != want {
		t.Errorf("left:\n%swant:\n%s", got, want)
	}
	if got := n.ns.MustRun("nft", "list", "table", "ip", "weft"); !strings.Contains(got, "drop") {
		t.Errorf("of our own table is left: %s", got)
	}
}

// TestSets: Calico's ipsets go, others stay.
func TestSets(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ns.MustDo(func() error { return makeSets("cali40s:abc", "cali60all-pools", "KUBE-CLUSTER-IP", "cali50") })
	if got := strings.Join(n.find().Sets, " "); len(n.find().Sets) != 2 || !strings.Contains(got, "cali40s:abc") || !strings.Contains(got, "cali60all-pools") {
		t.Fatalf("found %q", got)
	}
	n.remove()
	if got := n.find(); !got.Empty() {
		t.Errorf("left: %+v", got)
	}
	// Whoever makes one that is there is refused: so the others are.
	n.ns.MustDo(func() error {
		for _, name := range []string{"KUBE-CLUSTER-IP", "cali50"} {
			if err := makeSets(name); err != unix.EEXIST {
				t.Errorf("%s: %v, want that it exists", name, err)
			}
		}
		return nil
	})
}

// makeSets makes ipsets of the type bitmap:port.
func makeSets(names ...string) error {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	for _, name := range names {
		seq := s.Next()
		b := netlink.AppendHeader(nil, unix.NFNL_SUBSYS_IPSET<<8|2, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, seq)
		b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
		b = netlink.AppendAttr(b, 1, []byte{6})
		b = netlink.AppendAttrString(b, 2, name)
		b = netlink.AppendAttrString(b, 3, "bitmap:port")
		b = netlink.AppendAttr(b, 4, []byte{0})
		b = netlink.AppendAttr(b, 5, []byte{unix.AF_UNSPEC})
		at := len(b)
		b = netlink.OpenNest(b, 7)
		b = netlink.AppendAttr(b, 4|1<<14, binary.BigEndian.AppendUint16(nil, 1)) // IPSET_ATTR_PORT
		b = netlink.AppendAttr(b, 5|1<<14, binary.BigEndian.AppendUint16(nil, 9)) // IPSET_ATTR_PORT_TO
		netlink.CloseNest(b, at)
		netlink.EndMessage(b, 0)
		var refused error
		if err := s.Exchange(b, seq, func(_ uint32, errno unix.Errno) { refused = errno }); err != nil {
			return err
		}
		if refused != nil {
			return refused
		}
	}
	return nil
}

// TestLegacy: rules of Calico in iptables-legacy are found, and stay.
func TestLegacy(t *testing.T) {
	t.Parallel()
	n := newNode(t, "iptables-legacy-restore", "iptables-legacy-save")
	if out, err := n.ns.Run("iptables-legacy", "-w", "-S"); err != nil {
		testenv.Skip(t, "the kernel has no iptables-legacy: %v: %s", err, out)
	}
	if got := n.find(); !got.Empty() {
		t.Errorf("found without Calico: %+v", got)
	}
	n.restore("iptables-legacy-restore", "*filter\n:cali-FORWARD - [0:0]\n-A FORWARD -j cali-FORWARD\nCOMMIT\n")
	n.remove()
	if got := n.find(); strings.Join(got.Legacy, " ") != "ip filter" {
		t.Errorf("found %+v", got)
	}
	if got := n.saved("iptables-legacy-save"); !strings.Contains(got, "-A FORWARD -j cali-FORWARD") {
		t.Errorf("left: %s", got)
	}
}
