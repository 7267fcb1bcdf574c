package kube

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"
)

// Kubeadm is what kubeadm wrote down about the networks of the cluster that it made. The
// zero value: it made none, or said nothing.
type Kubeadm struct {
	Found        bool
	PodCIDRs     []netip.Prefix // masked; --pod-network-cidr
	ServiceCIDRs []netip.Prefix // masked; --service-cidr
}

// Kubeadm reads the ConfigMap kube-system/kubeadm-config. One that is not there is no error;
// one that makes no sense is.
func (c *Client) Kubeadm(ctx context.Context) (Kubeadm, error) {
	const object = "kube: configmap kube-system/kubeadm-config"
	m, err := c.Clientset.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "kubeadm-config", metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return Kubeadm{}, nil
	case err != nil:
		return Kubeadm{}, fmt.Errorf("%s: %w", object, err)
	}
	var text struct {
		Networking struct {
			PodSubnet     string `json:"podSubnet"`
			ServiceSubnet string `json:"serviceSubnet"`
		} `json:"networking"`
	}
	if err := yaml.Unmarshal([]byte(m.Data["ClusterConfiguration"]), &text); err != nil {
		return Kubeadm{Found: true}, fmt.Errorf("%s: ClusterConfiguration: %s", object, oneLine(err))
	}
	k := Kubeadm{Found: true}
	if k.PodCIDRs, err = cidrList(text.Networking.PodSubnet); err != nil {
		return k, fmt.Errorf("%s: networking.podSubnet: %w", object, err)
	}
	if k.ServiceCIDRs, err = cidrList(text.Networking.ServiceSubnet); err != nil {
		return k, fmt.Errorf("%s: networking.serviceSubnet: %w", object, err)
	}
	return k, nil
}

// cidrList reads ranges with commas between them.
func cidrList(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for s := range strings.SplitSeq(text, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q: must be CIDRs with commas between them", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// ServiceCIDRs lists the ranges of service addresses (ServiceCIDR objects, Kubernetes 1.33 and
// later), and with them the revision to watch from.
func (c *Client) ServiceCIDRs(ctx context.Context) (cidrs []netip.Prefix, rev string, err error) {
	list, err := c.Clientset.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("kube: list servicecidrs.networking.k8s.io: %w", err)
	}
	for i := range list.Items {
		cidrs = append(cidrs, rangesOf(&list.Items[i])...)
	}
	return cidrs, list.ResourceVersion, nil
}

func rangesOf(s *networkingv1.ServiceCIDR) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range s.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil { // the API server has checked it
			out = append(out, p.Masked())
		}
	}
	return out
}

// Bounds of the time until a watch that ended is begun again.
const (
	firstWatchDelay = time.Second
	lastWatchDelay  = 5 * time.Minute
)

// WatchServiceCIDRs calls each with the ranges of service addresses, and again whenever they
// change, until ctx ends. A server that does not have the kind (Kubernetes before 1.33), or
// does not let us read it, is an error at once; other failures are healed, and waited out.
func (c *Client) WatchServiceCIDRs(ctx context.Context, each func([]netip.Prefix)) error {
	delay := firstWatchDelay
	for {
		cidrs, rev, err := c.ServiceCIDRs(ctx)
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			return err
		}
		if err == nil {
			each(cidrs)
			if c.awaitServiceCIDR(ctx, rev) {
				delay = firstWatchDelay
				continue
			}
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		delay = min(2*delay, lastWatchDelay)
	}
}

// awaitServiceCIDR waits until one of the objects changes; false: the watch broke. There are
// one or two of them, so what changed is found by listing them again.
func (c *Client) awaitServiceCIDR(ctx context.Context, rev string) bool {
	w, err := c.Clientset.NetworkingV1().ServiceCIDRs().Watch(ctx, metav1.ListOptions{ResourceVersion: rev, AllowWatchBookmarks: true})
	if err != nil {
		return false
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case e, ok := <-w.ResultChan():
			switch {
			case !ok || e.Type == watch.Error:
				return false
			case e.Type != watch.Bookmark:
				return true
			}
		}
	}
}
