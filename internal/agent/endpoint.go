package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// networkAnnotation names the CNI network of an endpoint whose addresses are not
// ours to assign. For all others the handle of its addresses tells.
const networkAnnotation = "weft.net/network"

// endpointKey is the key of the endpoint of an attachment.
func endpointKey(node string, at rpc.Attachment, w rpc.Workload) (model.Key, error) {
	id := v3.EndpointID{Node: node, Orchestrator: w.Orchestrator, Pod: w.Pod, ContainerID: at.ContainerID, Endpoint: at.IfName}
	name, err := v3.WorkloadEndpointName(id)
	if err != nil {
		return model.Key{}, fmt.Errorf("agent: endpoint of %s: %w", at, err)
	}
	namespace := w.Namespace
	if namespace == "" {
		namespace = v3.DefaultNamespace
	}
	return model.Key{Kind: model.KindWorkloadEndpoint, Namespace: namespace, Name: name}, nil
}

// endpointOp is the write of the endpoint; none when it is stored as it should be.
func (a *attachments) endpointOp(key model.Key, old store.Object, r attaching, addrs []ipam.Assigned) ([]store.Op, model.Endpoint, error) {
	fresh, _ := v3.New(string(model.KindWorkloadEndpoint))
	o := fresh.(*v3.WorkloadEndpoint)
	verb := store.Create
	if before, ok := old.Object.(*v3.WorkloadEndpoint); ok {
		// A copy: what was read is not ours to change.
		*o = *before
		verb = store.Update
	}
	o.Name, o.Namespace = key.Name, key.Namespace
	o.Labels, o.Annotations = maps.Clone(r.Endpoint.Labels), maps.Clone(r.Endpoint.Annotations)
	if len(addrs) == 0 {
		metav1.SetMetaDataAnnotation(&o.ObjectMeta, networkAnnotation, r.Network)
	}
	o.Spec = a.endpointSpec(o.Spec, r, addrs)
	var err error
	if o.Spec.IPNATs, err = floating(o.Spec.IPNetworks, r.Endpoint.FloatingIPs); err != nil {
		return nil, model.Endpoint{}, &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: fmt.Sprintf("agent: endpoint of %s: %v", r.Attachment, err)}
	}
	v3.Default(o)
	value, err := model.Parse(o)
	ep, ok := value.(model.Endpoint)
	if err != nil || !ok {
		return nil, ep, &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: fmt.Sprintf("agent: endpoint of %s: %v", r.Attachment, err)}
	}
	return []store.Op{{Verb: verb, Object: old.With(o)}}, ep, nil
}

func (a *attachments) endpointSpec(s v3.WorkloadEndpointSpec, r attaching, addrs []ipam.Assigned) v3.WorkloadEndpointSpec {
	e := r.Endpoint
	s.Orchestrator, s.Node, s.ContainerID = r.Orchestrator, a.node, r.ContainerID
	s.Pod, s.Endpoint, s.InterfaceName, s.MAC = r.Pod, r.IfName, e.HostLink, e.MAC
	s.Profiles = e.Profiles
	if r.Orchestrator == rpc.Kubernetes && len(e.Profiles) == 0 {
		s.Profiles = []string{"kns." + r.Namespace, "ksa." + r.Namespace + ".default"}
	}
	s.ServiceAccountName, s.QoSControls = r.account, r.qos
	s.IPNetworks = nil
	for _, x := range addrs {
		s.IPNetworks = append(s.IPNetworks, single(x.Addr).String())
	}
	for _, p := range e.Given {
		s.IPNetworks = append(s.IPNetworks, single(p.Addr()).String())
	}
	s.Ports = r.endpointPorts()
	s.AllowSpoofedSourcePrefixes = nil
	for _, p := range e.SourcePrefixes {
		s.AllowSpoofedSourcePrefixes = append(s.AllowSpoofedSourcePrefixes, p.String())
	}
	return s
}

// endpointPorts are the ports that the pod declares, or, where nobody knows the pod, those
// that the runtime maps.
func (x *attaching) endpointPorts() []v3.WorkloadEndpointPort {
	var out []v3.WorkloadEndpointPort
	add := func(name, protocol string, port, hostPort uint16, hostIP netip.Addr) {
		p := v3.WorkloadEndpointPort{Name: name, Protocol: v3.Protocol{Name: strings.ToUpper(protocol)}, Port: port, HostPort: hostPort}
		if hostIP.IsValid() {
			p.HostIP = hostIP.String()
		}
		out = append(out, p)
	}
	if x.pod {
		for _, p := range x.ports {
			add(p.Name, p.Protocol, p.Port, p.HostPort, p.HostIP)
		}
		return out
	}
	for _, p := range x.Endpoint.Ports {
		add(p.Name, p.Protocol, p.Port, p.HostPort, p.HostIP)
	}
	return out
}

// floating maps each external address to the endpoint's own of its family.
func floating(own []string, external []netip.Addr) ([]v3.IPNAT, error) {
	var out []v3.IPNAT
	for _, e := range external {
		internal := ""
		for _, n := range own {
			if p, err := netip.ParsePrefix(n); internal == "" && err == nil && p.Addr().Is4() == e.Is4() {
				internal = p.Addr().String()
			}
		}
		if internal == "" {
			return nil, fmt.Errorf("floating address %v: must be of a family of which the endpoint has an address; it has %s", e, strings.Join(own, ", "))
		}
		out = append(out, v3.IPNAT{InternalIP: internal, ExternalIP: e.String()})
	}
	return out, nil
}

// ensureProfiles creates the profiles that an endpoint outside Kubernetes
// names and that do not exist: those of one network talk with each other.
func (a *attachments) ensureProfiles(ctx context.Context, names []string) error {
	for _, name := range names {
		a.mu.Lock()
		known := a.profile[name]
		a.mu.Unlock()
		if known {
			continue
		}
		o, _ := v3.New(string(model.KindProfile))
		p := o.(*v3.Profile)
		p.Name = name
		p.Spec = v3.ProfileSpec{
			Ingress:       []v3.Rule{{Action: "Allow", Source: v3.EntityRule{Selector: "has(" + name + ")"}}},
			Egress:        []v3.Rule{{Action: "Allow"}},
			LabelsToApply: map[string]string{name: ""},
		}
		if _, err := a.store.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(p)}); err != nil && !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("agent: profile %s: %w", name, err)
		}
		a.mu.Lock()
		a.profile[name] = true
		a.mu.Unlock()
	}
	return nil
}

// holder describes who gets the addresses, as Calico does.
func (a *attachments) holder(r rpc.AddRequest) model.Attribute {
	handle := v3.HandleID(r.Network, r.ContainerID)
	if r.Orchestrator == rpc.Kubernetes {
		return ipam.PodHolder(handle, a.node, r.Namespace, r.Pod, time.Now())
	}
	return model.Attribute{Handle: handle, Secondary: map[string]string{"node": a.node, "timestamp": time.Now().UTC().String()}}
}
