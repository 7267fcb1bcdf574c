package startup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func env(pairs string) func(string) string {
	m := map[string]string{}
	for p := range strings.FieldsSeq(pairs) {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return func(k string) string { return m[k] }
}

// describe prints what matters of settings.
func describe(s Settings) string {
	out := fmt.Sprintf("ip=%s/%v ip6=%s/%v poll=%v", s.IPv4.text(), s.IPv4.Method, s.IPv6.text(), s.IPv6.Method, s.PollInterval)
	if s.ASN != nil {
		out += fmt.Sprintf(" as=%d", *s.ASN)
	}
	for _, p := range s.Pools {
		out += fmt.Sprintf(" pool(%s %v/%d ipip=%s vxlan=%s nat=%t %s export=%t)", family(p.V6), p.CIDR, p.Spec.BlockSize, p.Spec.IPIPMode, p.Spec.VXLANMode, p.Spec.NATOutgoing, p.Spec.NodeSelector, !p.Spec.DisableBGPExport)
	}
	return out
}

func TestSettings(t *testing.T) {
	t.Parallel()
	const pools = ` pool(IPv4 invalid Prefix/26 ipip=Never vxlan=Never nat=true all() export=true) pool(IPv6 invalid Prefix/122 ipip=Never vxlan=Never nat=false all() export=true)`
	for name, tt := range map[string]struct{ env, want string }{
		"nothing set":   {"", `ip=""/first-found ip6=""/first-found poll=1m0s` + pools},
		"addresses":     {"IP=autodetect IP6=none IP_AUTODETECTION_METHOD=interface=eth0", `ip=autodetect/interface=eth0 ip6=none/first-found poll=1m0s` + pools},
		"given address": {"IP=10.0.0.1/24 IP6=fd00::1", `ip=10.0.0.1/24/first-found ip6=fd00::1/128/first-found poll=1m0s` + pools},
		"AS":            {"AS=1.10 AUTODETECT_POLL_INTERVAL=5", `ip=""/first-found ip6=""/first-found poll=5s as=65546` + pools},
		"no pools":      {"NO_DEFAULT_POOLS=true", `ip=""/first-found ip6=""/first-found poll=1m0s`},
		"no v6 pool, all of v4": {
			"CALICO_IPV6POOL_CIDR=none CALICO_IPV4POOL_CIDR=10.0.0.0/16 CALICO_IPV4POOL_BLOCK_SIZE=28 CALICO_IPV4POOL_IPIP=cross-subnet CALICO_IPV4POOL_NAT_OUTGOING=False CALICO_IPV4POOL_NODE_SELECTOR=has(x) CALICO_IPV4POOL_DISABLE_BGP_EXPORT=true",
			`ip=""/first-found ip6=""/first-found poll=1m0s pool(IPv4 10.0.0.0/16/28 ipip=CrossSubnet vxlan=Never nat=false has(x) export=false)`,
		},
		"modes in any case": {
			"CALICO_IPV4POOL_IPIP=ALWAYS CALICO_IPV4POOL_VXLAN=Off CALICO_IPV6POOL_VXLAN=CrossSubnet",
			`ip=""/first-found ip6=""/first-found poll=1m0s pool(IPv4 invalid Prefix/26 ipip=Always vxlan=Never nat=true all() export=true) pool(IPv6 invalid Prefix/122 ipip=Never vxlan=CrossSubnet nat=false all() export=true)`,
		},
	} {
		s, err := SettingsFrom("node-a", env(tt.env))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := describe(s); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
	}
}

func TestSettingsRefuse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ env, want string }{ // environment; what the error must name
		{"IP=10.0.0", `IP="10.0.0": must be autodetect, none, empty`},
		{"IP=fd00::1", `IP="fd00::1": must be autodetect, none, empty, or an IPv4`},
		{"IP=127.0.0.1", `IP="127.0.0.1": must be autodetect`},
		{"IP=0.0.0.0/0", `IP="0.0.0.0/0": must be autodetect`},
		{"IP6=fe80::1", `IP6="fe80::1": must be autodetect`},
		{"IP6=10.0.0.1", `IP6="10.0.0.1"`},
		{"IP_AUTODETECTION_METHOD=fastest", `IP_AUTODETECTION_METHOD="fastest": method is unknown; allowed are`},
		{"IP6_AUTODETECTION_METHOD=cidr=x", `IP6_AUTODETECTION_METHOD="cidr=x"`},
		{"AS=0", `AS="0": must be an AS number`},
		{"AS=4294967296", `AS="4294967296"`},
		{"DISABLE_NODE_IP_CHECK=perhaps", `DISABLE_NODE_IP_CHECK="perhaps": must be true or false`},
		{"AUTODETECT_POLL_INTERVAL=-1s", `AUTODETECT_POLL_INTERVAL="-1s"`},
		{"CALICO_IPV4POOL_IPIP=Sometimes", `CALICO_IPV4POOL_IPIP="Sometimes": must be Always, CrossSubnet, or Never`},
		{"CALICO_IPV4POOL_VXLAN=on", `CALICO_IPV4POOL_VXLAN="on"`},
		{"CALICO_IPV6POOL_VXLAN=on", `CALICO_IPV6POOL_VXLAN="on"`},
		{"CALICO_IPV4POOL_CIDR=10.0.0.1/16", `CALICO_IPV4POOL_CIDR="10.0.0.1/16": must be none, or a masked IPv4 CIDR`},
		{"CALICO_IPV4POOL_CIDR=fd00::/48", `CALICO_IPV4POOL_CIDR="fd00::/48"`},
		{"CALICO_IPV4POOL_BLOCK_SIZE=19", `CALICO_IPV4POOL_BLOCK_SIZE="19": must be 20 to 32`},
		{"CALICO_IPV6POOL_BLOCK_SIZE=64", `CALICO_IPV6POOL_BLOCK_SIZE="64": must be 116 to 128`},
		{"CALICO_IPV4POOL_CIDR=10.0.0.0/28", `CALICO_IPV4POOL_BLOCK_SIZE="26": must be at least 28`},
		{"CALICO_IPV4POOL_NAT_OUTGOING=si", `CALICO_IPV4POOL_NAT_OUTGOING="si"`},
		{"CALICO_IPV4POOL_DISABLE_BGP_EXPORT=2", `CALICO_IPV4POOL_DISABLE_BGP_EXPORT="2"`},
		{"NO_DEFAULT_POOLS=x", `NO_DEFAULT_POOLS="x"`},
		{"NO_DEFAULT_POOLS=true CALICO_IPV4POOL_CIDR=10.0.0.0/16", `NO_DEFAULT_POOLS="true": must be false or empty when CALICO_IPV4POOL_CIDR is set`},
		{"CALICO_IPV4POOL_IPIP=Always CALICO_IPV4POOL_VXLAN=Always", `CALICO_IPV4POOL_VXLAN="Always": must be Never when CALICO_IPV4POOL_IPIP is not`},
	} {
		_, err := SettingsFrom("node-a", env(tt.env))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got error %v; want one line with %s", tt.env, err, tt.want)
		}
	}
}

func TestNodeName(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ env, host, want string }{
		"NODENAME first":   {"NODENAME=a HOSTNAME=b", "c", "a"},
		"then HOSTNAME":    {"HOSTNAME=b", "c", "b"},
		"then the machine": {"", "Worker-1.Example ", "worker-1.example"},
		"bad":              {"NODENAME=a_b", "c", ""},
		"upper case":       {"NODENAME=Node", "c", ""},
		"dash at the end":  {"NODENAME=a-.b", "c", ""},
		"nothing":          {"", "", ""},
	} {
		got, err := NodeName(env(tt.env), func() (string, error) { return tt.host, nil })
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, tt.want)
		}
	}
	if _, err := NodeName(env(""), func() (string, error) { return "", errors.New("no name") }); err == nil {
		t.Error("want the error of the machine")
	}
}
