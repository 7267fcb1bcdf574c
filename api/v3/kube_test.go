package v3

import (
	"fmt"
	"strings"
	"testing"
)

const kubePolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: In, values: [front]}]}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {}
      namespaceSelector: {matchLabels: {team: a}}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
    ports: [{protocol: TCP, port: 80}, {protocol: UDP, port: 8000, endPort: 8100}, {port: http}]
  egress:
  - to: [{namespaceSelector: {}}]
`

const clusterPolicy = `
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: block}
spec:
  tier: Admin
  priority: 0
  subject: {namespaces: {}}
  ingress:
  - name: monitoring
    action: Accept
    from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
    protocols: [{tcp: {destinationPort: {number: 9090}}}, {destinationNamedPort: metrics}]
  egress:
  - action: Pass
    to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: dns}}}}]
  - action: Accept
    to: [{networks: [10.0.0.0/8, "fd00::/8"]}, {nodes: {}}, {domainNames: ["*.example.org"]}]
    protocols: [{udp: {destinationPort: {range: {start: 53, end: 54}}}}, {sctp: {destinationPort: {number: 1}}}]
  - action: Deny
    to: [{networks: [0.0.0.0/0]}]
`

const endpointSlice = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x7, namespace: shop, labels: {kubernetes.io/service-name: web}, generateName: web-}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node-a
  zone: z
  hints: {forZones: [{name: z}]}
  targetRef: {kind: Pod, namespace: shop, name: web-1, uid: "1"}
ports:
- {name: http, port: 8080, protocol: TCP, appProtocol: kubernetes.io/h2c}
- {}
`

// Documents of Kubernetes read, are stored, and are printed as Kubernetes writes them.
func TestKubernetesDocuments(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, input, stored string }{
		{"KubernetesNetworkPolicy", kubePolicy, `{"kind":"NetworkPolicy","apiVersion":"networking.k8s.io/v1","metadata":{"name":"web","namespace":"shop"},"spec":{"podSelector":{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"tier","operator":"In","values":["front"]}]},"ingress":[{"ports":[{"protocol":"TCP","port":80},{"protocol":"UDP","port":8000,"endPort":8100},{"port":"http"}],"from":[{"podSelector":{},"namespaceSelector":{"matchLabels":{"team":"a"}}},{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]}],"egress":[{"to":[{"namespaceSelector":{}}]}],"policyTypes":["Ingress","Egress"]}}`},
		{"KubernetesClusterNetworkPolicy", clusterPolicy, `{"kind":"ClusterNetworkPolicy","apiVersion":"policy.networking.k8s.io/v1alpha2","metadata":{"name":"block"},"spec":{"tier":"Admin","priority":0,"subject":{"namespaces":{}},"ingress":[{"name":"monitoring","action":"Accept","from":[{"namespaces":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}],"protocols":[{"tcp":{"destinationPort":{"number":9090}}},{"destinationNamedPort":"metrics"}]}],"egress":[{"action":"Pass","to":[{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"dns"}}}}]},{"action":"Accept","to":[{"networks":["10.0.0.0/8","fd00::/8"]},{"nodes":{}},{"domainNames":["*.example.org"]}],"protocols":[{"udp":{"destinationPort":{"range":{"start":53,"end":54}}}},{"sctp":{"destinationPort":{"number":1}}}]},{"action":"Deny","to":[{"networks":["0.0.0.0/0"]}]}]}}`},
		{"KubernetesEndpointSlice", endpointSlice, `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"web-x7","namespace":"shop","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"targetRef":{"kind":"Pod","namespace":"shop","name":"web-1","uid":"1"},"nodeName":"node-a","zone":"z","hints":{"forZones":[{"name":"z"}]}}],"ports":[{"name":"http","protocol":"TCP","port":8080,"appProtocol":"kubernetes.io/h2c"},{}]}`},
	} {
		o, err := Decode([]byte(tt.input))
		if err != nil {
			t.Errorf("%s: %v", tt.kind, err)
			continue
		}
		ClearSystemFields(o)
		Default(o)
		if err := Validate(o); err != nil || KindOf(o).Name != tt.kind {
			t.Errorf("%s: kind %s, %v", tt.kind, KindOf(o).Name, err)
		}
		text, err := Encode(o)
		if err != nil || string(text) != tt.stored {
			t.Errorf("%s: stored, %v\n got %s\nwant %s", tt.kind, err, text, tt.stored)
		}
		back, err := DecodeStored(text)
		if err != nil || KindOf(back).Name != tt.kind {
			t.Errorf("%s: reads back as %T, %v", tt.kind, back, err)
		}
		if again, err := Merge(text, back); err != nil || string(again) != tt.stored {
			t.Errorf("%s: merges to %s, %v", tt.kind, again, err)
		}
	}
}

func TestKubernetesErrors(t *testing.T) {
	t.Parallel()
	replaced := func(doc, before, after string) string {
		if !strings.Contains(doc, before) {
			t.Fatalf("%q is not in the document", before)
		}
		return strings.Replace(doc, before, after, 1)
	}
	np := func(before, after string) string { return replaced(kubePolicy, before, after) }
	cnp := func(before, after string) string { return replaced(clusterPolicy, before, after) }
	slice := func(before, after string) string { return replaced(endpointSlice, before, after) }
	for _, tt := range []struct{ input, want string }{
		{np("operator: In", "operator: Is"), `spec.podSelector.matchExpressions[0].operator: "Is": must be In, NotIn, Exists or DoesNotExist`},
		{np("values: [front]", "values: []"), "spec.podSelector.matchExpressions[0].values: must have a value for operator In"},
		{np("operator: In", "operator: Exists"), "spec.podSelector.matchExpressions[0].values: must be left out for operator Exists"},
		{np("10.1.0.0/16", "11.0.0.0/16"), `spec.ingress[0].from[1].ipBlock.except[0]: "11.0.0.0/16": must be a part of 10.0.0.0/8`},
		{np("ipBlock: {", "podSelector: {}\n      ipBlock: {"), "spec.ingress[0].from[1].ipBlock: must be left out with podSelector or namespaceSelector"},
		{np("endPort: 8100", "endPort: 80"), "spec.ingress[0].ports[1].endPort: 80: must be 8000 to 65535: port is where the range begins"},
		{np("port: http", "port: http, endPort: 80"), "spec.ingress[0].ports[2].endPort: 80: needs port to be a number"},
		{np("protocol: TCP", "protocol: ICMP"), `spec.ingress[0].ports[0].protocol: "ICMP": must be TCP, UDP or SCTP`},
		{np("to: [{namespaceSelector: {}}]", "to: [{}]"), "spec.egress[0].to[0]: must have podSelector, namespaceSelector or ipBlock"},
		{np("policyTypes", "policyType"), "spec.policyType: unknown field: is policyTypes meant?"},
		{np("networking.k8s.io/v1", "networking.k8s.io/v2"), `decode: NetworkPolicy: apiVersion: "networking.k8s.io/v2": must be networking.k8s.io/v1 or projectcalico.org/v3`},
		{"kind: KubernetesNetworkPolicy\napiVersion: projectcalico.org/v3", `decode: kind: "KubernetesNetworkPolicy" is unknown: must be NetworkPolicy with apiVersion networking.k8s.io/v1`},
		{cnp("tier: Admin", "tier: admin"), `spec.tier: "admin": must be Admin or Baseline`},
		{cnp("priority: 0", "priority: 1001"), "spec.priority: 1001: must be 0 to 1000"},
		{cnp("{namespaces: {}}", "{}"), "spec.subject: has 0 of namespaces or pods: must have exactly one"},
		{cnp("action: Pass", "action: Allow"), `spec.egress[0].action: "Allow": must be Accept, Deny or Pass`},
		{cnp("to: [{networks: [0.0.0.0/0]}]", "to: []"), "spec.egress[2].to: must have an entry"},
		{cnp("networks: [0.0.0.0/0]", "networks: [0.0.0.0/0], nodes: {}"), "spec.egress[2].to[0]: has 2 of domainNames, namespaces, networks, nodes or pods: must have exactly one"},
		{cnp("networks: [0.0.0.0/0]", "networks: [all]"), `spec.egress[2].to[0].networks[0]: "all": must be a prefix`},
		{cnp("networks: [0.0.0.0/0]", "domainNames: [a.b]"), "spec.egress[2].to[0].domainNames: must be left out unless the action is Accept"},
		{cnp(`"*.example.org"`, `"a*.example.org"`), `domainNames[0]: "a*.example.org": must be a domain name`},
		{cnp("{number: 9090}", "{number: 9090, range: {start: 1, end: 2}}"), "spec.ingress[0].protocols[0].tcp.destinationPort: has 2 of number or range: must have exactly one"},
		{cnp("{start: 53, end: 54}", "{start: 53, end: 53}"), "destinationPort.range: \"53 to 53\": must begin before it ends, within 1 to 65535"},
		{cnp("{sctp: {destinationPort: {number: 1}}}", "{destinationNamedPort: a}"), "spec.egress[1].protocols[1].destinationNamedPort: \"a\": must be left out with nodes, networks or domainNames"},
		{slice("addressType: IPv4", "addressType: IPv5"), `addressType: "IPv5": must be IPv4, IPv6 or FQDN`},
		{slice("[10.0.0.1]", "[fd00::1]"), `endpoints[0].addresses[0]: "fd00::1": must be an IPv4 address`},
		{slice("[10.0.0.1]", "[]"), "endpoints[0].addresses: must have an entry"},
		{slice("port: 8080", "port: 65536"), "ports[0].port: 65536: must be 0 to 65535"},
	} {
		err := judge(tt.input, nil)
		if text := fmt.Sprint(err); !strings.Contains(text, tt.want) || strings.Contains(text, "\n") {
			t.Errorf("got %v\nwant one line with %s", err, tt.want)
		}
	}
}
