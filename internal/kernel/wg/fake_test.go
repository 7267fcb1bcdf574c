package wg

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// fake is a kernel with devices by index. It reads the messages that the real one would
// get, and does what drivers/net/wireguard/netlink.c does with them.
type fake struct {
	t       testing.TB
	devices map[string]*state
	private map[string]bool // devices that have a key
	refuse  map[plan.PublicKey]unix.Errno
	busy    bool // the port is taken
	sets    int
	largest int            // message, bytes
	orphans []netip.Prefix // were a peer's, and after some message nobody's
}

func newFake(t testing.TB, names ...string) *fake {
	f := &fake{t: t, devices: map[string]*state{}, private: map[string]bool{}, refuse: map[plan.PublicKey]unix.Errno{}}
	for _, name := range names {
		f.add(name)
	}
	return f
}

func (f *fake) add(name string) {
	s := newState()
	s.index = int32(100 + len(f.devices))
	f.devices[name] = s
}

func (f *fake) read(name string) (*state, error) {
	s := f.devices[name]
	switch {
	case s == nil:
		return nil, unix.ENODEV
	case s.index < 0:
		return nil, unix.EOPNOTSUPP
	}
	c := newState()
	c.index, c.public, c.port, c.mark = s.index, s.public, s.port, s.mark
	for k, p := range s.peers {
		c.peers[k] = &peer{p.endpoint, p.keepalive, maps.Clone(p.allowed)}
	}
	c.owners = maps.Clone(s.owners)
	return c, nil
}

func (f *fake) close() {}

func (f *fake) set(index int32, attrs func([]byte) []byte) error {
	f.sets++
	b := attrs(nil)
	f.largest = max(f.largest, len(b))
	for name, s := range f.devices {
		if s.index == index {
			before := maps.Clone(s.owners)
			err := f.write(name, s, b)
			for p := range before {
				if _, ok := s.owners[p]; !ok {
					f.orphans = append(f.orphans, p)
				}
			}
			return err
		}
	}
	return unix.ENODEV
}

func (f *fake) write(name string, s *state, b []byte) error {
	for typ, v := range netlink.Attributes(b) {
		switch typ {
		case unix.WGDEVICE_A_PRIVATE_KEY:
			if f.private[name] {
				f.t.Errorf("%s gets another private key", name)
			}
			if v[0]&7 != 0 || v[31]&192 != 64 {
				f.t.Errorf("private key is not clamped")
			}
			f.private[name] = true
			private, err := ecdh.X25519().NewPrivateKey(v)
			if err != nil {
				return err
			}
			s.public = plan.PublicKey(private.PublicKey().Bytes())
		case unix.WGDEVICE_A_LISTEN_PORT:
			if f.busy {
				return unix.EADDRINUSE
			}
			s.port = netlink.Native.Uint16(v)
		case unix.WGDEVICE_A_FWMARK:
			s.mark = netlink.Uint32(v)
		case unix.WGDEVICE_A_PEERS:
			if len(v) > 65535-4 {
				f.t.Errorf("an attribute of %d bytes", len(v))
			}
			for _, p := range netlink.Attributes(v) {
				if err := f.writePeer(s, p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f *fake) writePeer(s *state, b []byte) error {
	var flags uint32
	var key plan.PublicKey
	for typ, v := range netlink.Attributes(b) {
		switch typ {
		case unix.WGPEER_A_FLAGS:
			flags = netlink.Uint32(v)
		case unix.WGPEER_A_PUBLIC_KEY:
			key = plan.PublicKey(v)
		}
	}
	if errno := f.refuse[key]; errno != 0 {
		return errno
	}
	if flags&unix.WGPEER_F_REMOVE_ME != 0 {
		if s.peers[key] != nil {
			s.removed([]change{{key: key}})
		}
		return nil
	}
	if p := s.peers[key]; p != nil && flags&unix.WGPEER_F_REPLACE_ALLOWEDIPS != 0 {
		for prefix := range p.allowed {
			delete(s.owners, prefix)
		}
		clear(p.allowed)
	}
	if key != s.public { // of which the kernel makes no peer, in silence
		s.parsePeer(b)
	}
	return nil
}

// world is a door with a fake kernel.
type world struct {
	t    *testing.T
	fake *fake
	door *WG
	keys []string // told by the door
	seen []plan.PublicKey
}

// publicKey is that of a device, or of none.
func (s *state) publicKey() plan.PublicKey {
	if s == nil {
		return plan.PublicKey{1}
	}
	return s.public
}

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, fake: newFake(t, names...)}
	w.restart()
	return w
}

func (w *world) restart() {
	w.seen = nil
	w.door = blank(Options{Keys: func(link string, key plan.PublicKey) {
		text := "none"
		if key == w.fake.devices[link].publicKey() {
			text = "its"
		}
		if slices.Contains(w.seen, key) {
			text += " again"
		}
		w.keys, w.seen = append(w.keys, text), append(w.seen, key)
	}}, w.fake)
}

// run takes steps, separated by ";", of which each is a word of a list separated by ",":
//
//	dev [port=N]      peer KEY [ADDR:PORT] [PREFIX]... [keep]      -peer KEY      -dev
//	synced  pass  resync  restart  roam KEY ADDR:PORT  gone  new  busy  free  refuse KEY  accept KEY
func (w *world) run(script string) (err error) {
	w.t.Helper()
	for step := range strings.SplitSeq(script, ";") {
		var d plan.Delta
		for item := range strings.SplitSeq(step, ",") {
			w.item(&d, strings.Fields(item))
		}
		w.door.Apply(d)
		cause := reconcile.Kick
		if strings.Contains(step, "resync") || strings.Contains(step, "synced") || strings.Contains(step, "restart") {
			cause = reconcile.Resync
		}
		err = w.door.pass(w.t.Context(), cause)
	}
	return err
}

func (w *world) item(d *plan.Delta, f []string) {
	const link = "wg0"
	f = append(f, "", "")
	switch f[0] {
	case "dev":
		v := plan.Device{Name: link, Kind: plan.WireGuard, Port: 51820, Mark: 0x100000}
		fmt.Sscanf(f[1], "port=%d", &v.Port)
		d.PutDevices = append(d.PutDevices, v)
	case "-dev":
		d.DeleteDevices = append(d.DeleteDevices, link)
	case "peer":
		p := plan.WireGuardPeer{WireGuardPeerKey: plan.WireGuardPeerKey{Link: link, Key: testKey(f[1])}}
		if f[1] == "200" {
			p.Key = w.fake.devices[link].public
		}
		p.Endpoint = netip.MustParseAddrPort("192.168.0." + f[1] + ":51820")
		var allowed []netip.Prefix
		for _, s := range f[2:] {
			if prefix, err := netip.ParsePrefix(s); err == nil {
				allowed = append(allowed, prefix)
			} else if at, err := netip.ParseAddrPort(s); err == nil {
				p.Endpoint = at
			} else if s == "keep" {
				p.Keepalive = 25 * time.Second
			}
		}
		p.Allowed = plan.MakePrefixes(allowed...)
		d.PutPeers = append(d.PutPeers, p)
	case "-peer":
		d.DeletePeers = append(d.DeletePeers, plan.WireGuardPeerKey{Link: link, Key: testKey(f[1])})
	case "synced":
		w.door.Synced()
	case "restart":
		w.restart()
	case "roam":
		w.fake.devices[link].peers[testKey(f[1])].endpoint = netip.MustParseAddrPort(f[2])
	case "gone":
		w.door.linkEvent(link, w.fake.devices[link].index, false)
		delete(w.fake.devices, link)
	case "new":
		w.fake.private[link] = false
		w.fake.devices["another"] = newState()
		w.fake.add(link)
		w.door.linkEvent(link, w.fake.devices[link].index, true)
	case "busy", "free":
		w.fake.busy = f[0] == "busy"
	case "refuse":
		w.fake.refuse[testKey(f[1])] = unix.EAFNOSUPPORT
	case "accept":
		delete(w.fake.refuse, testKey(f[1]))
	case "pass", "resync", "":
	default:
		w.t.Fatalf("unknown word %q", f[0])
	}
}

func testKey(s string) (k plan.PublicKey) {
	fmt.Sscan(s, &k[0])
	return k
}

// text is the device as the kernel has it.
func (w *world) text() string {
	s := w.fake.devices["wg0"]
	if s == nil {
		return "none"
	}
	out := []string{fmt.Sprintf("port %d mark %#x", s.port, s.mark)}
	for _, k := range slices.SortedFunc(maps.Keys(s.peers), comparePublicKeys) {
		p := s.peers[k]
		line := fmt.Sprintf("%d %v", k[0], p.endpoint)
		for _, a := range slices.SortedFunc(maps.Keys(p.allowed), netip.Prefix.Compare) {
			line += " " + a.String()
		}
		if p.keepalive != 0 {
			line += fmt.Sprintf(" keepalive %v", p.keepalive)
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func TestDoor(t *testing.T) {
	t.Parallel()
	const two = "dev, peer 1 10.0.1.0/26, peer 2 10.0.2.0/26 fd00::/122 keep"
	const head, one, other = "port 51820 mark 0x100000", "; 1 192.168.0.1:51820 10.0.1.0/26", "; 2 192.168.0.2:51820 10.0.2.0/26 fd00::/122 keepalive 25s"
	for name, tt := range map[string]struct{ steps, want string }{
		"device":                  {"dev", head},
		"peers":                   {two, head + one + other},
		"peers first":             {"peer 1 10.0.1.0/26; dev", head + one},
		"other port":              {two + "; dev port=7", strings.Replace(head, "51820", "7", 1) + one + other},
		"more prefixes":           {two + "; peer 1 10.0.1.0/26 10.0.3.0/26", head + one + " 10.0.3.0/26" + other},
		"fewer, not synced":       {two + "; peer 2 10.0.2.0/26 keep", head + one + other},
		"fewer":                   {two + "; synced; peer 2 10.0.2.0/26 keep", head + one + strings.Replace(other, " fd00::/122", "", 1)},
		"none":                    {two + "; synced; peer 1", head + "; 1 192.168.0.1:51820" + other},
		"endpoint moves":          {two + "; peer 1 192.168.0.9:7 10.0.1.0/26", head + "; 1 192.168.0.9:7 10.0.1.0/26" + other},
		"IPv6 endpoint":           {"dev, peer 1 [fd00::1]:51821", head + "; 1 [fd00::1]:51821"},
		"no keepalive any more":   {two + "; peer 2 10.0.2.0/26 fd00::/122", head + one + strings.TrimSuffix(other, " keepalive 25s")},
		"peer leaves":             {two + "; -peer 2", head + one},
		"leaves and comes":        {two + "; -peer 2; peer 2 10.0.2.0/26 fd00::/122 keep", head + one + other},
		"new key":                 {two + "; -peer 1, peer 3 192.168.0.1:51820 10.0.1.0/26", head + other + "; 3 192.168.0.1:51820 10.0.1.0/26"},
		"prefix moves":            {two + "; peer 1 10.0.1.0/26 fd00::/122, peer 2 10.0.2.0/26 keep", head + one + " fd00::/122" + strings.Replace(other, " fd00::/122", "", 1)},
		"prefixes swap":           {"dev, synced, peer 1 10.0.1.0/26, peer 2 10.0.2.0/26; peer 1 10.0.2.0/26, peer 2 10.0.1.0/26", head + "; 1 192.168.0.1:51820 10.0.2.0/26; 2 192.168.0.2:51820 10.0.1.0/26"},
		"roamed":                  {two + "; roam 1 203.0.113.1:9; pass", head + "; 1 203.0.113.1:9 10.0.1.0/26" + other},
		"roamed, resync":          {two + "; roam 1 203.0.113.1:9; resync", head + one + other},
		"restart":                 {two + "; restart, dev, peer 2 10.0.2.0/26 fd00::/122 keep", head + one + other},
		"restart, synced":         {two + "; restart, dev, peer 2 10.0.2.0/26 fd00::/122 keep; synced", head + other},
		"restart, fewer":          {two + "; restart, dev, peer 1 10.0.1.0/26, peer 2 10.0.2.0/26 keep", head + one + other},
		"restart, fewer, synced":  {two + "; restart, dev, peer 1 10.0.1.0/26, peer 2 10.0.2.0/26 keep; synced", head + one + strings.Replace(other, " fd00::/122", "", 1)},
		"restart, delete by name": {two + "; restart, dev, peer 2 10.0.2.0/26 fd00::/122 keep, -peer 1", head + other},
		"link goes":               {two + "; gone", "none"},
		"link comes again":        {two + "; gone; new", head + one + other},
		"turned off":              {two + "; -dev, -peer 1, -peer 2; peer 1 10.9.0.0/26", head + one + other},
		"own key is no peer":      {"dev; peer 200 10.0.1.0/26, peer 1 10.0.1.0/26", head + one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "wg0")
			_ = w.run(tt.steps)
			if got := w.text(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if moves := strings.Contains(name, "moves") || name == "new key"; moves && len(w.fake.orphans) > 0 {
				t.Errorf("%v were nobody's on their way", w.fake.orphans)
			}
		})
	}
}

// TestDoorKeepsQuiet: what the kernel has already is not written.
func TestDoorKeepsQuiet(t *testing.T) {
	t.Parallel()
	const two = "dev, peer 1 10.0.1.0/26, peer 2 10.0.2.0/26 fd00::/122; synced"
	for name, step := range map[string]string{
		"pass": "pass", "resync": "resync", "same device": "dev", "same peer": "peer 2 fd00::/122 10.0.2.0/26", "unknown goes": "-peer 9",
		"restart": "restart, dev, peer 1 10.0.1.0/26, peer 2 10.0.2.0/26 fd00::/122; synced",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "wg0")
			if err := w.run(two); err != nil {
				t.Fatal(err)
			}
			before := w.fake.sets
			if err := w.run(step); err != nil || w.fake.sets != before {
				t.Errorf("%d requests, %v", w.fake.sets-before, err)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ steps, want string }{
		"made":          {"dev; pass; resync", "[its]"},
		"kept":          {"dev; restart, dev", "[its its]"},
		"device gone":   {"dev; gone", "[its none]"},
		"device new":    {"dev; gone; new", "[its none its]"},
		"not wanted":    {"dev; -dev", "[its none]"},
		"wanted again":  {"dev; -dev; dev", "[its none its again]"},
		"nobody wanted": {"peer 1", "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "wg0")
			if err := w.run(tt.steps); err != nil {
				t.Error(err)
			}
			if got := fmt.Sprint(w.keys); got != tt.want {
				t.Errorf("told %s, want %s", got, tt.want)
			}
			if has := w.door.State("wg0").Key != (plan.PublicKey{}); has != (strings.HasSuffix(tt.want, "its]") || strings.HasSuffix(tt.want, "again]")) {
				t.Errorf("state has a key: %v, told %s", has, tt.want)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	const two = "dev, peer 1 10.0.1.0/26, peer 2 10.0.2.0/26, peer 3 10.0.3.0/26"
	for name, tt := range map[string]struct{ steps, want string }{
		"none":       {two, "[]"},
		"no device":  {two + "; gone", "[]"},
		"port taken": {"busy; " + two, "[{wg0 wg: wg0: listen on UDP port 51820: address already in use; stop who has it or choose another wireguardListeningPort}]"},
		"port free":  {"busy; " + two + "; free; pass", "[]"},
		"refused":    {"refuse 2; " + two, "[{wg0 wg: wg0: peer at 192.168.0.2:51820: address family not supported by protocol}]"},
		"accepted":   {"refuse 2; " + two + "; accept 2; pass", "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "wg0")
			err := w.run(tt.steps)
			if got := fmt.Sprint(w.door.Problems()); got != tt.want || (err != nil) != (got != "[]") {
				t.Errorf("\n got %s, %v\nwant %s", got, err, tt.want)
			}
			if s := w.fake.devices["wg0"]; name == "refused" && (s.peers[testKey("1")] == nil || s.peers[testKey("3")] == nil) {
				t.Error("one refused peer holds up the others")
			}
		})
	}
	w := newWorld(t)
	w.fake.devices["wg0"] = &state{index: -1}
	if err := w.run("dev"); err == nil || !strings.Contains(err.Error(), "is no WireGuard device") || errors.Is(err, unix.ENODEV) {
		t.Errorf("of a device of another kind: %v", err)
	}
}

// TestLarge: 5,000 peers take few messages, and one peer may have more prefixes than a
// message holds.
func TestLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "wg0")
	d := plan.Delta{PutDevices: []plan.Device{{Name: "wg0", Kind: plan.WireGuard, Port: 1}}}
	for i := range 5000 {
		p := plan.WireGuardPeer{}
		p.Link, p.Key = "wg0", plan.PublicKey{1, byte(i), byte(i >> 8)}
		p.Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), 1)
		p.Allowed = plan.MakePrefixes(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26))
		d.PutPeers = append(d.PutPeers, p)
	}
	var many []netip.Prefix
	for i := range 3000 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24))
	}
	d.PutPeers[7].Allowed = plan.MakePrefixes(many...)
	w.door.Apply(d)
	w.door.Synced()
	if err := w.door.pass(t.Context(), reconcile.Resync); err != nil {
		t.Fatal(err)
	}
	s := w.fake.devices["wg0"]
	if len(s.peers) != 5000 || len(s.peers[d.PutPeers[7].Key].allowed) != 3000 || len(s.owners) != 7999 {
		t.Errorf("%d peers, %d prefixes of one, %d of all", len(s.peers), len(s.peers[d.PutPeers[7].Key].allowed), len(s.owners))
	}
	if w.fake.sets > 50 || w.fake.largest > 32<<10 {
		t.Errorf("%d messages, the largest of %d bytes", w.fake.sets, w.fake.largest)
	}
	d.PutPeers[7].Allowed = plan.MakePrefixes(many[:2500]...)
	w.door.Apply(plan.Delta{PutPeers: d.PutPeers[7:8]})
	if err := w.door.pass(t.Context(), reconcile.Kick); err != nil || len(s.peers[d.PutPeers[7].Key].allowed) != 2500 {
		t.Errorf("%d prefixes of one, %v", len(s.peers[d.PutPeers[7].Key].allowed), err)
	}
}

// FuzzParse: hostile answers of the kernel do not panic.
func FuzzParse(f *testing.F) {
	c := change{key: testKey("1"), endpoint: netip.MustParseAddrPort("[fd00::1]:2"), keepalive: time.Second, allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")}}
	f.Add(appendPeers([]byte{0, 1, 0, 0}, []change{c, {key: testKey("2"), endpoint: netip.MustParseAddrPort("10.0.0.1:2")}}))
	f.Add([]byte{0, 1, 0, 0, 5, 0, 1, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		newState().parse(b)
		parseSockaddr(b)
		parseAllowed(b)
		_, _, _ = parseLink(netlink.Message{Type: unix.RTM_NEWLINK, Body: b})
	})
}
