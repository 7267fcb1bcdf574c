package lab_test

import (
	"fmt"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// In the machine with the full kernel: tunnels made by hand of the kinds that it alone
// has, and what the lab says of them.

// ipipEnd is the command for one end of an IPIP tunnel, as weft's routes use it.
func ipipEnd(own, remote int, node string) string {
	return fmt.Sprintf("ip link set tunl0 up && ip addr add 192.168.%d.250/32 dev tunl0 && ip route add 192.168.%d.0/24 via %s dev tunl0 onlink", own, remote, node)
}

func TestVMCarriedIPIP(t *testing.T) {
	testenv.VM(t)
	expect := map[string]string{
		"reachable: {from: pod/default/p, to: pod/default/r, carried: ipip, source: own}":        "",
		"reachable: {from: pod/default/p, to: pod/default/r, port: 80, carried: ipip}":           "",
		"mtu: {from: pod/default/p, to: pod/default/r, bytes: 1480}":                             "",
		"reachable: {from: a, to: pod/default/r, carried: ipip, source: 192.168.1.250}":          "",
		"{reachable: {from: pod/default/p, to: pod/default/r, carried: none}, within: 15s}":      `carried in ipip: 192.168.1.1 > 192.168.3.1 ICMP in ipip \(10.1.0.11 > 10.2.0.11\) seen on r1$`,
		"{reachable: {from: pod/default/p, to: pod/default/r, carried: wireguard}, within: 15s}": `carried in ipip`,
		"{mtu: {from: pod/default/p, to: pod/default/r, bytes: 1481}, within: 15s}":              `1481 bytes: \S+ says that no more than 1480 fit$`,
	}
	compare(t, racksStrict, map[string]string{
		"a": ipipEnd(1, 3, "10.2.0.11"),
		"b": ipipEnd(3, 1, "10.1.0.11"),
	}, expect)
}
