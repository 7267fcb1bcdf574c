package remnant

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// The socket options and structures of linux/netfilter_ipv4/ip_tables.h; IPv6 has the same.
const (
	getInfo        = 64 // IPT_SO_GET_INFO
	getEntries     = 65 // IPT_SO_GET_ENTRIES
	tableNameBytes = 32 // XT_TABLE_MAXNAMELEN
	infoBytes      = 84 // struct ipt_getinfo; its last word is the size of the entries
	getHeaderBytes = 40 // struct ipt_get_entries, without entries
)

// legacyTables are the tables of iptables-legacy that have rules of Calico. Only tables that
// are there are asked for: to ask for another would make it.
func legacyTables() ([]string, error) {
	var out []string
	var errs []error
	for _, l := range []struct {
		public, names string
		family, level int
	}{
		{"ip", "ip_tables_names", unix.AF_INET, unix.SOL_IP},
		{"ip6", "ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6},
	} {
		names, err := os.ReadFile("/proc/thread-self/net/" + l.names)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // no ip_tables in this kernel, or none for us
		}
		errs = append(errs, err)
		for _, name := range strings.Fields(string(names)) {
			there, err := legacyHas(l.family, l.level, name)
			if err != nil {
				errs = append(errs, fmt.Errorf("remnant: table %s %s of iptables-legacy: %w", l.public, name, err))
			}
			if there {
				out = append(out, l.public+" "+name)
			}
		}
	}
	return out, errors.Join(errs...)
}

// legacyHas reports whether the bytes of a table's rules name a chain of Calico.
func legacyHas(family, level int, table string) (bool, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	info := make([]byte, infoBytes)
	copy(info[:tableNameBytes-1], table)
	if err := getOption(fd, level, getInfo, info); err != nil {
		return false, err
	}
	size := netlink.Native.Uint32(info[infoBytes-4:])
	b := make([]byte, getHeaderBytes+int(size))
	copy(b[:tableNameBytes-1], table)
	netlink.Native.PutUint32(b[tableNameBytes:], size)
	if err := getOption(fd, level, getEntries, b); err != nil {
		return false, err // EAGAIN: another size by now
	}
	return bytes.Contains(b[getHeaderBytes:], []byte(chainPrefix)), nil
}

// getOption is getsockopt(2) with b as argument and as result.
func getOption(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
