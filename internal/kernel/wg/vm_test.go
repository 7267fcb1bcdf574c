package wg

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// running is a door at work in a namespace.
type running struct {
	*WG
	keys chan plan.PublicKey
	stop func()
}

func runDoor(t *testing.T, ns *testenv.Namespace) *running {
	t.Helper()
	r := &running{keys: make(chan plan.PublicKey, 100)}
	r.stop = ns.Keep(func() (_ func(context.Context) error, err error) {
		if r.WG, err = New(Options{Keys: func(_ string, k plan.PublicKey) { r.keys <- k }}); err != nil {
			return nil, err
		}
		return r.Run, nil
	})
	return r
}

func (r *running) key(t *testing.T) plan.PublicKey {
	t.Helper()
	select {
	case k := <-r.keys:
		return k
	case <-time.After(testenv.Patience):
		t.Fatalf("no key: %v", r.Problems())
		return plan.PublicKey{}
	}
}

// until waits for the kernel to have a number of peers and prefixes, and gives the device.
func until(t *testing.T, ns *testenv.Namespace, what string, is func(*state) bool) *state {
	t.Helper()
	for end := time.Now().Add(testenv.Patience); ; time.Sleep(20 * time.Millisecond) {
		s, err := look(ns, "wg0")
		if err == nil && is(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %+v, %v", what, s, err)
		}
	}
}

func look(ns *testenv.Namespace, link string) (s *state, err error) {
	err = ns.Do(func() error {
		w, err := New(Options{})
		if err != nil {
			return err
		}
		defer w.kernel.close()
		defer w.events.Close()
		s, err = w.kernel.read(link)
		return err
	})
	return s, err
}

func addLink(t *testing.T, ns *testenv.Namespace, kind string) {
	ns.MustDo(func() error {
		l := &vnl.GenericLink{LinkAttrs: vnl.LinkAttrs{Name: "wg0"}, LinkType: kind}
		if err := vnl.LinkAdd(l); err != nil {
			return err
		}
		return vnl.LinkSetUp(l)
	})
}

func deleteLink(t *testing.T, ns *testenv.Namespace) {
	ns.MustDo(func() error {
		l, err := vnl.LinkByName("wg0")
		if err != nil {
			return err
		}
		return vnl.LinkDel(l)
	})
}

func peerOf(i int, allowed ...string) plan.WireGuardPeer {
	p := plan.WireGuardPeer{}
	p.Link, p.Key = "wg0", plan.PublicKey{1, byte(i), byte(i >> 8)}
	p.Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), 51820)
	var list []netip.Prefix
	for _, s := range allowed {
		list = append(list, netip.MustParsePrefix(s))
	}
	p.Allowed = plan.MakePrefixes(list...)
	return p
}

var wg0 = plan.Device{Name: "wg0", Kind: plan.WireGuard, Port: 51820, Mark: 0x100000, Hosts: true}

// TestVMDoor: what is applied is what the kernel has; the key is told, and is kept over a
// restart but not over the loss of the device.
func TestVMDoor(t *testing.T) {
	testenv.VM(t)
	ns := testenv.Netns(t)
	ns.MustDo(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0) })
	w := runDoor(t, ns)
	first, second := peerOf(1, "10.0.1.0/26", "fd00::/122"), peerOf(2, "10.0.2.0/26")
	second.Keepalive = 25 * time.Second
	w.Apply(plan.Delta{PutDevices: []plan.Device{wg0}, PutPeers: []plan.WireGuardPeer{first, second}})
	addLink(t, ns, "wireguard") // later than it is wanted
	key := w.key(t)
	s := until(t, ns, "two peers", func(s *state) bool { return len(s.peers) == 2 && len(s.owners) == 3 })
	p := s.peers[second.Key]
	if s.public != key || s.port != 51820 || s.mark != 0x100000 || p.endpoint != second.Endpoint || p.keepalive != second.Keepalive {
		t.Errorf("key %v; %+v", key, s)
	}
	ns.MustDo(func() error {
		for name, want := range map[string]string{"ipv4/conf/all/rp_filter": "2", "ipv4/conf/all/src_valid_mark": "1", "ipv4/tcp_fwmark_accept": "1"} {
			if got := readSysctl(name); got != want {
				t.Errorf("sysctl %s is %q, want %s", name, got, want)
			}
		}
		return nil
	})

	w.Synced()
	first.Allowed = plan.MakePrefixes(netip.MustParsePrefix("10.0.2.0/26"))
	third := peerOf(3, "fd00::/122")
	w.Apply(plan.Delta{PutPeers: []plan.WireGuardPeer{first, third}, DeletePeers: []plan.WireGuardPeerKey{second.WireGuardPeerKey}})
	s = until(t, ns, "prefixes move", func(s *state) bool { return len(s.peers) == 2 && len(s.owners) == 2 })
	if s.owners[netip.MustParsePrefix("10.0.2.0/26")] != first.Key || s.owners[netip.MustParsePrefix("fd00::/122")] != third.Key {
		t.Errorf("%+v", s.owners)
	}

	w.stop()
	again := runDoor(t, ns)
	again.Apply(plan.Delta{PutDevices: []plan.Device{wg0}, PutPeers: []plan.WireGuardPeer{first}})
	if got := again.key(t); got != key {
		t.Errorf("restarted with key %v, before %v", got, key)
	}
	if s := until(t, ns, "before Synced", func(s *state) bool { return true }); len(s.peers) != 2 {
		t.Errorf("%d peers before Synced", len(s.peers))
	}
	again.Synced()
	until(t, ns, "after Synced", func(s *state) bool { return len(s.peers) == 1 })
	if st := again.Stats(); st.Devices != 0 || st.Peers != 1 {
		t.Errorf("restarting wrote %+v", st)
	}

	deleteLink(t, ns)
	if got := again.key(t); got != (plan.PublicKey{}) {
		t.Errorf("without a device key %v", got)
	}
	addLink(t, ns, "wireguard")
	if got := again.key(t); got == key || got == (plan.PublicKey{}) {
		t.Errorf("a new device has key %v", got)
	}
	until(t, ns, "a new device", func(s *state) bool { return len(s.peers) == 1 && s.port == 51820 })
}

// TestVMRefused: what the kernel refuses is said, and heals.
func TestVMRefused(t *testing.T) {
	testenv.VM(t)
	ns := testenv.Netns(t)
	problem := func(w *running, want string) {
		t.Helper()
		for end := time.Now().Add(testenv.Patience); ; time.Sleep(20 * time.Millisecond) {
			got := fmt.Sprint(w.Problems())
			if strings.Contains(got, want) && (want != "" || got == "[]") {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("problems %s, want %q", got, want)
			}
		}
	}
	var taken net.PacketConn
	ns.MustDo(func() (err error) {
		taken, err = net.ListenPacket("udp4", ":51820")
		return err
	})
	w := runDoor(t, ns)
	addLink(t, ns, "wireguard")
	w.Apply(plan.Delta{PutDevices: []plan.Device{wg0}})
	problem(w, "listen on UDP port 51820: address already in use")
	taken.Close()
	problem(w, "")
	deleteLink(t, ns)
	addLink(t, ns, "dummy")
	problem(w, "is no WireGuard device")
	deleteLink(t, ns)
	addLink(t, ns, "wireguard")
	problem(w, "")
}

// TestVMLarge: 5,000 peers from nothing, and one more.
func TestVMLarge(t *testing.T) {
	testenv.VM(t)
	ns := testenv.Netns(t)
	addLink(t, ns, "wireguard")
	w := runDoor(t, ns)
	d := plan.Delta{PutDevices: []plan.Device{wg0}}
	for i := range 5000 {
		d.PutPeers = append(d.PutPeers, peerOf(i, fmt.Sprintf("10.%d.%d.%d/26", i>>10, i>>2&255, i<<6&255)))
	}
	begin := time.Now()
	w.Apply(d)
	w.Synced()
	until(t, ns, "5,000 peers", func(s *state) bool { return len(s.peers) == 5000 && len(s.owners) == 5000 })
	t.Logf("5,000 peers within %v, emulated", time.Since(begin))
	begin = time.Now()
	w.Apply(plan.Delta{PutPeers: []plan.WireGuardPeer{peerOf(6000, "11.0.0.0/26")}})
	await(t, "one more peer", func() bool { return w.Stats().Peers >= 5001 })
	t.Logf("one more within %v, emulated", time.Since(begin))
	before := w.Stats()
	w.Resync()
	await(t, "a full comparison", func() bool { return w.Stats().Dumps > before.Dumps })
	if got := w.Stats().Peers; got != before.Peers {
		t.Errorf("a full comparison wrote %d peers", got-before.Peers)
	}
}

func await(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for end := time.Now().Add(testenv.Patience); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", testenv.Patience, what)
		}
	}
}
