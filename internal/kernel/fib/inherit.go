package fib

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// Inherited reports whether the kernel has routes of the cluster that an earlier
// run left, so that traffic has been flowing while nobody was here. It is for
// use before Run.
func (f *FIB) Inherited() (bool, error) {
	var r route
	found := false
	for _, table := range f.dumpTables() {
		for _, v6 := range []bool{false, true} {
			for _, proto := range f.opts.Protocols {
				body := make([]byte, routeBytes)
				body[0], body[5] = netlink.Family(v6), proto // the kernel filters: NETLINK_GET_STRICT_CHK
				if table != unix.RT_TABLE_UNSPEC {
					body = netlink.AppendAttr32(body, unix.RTA_TABLE, table)
				}
				err := dumpAll(f.reader, unix.RTM_GETROUTE, body, func(typ uint16, body []byte) {
					found = found || typ == unix.RTM_NEWROUTE && r.parse(body) && f.tables[r.key.table] && r.proto == proto
				}, func() {})
				if err != nil {
					return false, fmt.Errorf("fib: read routes: %w", err)
				}
			}
		}
	}
	return found, nil
}
