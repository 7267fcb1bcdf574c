package diags

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// ClusterOptions say what of a cluster gets into a bundle.
type ClusterOptions struct {
	Since    time.Duration // of logs: how far back; 0: all there is
	MaxLogs  int           // of how many pods of each component; 0: none
	Parallel int           // logs that are read at the same time, at least 1
	Focus    []string      // nodes whose pods come first
}

// components are the pods of weft and of Calico, by their label k8s-app.
const components = "k8s-app in (weft-node,weft-controllers,weft-relay,weft-reflector,calico-node,calico-kube-controllers,calico-typha,calico-apiserver)"

// Kubernetes adds what the API server knows: nodes, and of the components their workloads,
// events and logs. Secrets and ConfigMaps are not read.
func (b *Bundle) Kubernetes(ctx context.Context, api kubernetes.Interface, o ClusterOptions) {
	all := metav1.ListOptions{}
	ours := metav1.ListOptions{LabelSelector: components}
	if v, err := api.Discovery().ServerVersion(); err != nil {
		b.Fault("kubernetes/version.yaml", err)
	} else {
		b.yaml("kubernetes/version.yaml", v)
	}
	nodes, err := api.CoreV1().Nodes().List(ctx, all)
	listed(b, "kubernetes/nodes.yaml", nodes, err)
	sets, err := api.AppsV1().DaemonSets("").List(ctx, ours)
	listed(b, "kubernetes/daemonsets.yaml", sets, err)
	deployments, err := api.AppsV1().Deployments("").List(ctx, ours)
	listed(b, "kubernetes/deployments.yaml", deployments, err)
	pods, err := api.CoreV1().Pods("").List(ctx, ours)
	listed(b, "kubernetes/pods.yaml", pods, err)
	if err != nil {
		return
	}
	spaces := map[string]bool{}
	for i := range pods.Items {
		spaces[pods.Items[i].Namespace] = true
	}
	for space := range spaces {
		events, err := api.CoreV1().Events(space).List(ctx, all)
		listed(b, "kubernetes/events-"+fileName(space)+".yaml", events, err)
	}
	b.logs(ctx, api, chosen(pods.Items, o), o)
}

// listed adds a list as YAML, or why there is none.
func listed[T any](b *Bundle, name string, list T, err error) {
	if err != nil {
		b.Fault(name, err)
		return
	}
	b.yaml(name, list)
}

func (b *Bundle) yaml(name string, v any) {
	b.Text(name, func(w io.Writer) error {
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
}

// chosen are the pods whose logs are taken: of each component so many, those on nodes in focus
// first.
func chosen(pods []corev1.Pod, o ClusterOptions) []corev1.Pod {
	sorted := slices.Clone(pods)
	far := func(p *corev1.Pod) int {
		if slices.Contains(o.Focus, p.Spec.NodeName) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(sorted, func(x, y corev1.Pod) int {
		return cmp.Or(far(&x)-far(&y), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	taken := map[string]int{}
	return slices.DeleteFunc(sorted, func(p corev1.Pod) bool {
		taken[p.Labels["k8s-app"]]++
		return taken[p.Labels["k8s-app"]] > o.MaxLogs
	})
}

// logs adds the logs of all containers of pods, also of containers that ended before.
func (b *Bundle) logs(ctx context.Context, api kubernetes.Interface, pods []corev1.Pod, o ClusterOptions) {
	var reading sync.WaitGroup
	room := make(chan struct{}, max(o.Parallel, 1))
	read := func(p *corev1.Pod, container string, previous bool) {
		name := fmt.Sprintf("logs/%s/%s/%s.log", fileName(cmp.Or(p.Spec.NodeName, "no-node")), p.Name, container)
		if previous {
			name += ".previous"
		}
		options := &corev1.PodLogOptions{Container: container, Previous: previous}
		if o.Since > 0 {
			seconds := max(int64(o.Since/time.Second), 1)
			options.SinceSeconds = &seconds
		}
		room <- struct{}{}
		reading.Go(func() {
			defer func() { <-room }()
			if ctx.Err() != nil {
				b.Fault(name, context.Cause(ctx))
				return
			}
			b.Text(name, func(w io.Writer) (err error) {
				body, err := api.CoreV1().Pods(p.Namespace).GetLogs(p.Name, options).Stream(ctx)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, body.Close()) }()
				_, err = io.Copy(w, body)
				return err
			})
		})
	}
	for i := range pods {
		p := &pods[i]
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			read(p, s.Name, false)
			if s.RestartCount > 0 && s.LastTerminationState.Terminated != nil {
				read(p, s.Name, true)
			}
		}
	}
	reading.Wait()
}
