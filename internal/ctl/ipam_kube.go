package ctl

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/ctl/settings"
	"github.com/weft-net/weft/internal/kube"
)

// kubeClient connects to the API server that --kubeconfig (if it is not empty), the
// settings or the pod's own environment name; nil if none does.
func (c *client) kubeClient(kubeconfig string) (*kube.Client, error) {
	config, err := kube.ConfigFromEnv(func(name string) string {
		switch {
		case kubeconfig == "":
		case name == "KUBECONFIG":
			return kubeconfig
		case name == "K8S_API_ENDPOINT":
			return "" // what the flag names wins
		}
		return c.setting(name)
	})
	if err != nil {
		return nil, err
	}
	if c.kubeContext != "" {
		config.Context = c.kubeContext
	}
	config.Version = c.Version
	if !config.Found() {
		return nil, nil
	}
	return kube.Connect(config)
}

// errNoKubeconfig is what calicoctl says without an API server.
var errNoKubeconfig = errors.New("KUBECONFIG environment variable or --kubeconfig parameter not set")

// ipamReader opens what a check reads. Without Kubernetes weft looks at the endpoints
// alone; calicoctl asks for it.
func (c *client) ipamReader(ctx context.Context, kubeconfig string) (*ipamReader, error) {
	kind, err := c.datastoreType()
	if err != nil {
		return nil, err
	}
	if c.calico && kubeconfig == "" && kind != settings.Kubernetes && c.setting("KUBECONFIG") == "" {
		return nil, errNoKubeconfig
	}
	k, err := c.kubeClient(kubeconfig)
	if err != nil {
		return nil, err
	}
	st, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	return &ipamReader{store: st, kube: k, inKube: kind == settings.Kubernetes, progress: c.ipamProgress()}, nil
}

// perPage is the number of objects of one answer of the API server.
const perPage = 2000

// pods reads the addresses of pods that run in the pod network.
func (r *ipamReader) pods(ctx context.Context) error {
	starting := map[audit.Object]bool{}
	var users []audit.User
	for next := ""; ; {
		list, err := r.kube.Clientset.CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: perPage, Continue: next})
		if err != nil {
			return fmt.Errorf("list pods: %s", kube.Explain(err))
		}
		for i := range list.Items {
			p := &list.Items[i]
			if p.Spec.HostNetwork || kube.Ended(p) {
				continue
			}
			of := r.podUsers(p)
			if len(of) == 0 {
				starting[audit.Object{Namespace: p.Namespace, Name: p.Name}] = true
			}
			users = append(users, of...)
		}
		if next = list.Continue; next == "" {
			break
		}
	}
	r.add(func(w *audit.World) { w.Starting, w.Users = starting, append(w.Users, users...) })
	return nil
}

// podUsers are the uses of a pod's addresses.
func (r *ipamReader) podUsers(p *corev1.Pod) []audit.User {
	u := audit.User{Sort: audit.Pod, Name: p.Namespace + "/" + p.Name, Node: p.Spec.NodeName, Namespace: p.Namespace, Pod: p.Name}
	if r.inKube {
		id := v3.EndpointID{Node: p.Spec.NodeName, Orchestrator: v3.OrchestratorKubernetes, Pod: p.Name, Endpoint: "eth0"}
		if name, err := v3.WorkloadEndpointName(id); err == nil {
			u.Sort, u.Name = audit.Workload, p.Namespace+"/"+name
		}
	}
	var out []audit.User
	first, others := kube.PodAddrs(p)
	for _, a := range first {
		u.Addr = a
		out = append(out, u)
	}
	for _, a := range others {
		u.Addr, u.Aside = a, true
		out = append(out, u)
	}
	return out
}

// services reads the addresses of services of type LoadBalancer.
func (r *ipamReader) services(ctx context.Context) error {
	there := map[audit.Object]bool{}
	var users []audit.User
	for next := ""; ; {
		list, err := r.kube.Clientset.CoreV1().Services("").List(ctx, metav1.ListOptions{Limit: perPage, Continue: next})
		if err != nil {
			return fmt.Errorf("list services: %s", kube.Explain(err))
		}
		for _, s := range list.Items {
			if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
				continue
			}
			there[audit.Object{Namespace: s.Namespace, Name: s.Name}] = true
			for _, in := range s.Status.LoadBalancer.Ingress {
				if a, ok := addrIn(in.IP); ok {
					users = append(users, audit.User{Sort: audit.Service, Name: s.Namespace + "/" + s.Name, Addr: a})
				}
			}
		}
		if next = list.Continue; next == "" {
			break
		}
	}
	r.add(func(w *audit.World) { w.Services, w.Users = there, append(w.Users, users...) })
	return nil
}
