package wg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tune writes the sysctls without which packets of a device would be lost.
//
// WireGuard has checked who sent a packet, and a peer may send from its node's address, to
// which the node's own packets go in clear; so strict reverse path filtering, where the
// host has it, is made loose for the device. It stays as it is for all others. With hosts
// the mark of what came in clear has to count: for the reverse path
// (src_valid_mark), and for the answers of what accepts the connection
// (tcp_fwmark_accept). Nobody turns these two back, because others may need them by then.
func tune(link string, hosts bool) error {
	const conf = "ipv4/conf/"
	var errs []error
	all, dev := readSysctl(conf+"all/rp_filter"), readSysctl(conf+link+"/rp_filter")
	if link == "all" || link == "default" {
		errs = append(errs, fmt.Errorf("wg: device %s: the name means all links to sysctl; choose another wireguardInterfaceName", link))
	} else if dev != "2" && (all == "1" || dev == "1") {
		errs = append(errs, writeSysctl(conf+link+"/rp_filter", "2"))
	}
	if hosts {
		errs = append(errs, writeSysctl(conf+"all/src_valid_mark", "1"), writeSysctl("ipv4/tcp_fwmark_accept", "1"))
	}
	return errors.Join(errs...)
}

func sysctlPath(name string) string { return filepath.Join("/proc/sys/net", name) }

// readSysctl is the value of a sysctl; empty where there is none.
func readSysctl(name string) string {
	b, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// writeSysctl sets a sysctl unless it is so already. One that is missing, as IPv4's are
// where there is no IPv4, is no error.
func writeSysctl(name, value string) error {
	if readSysctl(name) == value {
		return nil
	}
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wg: sysctl net.%s = %s: %w", strings.ReplaceAll(name, "/", "."), value, err)
	}
	return nil
}
