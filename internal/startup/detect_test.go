package startup

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// links reads "eth0 10.0.0.1/24 fd00::1/64; -lo 127.0.0.1/8": '-' means down.
func links(t *testing.T, s string) []Link {
	t.Helper()
	var out []Link
	for part := range strings.SplitSeq(s, ";") {
		f := strings.Fields(part)
		l := Link{Name: strings.TrimPrefix(f[0], "-"), Up: !strings.HasPrefix(f[0], "-")}
		for _, a := range f[1:] {
			l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
		}
		out = append(out, l)
	}
	return out
}

const machine = "lo 127.0.0.1/8 ::1/128; docker0 172.17.0.1/16; eth0 10.0.0.5/24 fe80::5/64 fd00::5/64; eth1 10.1.0.5/16 fd01::5/64; cali123 169.254.1.1/32"

func TestDetect(t *testing.T) {
	t.Parallel()
	host := Host{SourceTo: func(_ context.Context, dst string, _ bool) (netip.Addr, error) {
		switch dst {
		case "8.8.8.8":
			return netip.MustParseAddr("10.1.0.5"), nil
		case "2001:db8::1":
			return netip.MustParseAddr("fd01::5"), nil
		}
		return netip.Addr{}, errors.New("no such host")
	}}
	for name, tt := range map[string]struct {
		method, links, internal string
		v6                      bool
		want                    string // address, or "error: TEXT"
	}{
		"first found skips loopback and docker": {method: "first-found", want: "10.0.0.5/24"},
		"first found, v6, no link-local":        {method: "first-found", v6: true, want: "fd00::5/64"},
		"down is skipped":                       {method: "first-found", links: "-eth0 10.0.0.5/24; eth1 10.1.0.5/16", want: "10.1.0.5/16"},
		"each kind of link that is passed over": {method: "first-found", links: "docker0 10.0.0.1/24; cbr0 10.0.1.1/24; dummy0 10.0.2.1/24; podman1 10.0.3.1/24; virbr0 10.0.4.1/24; lxcbr0 10.0.5.1/24; veth12 10.0.6.1/24; br-1a 10.0.7.1/24; cali1 10.0.8.1/24; tunl0 10.0.9.1/24; flannel.1 10.0.10.1/24; kube-ipvs0 10.0.11.1/24; cni0 10.0.12.1/24; vxlan.calico 10.0.13.1/24; vxlan-v6.calico 10.0.14.1/24; wireguard.cali 10.0.15.1/24; wg-v6.cali 10.0.16.1/24; nodelocaldns 10.0.17.1/24; br0 10.9.0.1/24", want: "10.9.0.1/24"},
		"interface":                             {method: "interface=eth1", want: "10.1.0.5/16"},
		"interface takes an excluded kind":      {method: "interface=docker.*", want: "172.17.0.1/16"},
		"interface, the kernel's order":         {method: "interface=eth1,eth0", want: "10.0.0.5/24"},
		"interface, none":                       {method: "interface=ens.*", want: "error: interface matches none of interface=ens.*"},
		"skip-interface adds to the defaults":   {method: "skip-interface=eth0", want: "10.1.0.5/16"},
		"skip-interface, none left":             {method: "skip-interface=eth.*", want: "error: docker0: interface is of a kind that is passed over"},
		"cidr":                                  {method: "cidr=10.9.0.0/16,10.1.0.0/16", want: "10.1.0.5/16"},
		"cidr, v6":                              {method: "cidr=fd01::/64", v6: true, want: "fd01::5/64"},
		"can-reach":                             {method: "can-reach=8.8.8.8", want: "10.1.0.5/16"},
		"can-reach, v6":                         {method: "can-reach=2001:db8::1", v6: true, want: "fd01::5/64"},
		"can-reach, unknown name":               {method: "can-reach=nowhere", want: "error: IP_AUTODETECTION_METHOD=can-reach=nowhere: no such host"},
		"kubernetes-internal-ip":                {method: "kubernetes-internal-ip", internal: "10.1.0.5", want: "10.1.0.5/16"},
		"kubernetes-internal-ip, none":          {method: "kubernetes-internal-ip", want: "error: not an InternalIP of the node"},
		"no address at all":                     {method: "first-found", links: "lo", want: "error: no such address at all"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := ParseMethod(tt.method)
			if err != nil {
				t.Fatal(err)
			}
			if tt.links == "" {
				tt.links = machine
			}
			var internal []netip.Addr
			if tt.internal != "" {
				internal = append(internal, netip.MustParseAddr(tt.internal))
			}
			got, err := Detect(t.Context(), AddressSetting{V6: tt.v6, Method: m}, internal, host, links(t, tt.links))
			if text, isErr := strings.CutPrefix(tt.want, "error: "); isErr {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Fatalf("got %v, %v; want an error with %q", got, err, text)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestParseMethodRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "first", "First-Found", "first-found=x", "can-reach", "can-reach=", "interface", "interface=", "interface=(", "interface=a,,b", "cidr=", "cidr=10.0.0.1", "kubernetes-internal-ip=1"} {
		if m, err := ParseMethod(s); err == nil {
			t.Errorf("%q: got %+v, want an error", s, m)
		} else if !strings.Contains(err.Error(), "allowed are first-found") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %q does not say in one line what is allowed", s, err)
		}
	}
}

func FuzzParseMethod(f *testing.F) {
	for _, s := range []string{"first-found", "can-reach=a", "interface=eth.*,(", "cidr=fd00::/8,1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseMethod(s); err == nil && m.String() != s {
			t.Fatalf("%q prints %q", s, m)
		}
	})
}

func TestRankGivesAReasonForEachOther(t *testing.T) {
	t.Parallel()
	m, err := ParseMethod("first-found")
	if err != nil {
		t.Fatal(err)
	}
	ranked := Rank(m, false, links(t, machine), netip.Addr{}, nil)
	var got []string
	for _, c := range ranked {
		got = append(got, c.Link+" "+c.Reason)
	}
	want := "eth0 \neth1 \nlo not a global unicast address\ndocker0 interface is of a kind that is passed over\ncali123 not a global unicast address"
	if strings.Join(got, "\n") != want {
		t.Fatalf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
}

func TestFreeCIDR(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ addrs, want string }{
		"nothing in the way":  {"10.0.0.1/8", "192.168.0.0/16"},
		"192.168 is ours":     {"192.168.3.4/24", "172.16.0.0/16"},
		"the first free one":  {"192.168.3.4/24 172.16.0.1/32 172.17.0.1/16", "172.18.0.0/16"},
		"the last of the row": {"192.168.3.4/24 172.16.0.1/12 172.17.0.1/16 172.18.0.1/16 172.19.0.1/16 172.20.0.1/16 172.21.0.1/16 172.22.0.1/16 172.23.0.1/16 172.24.0.1/16 172.25.0.1/16 172.26.0.1/16 172.27.0.1/16 172.28.0.1/16 172.29.0.1/16 172.30.0.1/16", "172.31.0.0/16"},
	} {
		got, err := freeCIDR(false, links(t, "eth0 "+tt.addrs), nil)
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: got %v, %v; want %s", name, got, err, tt.want)
		}
	}
	full := "eth0 192.168.0.1/16"
	for i := 16; i < 32; i++ {
		full += " 172." + string(rune('0'+i/10)) + string(rune('0'+i%10)) + ".0.1/16"
	}
	if p, err := freeCIDR(false, links(t, full), nil); err == nil || !strings.Contains(err.Error(), "set CALICO_IPV4POOL_CIDR") {
		t.Errorf("all taken: got %v, %v", p, err)
	}
	a, err := freeCIDR(true, nil, nil)
	if err != nil || a.Bits() != 48 || !netip.MustParsePrefix("fd00::/8").Contains(a.Addr()) || a != a.Masked() {
		t.Errorf("v6: got %v, %v", a, err)
	}
	if b, _ := freeCIDR(true, nil, nil); a == b {
		t.Errorf("v6: %v twice", a)
	}
}
