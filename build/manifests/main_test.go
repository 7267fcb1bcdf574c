package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const chart = "../../deploy/chart"

// TestUpToDate: the plain manifests are what the chart gives.
func TestUpToDate(t *testing.T) {
	t.Parallel()
	if err := run([]string{"-check"}); err != nil {
		t.Error(err)
	}
}

// TestCheckFails: a manifest that was edited by hand is found.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := run([]string{"-out", dir}); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-out", dir, "-check"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "weft-etcd.yaml")
	if err := os.WriteFile(path, []byte("kind: Other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-out", dir, "-check"}); err == nil || !strings.Contains(err.Error(), "weft-etcd.yaml") {
		t.Errorf("got %v, want the file that differs", err)
	}
}

// TestSettings renders the chart with settings, and looks for lines that must be
// there (in any order), and with a leading ! for some that must not.
func TestSettings(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ set, want []string }{
		"as it comes": {nil, []string{
			"image: localhost/weft:latest", "CALICO_IPV4POOL_IPIP=Never", "CALICO_IPV4POOL_VXLAN=CrossSubnet", "DATASTORE_TYPE=kubernetes",
			"!CALICO_API_GROUP", "IP=autodetect", "ENABLED_CONTROLLERS=node,loadbalancer", "!ETCD_ENDPOINTS", "!CALICO_IPV4POOL_CIDR", "!FELIX_VXLANMTU",
			"name: ippools.projectcalico.org", "name: clusternetworkpolicies.policy.networking.k8s.io", "helm.sh/resource-policy: keep",
		}},
		"image":        {[]string{"image.repository=r.example:5000/net/weft", "image.tag=v9"}, []string{"image: r.example:5000/net/weft:v9"}},
		"IPIP":         {[]string{"ipv4pool.encapsulation=IPIP"}, []string{"CALICO_IPV4POOL_IPIP=Always", "CALICO_IPV4POOL_VXLAN=Never"}},
		"cross subnet": {[]string{"ipv4pool.encapsulation=IPIPCrossSubnet"}, []string{"CALICO_IPV4POOL_IPIP=CrossSubnet", "CALICO_IPV4POOL_VXLAN=Never"}},
		"no tunnel":    {[]string{"ipv4pool.encapsulation=None"}, []string{"CALICO_IPV4POOL_IPIP=Never", "CALICO_IPV4POOL_VXLAN=Never"}},
		"VXLAN, no BGP": {[]string{"ipv4pool.encapsulation=VXLAN", "node.backend=vxlan"}, []string{
			"CALICO_IPV4POOL_VXLAN=Always", "CALICO_NETWORKING_BACKEND=vxlan", "CLUSTER_TYPE=k8s",
		}},
		"pool":    {[]string{"ipv4pool.cidr=10.1.0.0/16", "ipv4pool.blockSize=24"}, []string{"CALICO_IPV4POOL_CIDR=10.1.0.0/16", "CALICO_IPV4POOL_BLOCK_SIZE=24"}},
		"no pool": {[]string{"ipv4pool.create=false"}, []string{"CALICO_IPV4POOL_CIDR=none", "!CALICO_IPV4POOL_VXLAN"}},
		"two families": {[]string{"ipv6pool.create=true", "ipv6pool.cidr=fd00:1::/48", "node.ip6=autodetect"}, []string{
			"CALICO_IPV6POOL_CIDR=fd00:1::/48", "CALICO_IPV6POOL_VXLAN=Never", "IP6=autodetect", "!CALICO_IPV6POOL_IPIP",
		}},
		"etcd": {[]string{"datastore.type=etcdv3", "datastore.etcd.endpoints=https://10.0.0.1:2379\\,https://10.0.0.2:2379"}, []string{
			"ETCD_ENDPOINTS=https://10.0.0.1:2379,https://10.0.0.2:2379", "ETCD_KEY_FILE=/etc/weft/etcd/etcd-key", "!CALICO_API_GROUP", "!CustomResourceDefinition", "!projectcalico.org",
			"ENABLED_CONTROLLERS=policy,namespace,serviceaccount,workloadendpoint,node,loadbalancer",
		}},
		"etcd without TLS": {[]string{"datastore.type=etcdv3", "datastore.etcd.endpoints=http://10.0.0.1:2379", "datastore.etcd.tlsSecret="}, []string{"!ETCD_KEY_FILE", "!secretName: weft-etcd"}},
		"Calico's group":   {[]string{"datastore.apiGroup=crd.projectcalico.org/v1", "crds=false"}, []string{"CALICO_API_GROUP=crd.projectcalico.org/v1", "resources: [ipamconfigs]", "!ipamconfigurations", "!CustomResourceDefinition", "!projectcalico.org/v3"}},
		"native group":     {[]string{"datastore.apiGroup=projectcalico.org/v3"}, []string{"CALICO_API_GROUP=projectcalico.org/v3", "resources: [ipamconfigurations]", "!ipamconfigs]", "!crd.projectcalico.org"}},
		"MTU":              {[]string{"mtu=1400"}, []string{"FELIX_VXLANMTU=1400", "FELIX_IPIPMTU=1400", "FELIX_WIREGUARDMTU=1400"}},
		"API server":       {[]string{"apiServer.host=api.example"}, []string{"KUBERNETES_SERVICE_HOST=api.example", "KUBERNETES_SERVICE_PORT=6443"}},
		"log level":        {[]string{"logLevel=Debug"}, []string{"FELIX_LOGSEVERITYSCREEN=Debug", "LOG_LEVEL=debug"}},
		"one controller":   {[]string{"controllers.enabled[0]=node"}, []string{"ENABLED_CONTROLLERS=node", "!services/status"}},
		"more environment": {[]string{"node.env[0].name=FELIX_FLOATINGIPS", "node.env[0].value=Enabled"}, []string{"FELIX_FLOATINGIPS=Enabled"}},
		"node selector":    {[]string{`node.nodeSelector.weft\.net/agent=weft`}, []string{`weft.net/agent: weft`}},
		"own namespace":    {[]string{"namespace.create=true"}, []string{"kind: Namespace", "pod-security.kubernetes.io/enforce: privileged"}},
		"passwords":        {[]string{"bgpPasswordSecrets[0]=tor", "bgpPasswordSecrets[1]=spine"}, []string{"mountPath: /etc/weft/secrets/spine", "secretName: tor", "!bgp-secrets"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := render(chart, nil, tt.set)
			if err != nil {
				t.Fatal(err)
			}
			for doc := range bytes.SplitSeq(b, []byte("\n---\n")) {
				var object map[string]any
				if err := yaml.UnmarshalStrict(doc, &object); err != nil || object["kind"] == nil {
					t.Fatalf("not an object: %v:\n%s", err, doc)
				}
			}
			got := lines(string(b))
			for _, want := range tt.want {
				text, not := strings.CutPrefix(want, "!")
				if strings.Contains(got, text) == not {
					t.Errorf("%q: want it: %v, in\n%s", text, !not, got)
				}
			}
		})
	}
}

// lines makes one line of the two of an environment variable, without quotes.
func lines(s string) string {
	s = regexp.MustCompile(`- name: (\w+)\n +value: `).ReplaceAllString(s, "$1=")
	return strings.ReplaceAll(s, `"`, "")
}

// TestBadSettings: what is wrong is named, and what would be allowed.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ set, want string }{
		"encapsulation":  {"ipv4pool.encapsulation=Sometimes", "'IPIP', 'IPIPCrossSubnet'"},
		"IPIP for IPv6":  {"ipv6pool.encapsulation=IPIP", "/ipv6pool/encapsulation"},
		"misspelt":       {"ipv4pool.cdir=10.0.0.0/8", "'cdir' not allowed"},
		"datastore":      {"datastore.type=etcd", "'kubernetes', 'etcdv3'"},
		"API group":      {"datastore.apiGroup=projectcalico.org", "'crd.projectcalico.org/v1'"},
		"no etcd":        {"datastore.type=etcdv3", "datastore.etcd.endpoints: must name the etcd"},
		"etcd's address": {"datastore.etcd.endpoints=10.0.0.1:2379", "/datastore/etcd/endpoints"},
		"block size":     {"ipv4pool.blockSize=33", "/ipv4pool/blockSize"},
		"selector":       {`node.nodeSelector.x=true`, "/node/nodeSelector/x"},
		"controller":     {"controllers.enabled[0]=nodes", "/controllers/enabled/0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := render(chart, nil, []string{tt.set}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q in it", tt.set, err, tt.want)
			}
		})
	}
}
