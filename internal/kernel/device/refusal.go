package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// createError says why a device cannot be made, and what to do.
func (d *Devices) createError(v *plan.Device, err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("make it: the kernel has no %v (module %v): %w", v.Kind, v.Kind, err)
	case errors.Is(err, unix.EEXIST) && v.Kind == plan.VXLAN:
		return fmt.Errorf("make it: %s has id %d and dstport %d already; remove it (ip link delete), or set vxlanVNI in FelixConfiguration: %w",
			d.sameVXLAN(v), v.VNI, v.Port, err)
	case errors.Is(err, unix.EEXIST) && v.Kind == plan.IPIP:
		return fmt.Errorf("make it: another ipip device without addresses is there; rename it to %s (ip link set DEVICE name %s): %w", v.Name, v.Name, err)
	}
	return fmt.Errorf("make it: %w", err)
}

// sameVXLAN names the device that stands in the way of v.
func (d *Devices) sameVXLAN(v *plan.Device) string {
	name := "another device"
	_ = d.dump(unix.RTM_GETLINK, make([]byte, linkBytes), func(b []byte) {
		if k, ok := parseLink(b); ok && k.kind == v.Kind.String() {
			if x := parseVXLAN(k.data); x.vni == v.VNI && x.port == v.Port {
				name = k.name
			}
		}
	})
	return name
}

// upError says why a device cannot be set up.
func upError(v *plan.Device, err error) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("set up: %w", err)
	}
	setting := "vxlanPort"
	switch {
	case v.Kind == plan.WireGuard && v.Addr.Is6():
		setting = "wireguardListeningPortV6"
	case v.Kind == plan.WireGuard:
		setting = "wireguardListeningPort"
	}
	return fmt.Errorf("set up: UDP port %d is taken%s; stop that, or set %s in FelixConfiguration: %w", v.Port, holder(v.Port), setting, err)
}

// holder says which process has a UDP port in the calling thread's network namespace;
// empty when that cannot be seen.
func holder(port uint16) string {
	for _, file := range []string{"udp", "udp6"} {
		list, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(list)) {
			// sl local remote st queues tr:tm retrnsmt uid timeout inode …
			f := strings.Fields(line)
			if len(f) < 10 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			if f[9] == "0" {
				return " by another tunnel device of the kernel"
			}
			return owner(f[9])
		}
	}
	return ""
}

// owner finds the process that has the socket of that inode.
func owner(inode string) string {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		if _, err := strconv.Atoi(pid); err == nil {
			return fmt.Sprintf(" by %s (process %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}
