package cni

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/weft-net/weft/internal/cni/rpc"
)

func TestHostLinkNamesAreCalicos(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "..", "test", "fixtures", "naming", "names.json"))
	if err != nil {
		t.Fatal(err)
	}
	var names struct {
		Links []struct {
			Namespace, Pod, Result string
			Prefix                 string `json:"FELIX_INTERFACEPREFIX"`
		} `json:"host_interface_names"`
	}
	if err := json.Unmarshal(raw, &names); err != nil {
		t.Fatal(err)
	}
	if len(names.Links) < 10 {
		t.Fatalf("the fixture has %d names", len(names.Links))
	}
	for _, l := range names.Links {
		w := rpc.Workload{Orchestrator: rpc.Kubernetes, Namespace: l.Namespace, Pod: l.Pod}
		if got := hostLink(linkPrefix(l.Prefix), w, ""); got != l.Result {
			t.Errorf("pod %s/%s with prefix %q: got %s, want %s", l.Namespace, l.Pod, l.Prefix, got, l.Result)
		}
	}
	if got := hostLink("cali", rpc.Workload{Orchestrator: rpc.PlainCNI}, "0123456789abcdef"); got != "cali0123456789a" {
		t.Errorf("without a pod: got %s", got)
	}
	if got := hostLink("cali", rpc.Workload{}, "short"); got != "calishort" {
		t.Errorf("short container ID: got %s", got)
	}
}

func TestMACForIsStableAndUsable(t *testing.T) {
	t.Parallel()
	a := rpc.Attachment{Network: "net", ContainerID: "c", IfName: "eth0"}
	mac, err := rpc.ParseMAC(macFor(a))
	if err != nil || mac != macFor(a) || mac[1] != '2' && mac[1] != '6' && mac[1] != 'a' && mac[1] != 'e' {
		t.Errorf("%s: %v, want a locally administered unicast address", mac, err)
	}
	b := a
	b.IfName = "eth1"
	if macFor(a) == macFor(b) {
		t.Error("two interfaces of a container have one address")
	}
}

func TestBadConfigIsRefusedInOneLine(t *testing.T) {
	t.Parallel()
	for conf, want := range map[string]string{
		`{`:                                     "conf: unexpected end of JSON input",
		`{"datastore_type":"mysql"}`:            `conf: datastore_type: "mysql": unknown; etcdv3 and kubernetes are allowed`,
		`{"device_type":"netkit"}`:              "conf: device_type: netkit is not supported yet; use veth",
		`{"device_type":"tap"}`:                 `conf: device_type: "tap": unknown; veth is allowed`,
		`{"mtu":42}`:                            "conf: mtu: 42: out of range; 0 or 68 to 65535 are allowed",
		`{"mtu":"1500"}`:                        "conf: mtu: want a whole number in range, not string",
		`{"num_queues":-1}`:                     "conf: num_queues: -1: out of range; 0 to 4096 are allowed",
		`{"policy_setup_timeout_seconds":-1}`:   "conf: policy_setup_timeout_seconds: -1: out of range; 0 to 90 are allowed",
		`{"policy_setup_timeout_seconds":1000}`: "conf: policy_setup_timeout_seconds: 1000: out of range; 0 to 90 are allowed",
		`{"policy_setup_failure":"open"}`:       `conf: policy_setup_failure: "open": unknown; fail and proceed are allowed`,
		`{"log_level":"loud"}`:                  `conf: log_level: "loud": unknown; debug, info, warning and error are allowed`,
		`{"ipam":{"assign_ipv4":true}}`:         "conf: ipam.assign_ipv4: want a string, not bool",
		`{"ipam":{"ipv4_pools":"default"}}`:     "conf: ipam.ipv4_pools: want a list, not string",
		`{"ipam":[]}`:                           "conf: ipam: want an object, not array",
		`{"ipam":{"type":"calico-ipam","subnet":"usePodCidr"}}`:                                     "conf: ipam.subnet: usePodCidr is for plugins such as host-local; calico-ipam takes addresses from IP pools",
		`{"ipam":{"routes":[{}]}}`:                                                                  "conf: ipam.routes: an entry has no dst",
		`{"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]}}`: `conf: runtimeConfig.portMappings[0].protocol: "icmp": unknown; tcp, udp and sctp are allowed`,
		`{"runtimeConfig":{"portMappings":[{"hostPort":80}]}}`:                                      "conf: runtimeConfig.portMappings[0].containerPort: 0: out of range; 1 to 65535 are allowed",
		`{"runtimeConfig":{"mac":"01:00:5e:00:00:01"}}`:                                             `conf: requested MAC "01:00:5e:00:00:01": not a MAC address for an interface: it is a group address or zero`,
		`{"runtimeConfig":{"ips":["10.0.0.300"]}}`:                                                  `conf: runtimeConfig.ips: "10.0.0.300": not an IP address`,
		`{"nodename_file":"/proc/nonexistent/nodename"}`:                                            "conf: nodename_file: open /proc/nonexistent/nodename: no such file or directory; is the node agent running?",
	} {
		_, err := jobFor(conf, "")
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", conf, err, want)
		}
	}
}

// jobFor parses a configuration and arguments as an ADD does.
func jobFor(conf, args string) (*job, error) {
	j, err := parseJob(&skel.CmdArgs{ContainerID: "c1", IfName: "eth0", Args: args, StdinData: []byte(conf)}, Options{}, false)
	if err == nil {
		err = j.resolve()
	}
	return j, err
}

// Every key that Calico's plugin knows is accepted.
func TestCalicosKeysAreAccepted(t *testing.T) {
	t.Parallel()
	nodeFile := filepath.Join(t.TempDir(), "nodename")
	if err := os.WriteFile(nodeFile, []byte("node-a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	j, err := jobFor(`{"name":"net","type":"calico","cniVersion":"1.0.0","mtu":1440,"num_queues":2,"device_type":"veth",
		"nodename_file":"`+nodeFile+`","nodename_file_optional":false,"ipam_lock_file":"/run/x","datastore_type":"kubernetes","calico_api_group":"projectcalico.org/v3",
		"etcd_endpoints":"http://x","etcd_discovery_srv":"","etcd_key_file":"","etcd_cert_file":"","etcd_ca_cert_file":"",
		"log_level":"INFO","log_file_path":"","log_file_max_size":100,"log_file_max_age":30,"log_file_max_count":10,
		"policy":{"type":"k8s","k8s_api_root":""},"kubernetes":{"k8s_api_root":"","kubeconfig":"/k","node_name":"n"},
		"feature_control":{"ip_addrs_no_ipam":true,"floating_ips":true},"container_settings":{"allow_ip_forwarding":true},
		"include_default_routes":true,"readiness_gates":["http://x"],"policy_setup_timeout_seconds":10,"endpoint_status_dir":"/d",
		"require_mtu_file":false,"qps":10,"burst":20,"dataplane_options":{"type":"grpc"},"windows_use_single_network":true,"windows_disable_host_subnet_nat_policy":true,
		"ipam":{"type":"calico-ipam","assign_ipv4":"true","assign_ipv6":"true","ipv4_pools":["a","10.0.0.0/8"],"ipv6_pools":["b"]}}`, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(j.conf.unbuilt(), " "); got != "dataplane_options" {
		t.Errorf("reported as without effect: %q", got)
	}
	if len(j.req.ReadinessGates) != 1 || !j.req.Features.FloatingIPs || !j.req.Features.AddrsNoIPAM {
		t.Errorf("the agent is asked %+v", j.req)
	}
	if j.req.PolicyTimeout != 10*time.Second || j.req.PolicyProceed {
		t.Errorf("waits %v for policy, and then proceeds: %t; want 10s, false", j.req.PolicyTimeout, j.req.PolicyProceed)
	}
	if j.req.Node != "node-a" || !j.req.Address.IPv6 || !slices.Equal(j.req.Address.IPv4Pools, []string{"a", "10.0.0.0/8"}) {
		t.Errorf("got %+v", j.req)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	const own = `{"name":"net","ipam":{"type":"calico-ipam"},"feature_control":{"ip_addrs_no_ipam":true}`
	for name, tt := range map[string]struct {
		conf, args string
		want       func(r rpc.AddRequest) bool
		err        string
	}{
		"a pod": {conf: own + "}", args: "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u", want: func(r rpc.AddRequest) bool {
			return r.Orchestrator == "k8s" && r.Namespace == "ns" && r.Pod == "p" && r.PodUID == "u" && r.Endpoint.Profiles == nil
		}},
		"no pod": {conf: own + `,"args":{"cni":{"labels":[{"key":"app","value":"web"}]}}}`, want: func(r rpc.AddRequest) bool {
			return r.Orchestrator == "cni" && r.Namespace == "default" && r.Endpoint.Profiles[0] == "net" && r.Endpoint.Labels["app"] == "web"
		}},
		"unknown":         {conf: own + "}", args: "BOGUS=1", err: "CNI_ARGS: unknown BOGUS; set IgnoreUnknown=1 to pass over them"},
		"unknown ignored": {conf: own + "}", args: "BOGUS=1;IgnoreUnknown=true", want: func(rpc.AddRequest) bool { return true }},
		"malformed":       {conf: own + "}", args: "BOGUS", err: `CNI_ARGS: "BOGUS": want KEY=VALUE`},
		"IP": {conf: own + `,"args":{"cni":{"ips":["10.0.0.9"]}}}`, args: "IP=10.0.0.1,fd00::1", want: func(r rpc.AddRequest) bool {
			return slices.Equal(r.Address.Exact, []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")})
		}},
		"conventional IP": {conf: own + `,"args":{"cni":{"ips":["10.0.0.9/24"]}}}`, want: func(r rpc.AddRequest) bool {
			return slices.Equal(r.Address.Exact, []netip.Addr{netip.MustParseAddr("10.0.0.9")})
		}},
		"ports": {conf: own + `,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":"10.0.0.1"}]}}`, want: func(r rpc.AddRequest) bool {
			return r.Endpoint.Ports[0] == rpc.Port{Protocol: "tcp", Port: 80, HostPort: 8080, HostIP: netip.MustParseAddr("10.0.0.1")}
		}},
		"annotations": {conf: own + `,"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"cni.projectcalico.org/hwAddr":"02-AA-00-00-00-01","cni.projectcalico.org/ipFamilies":"[\"IPv6\"]"}}}`, want: func(r rpc.AddRequest) bool {
			return r.Endpoint.MAC == "02:aa:00:00:00:01" && r.Address.IPv6 && !r.Address.IPv4
		}},
		"address without IPAM": {conf: own + `,"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"cni.projectcalico.org/ipAddrsNoIpam":"[\"10.1.1.1\"]"}}}`, want: func(r rpc.AddRequest) bool {
			return !r.Address.IPv4 && r.Endpoint.Given[0] == netip.MustParsePrefix("10.1.1.1/32")
		}},
	} {
		j, err := jobFor(tt.conf, tt.args)
		switch {
		case tt.err != "":
			if err == nil || err.Error() != tt.err {
				t.Errorf("%s: got %v, want %s", name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case !tt.want(j.req):
			t.Errorf("%s: got %+v, endpoint %+v", name, j.req, j.req.Endpoint)
		}
	}
}

func TestMTUFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "mtu")
	if mtu, err := (&config{}).mtu(file); mtu != 0 || err != nil {
		t.Errorf("no file: %d, %v", mtu, err)
	}
	if _, err := (&config{RequireMTUFile: true}).mtu(file); err == nil {
		t.Error("no file, but required: no error")
	}
	for text, want := range map[string]int{"1430\n": 1430, "x": 0, "1": 0} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if mtu, err := (&config{}).mtu(file); mtu != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", text, mtu, err)
		}
	}
	if mtu, _ := (&config{MTU: 1400}).mtu(file); mtu != 1400 {
		t.Errorf("mtu in the configuration: got %d", mtu)
	}
}

func TestLogFileIsRotated(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cni.log")
	for i := range 4 {
		if err := os.WriteFile(path, slices.Repeat([]byte{byte('a' + i)}, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		rotate(path, 1, 30, 2)
	}
	rotate(path, 1, 30, 2) // nothing to do
	for name, want := range map[string]string{"": "", ".1": "d", ".2": "c", ".3": ""} {
		b, _ := os.ReadFile(path + name)
		if got := string(b[:min(1, len(b))]); got != want {
			t.Errorf("cni.log%s starts with %q, want %q", name, got, want)
		}
	}
}

func FuzzParseJob(f *testing.F) {
	f.Add(`{"name":"net","ipam":{"type":"calico-ipam","routes":[{"dst":"10.0.0.0/8"}]}}`, "IgnoreUnknown=1;IP=10.0.0.1")
	f.Add(`{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"cni.projectcalico.org/ipAddrs":"[\"::1\"]"},"portMappings":[{"containerPort":1}]}}`, "MAC=02:00:00:00:00:01")
	f.Add(`{"args":{"cni":{"ips":["1.2.3.4/8"],"labels":[{}]}},"prevResult":{"cniVersion":"0.3.1"}}`, "=;;=")
	f.Fuzz(func(t *testing.T, conf, args string) {
		j, err := jobFor(conf, args)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error without text")
			}
			return
		}
		_, _ = j.conf.previous()
		if e := j.req.Endpoint; len(e.HostLink) > 15 || e.MAC == "" {
			t.Errorf("endpoint %+v", e)
		}
	})
}
