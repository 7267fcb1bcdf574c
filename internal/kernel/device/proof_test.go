package device

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// TestProofRuns: this kernel's checksums are right, and that is found out by a packet.
func TestProofRuns(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	if why, err := prove(); why != "" || err != nil {
		t.Errorf("prove() = %q, %v; want neither", why, err)
	}
	lazy := make(chan string)
	go func() {
		runtime.LockOSThread() // it ends in another namespace
		why, _ := scratch(true)
		lazy <- why
	}()
	if why := <-lazy; why == "" {
		t.Error("checksums that nobody computed are not noticed")
	}
}

// vxlanFrame is one that the scratch namespace sends: Ethernet, IPv4, UDP to 4789, VXLAN,
// Ethernet, IPv4, UDP, "weft", with the right inner checksum.
func vxlanFrame() []byte {
	ethernet := append(make([]byte, 12), 8, 0)
	udp := func(src, dst [4]byte, port uint16, payload []byte) []byte {
		n := 8 + len(payload)
		ip := []byte{0x45, 0, 0, byte(20 + n), 0, 0, 0, 0, 64, 17, 0, 0}
		ip = append(append(ip, src[:]...), dst[:]...)
		ip = append(ip, 0x80, 0, byte(port>>8), byte(port), 0, byte(n), 0, 0)
		return append(append(slices.Clone(ethernet), ip...), payload...)
	}
	inner := udp([4]byte{198, 18, 0, 1}, [4]byte{198, 18, 0, 2}, 9, []byte("weft"))
	p, _ := udpOf(inner)
	sum := ^p.sum()
	inner[14+20+6], inner[14+20+7] = byte(sum>>8), byte(sum)
	return udp([4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, 2}, scratchPort, append(make([]byte, 8), inner...))
}

func TestCheckInner(t *testing.T) {
	t.Parallel()
	const innerUDP = 14 + 20 + 8 + 8 + 14 + 20
	for name, tt := range map[string]struct {
		change       func([]byte) []byte
		found, right bool
	}{
		"right":               {func(b []byte) []byte { return b }, true, true},
		"checksum left out":   {func(b []byte) []byte { b[innerUDP+6], b[innerUDP+7] = 0x12, 0x34; return b }, true, false},
		"payload changed":     {func(b []byte) []byte { b[len(b)-1]++; return b }, true, false},
		"another port":        {func(b []byte) []byte { b[14+20+3]++; return b }, false, false},
		"not UDP":             {func(b []byte) []byte { b[14+9] = 6; return b }, false, false},
		"inner packet is ARP": {func(b []byte) []byte { b[14+20+16+13] = 6; return b }, false, false},
		"cut":                 {func(b []byte) []byte { return b[:60] }, false, false},
		"empty":               {func([]byte) []byte { return nil }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if found, right := checkInner(tt.change(vxlanFrame())); found != tt.found || right != tt.right {
				t.Errorf("found %t, right %t; want %t, %t", found, right, tt.found, tt.right)
			}
		})
	}
}

// TestBrokenOffloadIsTold: what the proof finds reaches the devices, once.
func TestBrokenOffloadIsTold(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		why    string
		err    error
		broken bool
	}{
		"works":        {"", nil, false},
		"broken":       {"it is spoilt", nil, true},
		"cannot tell":  {"", errors.New("operation not permitted"), false},
		"half a proof": {"it is spoilt", errors.New("no answer"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := 0
			p := &proof{run: func() (string, error) { return tt.why, tt.err }}
			for range 2 {
				p.broken(func(string) { told++ })
			}
			p.wait()
			if got := p.broken(nil); got != tt.broken || (told == 1) != tt.broken {
				t.Errorf("broken %t, told %d times; want %t", got, told, tt.broken)
			}
		})
	}
}

// FuzzParse: hostile messages and frames do not panic.
func FuzzParse(f *testing.F) {
	f.Add(vxlanFrame())
	f.Add(appendVeth(nil))
	f.Add(appendForward(nil, 1, scratchMAC, scratchPeer))
	f.Add(appendAddr(nil, 1, scratchHere))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if k, ok := parseLink(b); ok {
			_, _ = parseVXLAN(k.data), parseIPIP(k.data)
		}
		_, _, _ = parseAddr(b)
		_, _ = parseEntry(b)
		checkInner(b)
	})
}

// TestEntryRoundTrip: what is written is read back.
func TestEntryRoundTrip(t *testing.T) {
	t.Parallel()
	n := neighbor{addr: scratchTo, mac: scratchMAC}
	if k, ok := parseEntry(appendNeighbor(nil, 7, n.addr, &n.mac)); !ok || k.index != 7 || k.addr != n.addr || !n.is(&k) {
		t.Errorf("a neighbour is read back as %+v", k)
	}
	fwd := forward{mac: scratchMAC, node: scratchPeer}
	if k, ok := parseEntry(appendForward(nil, 7, fwd.mac, fwd.node)); !ok || k.mac != fwd.mac || !k.bridge || !fwd.is(&k) {
		t.Errorf("a forwarding entry is read back as %+v", k)
	}
	if i, p, ok := parseAddr(appendAddr(nil, 7, scratchHere)); !ok || i != 7 || p != scratchHere {
		t.Errorf("an address is read back as %v %v", i, p)
	}
}
