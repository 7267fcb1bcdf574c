package fib

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// sysctl is one file below /proc/sys/net and what it must hold.
type sysctl struct{ path, value string }

// linkSysctls4 make a workload's IPv4 work: the host answers ARP for the
// gateway 169.254.1.1 at once and forwards; route_localnet lets a workload
// reach services that are redirected to the node's 127.0.0.1.
var linkSysctls4 = [...]sysctl{
	{"ipv4/conf/%s/proxy_arp", "1"},
	{"ipv4/neigh/%s/proxy_delay", "0"},
	{"ipv4/conf/%s/forwarding", "1"},
	{"ipv4/conf/%s/route_localnet", "1"},
}

// linkSysctls6 are the same for IPv6, whose gateway is the link's own address.
var linkSysctls6 = [...]sysctl{
	{"ipv6/conf/%s/proxy_ndp", "1"},
	{"ipv6/conf/%s/forwarding", "1"},
	{"ipv6/conf/%s/accept_dad", "0"},
}

// acceptRA is off for every workload, also one without IPv6: otherwise it could
// give the node a default route by a router advertisement (CVE-2020-13597).
var acceptRA = sysctl{"ipv6/conf/%s/accept_ra", "0"}

// EnableForwarding makes the node whose network namespace the calling thread is
// in a router for the given families.
func EnableForwarding(v4, v6 bool) error {
	var errs []error
	if v4 {
		_, err := setSysctl("ipv4/ip_forward", "1")
		errs = append(errs, err)
	}
	if v6 {
		_, err := setSysctl("ipv6/conf/all/forwarding", "1")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// tuneLink writes the sysctls of a workload link that are not as they must be,
// and says how many those were.
func tuneLink(name string, v4, v6 bool) (written int, err error) {
	if name == "all" || name == "default" {
		return 0, fmt.Errorf("fib: link %s: the name means all links to sysctl", name)
	}
	set := func(s sysctl) error {
		did, err := setSysctl(fmt.Sprintf(s.path, name), s.value)
		if did {
			written++
		}
		return err
	}
	var errs []error
	if v4 {
		for _, s := range linkSysctls4 {
			errs = append(errs, set(s))
		}
	}
	if v6 {
		for _, s := range linkSysctls6 {
			errs = append(errs, set(s))
		}
	}
	if err := set(acceptRA); v6 || !errors.Is(err, unix.ENOENT) { // the kernel may have no IPv6 at all
		errs = append(errs, err)
	}
	return written, errors.Join(errs...)
}

// setSysctl writes value unless it is there already, and reports whether it
// wrote. It calls the kernel directly: package os would put each file into the poller.
func setSysctl(path, value string) (bool, error) {
	path = "/proc/sys/net/" + path
	// Finding the file is most of the work, so it is opened once. Where it can't be
	// written it may still be right.
	fd, refused := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if refused != nil {
		var err error
		if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return false, fmt.Errorf("fib: read %s: %w", path, err)
		}
	}
	defer unix.Close(fd)
	var buf [32]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return false, fmt.Errorf("fib: read %s: %w", path, err)
	}
	if string(bytes.TrimSpace(buf[:n])) == value {
		return false, nil
	}
	if err = refused; err == nil {
		_, err = unix.Pwrite(fd, []byte(value), 0)
	}
	if err != nil {
		return false, fmt.Errorf("fib: write %s to %s: %w", value, path, err)
	}
	return true, nil
}
