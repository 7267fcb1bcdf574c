package speaker_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/bgp/wire"
	"github.com/weft-net/weft/internal/testenv"
)

// dialOptions are what a test's own connection has.
type dialOptions struct {
	to       string // default 10.9.0.1:179
	password string
	ttl      int // 0: the kernel's
	within   time.Duration
}

// dialWith connects from 10.9.0.2.
func dialWith(ns *testenv.Namespace, o dialOptions) (c net.Conn, err error) {
	if o.to == "" {
		o.to = "10.9.0.1:179"
	}
	if o.within == 0 {
		o.within = 5 * time.Second
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 9, 0, 2)}, Timeout: o.within}
	d.SetMultipathTCP(false)
	d.Control = func(_, _ string, raw syscall.RawConn) error {
		var err error
		_ = raw.Control(func(fd uintptr) {
			if o.ttl != 0 {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, o.ttl)
			}
			if o.password != "" && err == nil {
				sig := &unix.TCPMD5Sig{Keylen: uint16(len(o.password))}
				sig.Addr.Family = unix.AF_INET
				copy(sig.Addr.Data[2:], []byte{10, 9, 0, 1})
				copy(sig.Key[:], o.password)
				err = unix.SetsockoptTCPMD5Sig(int(fd), unix.IPPROTO_TCP, unix.TCP_MD5SIG, sig)
			}
		})
		return err
	}
	err = ns.Do(func() error { c, err = d.DialContext(context.Background(), "tcp4", o.to); return err })
	return c, err
}

// outcome is what comes of a session from 10.9.0.2 with these options: "up";
// "nothing" when nobody listens or packets are dropped; else the error, for example
// that the speaker has closed the connection as it knows another one.
func outcome(t *testing.T, ns *testenv.Namespace, o dialOptions) string {
	t.Helper()
	c, err := dialWith(ns, o)
	if err == nil {
		defer c.Close()
		r := &raw{t: t, c: c, patience: max(o.within, 500*time.Millisecond)}
		r.send(wire.AppendOpen(nil, wire.Open{
			ASN: 65001, HoldTime: 90 * time.Second, ID: netip.MustParseAddr("10.9.0.2"),
			Capabilities: wire.Capabilities{Families: wire.IPv4, ASN4: true},
		}))
		for typ := wire.Type(0); err == nil; typ, _, err = r.next() {
			if typ == wire.TypeKeepalive {
				return "up" // it has taken our OPEN
			}
		}
	}
	if timeout := net.Error(nil); errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &timeout) && timeout.Timeout() {
		return "nothing"
	}
	return err.Error()
}

// TestListening follows changed ports, addresses and passwords, without touching
// the session there is.
func TestListening(t *testing.T) {
	t.Parallel()
	us, them := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, us, "eth0", []string{"10.9.0.1/24", "10.9.0.5/24"}, them, "eth0", []string{"10.9.0.2/24", "10.9.0.3/24"})
	const base = "asn=64512 id=10.9.0.1 peer=10.9.0.3,65002,passive "
	o := startOurs(t, us, base+"peer=10.9.0.2,65001,passive")
	good := openRaw(t, them, "10.9.0.3", 65002)
	short := 500 * time.Millisecond
	for _, step := range []struct {
		config  string
		comes   dialOptions
		refused []dialOptions
	}{
		{"peer=10.9.0.2,65001,passive", dialOptions{to: "10.9.0.5:179"}, []dialOptions{{to: "10.9.0.1:1790"}}},
		{"port=1790 peer=10.9.0.2,65001,passive", dialOptions{to: "10.9.0.1:1790"}, []dialOptions{{}}},
		{"listen=10.9.0.1 peer=10.9.0.2,65001,passive", dialOptions{}, []dialOptions{{to: "10.9.0.5:179"}, {to: "10.9.0.1:1790"}}},
		{"peer=10.9.0.2,65001,passive,password=first", dialOptions{password: "first"}, []dialOptions{{within: short}}},
		{"peer=10.9.0.2,65001,passive,password=next", dialOptions{password: "next"}, []dialOptions{{password: "first", within: short}}},
		{"peer=10.9.0.2,65001,passive", dialOptions{}, nil},
		{"peer=10.9.0.2,65001,passive,ttl=1", dialOptions{ttl: 255}, []dialOptions{{within: short}, {ttl: 254, within: short}}},
	} {
		o.send(base + step.config)
		until(t, "change to "+step.config, func() bool {
			if outcome(t, them, step.comes) != "up" {
				return false
			}
			for _, no := range step.refused {
				if outcome(t, them, no) != "nothing" {
					return false
				}
			}
			return true
		})
	}
	if s := o.status(); !strings.Contains(s, "status 10.9.0.3 Established") {
		t.Errorf("the other session: %s", s)
	}
	_ = good.c.Close()
}

// TestDialling looks at the packets of a connection that the speaker makes: from
// the address it was told, with the priority of routing traffic, and with the TTL
// of RFC 5082 where that is asked for.
func TestDialling(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		option string
		from   string
		ttl    byte
	}{
		"plain":          {"", "10.9.0.1", 64},
		"source address": {",local=10.9.0.5", "10.9.0.5", 64},
		"TTL security":   {",ttl=1", "10.9.0.1", 255},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			us, them := testenv.Netns(t), testenv.Netns(t)
			testenv.Veth(t, us, "eth0", []string{"10.9.0.1/24", "10.9.0.5/24"}, them, "eth0", []string{"10.9.0.2/24"})
			var sniff int
			them.MustDo(func() (err error) {
				sniff, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
				return err
			})
			defer unix.Close(sniff)
			_ = unix.SetsockoptTimeval(sniff, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(testenv.Patience / time.Second)})
			startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,65001"+tt.option)
			ip := make([]byte, 256) // the SYN, from the IP header on
			if n, err := unix.Read(sniff, ip); err != nil || n < 40 {
				t.Fatalf("no packet: %d bytes, %v", n, err)
			}
			if from := net.IP(ip[12:16]).String(); from != tt.from || ip[1] != 0xc0 || ip[8] != tt.ttl {
				t.Errorf("from %s with traffic class %#x and TTL %d, want %s, 0xc0, %d", from, ip[1], ip[8], tt.from, tt.ttl)
			}
		})
	}
}
