package device

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// leastMTU6 is the smallest MTU of a link with IPv6 (RFC 8200 section 5), bytes.
const leastMTU6 = 1280

// differences says in what k is not as v and cannot become so; empty: in nothing.
func differences(v *plan.Device, k *kernelLink) string {
	if k.kind != v.Kind.String() {
		kind := k.kind
		if kind == "" {
			kind = "plain"
		}
		return fmt.Sprintf("it is a %s device, want %v", kind, v.Kind)
	}
	var out []string
	differ := func(what string, have, want any) {
		if have != want {
			out = append(out, fmt.Sprintf("%s %v, want %v", what, have, want))
		}
	}
	switch v.Kind {
	case plan.VXLAN:
		x := parseVXLAN(k.data)
		differ("id", x.vni, v.VNI)
		differ("dstport", x.port, v.Port)
		differ("local", addrText(x.local), addrText(v.Local))
		differ("remote", addrText(x.remote), addrText(netip.Addr{}))
		differ("learning", x.learning, false)
		differ("external", x.metadata, false)
	case plan.IPIP:
		x := parseIPIP(k.data)
		differ("local", addrText(x.local), addrText(netip.Addr{}))
		differ("remote", addrText(x.remote), addrText(netip.Addr{}))
		differ("parent device", x.parent, int32(0))
		differ("another protocol or external", x.other, false)
	}
	return strings.Join(out, ", ")
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "any"
	}
	return a.String()
}

func (d *Devices) setMAC(v *plan.Device, k *kernelLink) error {
	m, ok := parseMAC(v.MAC)
	if v.Kind != plan.VXLAN || !ok || m == k.mac {
		return nil
	}
	err := d.setLink(k.index, 0, 0, func(b []byte) []byte { return netlink.AppendAttr(b, unix.IFLA_ADDRESS, m[:]) })
	if err != nil {
		return fmt.Errorf("set address %v: %w", m, err)
	}
	return nil
}

func (d *Devices) setMTU(v *plan.Device, k *kernelLink) error {
	if v.MTU == 0 || v.MTU == k.mtu {
		return nil
	}
	err := d.setLink(k.index, 0, 0, func(b []byte) []byte { return netlink.AppendAttr32(b, unix.IFLA_MTU, uint32(v.MTU)) })
	switch {
	case err == nil:
		return nil
	case k.maxMTU > 0 && (v.MTU < k.minMTU || v.MTU > k.maxMTU):
		return fmt.Errorf("set mtu %d: the kernel takes %d to %d for this device: %w", v.MTU, k.minMTU, k.maxMTU, err)
	}
	return fmt.Errorf("set mtu %d: %w", v.MTU, err)
}

// setAddrs has the device have its address, and once all is known no other. Link-local
// addresses of IPv6 are the kernel's.
func (d *Devices) setAddrs(v *plan.Device, k *kernelLink, prune bool) error {
	have, err := d.readAddrs(k.index)
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	var errs []error
	var want netip.Prefix
	if v.Addr.IsValid() {
		want = netip.PrefixFrom(v.Addr, v.Addr.BitLen())
	}
	found := !want.IsValid()
	for _, p := range have {
		found = found || p == want
	}
	if !found {
		if err := d.addAddr(v, k, want); err != nil {
			return err // and keep those that are there
		}
	}
	for _, p := range have {
		if p == want || !prune || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			continue
		}
		err := d.request(unix.RTM_DELADDR, 0, func(b []byte) []byte { return appendAddr(b, k.index, p) })
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove address %v: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Devices) addAddr(v *plan.Device, k *kernelLink, p netip.Prefix) error {
	err := d.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, func(b []byte) []byte { return appendAddr(b, k.index, p) })
	mtu := k.mtu
	if v.MTU != 0 {
		mtu = v.MTU
	}
	switch {
	case err == nil:
		return nil
	case p.Addr().Is6() && mtu < leastMTU6:
		return fmt.Errorf("add address %v: the device's mtu of %d is less than IPv6 needs (%d): %w", p, mtu, leastMTU6, err)
	case p.Addr().Is6() && errors.Is(err, unix.EACCES):
		return fmt.Errorf("add address %v: IPv6 is off (sysctl net.ipv6.conf.%s.disable_ipv6): %w", p, v.Name, err)
	}
	return fmt.Errorf("add address %v: %w", p, err)
}

// tune writes the sysctls that v, whose index is that, needs.
func tune(v *plan.Device, index int32) error {
	if v.Kind == plan.WireGuard {
		return setThreaded(v, index) // the others are package wg's
	}
	// Strict verification of sources (rp_filter 1) drops packets while one node already
	// sends through the tunnel and the other one not yet: while a pool's mode changes.
	// Whether packets have the right source is for the packet filter to say. The kernel
	// takes the larger of the two numbers, so 2, loose, is enough.
	all, dev := sysctl("ipv4/conf/all/rp_filter"), sysctl("ipv4/conf/"+v.Name+"/rp_filter")
	if dev == "1" || all == "1" && dev == "0" {
		return setSysctl("ipv4/conf/"+v.Name+"/rp_filter", "2")
	}
	return nil
}

// sysctl is what a file below /proc/sys/net has; empty if it is not there.
func sysctl(path string) string {
	b, err := os.ReadFile("/proc/sys/net/" + path)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// setSysctl writes value unless it is there already.
func setSysctl(path, value string) error {
	if sysctl(path) == value {
		return nil
	}
	if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s: %w", path, err)
	}
	return nil
}

// setThreaded gives a WireGuard device kernel threads of its own, or not. /sys shows the
// network namespace in which it was mounted, which need not be ours.
func setThreaded(v *plan.Device, index int32) error {
	dir := "/sys/class/net/" + v.Name + "/"
	have, err := os.ReadFile(dir + "threaded")
	if shown, _ := os.ReadFile(dir + "ifindex"); string(bytes.TrimSpace(shown)) != strconv.Itoa(int(index)) {
		have, err = nil, errSysfs
	}
	on := strings.TrimSpace(string(have)) == "1"
	if on == v.Threaded {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set threaded: %w", err)
	}
	if err := os.WriteFile(dir+"threaded", []byte(strconv.Itoa(btoi(v.Threaded))), 0); err != nil {
		return fmt.Errorf("set threaded: %w", err)
	}
	return nil
}

var errSysfs = errors.New("/sys shows another network namespace")

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
