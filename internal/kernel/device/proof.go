package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// proof finds out, once, whether a packet whose checksum the kernel leaves to what is
// below a VXLAN device has a right one on the wire.
type proof struct {
	once sync.Once
	bad  atomic.Bool
	done chan struct{} // closed when known; nil until asked
	run  func() (why string, err error)
}

func newProof() *proof { return &proof{run: prove} }

// broken reports whether it does not. The first call starts finding out; tell is called
// later if it does not.
func (p *proof) broken(tell func(why string)) bool {
	p.once.Do(func() {
		p.done = make(chan struct{})
		go func() {
			defer close(p.done)
			// What cannot be tried is taken to work, as Calico does.
			if why, err := p.run(); err == nil && why != "" {
				p.bad.Store(true)
				tell(why)
			}
		}()
	})
	return p.bad.Load()
}

// wait waits until what broken started has ended.
func (p *proof) wait() {
	if p.done != nil {
		<-p.done
	}
}

// prove asks the kernel's version, then the kernel.
func prove() (why string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err == nil && (major < 5 || major == 5 && minor < 7) {
		// Fixed by ea64d8d6c675, "netfilter: nat: never update the UDP checksum when it's 0".
		return "kernels before 5.7 spoil the checksums of VXLAN packets that NAT touches; this is " + release, nil
	}
	type result struct {
		why string
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, and its namespace with it
		why, err := scratch(false)
		c <- result{why, err}
	}()
	r := <-c
	return r.why, r.err
}

// The scratch namespace: from a VXLAN device over v0 to v1, which has no address, so that
// the frame can be looked at.
var (
	scratchHere = netip.MustParsePrefix("192.0.2.1/30") // RFC 5737
	scratchPeer = netip.MustParseAddr("192.0.2.2")
	scratchIn   = netip.MustParsePrefix("198.18.0.1/30") // RFC 2544
	scratchTo   = netip.MustParseAddr("198.18.0.2")
	scratchMAC  = mac{0x02, 0, 0, 0, 0, 1}
)

const (
	scratchPort    = 4789
	scratchTimeout = time.Second
	vethPeer       = 1 // VETH_INFO_PEER
)

// scratch sends a packet through a VXLAN in a network namespace of its own. What is below
// computes checksums that the kernel left out, or, if lazy, says so and does not.
func scratch(lazy bool) (why string, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return "", err
	}
	d, err := New(Options{Resync: -1})
	if err != nil {
		return "", err
	}
	defer d.close()
	d.proof.once.Do(func() {}) // it is this one that finds out
	v1, err := d.scratchLinks(lazy)
	if err != nil {
		return "", err
	}
	wire, err := listenWire(v1)
	if err != nil {
		return "", err
	}
	defer unix.Close(wire)
	out, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(out)
	if err := unix.Sendto(out, []byte("weft"), 0, &unix.SockaddrInet4{Port: 9, Addr: scratchTo.As4()}); err != nil {
		return "", err
	}
	frame := make([]byte, 2048)
	for {
		n, err := unix.Read(wire, frame)
		if err != nil {
			return "", err
		}
		if found, right := checkInner(frame[:n]); found {
			if !right {
				why = "this kernel sends VXLAN packets with wrong inner checksums"
			}
			return why, nil
		}
	}
}

// listenWire opens a socket for the frames that a link of that index receives.
func listenWire(index int32) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(scratchTimeout.Nanoseconds())
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(index)}))
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// scratchLinks makes the devices, and gives the index of the far end.
func (d *Devices) scratchLinks(lazy bool) (int32, error) {
	if err := d.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, appendVeth); err != nil {
		return 0, err
	}
	v0, err := d.readLink("v0")
	if err != nil {
		return 0, err
	}
	v1, err := d.readLink("v1")
	if err != nil {
		return 0, err
	}
	// A card without offload has the kernel compute what it left out.
	if err := d.setTxChecksum("v0", lazy); err != nil {
		return 0, err
	}
	v := plan.Device{Name: "vx", Kind: plan.VXLAN, VNI: 1, Local: scratchHere.Addr(), Port: scratchPort}
	errs := []error{
		d.setLink(v1.index, unix.IFF_UP, unix.IFF_UP, nil), d.setLink(v0.index, unix.IFF_UP, unix.IFF_UP, nil),
		d.addAddr(&v, &v0, scratchHere),
	}
	vx, more := d.ensure(&v, &link{}, false)
	errs = append(errs, more...)
	add := func(body func([]byte) []byte) {
		errs = append(errs, d.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body))
	}
	add(func(b []byte) []byte { return appendNeighbor(b, v0.index, scratchPeer, &v1.mac) })
	add(func(b []byte) []byte { return appendNeighbor(b, vx.index, scratchTo, &scratchMAC) })
	add(func(b []byte) []byte { return appendForward(b, vx.index, scratchMAC, scratchPeer) })
	errs = append(errs, d.addAddr(&v, &vx, scratchIn))
	return v1.index, errors.Join(errs...)
}

// appendVeth adds the body of the message that makes the pair v0, v1.
func appendVeth(b []byte) []byte {
	b = appendLink(b, 0, "v0", 0, 0)
	info := len(b)
	b = netlink.OpenNest(b, unix.IFLA_LINKINFO)
	b = netlink.AppendAttrString(b, unix.IFLA_INFO_KIND, "veth")
	data := len(b)
	b = netlink.OpenNest(b, unix.IFLA_INFO_DATA)
	peer := len(b)
	b = netlink.OpenNest(b, vethPeer)
	b = appendLink(b, 0, "v1", 0, 0)
	netlink.CloseNest(b, peer)
	netlink.CloseNest(b, data)
	netlink.CloseNest(b, info)
	return b
}

// checkInner finds the UDP packet inside of a VXLAN frame, and reports whether its
// checksum is right.
func checkInner(frame []byte) (found, right bool) {
	outer, ok := udpOf(frame)
	if !ok || binary.BigEndian.Uint16(outer.udp[2:]) != scratchPort || len(outer.udp) < 16 {
		return false, false
	}
	inner, ok := udpOf(outer.udp[16:]) // UDP and VXLAN headers
	if !ok {
		return false, false
	}
	return true, inner.sum() == 0xffff
}

// datagram is a UDP packet in IPv4.
type datagram struct{ addrs, udp []byte }

func udpOf(frame []byte) (p datagram, ok bool) {
	if len(frame) < 14+20 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return p, false
	}
	ip := frame[14:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if head < 20 || total < head+8 || total > len(ip) || ip[9] != unix.IPPROTO_UDP {
		return p, false
	}
	return datagram{ip[12:20], ip[head:total]}, true
}

// sum is the Internet checksum (RFC 1071) over the datagram, its own included: 0xffff if
// that is right.
func (p datagram) sum() uint16 {
	sum := uint32(unix.IPPROTO_UDP) + uint32(len(p.udp))
	for _, b := range [][]byte{p.addrs, p.udp} {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
