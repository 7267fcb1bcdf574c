package cni_test

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

func TestAddPrintsResultInEachVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		p := n.pod("v" + strings.ReplaceAll(version, ".", ""))
		out := n.mustRun("calico", "ADD", with(plainConf, `cniVersion="`+version+`"`), p)
		var got struct {
			CNIVersion string
			Interfaces []struct{ Name, Mac, Sandbox string }
			IPs        []struct{ Version, Address, Gateway string }
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		if got.CNIVersion != version || len(got.IPs) != 1 || len(got.Interfaces) != 2 {
			t.Fatalf("%s: got %s", version, out)
		}
		if v := map[bool]string{true: "4", false: ""}[version < "1"]; got.IPs[0].Version != v {
			t.Errorf("%s: ips[0].version %q, want %q", version, got.IPs[0].Version, v)
		}
		if !strings.HasSuffix(got.IPs[0].Address, "/32") || got.IPs[0].Gateway != "169.254.1.1" {
			t.Errorf("%s: got %+v", version, got.IPs[0])
		}
		if i := got.Interfaces[0]; i.Mac != "ee:ee:ee:ee:ee:ee" || i.Sandbox != "" || !strings.HasPrefix(i.Name, "cali") {
			t.Errorf("%s: host interface %+v", version, i)
		}
		if i := got.Interfaces[1]; i.Name != "eth0" || i.Sandbox != p.path {
			t.Errorf("%s: container interface %+v", version, i)
		}
	}
}

func TestPodSideIsAsCalicosUsersKnowIt(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	n.mustRun("calico", "ADD", with(plainConf, `ipam={"type":"calico-ipam","assign_ipv6":"true"}`), p)
	if got := links(t, n.ns); len(got) != 1 || got[0] != "cali0d7763386da" {
		t.Errorf("host links %v, want cali0d7763386da", got)
	}
	for _, tt := range []struct{ args, want string }{
		{"route", "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link"},
		{"-6 route show default", "default via fe80::ecee:eeff:feee:eeee dev eth0 metric 1024 pref medium"},
		{"neigh show nud permanent", "fe80::ecee:eeff:feee:eeee dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT\n169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT"},
	} {
		got := ip(t, p.ns, strings.Fields(tt.args)...)
		if sortLines(strings.ReplaceAll(got, "router ", "")) != sortLines(tt.want) {
			t.Errorf("ip %s:\n%s\nwant\n%s", tt.args, got, tt.want)
		}
	}
	addrs := ip(t, p.ns, "-o", "addr", "show", "dev", "eth0")
	for _, want := range []string{"inet 10.65.0.1/32 ", "inet6 fd00::1/128 ", "inet6 fe80::"} {
		if !strings.Contains(addrs, want) {
			t.Errorf("no %q in\n%s", want, addrs)
		}
	}
	if strings.Contains(addrs, "tentative") {
		t.Errorf("duplicate address detection runs:\n%s", addrs)
	}
	if link := ip(t, p.ns, "link", "show", "eth0"); !strings.Contains(link, "mtu 1450") {
		t.Errorf("the agent's MTU is not set: %s", link)
	}
	for key, want := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0/accept_dad": "0"} {
		if got := readSysctl(t, p.ns, key); got != want {
			t.Errorf("sysctl %s is %s, want %s", key, got, want)
		}
	}
}

// A node without a default route answers no ARP for 169.254.1.1, which is why
// the neighbour entry is permanent.
func TestPodReachesNodeThatHasNoDefaultRoute(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	n.mustRun("calico", "ADD", with(plainConf, `ipam={"type":"calico-ipam","assign_ipv6":"true"}`), p)
	for _, tt := range []struct{ node, pod string }{{"10.9.9.9/32", "10.65.0.1/32"}, {"fd99::1/128", "fd00::1/128"}} {
		var l net.Listener
		n.ns.MustDo(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr(tt.node)
			if err != nil {
				return err
			}
			addr.Flags = 2 // no duplicate address detection
			if err := netlink.AddrAdd(lo, addr); err != nil {
				return err
			}
			// An IPv6 address works a moment after it was added.
			for local := false; !local; {
				routes, _ := netlink.RouteGet(addr.IP)
				local = len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
			}
			host, err := netlink.LinkByName("cali0d7763386da")
			if err != nil {
				return err
			}
			_, dst, err := net.ParseCIDR(tt.pod)
			if err != nil {
				return err
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: host.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
				return err
			}
			l, err = net.Listen("tcp", netip.AddrPortFrom(netip.MustParsePrefix(tt.node).Addr(), 0).String())
			return err
		})
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "hello")
				c.Close()
			}
		}()
		p.ns.MustDo(func() error {
			c, err := net.DialTimeout("tcp", l.Addr().String(), testenv.Patience)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = io.ReadFull(c, make([]byte, 5))
			return err
		})
		l.Close()
	}
}

func TestAddTwiceGivesTheSame(t *testing.T) {
	t.Parallel()
	for name, conf := range map[string]string{
		"own IPAM":   plainConf,
		"host-local": with(plainConf, `ipam={"type":"host-local","dataDir":"`+t.TempDir()+`","ranges":[[{"subnet":"10.77.0.0/24"}],[{"subnet":"fd77::/64"}]]}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			p := n.pod("web-0")
			first := n.mustRun("calico", "ADD", conf, p)
			before := ip(t, n.ns, "-o", "link", "show", "cali0d7763386da")
			if again := n.mustRun("calico", "ADD", conf, p); again != first {
				t.Errorf("the second ADD gave\n%s\nthe first\n%s", again, first)
			}
			if after := ip(t, n.ns, "-o", "link", "show", "cali0d7763386da"); after != before {
				t.Errorf("the interface was made anew:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// TestIPv6Only: a pod of one family has nothing of the other.
func TestIPv6Only(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	conf := with(plainConf, `ipam={"type":"calico-ipam","assign_ipv4":"false","assign_ipv6":"true"}`)
	n.mustRun("calico", "ADD", conf, p)
	for args, want := range map[string]string{
		"-4 addr show dev eth0":       "",
		"-4 route show":               "",
		"-4 neigh show nud permanent": "",
		"-6 route show default":       "default via fe80::ecee:eeff:feee:eeee dev eth0 metric 1024 pref medium",
	} {
		if got := ip(t, p.ns, strings.Fields(args)...); sortLines(got) != want {
			t.Errorf("ip %s: got %q, want %q", args, got, want)
		}
	}
	if addrs := ip(t, p.ns, "-o", "addr", "show", "dev", "eth0"); !strings.Contains(addrs, "inet6 fd00::1/128 ") {
		t.Errorf("addresses %s", addrs)
	}
	n.mustRun("calico", "CHECK", with(conf, `prevResult=`+n.mustRun("calico", "ADD", conf, p)), p)
	n.mustRun("calico", "DEL", conf, p)
}

// TestMTU: the configuration's word counts before the agent's, and that before the file's,
// on both ends.
func TestMTU(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for name, tt := range map[string]struct{ conf, file, want string }{
		"nothing":       {plainConf, "", "1450"}, // as the agent says
		"file":          {plainConf, "1300", "1450"},
		"configuration": {with(plainConf, `mtu=1400`), "1300", "1400"},
	} {
		_ = os.Remove(n.socket + ".mtu")
		if tt.file != "" {
			if err := os.WriteFile(n.socket+".mtu", []byte(tt.file+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := n.pod("web-0")
		for range 2 { // made, then kept
			n.mustRun("calico", "ADD", tt.conf, p)
			for _, got := range []string{ip(t, n.ns, "link", "show", "cali0d7763386da"), ip(t, p.ns, "link", "show", "eth0")} {
				if !strings.Contains(got, "mtu "+tt.want+" ") {
					t.Errorf("%s: want %s: %s", name, tt.want, got)
				}
			}
		}
		n.mustRun("calico", "DEL", tt.conf, p)
	}
}

func TestSettingsOfTheInterface(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	conf := with(plainConf, `mtu=1400`, `num_queues=2`, `container_settings={"allow_ip_forwarding":true}`, `include_default_routes=true`,
		`ipam={"type":"calico-ipam","routes":[{"dst":"10.0.0.0/8"}]}`)
	p := n.pod("web-0")
	for range 2 { // made, then kept
		n.mustRun("calico", "ADD", conf, p)
		for _, end := range []struct {
			ns   *testenv.Namespace
			name string
		}{{n.ns, "cali0d7763386da"}, {p.ns, "eth0"}} {
			got := ip(t, end.ns, "-d", "link", "show", end.name)
			if !contains(got, "mtu 1400 ") || !contains(got, "numtxqueues 2 ") || !contains(got, "numrxqueues 2 ") {
				t.Errorf("%s: %s", end.name, got)
			}
			ip(t, end.ns, "link", "set", end.name, "mtu", "1300")
		}
	}
	if got := readSysctl(t, p.ns, "net/ipv4/ip_forward"); got != "1" {
		t.Errorf("forwarding is %s", got)
	}
	want := "10.0.0.0/8 via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link\ndefault via 169.254.1.1 dev eth0"
	if got := ip(t, p.ns, "route"); sortLines(got) != want {
		t.Errorf("routes\n%s\nwant\n%s", got, want)
	}
}

// An address that a pod asks for by annotation goes to the IPAM plugin of the
// configuration; one that it brings itself goes to none.
func TestAnnotatedAddresses(t *testing.T) {
	t.Parallel()
	annotated := func(conf, key string) string {
		return with(conf, `runtimeConfig={"io.kubernetes.cri.pod-annotations":{"cni.projectcalico.org/`+key+`":"[\"10.77.0.9\"]"}}`)
	}
	hostLocal := with(plainConf, `feature_control={"ip_addrs_no_ipam":true}`,
		`ipam={"type":"host-local","dataDir":"`+t.TempDir()+`","ranges":[[{"subnet":"10.77.0.0/24"}]]}`)
	for name, tt := range map[string]struct {
		conf         string
		exact, given int // that the agent is asked for
	}{
		"own IPAM":       {annotated(plainConf, "ipAddrs"), 1, 0},
		"host-local":     {annotated(hostLocal, "ipAddrs"), 0, 1},
		"no IPAM":        {annotated(hostLocal, "ipAddrsNoIpam"), 0, 1},
		"no IPAM plugin": {annotated(with(hostLocal, "ipam={}"), "ipAddrsNoIpam"), 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			p := n.pod("web-0")
			p.container += strings.ReplaceAll(name, " ", "")
			for range 2 {
				prev := n.mustRun("calico", "ADD", tt.conf, p)
				if !contains(prev, `"10.77.0.9/32"`) {
					t.Errorf("got %s, want 10.77.0.9/32", prev)
				}
				asked := n.agent.asked(p.container)
				if len(asked.Address.Exact) != tt.exact || len(asked.Endpoint.Given) != tt.given || asked.Address.IPv4 && tt.exact == 0 {
					t.Errorf("the agent was asked %+v, endpoint %+v", asked, asked.Endpoint)
				}
				n.mustRun("calico", "CHECK", with(tt.conf, "prevResult="+prev), p)
			}
			n.mustRun("calico", "DEL", tt.conf, p)
		})
	}
}

func sortLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(sorted(lines), "\n")
}
