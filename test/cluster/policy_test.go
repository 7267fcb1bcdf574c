package cluster_test

import (
	"fmt"
	"strings"
	"testing"
)

// Services: what policy judges is the packet after its destination was translated, in
// whatever mode kube-proxy is, from a pod on the node of the server and from another one.
func policyBehindServices(t *testing.T) {
	ns := namespace(t)
	start(t, ns, pod{name: "server", node: 1, labels: "app: server"},
		pod{name: "friend", node: 1, labels: "app: client, who: friend"}, pod{name: "far-friend", node: 2, labels: "app: client, who: friend"},
		pod{name: "stranger", node: 1, labels: "app: client, who: stranger"}, pod{name: "far-stranger", node: 2, labels: "app: client, who: stranger"})
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: server, namespace: %[1]s}
spec:
  type: NodePort
  selector: {app: server}
  ports:
  - {name: tcp, port: 8000, targetPort: 80, protocol: TCP}
  - {name: udp, port: 8000, targetPort: 80, protocol: UDP}
  - {name: closed, port: 8001, targetPort: 81, protocol: TCP}
`, ns))
	ip := strings.TrimSpace(kubectl(t, "-n", ns, "get", "service", "server", "-o", "jsonpath={.spec.clusterIP}"))
	nodePort := strings.TrimSpace(kubectl(t, "-n", ns, "get", "service", "server", "-o", "jsonpath={.spec.ports[0].nodePort}"))
	all := []string{"friend", "far-friend", "stranger", "far-stranger"}
	for _, from := range all { // that what is dropped below is there at all
		reaches(t, ns, from, "tcp", ip+":8000")
		reaches(t, ns, from, "udp", ip+":8000")
		reaches(t, ns, from, "tcp", ip+":8001")
	}
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends, namespace: %[1]s}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {who: friend}}}]
    ports: [{port: 80, protocol: TCP}, {port: 80, protocol: UDP}] # of the pod, not of the service
`, ns))
	for _, from := range []string{"stranger", "far-stranger"} {
		dropped(t, ns, from, "tcp", ip+":8000")
		dropped(t, ns, from, "udp", ip+":8000")
	}
	dropped(t, ns, "friend", "tcp", ip+":8001")
	for _, from := range []string{"friend", "far-friend"} {
		reaches(t, ns, from, "tcp", ip+":8000")
		reaches(t, ns, from, "udp", ip+":8000")
	}

	// Egress is judged by the pod that a service leads to, and its port.
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: %[1]s}
spec:
  podSelector: {matchLabels: {who: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: server}}}]
    ports: [{port: 80, protocol: TCP}]
`, ns))
	dropped(t, ns, "far-friend", "udp", ip+":8000")
	for _, from := range []string{"friend", "far-friend"} {
		reaches(t, ns, from, "tcp", ip+":8000")
	}
	kubectl(t, "-n", ns, "delete", "networkpolicy", "out", "friends")

	// A node's port leads to the pod from outside, and from a pod by way of another node.
	for _, via := range []string{"172.30.0.11", "172.30.0.12"} {
		reaches(t, ns, "far-stranger", "tcp", via+":"+nodePort)
	}
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: none, namespace: %[1]s}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
`, ns))
	dropped(t, ns, "far-stranger", "tcp", "172.30.0.12:"+nodePort)
}

// Policy behind services, with kube-proxy in its nftables mode.
func TestClusterServices(t *testing.T) {
	t.Parallel()
	script(t)
	policyBehindServices(t)
}

// What a policy may say of ports and addresses.
func TestClusterPorts(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	start(t, ns, pod{name: "server", node: 1, labels: "app: server"},
		pod{name: "near", node: 1, labels: "app: near"}, pod{name: "far", node: 3, labels: "app: far"})
	at := address(t, ns, "server")
	for _, from := range []string{"near", "far"} {
		reaches(t, ns, from, "tcp", at+":80")
		reaches(t, ns, from, "tcp", at+":81")
		reaches(t, ns, from, "udp", at+":80")
	}
	far := address(t, ns, "far")
	policy := func(ingress string) {
		t.Helper()
		apply(t, fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: %s}\n"+
			"spec:\n  podSelector: {matchLabels: {app: server}}\n  policyTypes: [Ingress]\n  ingress: [%s]\n", ns, ingress))
	}
	const open, closed = true, false
	for _, tt := range []struct {
		name, ingress string
		tcp80, tcp81  bool
		udp80         bool
		farTCP80      bool
	}{
		{"named port", `{ports: [{port: web, protocol: TCP}]}`, open, closed, closed, open},
		{"named port of another protocol", `{ports: [{port: web-udp, protocol: UDP}]}`, closed, closed, open, closed},
		{"range", `{ports: [{port: 79, endPort: 80, protocol: TCP}]}`, open, closed, closed, open},
		{"range of two", `{ports: [{port: 80, endPort: 81, protocol: TCP}]}`, open, open, closed, open},
		{"block", `{from: [{ipBlock: {cidr: 10.244.0.0/16}}]}`, open, open, open, open},
		{"block except one", `{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [` + far + `/32]}}]}`, open, open, open, closed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			policy(tt.ingress)
			// What is dropped first: that the rest gets through might be as it was before.
			for _, look := range []struct {
				open               bool
				from, protocol, to string
			}{
				{tt.tcp80, "near", "tcp", at + ":80"},
				{tt.tcp81, "near", "tcp", at + ":81"},
				{tt.udp80, "near", "udp", at + ":80"},
				{tt.farTCP80, "far", "tcp", at + ":80"},
			} {
				if look.open {
					reaches(t, ns, look.from, look.protocol, look.to)
				} else {
					dropped(t, ns, look.from, look.protocol, look.to)
				}
			}
		})
	}
}

// Who is meant follows the labels of pods and of namespaces, while all of them run.
func TestClusterRelabel(t *testing.T) {
	t.Parallel()
	ns, other := namespace(t), namespace(t)
	start(t, ns, pod{name: "server", node: 1, labels: "app: server"})
	start(t, other, pod{name: "client", node: 2, labels: "app: client"})
	to := address(t, ns, "server") + ":80"
	reaches(t, other, "client", "tcp", to)
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: team, namespace: %s}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: blue}}
      podSelector: {matchLabels: {may: "yes"}}
`, ns))
	dropped(t, other, "client", "tcp", to)
	kubectl(t, "label", "namespace", other, "team=blue")
	dropped(t, other, "client", "tcp", to)
	kubectl(t, "-n", other, "label", "pod", "client", "may=yes")
	reaches(t, other, "client", "tcp", to)
	kubectl(t, "label", "namespace", other, "team-")
	dropped(t, other, "client", "tcp", to)
	kubectl(t, "label", "namespace", other, "team=blue")
	reaches(t, other, "client", "tcp", to)
	kubectl(t, "-n", ns, "label", "pod", "server", "app-") // it is meant no more
	kubectl(t, "-n", other, "label", "pod", "client", "may-")
	reaches(t, other, "client", "tcp", to)
	kubectl(t, "-n", ns, "label", "pod", "server", "app=server")
	dropped(t, other, "client", "tcp", to)
}

// Pods in the network of their node: policy of pods does not mean them, and an address
// block may mean them as it may any other host. A pod's own node always reaches it.
func TestClusterHostNetwork(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	start(t, ns, pod{name: "server", node: 1, labels: "app: server"},
		pod{name: "host-near", node: 1, labels: "app: host", host: true}, pod{name: "host-far", node: 2, labels: "app: host", host: true})
	to := address(t, ns, "server") + ":80"
	host := address(t, ns, "host-far")
	reaches(t, ns, "host-near", "tcp", to)
	reaches(t, ns, "host-far", "tcp", to)
	reaches(t, ns, "server", "tcp", host+":8080")
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: %[1]s}
spec:
  podSelector: {} # the pods in the host's network, too: they are not protected by it
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: host}}}] # matches no address
`, ns))
	dropped(t, ns, "host-far", "tcp", to)
	reaches(t, ns, "host-near", "tcp", to)        // the kubelet's probes come this way
	reaches(t, ns, "server", "tcp", host+":8080") // it has no policy
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nodes, namespace: %s}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from: [{ipBlock: {cidr: %s/32}}]
`, ns, host))
	reaches(t, ns, "host-far", "tcp", to)
}
