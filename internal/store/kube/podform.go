package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/store"
	corev1 "k8s.io/api/core/v1"
)

// The annotations of pods that make them endpoints, and those that ask for something.
const (
	podIP             = "cni.projectcalico.org/podIP"
	podIPs            = "cni.projectcalico.org/podIPs"
	containerID       = "cni.projectcalico.org/containerID"
	floatingIPs       = "cni.projectcalico.org/floatingIPs"
	sourcePrefixes    = "cni.projectcalico.org/allowedSourcePrefixes"
	ownPrefix         = "weft.net/"
	hardwareAddress   = ownPrefix + "mac"       // of the pod's side, where it is not the kernel's choice
	interfaceName     = ownPrefix + "interface" // the host's side, where it has not the usual name
	podEndpoint       = "eth0"
	labelNamespace    = "projectcalico.org/namespace"
	labelOrchestrator = "projectcalico.org/orchestrator"
	labelAccount      = "projectcalico.org/serviceaccount"
	maxLabelValue     = 63
)

// podFields is what a write of an endpoint depends on: kept as the stored form of an
// endpoint.
type podFields struct {
	UID         string            `json:"uid"`
	Annotations map[string]string `json:"annotations,omitempty"` // those that an endpoint is written as
}

// isWritten reports whether an annotation is one that an endpoint is written as.
func isWritten(annotation string) bool {
	return annotation == podIP || annotation == podIPs || annotation == containerID || strings.HasPrefix(annotation, ownPrefix)
}

// endpointOf makes the endpoint of a pod. There is none for a pod that is on no node or in
// its host's network, has no address (any more), or has ended. Annotations that ask for
// something and can't be read ask for nothing: that allows least, and the CNI plugin has
// refused them already.
func endpointOf(pod *corev1.Pod, prefixes string) (store.Object, bool) {
	nets := podNets(pod)
	if pod.Spec.NodeName == "" || pod.Spec.HostNetwork || len(nets) == 0 ||
		pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return store.Object{}, false
	}
	name, err := podEndpointName(pod.Spec.NodeName, pod.Name)
	if err != nil {
		return store.Object{}, false // the API takes no such names
	}
	fresh, _ := v3.New("WorkloadEndpoint")
	o := fresh.(*v3.WorkloadEndpoint)
	o.Name, o.Namespace, o.UID, o.ResourceVersion = name, pod.Namespace, pod.UID, pod.ResourceVersion
	o.CreationTimestamp, o.GenerateName = pod.CreationTimestamp, pod.GenerateName
	o.Labels = podLabels(pod)
	fields := podFields{UID: string(pod.UID), Annotations: map[string]string{}}
	for k, v := range pod.Annotations {
		if isWritten(k) {
			fields.Annotations[k] = v
		}
		if strings.HasPrefix(k, ownPrefix) && k != hardwareAddress && k != interfaceName {
			setAnnotation(o, k, v)
		}
	}
	o.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: v3.OrchestratorKubernetes, Node: pod.Spec.NodeName, Pod: pod.Name, Endpoint: podEndpoint,
		ContainerID: pod.Annotations[containerID], ServiceAccountName: pod.Spec.ServiceAccountName,
		InterfaceName: v3.HostInterfaceName(prefixes, pod.Namespace, pod.Name), MAC: pod.Annotations[hardwareAddress],
		Profiles: []string{"kns." + pod.Namespace}, Ports: podPorts(pod),
	}
	if link := pod.Annotations[interfaceName]; link != "" {
		o.Spec.InterfaceName = link
	}
	if account := pod.Spec.ServiceAccountName; account != "" {
		o.Spec.Profiles = append(o.Spec.Profiles, "ksa."+pod.Namespace+"."+account)
	}
	for _, p := range nets {
		o.Spec.IPNetworks = append(o.Spec.IPNetworks, p.String())
	}
	for _, p := range listIn(pod.Annotations[sourcePrefixes], parseNet) {
		o.Spec.AllowSpoofedSourcePrefixes = append(o.Spec.AllowSpoofedSourcePrefixes, p.String())
	}
	o.Spec.IPNATs = natsFor(nets, listIn(pod.Annotations[floatingIPs], netip.ParseAddr))
	o.Spec.QoSControls, _ = v3.QoSControlsFrom(pod.Annotations) // what is valid of it
	raw, err := json.Marshal(fields)
	return store.Stored(o, raw), err == nil
}

func podEndpointName(node, pod string) (string, error) {
	return v3.WorkloadEndpointName(v3.EndpointID{Node: node, Orchestrator: v3.OrchestratorKubernetes, Pod: pod, Endpoint: podEndpoint})
}

func setAnnotation(o *v3.WorkloadEndpoint, k, v string) {
	if o.Annotations == nil {
		o.Annotations = map[string]string{}
	}
	o.Annotations[k] = v
}

// podNets are the pod's addresses, each alone in its prefix. Annotations win over the
// status: they are written first, and set to nothing when the addresses are released.
func podNets(pod *corev1.Pod) []netip.Prefix {
	var texts []string
	first, written := pod.Annotations[podIP]
	all, writtenAll := pod.Annotations[podIPs]
	switch {
	case writtenAll && all != "":
		texts = strings.Split(all, ",")
	case written || writtenAll:
		texts = []string{first}
	default:
		for _, ip := range pod.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
		if len(texts) == 0 {
			texts = []string{pod.Status.PodIP}
		}
	}
	var out []netip.Prefix
	for _, text := range texts {
		if p, err := parseNet(strings.TrimSpace(text)); err == nil {
			out = append(out, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		}
	}
	return out
}

// parseNet reads an address with or without a prefix length.
func parseNet(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && !a.Is4In6() && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q: must be an address or a CIDR", text)
	}
	return p, nil
}

// podLabels are the pod's, and those that Calico adds.
func podLabels(pod *corev1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	maps.Copy(labels, pod.Labels)
	labels[labelNamespace], labels[labelOrchestrator] = pod.Namespace, v3.OrchestratorKubernetes
	if account := pod.Spec.ServiceAccountName; account != "" && len(account) <= maxLabelValue {
		labels[labelAccount] = account
	}
	return labels
}

// podPorts are the named and host ports of the containers, those included that start
// before the others and stay.
func podPorts(pod *corev1.Pod) []v3.WorkloadEndpointPort {
	var out []v3.WorkloadEndpointPort
	add := func(c corev1.Container) {
		for _, p := range c.Ports {
			protocol := string(p.Protocol)
			if protocol == "" {
				protocol = "TCP"
			}
			if p.Name == "" && p.HostPort == 0 || p.ContainerPort < 1 || p.ContainerPort > 65535 || p.HostPort < 0 || p.HostPort > 65535 {
				continue
			}
			out = append(out, v3.WorkloadEndpointPort{
				Name: p.Name, Protocol: v3.Protocol{Name: protocol}, Port: uint16(p.ContainerPort), HostPort: uint16(p.HostPort), HostIP: p.HostIP,
			})
		}
	}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for _, c := range pod.Spec.Containers {
		add(c)
	}
	return out
}

// listIn reads an annotation that holds a list of texts as JSON; what is not right in it
// is left out.
func listIn[T any](text string, parse func(string) (T, error)) []T {
	var texts []string
	if text == "" || json.Unmarshal([]byte(text), &texts) != nil {
		return nil
	}
	var out []T
	for _, text := range texts {
		if v, err := parse(text); err == nil {
			out = append(out, v)
		}
	}
	return out
}

// natsFor maps each external address to the pod's first one of its family.
func natsFor(own []netip.Prefix, external []netip.Addr) []v3.IPNAT {
	var out []v3.IPNAT
	for _, e := range external {
		for _, p := range own {
			if p.Addr().Is4() == e.Is4() {
				out = append(out, v3.IPNAT{InternalIP: p.Addr().String(), ExternalIP: e.String()})
				break
			}
		}
	}
	return out
}

// podAnnotations are the annotations that make a pod the endpoint o. prefixes are those of
// the names of interfaces.
func podAnnotations(o *v3.WorkloadEndpoint, prefixes string) (map[string]string, error) {
	if len(o.Spec.IPNetworks) == 0 {
		return nil, errors.New("spec.ipNetworks: must not be empty: a pod without an address is no endpoint")
	}
	out := map[string]string{podIP: o.Spec.IPNetworks[0], podIPs: strings.Join(o.Spec.IPNetworks, ","), containerID: o.Spec.ContainerID}
	for k, v := range o.Annotations {
		if strings.HasPrefix(k, ownPrefix) {
			out[k] = v
		}
	}
	if o.Spec.MAC != "" {
		out[hardwareAddress] = o.Spec.MAC
	}
	if o.Spec.InterfaceName != v3.HostInterfaceName(prefixes, o.Namespace, o.Spec.Pod) {
		out[interfaceName] = o.Spec.InterfaceName
	}
	return out, nil
}
