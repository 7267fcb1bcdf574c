package vm_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// TestVMGuest is what a test may expect of the machine.
func TestVMGuest(t *testing.T) {
	testenv.VM(t)
	for _, command := range []string{
		// Devices, whose drivers the kernel loads by itself.
		"ip link add vma type ipip local 10.0.0.1 remote 10.0.0.2",
		"ip link add vmb type wireguard", "ip link add vmc type vrf table 10", "ip link add vmd type dummy",
		"ip link add vme type vxlan id 1 dstport 4789", "ip link add vmf type geneve id 1 remote 10.0.0.2",
		"ip link add vmg type bridge", "ip link add vmh type veth", "ip tuntap add vmi mode tun",
		// The packet filter, and traffic control.
		"nft add table inet t",
		"nft add chain inet t c '{ type nat hook postrouting priority 100; }'",
		"nft add rule inet t c ct state new fib daddr type local masquerade",
		"iptables-legacy -A FORWARD -m conntrack --ctstate NEW -m comment --comment c -j ACCEPT",
		"iptables-nft -A FORWARD -m mark --mark 1 -j REJECT",
		"ip6tables-legacy -A FORWARD -m addrtype --dst-type LOCAL -j DROP",
		"tc qdisc add dev vmd root netem delay 1ms loss 1%",
		"test -w /sys/fs/cgroup/cgroup.procs", "test -d /sys/fs/bpf",
	} {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", command, err, strings.TrimSpace(string(out)))
		}
	}
	for _, dir := range []string{"/tmp", "/run", "/var/lib", os.Getenv("WEFT_VM_OUT")} {
		file := filepath.Join(dir, "weft-vm-guest")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
		_ = os.Remove(file)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	if out, err := exec.Command(filepath.Join(os.Getenv("WEFT_BIN"), "weft"), "version").CombinedOutput(); err != nil {
		t.Errorf("weft: %v: %s", err, out)
	}
	if now := time.Now(); now.Year() < 2025 {
		t.Errorf("it is %v", now)
	}
}
