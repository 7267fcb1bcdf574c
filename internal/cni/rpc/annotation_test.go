package rpc_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/cni/rpc"
)

func TestAnnotate(t *testing.T) {
	t.Parallel()
	const p = "cni.projectcalico.org/"
	all := rpc.Features{AddrsNoIPAM: true, FloatingIPs: true}
	for name, tt := range map[string]struct {
		in   map[string]string
		f    rpc.Features
		want string // of Address and Endpoint as JSON, a part; or the error, after "!"
	}{
		"unknown":         {in: map[string]string{"a": "b"}, want: `{"ipv4":true}`},
		"pools":           {in: map[string]string{p + "ipv4pools": `["a","10.0.0.0/8"]`, p + "ipv6pools": `["b"]`}, want: `{"ipv4":true,"ipv4Pools":["a","10.0.0.0/8"],"ipv6Pools":["b"]}`},
		"families":        {in: map[string]string{p + "ipFamilies": `["IPv6"]`}, want: `{"ipv6":true}`},
		"addresses":       {in: map[string]string{p + "ipAddrs": `["10.0.0.1","fd00::1"]`}, want: `"exact":["10.0.0.1","fd00::1"]`},
		"without IPAM":    {in: map[string]string{p + "ipAddrsNoIpam": `["10.0.0.1"]`}, f: all, want: `{} {"hostLink":"","mac":"","given":["10.0.0.1/32"]}`},
		"MAC":             {in: map[string]string{p + "hwAddr": "02-00-00-00-00-AA"}, want: `"mac":"02:00:00:00:00:aa"`},
		"source prefixes": {in: map[string]string{p + "allowedSourcePrefixes": `["10.0.0.0/8"]`}, want: `"sourcePrefixes":["10.0.0.0/8"]`},
		"floating":        {in: map[string]string{p + "floatingIPs": `["1.2.3.4"]`}, f: all, want: `"floatingIPs":["1.2.3.4"]`},
		"floating is off": {in: map[string]string{p + "floatingIPs": `["1.2.3.4"]`}, want: "!not allowed: feature_control.floating_ips"},
		"no IPAM is off":  {in: map[string]string{p + "ipAddrsNoIpam": `["1.2.3.4"]`}, want: "!not allowed: feature_control.ip_addrs_no_ipam"},
		"both":            {in: map[string]string{p + "ipAddrs": `["1.2.3.4"]`, p + "ipAddrsNoIpam": `["1.2.3.4"]`}, f: all, want: "!exclude each other"},
		"not JSON":        {in: map[string]string{p + "ipAddrs": "1.2.3.4"}, want: "!not a JSON list of IP addresses"},
		"no address":      {in: map[string]string{p + "ipAddrs": "[]"}, want: "!no address"},
		"two of a family": {in: map[string]string{p + "ipAddrs": `["1.2.3.4","1.2.3.5"]`}, want: "!1.2.3.4 and 1.2.3.5 are of one family"},
		"multicast":       {in: map[string]string{p + "ipAddrs": `["224.0.0.1"]`}, want: "!not an address for an interface"},
		"no family":       {in: map[string]string{p + "ipFamilies": `[]`}, want: "!no family"},
		"unknown family":  {in: map[string]string{p + "ipFamilies": `["ipv4"]`}, want: `!"ipv4" is not a family`},
		"group MAC":       {in: map[string]string{p + "hwAddr": "ff:ff:ff:ff:ff:ff"}, want: "!group address"},
		"MAC of 8 bytes":  {in: map[string]string{p + "hwAddr": "02:00:00:00:00:00:00:01"}, want: "!not a MAC address"},
		"bad prefix":      {in: map[string]string{p + "allowedSourcePrefixes": `["10.0.0.0"]`}, want: "!not a JSON list of CIDRs"},
	} {
		r := rpc.AddRequest{Address: rpc.AddressWish{IPv4: true}, Endpoint: &rpc.Endpoint{}}
		err := r.Annotate(tt.in, tt.f)
		if text, ok := strings.CutPrefix(tt.want, "!"); ok {
			var e *rpc.Error
			if !errors.As(err, &e) || e.Code != rpc.CodeInvalidConfig || !strings.Contains(e.Msg, text) || !strings.HasPrefix(e.Msg, "annotation") {
				t.Errorf("%s: got %v, want %q", name, err, text)
			}
			continue
		}
		if got := asJSON(t, r.Address) + " " + asJSON(t, r.Endpoint); err != nil || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %s, %v; want %s", name, got, err, tt.want)
		}
	}
}
