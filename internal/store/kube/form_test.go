package kube

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	corev1 "k8s.io/api/core/v1"
)

// noon is the clock of these tests.
func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func TestObjectNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 250)
	for in, want := range map[model.Key]string{
		{Kind: model.KindIPAMBlock, Name: "10.0.0.0-26"}:                          "10-0-0-0-26",
		{Kind: model.KindIPAMBlock, Name: "fd00:10::-122"}:                        "fd00-10---122",
		{Kind: model.KindIPAMBlock, Name: "web"}:                                  `name "web": must hold a CIDR such as 10.0.0.0-26 or fd00::-122`,
		{Kind: model.KindBlockAffinity, Name: "host/node-a/10.0.0.0-26"}:          "node-a-10-0-0-0-26",
		{Kind: model.KindBlockAffinity, Name: "virtual/load-balancer/fd00::-122"}: "load-balancer-fd00---122",
		{Kind: model.KindBlockAffinity, Name: "10.0.0.0-26"}:                      `name "10.0.0.0-26": must be host/NODE/CIDR or virtual/NAME/CIDR`,
		{Kind: model.KindIPAMHandle, Name: "k8s-pod-network.0a1b"}:                "k8s-pod-network.0a1b",
		{Kind: model.KindIPAMHandle, Name: "My-Net.0A1B"}:                         "my-net.0a1b",
		{Kind: model.KindIPAMHandle, Name: "my_net.0a1b"}:                         "my-net-0a1b-a29a8b36a4a4d5b1b1dc1d6cd0a9ba0b",
		{Kind: model.KindIPAMHandle}:                                              "handle ID: missing",
		{Kind: model.KindIPPool, Name: "p"}:                                       "p",
		{Kind: model.KindIPPool, Name: "a/b"}:                                     `name "a/b": must not contain '/'`,
		{Kind: model.KindIPPool, Name: ".."}:                                      `name "..": must be a name that the API takes`,
	} {
		got, err := objectName(in)
		if err != nil {
			got = err.Error()
		}
		if strings.HasPrefix(want, "my-net-0a1b-") { // the hash is what it is, and always the same
			again, _ := objectName(in)
			if !strings.HasPrefix(got, "my-net-0a1b-") || len(got) != len(want) || got != again {
				t.Errorf("%v: got %s", in, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%v: got %s, want %s", in, got, want)
		}
	}
	for _, k := range []model.Key{{Kind: model.KindIPAMHandle, Name: long + "." + long}, {Kind: model.KindBlockAffinity, Name: "host/" + long + "/10.0.0.0-26"}} {
		if name, err := objectName(k); err != nil || len(name) > maxName || !isName.MatchString(name) {
			t.Errorf("%s: %d bytes, %v: must be a name", name, len(name), err)
		}
	}
}

// TestForms writes objects, in both groups, and reads them back.
func TestForms(t *testing.T) {
	t.Parallel()
	owner, zero, handle := "host:n1", 0, "h"
	for name, tt := range map[string]struct {
		kind           model.Kind
		object         v3.Object
		name           string
		native, legacy string // of the object as JSON, without spec where that is the same
	}{
		"pool": {
			model.KindIPPool, &v3.IPPool{ObjectMeta: v3.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}}, Spec: v3.IPPoolSpec{CIDR: "10.0.0.0/16"}}, "p",
			`{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"p","labels":{"a":"b"}},"spec":{"cidr":"10.0.0.0/16"}}`,
			`{"apiVersion":"crd.projectcalico.org/v1","kind":"IPPool","metadata":{"name":"p","annotations":{"projectcalico.org/metadata":"{\"creationTimestamp\":\"2026-11-20T12:00:00Z\",\"labels\":{\"a\":\"b\"}}"}},"spec":{"cidr":"10.0.0.0/16"}}`,
		},
		"affinity": {
			model.KindBlockAffinity, &v3.BlockAffinity{Spec: v3.BlockAffinitySpec{State: "confirmed", Node: "n1", Type: "host", CIDR: "10.0.0.0/30"}}, "n1-10-0-0-0-30",
			`{"apiVersion":"projectcalico.org/v3","kind":"BlockAffinity","metadata":{"name":"n1-10-0-0-0-30"},"spec":{"state":"confirmed","node":"n1","type":"host","cidr":"10.0.0.0/30","deleted":false}}`,
			`{"apiVersion":"crd.projectcalico.org/v1","kind":"BlockAffinity","metadata":{"name":"n1-10-0-0-0-30"},"spec":{"cidr":"10.0.0.0/30","deleted":"false","node":"n1","state":"confirmed","type":"host"}}`,
		},
		"handle": {
			model.KindIPAMHandle, &v3.IPAMHandle{Spec: v3.IPAMHandleSpec{HandleID: "Net.H", Block: map[string]int{"10.0.0.0/30": 1}}}, "net.h",
			`{"apiVersion":"projectcalico.org/v3","kind":"IPAMHandle","metadata":{"name":"net.h"},"spec":{"handleID":"Net.H","block":{"10.0.0.0/30":1},"deleted":false}}`, "",
		},
		"block": {
			model.KindIPAMBlock, &v3.IPAMBlock{Spec: v3.IPAMBlockSpec{CIDR: "10.0.0.0/31", Affinity: &owner, Allocations: []*int{&zero, nil}, Unallocated: []int{1}, Attributes: []v3.AllocationAttribute{{HandleID: &handle}}, SequenceNumberForAllocation: map[string]uint64{"0": 1}}}, "10-0-0-0-31",
			`{"apiVersion":"projectcalico.org/v3","kind":"IPAMBlock","metadata":{"name":"10-0-0-0-31"},"spec":{"cidr":"10.0.0.0/31","affinity":"host:n1","allocations":[0,null],"unallocated":[1],"attributes":[{"handle_id":"h"}],"sequenceNumber":0,"sequenceNumberForAllocation":{"0":1},"deleted":false,"strictAffinity":false}}`, "",
		},
		"addresses' settings": {
			model.KindIPAMConfig, v3.NewIPAMConfig(), "default",
			`{"apiVersion":"projectcalico.org/v3","kind":"IPAMConfiguration","metadata":{"name":"default"},"spec":{"strictAffinity":false,"autoAllocateBlocks":true,"kubeVirtVMAddressPersistence":"Enabled"}}`,
			`{"apiVersion":"crd.projectcalico.org/v1","kind":"IPAMConfig","metadata":{"name":"default"},"spec":{"strictAffinity":false,"autoAllocateBlocks":true,"kubeVirtVMAddressPersistence":"Enabled"}}`,
		},
		"policy": {
			"NetworkPolicy", &v3.NetworkPolicy{ObjectMeta: v3.ObjectMeta{Name: "web", Namespace: "shop"}}, "web",
			`{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{"name":"web","namespace":"shop"},"spec":{}}`,
			`{"apiVersion":"crd.projectcalico.org/v1","kind":"NetworkPolicy","metadata":{"name":"web","namespace":"shop","annotations":{"projectcalico.org/metadata":"{\"name\":\"web\",\"creationTimestamp\":\"2026-11-20T12:00:00Z\"}"}},"spec":{}}`,
		},
	} {
		for _, group := range []Group{Native, Legacy} {
			f := form{tt.kind, group}
			want := tt.native
			if group == Legacy && tt.legacy != "" {
				want = tt.legacy
			} else if group == Legacy {
				want = strings.Replace(want, string(Native), string(Legacy), 1)
			}
			got, err := f.encode(tt.object, tt.name, "", nil, noon())
			if err != nil || norm(t, got) != norm(t, []byte(want)) {
				t.Errorf("%s in %s: %v\n got %s\nwant %s", name, group, err, got, want)
				continue
			}
			back, err := f.decode(got)
			if err != nil {
				t.Errorf("%s in %s: read back: %v", name, group, err)
				continue
			}
			if again, err := f.encode(back.Object, tt.name, "", got, noon()); err != nil || norm(t, again) != norm(t, got) {
				t.Errorf("%s in %s: %v: written again\n got %s\nwant %s", name, group, err, again, got)
			}
		}
	}
}

// norm is JSON in one order.
func norm(t *testing.T, text []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestFormsKeep: what others have written stays through an update, whichever the group.
func TestFormsKeep(t *testing.T) {
	t.Parallel()
	for group, stored := range map[Group]string{
		Native: `{"apiVersion":"projectcalico.org/v3","kind":"IPPool","newTop":1,"metadata":{"name":"p","uid":"u","resourceVersion":"7","finalizers":["x/f"],"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"o","uid":"1"}],"managedFields":[{}]},"spec":{"cidr":"10.0.0.0/16","newer":{"a":1}}}`,
		Legacy: `{"apiVersion":"crd.projectcalico.org/v1","kind":"IPPool","newTop":1,"metadata":{"name":"p","uid":"u","resourceVersion":"7","finalizers":["x/f"],"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"o","uid":"1"}],"labels":{"outer":"1"},"annotations":{"helm":"x","projectcalico.org/metadata":"{\"creationTimestamp\":\"2020-01-01T00:00:00Z\",\"labels\":{\"a\":\"b\"}}"}},"spec":{"cidr":"10.0.0.0/16","newer":{"a":1}}}`,
	} {
		f := form{model.KindIPPool, group}
		o, err := f.decode([]byte(stored))
		if err != nil {
			t.Fatal(err)
		}
		p := *o.Object.(*v3.IPPool)
		p.Spec.NATOutgoing, p.Finalizers = true, []string{"mine"}
		got, err := f.encode(&p, "p", "7", []byte(stored), noon())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"newTop":1`, `"newer":{"a":1}`, `"natOutgoing":true`, `"finalizers":["x/f"]`, `"name":"o"`, `"resourceVersion":"7"`} {
			if !strings.Contains(string(got), want) {
				t.Errorf("%s: %s is lost: %s", group, want, got)
			}
		}
		if strings.Contains(string(got), "managedFields") || strings.Contains(string(got), "mine") {
			t.Errorf("%s: written what is the server's: %s", group, got)
		}
		if group == Legacy {
			if p.Labels["a"] != "b" || p.CreationTimestamp.Year() != 2020 {
				t.Errorf("legacy metadata: %+v", p.ObjectMeta)
			}
			for _, want := range []string{`"helm":"x"`, `"outer":"1"`, `2020-01-01`} {
				if !strings.Contains(string(got), want) {
					t.Errorf("legacy: %s is lost: %s", want, got)
				}
			}
		}
	}
}

// TestLegacyPolicyName: the name in the annotation is the policy's.
func TestLegacyPolicyName(t *testing.T) {
	t.Parallel()
	f := form{"GlobalNetworkPolicy", Legacy}
	o, err := f.decode([]byte(`{"metadata":{"name":"default.web","annotations":{"projectcalico.org/metadata":"{\"name\":\"web\"}"}},"spec":{"selector":"all()"}}`))
	if err != nil || o.Meta().Name != "web" || headOf(o.Raw()).Name != "default.web" {
		t.Errorf("%v, %v", o, err)
	}
	for _, bad := range []string{``, `7`, `null`, `[]`, `{"metadata":7}`, `{"metadata":{"annotations":{"projectcalico.org/metadata":"{"}}}`, `{"metadata":{},"spec":{"order":"x"}}`} {
		if o, err := f.decode([]byte(bad)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v: want an error of one line", bad, o, err)
		}
	}
}

// podText is a pod as an API server has it, with some fields replaced.
func podText(t testing.TB, text string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := json.Unmarshal([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestEndpointOf(t *testing.T) {
	t.Parallel()
	const meta = `"metadata":{"name":"web-1","namespace":"shop","uid":"u","resourceVersion":"5","labels":{"app":"web"}`
	for name, tt := range map[string]struct{ pod, want string }{
		"not scheduled":     {`{` + meta + `},"status":{"podIP":"10.0.0.1"}}`, "none"},
		"host network":      {`{` + meta + `},"spec":{"nodeName":"n1","hostNetwork":true},"status":{"podIP":"10.0.0.1"}}`, "none"},
		"no address":        {`{` + meta + `},"spec":{"nodeName":"n1"}}`, "none"},
		"ended":             {`{` + meta + `},"spec":{"nodeName":"n1"},"status":{"podIP":"10.0.0.1","phase":"Succeeded"}}`, "none"},
		"released":          {`{` + meta + `,"annotations":{"cni.projectcalico.org/podIP":"","cni.projectcalico.org/podIPs":""}},"spec":{"nodeName":"n1"},"status":{"podIP":"10.0.0.1"}}`, "none"},
		"status only":       {`{` + meta + `},"spec":{"nodeName":"n1"},"status":{"podIP":"10.0.0.1"}}`, "10.0.0.1/32 kns.shop"},
		"being deleted":     {`{` + meta + `,"deletionTimestamp":"2026-11-20T12:00:00Z","annotations":{"cni.projectcalico.org/podIP":"10.0.0.1/32"}},"spec":{"nodeName":"n1"}}`, "10.0.0.1/32 kns.shop"},
		"both families":     {`{` + meta + `,"annotations":{"cni.projectcalico.org/podIP":"10.0.0.1/32","cni.projectcalico.org/podIPs":"10.0.0.1/32,fd00::1/128"}},"spec":{"nodeName":"n1","serviceAccountName":"default"}}`, "10.0.0.1/32 fd00::1/128 kns.shop ksa.shop.default"},
		"status, families":  {`{` + meta + `},"spec":{"nodeName":"n1"},"status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]}}`, "10.0.0.1/32 fd00::1/128 kns.shop"},
		"annotation of old": {`{` + meta + `,"annotations":{"cni.projectcalico.org/podIP":"10.0.0.2/32"}},"spec":{"nodeName":"n1"},"status":{"podIP":"10.0.0.1"}}`, "10.0.0.2/32 kns.shop"},
		"nonsense":          {`{` + meta + `,"annotations":{"cni.projectcalico.org/podIP":"here"}},"spec":{"nodeName":"n1"}}`, "none"},
	} {
		o, ok := endpointOf(podText(t, tt.pod), "")
		got := "none"
		if ok {
			ep := o.Object.(*v3.WorkloadEndpoint)
			got = strings.Join(append(ep.Spec.IPNetworks, ep.Spec.Profiles...), " ")
			if _, err := model.Parse(ep); err != nil || ep.Name != "n1-k8s-web--1-eth0" || ep.Spec.InterfaceName != v3.HostInterfaceName("", "shop", "web-1") {
				t.Errorf("%s: %v: %+v", name, err, ep)
			}
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

// TestEndpointFields: what else of a pod an endpoint has, and that asking for nonsense asks
// for nothing.
func TestEndpointFields(t *testing.T) {
	t.Parallel()
	pod := podText(t, `{"metadata":{"name":"web","namespace":"shop","annotations":{
		"cni.projectcalico.org/podIP":"10.0.0.1/32","cni.projectcalico.org/containerID":"c1",
		"cni.projectcalico.org/floatingIPs":"[\"192.0.2.1\",\"fd00::9\",\"x\"]","cni.projectcalico.org/allowedSourcePrefixes":"[\"10.9.0.0/16\",7]",
		"qos.projectcalico.org/ingressBandwidth":"1M","weft.net/mac":"02:00:00:00:00:01","weft.net/network":"other"}},
		"spec":{"nodeName":"n1","serviceAccountName":"sa",
		"initContainers":[{"name":"i","ports":[{"name":"no","containerPort":1}]},{"name":"s","restartPolicy":"Always","ports":[{"name":"side","containerPort":2,"protocol":"UDP"}]}],
		"containers":[{"name":"c","ports":[{"name":"http","containerPort":80},{"containerPort":81},{"containerPort":82,"hostPort":8082,"hostIP":"10.1.1.1"},{"name":"bad","containerPort":70000}]}]}}`)
	o, ok := endpointOf(pod, "tap")
	if !ok {
		t.Fatal("no endpoint")
	}
	ep := o.Object.(*v3.WorkloadEndpoint)
	var ports []string
	for _, p := range ep.Spec.Ports {
		ports = append(ports, p.Name+"/"+p.Protocol.String())
	}
	if got := strings.Join(ports, " "); got != "side/UDP http/TCP /TCP" {
		t.Errorf("ports: %s", got)
	}
	if n := ep.Spec.IPNATs; len(n) != 1 || n[0].ExternalIP != "192.0.2.1" || n[0].InternalIP != "10.0.0.1" {
		t.Errorf("floating: %v", n)
	}
	if ep.Spec.AllowSpoofedSourcePrefixes != nil {
		t.Errorf("source prefixes of a list that can't be read: %v", ep.Spec.AllowSpoofedSourcePrefixes)
	}
	if ep.Spec.QoSControls == nil || ep.Spec.QoSControls.IngressBandwidth != 1e6 || ep.Spec.MAC != "02:00:00:00:00:01" ||
		ep.Annotations["weft.net/network"] != "other" || !strings.HasPrefix(ep.Spec.InterfaceName, "tap") || ep.Spec.ContainerID != "c1" {
		t.Errorf("%+v %+v", ep.ObjectMeta, ep.Spec)
	}
	for k, want := range map[string]string{"projectcalico.org/namespace": "shop", "projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "sa"} {
		if ep.Labels[k] != want {
			t.Errorf("label %s: %q", k, ep.Labels[k])
		}
	}
	back, err := podAnnotations(ep, "tap")
	if err != nil || back[podIP] != "10.0.0.1/32" || back[hardwareAddress] != "02:00:00:00:00:01" || back[interfaceName] != "" {
		t.Errorf("annotations: %v, %v", back, err)
	}
	if back, err = podAnnotations(ep, "cali"); err != nil || back[interfaceName] != ep.Spec.InterfaceName {
		t.Errorf("annotations with an unusual link: %v, %v", back, err)
	}
}

// FuzzEndpointOf: whatever an API server sends as a pod is an endpoint that parses, or none.
func FuzzEndpointOf(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","namespace":"b"},"spec":{"nodeName":"n"},"status":{"podIP":"10.0.0.1"}}`))
	f.Add([]byte(`{"metadata":{"name":"-","annotations":{"cni.projectcalico.org/podIPs":"1,2/3,::/0"}},"spec":{"nodeName":"-"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		pod := &corev1.Pod{}
		if json.Unmarshal(text, pod) != nil {
			return
		}
		if o, ok := endpointOf(pod, ""); ok {
			_, _ = model.Parse(o.Object)
		}
		node := &corev1.Node{}
		if json.Unmarshal(text, node) == nil {
			if o, err := nodeOf(node); err == nil {
				_, _ = model.Parse(o.Object)
			}
		}
	})
}

// FuzzDecode: no object of the API makes the store panic, nor an error of two lines.
func FuzzDecode(f *testing.F) {
	f.Add(`{"metadata":{"name":"p","annotations":{"projectcalico.org/metadata":"{}"}},"spec":{"cidr":"10.0.0.0/16","deleted":"true"}}`)
	f.Add(`{"metadata":{"name":"p"},"spec":null}`)
	f.Add(`{"spec":{"allocations":[null,7],"attributes":[null]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []model.Kind{model.KindIPPool, model.KindBlockAffinity, model.KindIPAMBlock, model.KindIPAMConfig, "NetworkPolicy"} {
			for _, group := range []Group{Native, Legacy} {
				form := form{kind, group}
				o, err := form.decode([]byte(text))
				if err != nil {
					if strings.Contains(err.Error(), "\n") {
						t.Errorf("%q", err)
					}
					continue
				}
				_, _ = model.Parse(o.Object)
				_, _ = form.encode(o.Object, "p", "1", []byte(text), noon())
			}
		}
	})
}

func TestNodeOf(t *testing.T) {
	t.Parallel()
	node := &corev1.Node{}
	const text = `{"metadata":{"name":"n1","labels":{"rack":"1","kubernetes.io/hostname":"n1"},"annotations":{
		"projectcalico.org/IPv4Address":"10.0.0.1/24","projectcalico.org/ASNumber":"64513","projectcalico.org/IPv4VXLANTunnelAddr":"10.1.0.1",
		"projectcalico.org/VXLANTunnelMACAddr":"66:00:00:00:00:01","projectcalico.org/IPv4IPIPTunnelAddr":"10.1.0.2","projectcalico.org/RouteReflectorClusterID":"1.0.0.1",
		"projectcalico.org/Interfaces":"[{\"name\":\"eth0\",\"addresses\":[\"10.0.0.1\"]}]","projectcalico.org/IPv4WireguardInterfaceAddr":"10.1.0.3",
		"weft.net/mtu":"1500","volumes.kubernetes.io/x":"y"}},
		"spec":{"podCIDR":"10.244.0.0/24","podCIDRs":["10.244.0.0/24","fd00::/64"]},
		"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"},{"type":"Hostname","address":"n1"},{"type":"ExternalIP","address":"192.0.2.1"}]}}`
	if err := json.Unmarshal([]byte(text), node); err != nil {
		t.Fatal(err)
	}
	o, err := nodeOf(node)
	if err != nil {
		t.Fatal(err)
	}
	n := o.Object.(*v3.Node)
	if v, err := model.Parse(n); err != nil || v.(model.Node).ASN != 64513 || v.(model.Node).MTU != 1500 {
		t.Errorf("%v, %+v", err, v)
	}
	b := n.Spec.BGP
	if b.IPv4Address != "10.0.0.1/24" || b.IPv4IPIPTunnelAddr != "10.1.0.2" || b.RouteReflectorClusterID != "1.0.0.1" || n.Spec.IPv4VXLANTunnelAddr != "10.1.0.1" ||
		n.Spec.Wireguard.InterfaceIPv4Address != "10.1.0.3" || len(n.Spec.Interfaces) != 1 || len(n.Status.PodCIDRs) != 2 || len(n.Spec.Addresses) != 3 ||
		n.Spec.OrchRefs[0] != (v3.OrchRef{NodeName: "n1", Orchestrator: "k8s"}) || n.Annotations["volumes.kubernetes.io/x"] != "y" || n.Annotations["projectcalico.org/ASNumber"] != "" {
		t.Errorf("%+v\n%+v", n.ObjectMeta, n.Spec)
	}
	// Written back as it is, nothing changes; with a change, that alone.
	back, err := metaFor(n)
	if err != nil || patchOf(node.Annotations, back.Annotations) != nil || patchOf(node.Labels, back.Labels) != nil {
		t.Errorf("%v: %v %v", err, patchOf(node.Annotations, back.Annotations), patchOf(node.Labels, back.Labels))
	}
	n.Spec.IPv4VXLANTunnelAddr, n.Spec.BGP.IPv4Address = "", "10.0.0.2/24"
	back, err = metaFor(n)
	got, _ := json.Marshal(patchOf(node.Annotations, back.Annotations))
	if want := `{"projectcalico.org/IPv4Address":"10.0.0.2/24","projectcalico.org/IPv4VXLANTunnelAddr":null}`; string(got) != want || err != nil {
		t.Errorf("patch: %s, %v\nwant   %s", got, err, want)
	}
	node.Annotations["projectcalico.org/ASNumber"] = "many"
	if _, err := nodeOf(node); err == nil || !strings.Contains(err.Error(), `annotation projectcalico.org/ASNumber: "many"`) {
		t.Errorf("a bad AS number: %v", err)
	}
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	p := namespaceProfile(&v3.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}})
	if p.Name != "kns.shop" || p.Spec.LabelsToApply["pcns.team"] != "a" || p.Spec.LabelsToApply["pcns.projectcalico.org/name"] != "shop" || len(p.Spec.Ingress) != 1 || len(p.Spec.Egress) != 1 {
		t.Errorf("%+v", p)
	}
	a := accountProfile(&v3.ObjectMeta{Name: "sa", Namespace: "shop", Labels: map[string]string{"team": "a"}})
	if a.Name != "ksa.shop.sa" || a.Spec.LabelsToApply["pcsa.team"] != "a" || a.Spec.LabelsToApply["pcsa.projectcalico.org/name"] != "sa" || len(a.Spec.Ingress)+len(a.Spec.Egress) != 0 {
		t.Errorf("%+v", a)
	}
	for _, o := range []v3.Object{p, a} {
		if _, err := model.Parse(o); err != nil {
			t.Error(err)
		}
	}
}

// TestKinds: each kind of the model that a store holds has its place, new ones included.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := &Store{group: Native}
	backends := s.newBackends()
	for _, k := range v3.Kinds() {
		if backends[model.Kind(k.Name)] == nil {
			t.Errorf("%s has no place", k.Name)
		}
	}
	if len(kinds()) != len(v3.Kinds()) { // IPAMConfig in place of IPAMConfiguration
		t.Errorf("%d kinds, want %d", len(kinds()), len(v3.Kinds()))
	}
}
