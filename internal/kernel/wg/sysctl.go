package wg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// tune writes the sysctls without which packets would be lost to reverse path filtering,
// where the host filters strictly, or go astray.
//
// WireGuard has checked who sent a packet, and a peer may send from its node's address, to
// which the node's own packets go in clear; so filtering is made loose for the device.
// Marks of packets count in looking for the reverse path (src_valid_mark): package
// wireguard marks what comes in clear and rightly so. With hosts the way to other
// nodes leads through the device, also in the eyes of ARP, which has no marks, and would not be
// answered; so filtering is made loose for the whole host. Who accepts a
// connection answers with its mark then (tcp_fwmark_accept). Nobody turns these back, because
// others may need them by then.
func tune(link string, hosts bool) error {
	const conf = "ipv4/conf/"
	if link == "all" || link == "default" {
		return fmt.Errorf("wg: device %s: the name means all links to sysctl; choose another wireguardInterfaceName", link)
	}
	errs := []error{writeSysctl(conf+"all/src_valid_mark", "1")}
	switch all, dev := readSysctl(conf+"all/rp_filter"), readSysctl(conf+link+"/rp_filter"); {
	case hosts && strictSomewhere():
		errs = append(errs, writeSysctl(conf+"all/rp_filter", "2")) // the greater of all's and a link's counts
	case dev != "2" && (all == "1" || dev == "1"):
		errs = append(errs, writeSysctl(conf+link+"/rp_filter", "2"))
	}
	if hosts {
		errs = append(errs, writeSysctl("ipv4/tcp_fwmark_accept", "1"))
	}
	return errors.Join(errs...)
}

// strictSomewhere reports whether any link filters reverse paths strictly.
func strictSomewhere() bool {
	links, _ := filepath.Glob(sysctlPath("ipv4/conf/*/rp_filter"))
	return slices.ContainsFunc(links, func(path string) bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.TrimSpace(string(b)) == "1"
	})
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
