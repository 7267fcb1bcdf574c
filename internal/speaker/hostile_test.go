package speaker_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
	"github.com/weft-net/weft/internal/testenv"
)

// raw is a peer that says what a test wants it to say.
type raw struct {
	t    *testing.T
	c    net.Conn
	asn  uint32
	addr netip.Addr
	rest []byte

	patience time.Duration // for a message; 0: testenv.Patience
}

// openRaw connects from addr and goes through the handshake. It tries again while
// the speaker does not listen yet.
func openRaw(t *testing.T, ns *testenv.Namespace, addr string, asn uint32) *raw {
	t.Helper()
	r := &raw{t: t, asn: asn, addr: netip.MustParseAddr(addr)}
	until(t, "session from "+addr, func() bool {
		if ns.Do(func() (err error) { r.c, err = dialFrom(addr); return err }) != nil {
			return false
		}
		r.rest = nil
		// Without a hold time the session lives as long as the test takes.
		r.send(wire.AppendOpen(nil, wire.Open{ASN: asn, ID: r.addr, Capabilities: wire.Capabilities{Families: wire.IPv4, ASN4: true}}))
		r.send(wire.AppendKeepalive(nil))
		for {
			typ, _, err := r.next()
			if err != nil {
				_ = r.c.Close() // it was not configured yet
				return false
			}
			if typ == wire.TypeKeepalive {
				return true
			}
		}
	})
	t.Cleanup(func() { _ = r.c.Close() })
	return r
}

func dialFrom(addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: testenv.Patience}
	return d.Dial("tcp4", "10.9.0.1:179")
}

func (r *raw) send(b []byte) { _, _ = r.c.Write(b) } // what came of it is read

// next gives the next message.
func (r *raw) next() (wire.Type, []byte, error) {
	patience := r.patience
	if patience == 0 {
		patience = testenv.Patience
	}
	_ = r.c.SetReadDeadline(time.Now().Add(patience))
	for {
		typ, body, rest, err := wire.Frame(r.rest)
		if err != nil {
			return 0, nil, err
		}
		if r.rest = rest; body != nil {
			return typ, body, nil
		}
		buf := make([]byte, 4096)
		n, err := r.c.Read(buf)
		if err != nil {
			return 0, nil, err
		}
		r.rest = append(r.rest, buf[:n]...)
	}
}

// notification is the reason for which the speaker ends the session.
func (r *raw) notification() string {
	for {
		typ, body, err := r.next()
		if err != nil {
			return err.Error()
		}
		if typ == wire.TypeNotification {
			n := wire.ParseNotification(body)
			return fmt.Sprintf("%d/%d", n.Code, n.Subcode)
		}
	}
}

// announce says that prefixes are reached through this peer.
func (r *raw) announce(prefixes ...netip.Prefix) {
	a := wire.Attrs{ASPath: wire.ASPath{{Kind: wire.Sequence, ASNs: []uint32{r.asn}}}, NextHop: r.addr}
	for len(prefixes) > 0 {
		n := min(500, len(prefixes))
		msg, ok := wire.AppendReach(nil, wire.IPv4, &a, prefixes[:n], wire.Options{ASN4: true})
		if !ok {
			r.t.Fatal("too many prefixes for a message")
		}
		r.send(msg)
		prefixes = prefixes[n:]
	}
}

// message is a BGP message of that type, as RFC 4271 §4.1 has it.
func message(typ byte, body string) string {
	return fmt.Sprintf("%s%04x%02x%s", strings.Repeat("ff", 16), 19+len(body)/2, typ, body)
}

// bytesOf are the bytes that digits with blanks stand for.
func bytesOf(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// announcing is an UPDATE without withdrawn routes, in hexadecimal digits.
func announcing(attrs, nlri string) string {
	attrs = strings.ReplaceAll(attrs, " ", "")
	return message(2, fmt.Sprintf("0000%04x%s%s", len(attrs)/2, attrs, nlri))
}

// TestMalformed sends what is wrong over a real connection: RFC 7606 says what
// costs an attribute, the route, or the session. The other peer's route stays in
// every case.
func TestMalformed(t *testing.T) {
	t.Parallel()
	const (
		origin  = "40010100 "
		path    = "4002060201 0000fdea "
		hop     = "400304 0a090003 "
		nlri    = "18c00002"                         // 192.0.2.0/24
		mpReach = "800e0a 0001 01 04 0a090003 00 00" // 0.0.0.0/0 of IPv4 unicast
	)
	for name, tt := range map[string]struct {
		message string
		want    string // what becomes of the session, or of the route: kept, gone
	}{
		"ORIGIN unknown":             {announcing("40010107"+path+hop, nlri), "gone"},
		"no NEXT_HOP":                {announcing(origin+path, nlri), "gone"},
		"NEXT_HOP too short":         {announcing(origin+path+"400303 0a0900", nlri), "gone"},
		"AS_PATH overruns":           {announcing(origin+"4002060202 0000fdea"+hop, nlri), "gone"},
		"ORIGIN optional":            {announcing("c0010100"+path+hop, nlri), "gone"},
		"communities of 3 bytes":     {announcing(origin+path+hop+"c00803 000000", nlri), "gone"},
		"our AS in the path":         {announcing(origin+"40020a0202 0000fdea 0000fc00"+hop, nlri), "gone"},
		"ORIGIN twice":               {announcing(origin+path+hop+"40010102", nlri), "kept"},
		"AGGREGATOR too short":       {announcing(origin+path+hop+"c00703 000000", nlri), "kept"},
		"LOCAL_PREF from outside":    {announcing(origin+path+hop+"400504 00000001", nlri), "kept"},
		"unknown optional":           {announcing(origin+path+hop+"c06303 000000", nlri), "kept"},
		"MP_REACH_NLRI twice":        {announcing(origin+path+mpReach+mpReach, ""), "3/1"},
		"attributes longer than all": {message(2, "0000"+"00ff"+"40010100"), "3/1"},
		"withdrawn longer than all":  {message(2, "00ff"+"0000"), "3/1"},
		"prefix of 33 bits":          {announcing(origin+path+hop, "21c000020000"), "3/10"},
		"well-known, and unknown":    {announcing(origin+path+hop+"406300", nlri), "gone"}, // as BIRD does
		"marker":                     {strings.Repeat("00", 16) + "001304", "1/1"},
		"length of 18":               {strings.Repeat("ff", 16) + "001204", "1/2"},
		"length of 4097":             {strings.Repeat("ff", 16) + "100102", "1/2"},
		"KEEPALIVE with a body":      {message(4, "00"), "1/2"},
		"type 9":                     {message(9, ""), "1/3"},
		"a second OPEN":              {message(1, "04fdea005a0a09000300"), "5/3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			us, them := pairWith(t, "10.9.0.2/24", "10.9.0.3/24")
			o := startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,65001,passive peer=10.9.0.3,65002,passive")
			good, bad := openRaw(t, them, "10.9.0.2", 65001), openRaw(t, them, "10.9.0.3", 65002)
			good.announce(netip.MustParsePrefix("203.0.113.0/24"))
			bad.announce(netip.MustParsePrefix("192.0.2.0/24"))
			o.wants("192.0.2.0/24 via [10.9.0.3]", "203.0.113.0/24 via [10.9.0.2]")
			bad.send(bytesOf(t, strings.ReplaceAll(tt.message, " ", "")))
			bad.announce(netip.MustParsePrefix("198.51.100.0/24")) // shows that the one before was read
			switch tt.want {
			case "gone":
				o.wants("198.51.100.0/24 via [10.9.0.3]", "203.0.113.0/24 via [10.9.0.2]")
			case "kept":
				o.wants("192.0.2.0/24 via [10.9.0.3]", "198.51.100.0/24 via [10.9.0.3]", "203.0.113.0/24 via [10.9.0.2]")
			default:
				if got := bad.notification(); got != tt.want {
					t.Errorf("the session ended with %s, want %s", got, tt.want)
				}
				o.wants("203.0.113.0/24 via [10.9.0.2]")
			}
			if s := o.status(); !strings.Contains(s, "status 10.9.0.2 Established") {
				t.Errorf("the other peer: %s", s)
			}
		})
	}
}

// pairWith is pair with other addresses on the far side.
func pairWith(t *testing.T, theirs ...string) (us, them *testenv.Namespace) {
	us, them = testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, us, "eth0", []string{"10.9.0.1/24"}, them, "eth0", theirs)
	return us, them
}

// TestFlood opens connections without end, from strangers and from a peer that
// says nothing on them. The session of another peer lives on, and no descriptor
// is left of it all.
func TestFlood(t *testing.T) {
	t.Parallel()
	us, them := pairWith(t, "10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24")
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,65001,passive peer=10.9.0.3,65002,passive")
	good := openRaw(t, them, "10.9.0.2", 65001)
	good.announce(netip.MustParsePrefix("203.0.113.0/24"))
	o.wants("203.0.113.0/24 via [10.9.0.2]")
	before := o.descriptors()
	var all sync.WaitGroup
	for _, from := range []string{"10.9.0.3", "10.9.0.4"} {
		all.Go(func() {
			var open []net.Conn
			for range 500 {
				err := them.Do(func() error {
					c, err := dialFrom(from)
					if err == nil {
						open = append(open, c)
					}
					return err
				})
				if err != nil {
					t.Errorf("connection %d from %s: %v", len(open), from, err)
					return
				}
			}
			// All but the last of the peer's are closed by the speaker.
			for i, c := range open {
				if i == len(open)-1 && from == "10.9.0.3" {
					break
				}
				_ = c.SetReadDeadline(time.Now().Add(testenv.Patience))
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("connection %d from %s is still open", i, from)
				}
				_ = c.Close()
			}
		})
	}
	all.Wait()
	if s := o.status(); !strings.Contains(s, "status 10.9.0.2 Established in=1") {
		t.Errorf("during the flood: %s", s)
	}
	until(t, "descriptors", func() bool { return o.descriptors() <= before+1 })
}

// descriptors is how many files the process has open.
func (o *ours) descriptors() int {
	names, err := filepath.Glob("/proc/" + strconv.Itoa(o.cmd.Process.Pid) + "/fd/*")
	if err != nil {
		o.t.Fatal(err)
	}
	return len(names)
}

// heap is how many bytes the process has in use, when all garbage is collected.
func (o *ours) heap() uint64 {
	_, after, _ := strings.Cut(o.status(), "status heap ")
	var n uint64
	if _, err := fmt.Sscan(after, &n); err != nil {
		o.t.Fatal(err)
	}
	return n
}

// TestFlaps has a peer announce thousands of routes, other ones each time, and
// die: nothing is left of them, and memory does not grow with the number of times.
func TestFlaps(t *testing.T) {
	t.Parallel()
	const routes, cycles, first = 5000, 12, 4
	us, them := pairWith(t, "10.9.0.2/24")
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,65001,passive")
	early := uint64(0)
	for cycle := range cycles {
		r := openRaw(t, them, "10.9.0.2", 65001)
		var all []netip.Prefix
		for i := range routes {
			all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(cycle), byte(i >> 8), byte(i), 0}), 24))
		}
		r.announce(all...)
		until(t, "routes", func() bool { return o.count() == routes })
		_ = r.c.Close()
		until(t, "withdrawal", func() bool { return o.count() == 0 })
		if cycle == first {
			early = o.heap()
		}
	}
	late := o.heap()
	t.Logf("%d bytes in use after %d cycles, %d after %d", late, cycles, early, first)
	if late > early+early/2 {
		t.Error("it keeps what is gone")
	}
}

// count is how many routes are learned.
func (o *ours) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.table)
}
