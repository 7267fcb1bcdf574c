package kube

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// DaemonSetOf is the name of the DaemonSet that a pod belongs to; empty: to none.
func (c *Client) DaemonSetOf(ctx context.Context, namespace, pod string) (string, error) {
	p, err := c.Clientset.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("kube: read pod %s/%s: %w", namespace, pod, err)
	}
	if o := metav1.GetControllerOf(p); o != nil && o.Kind == "DaemonSet" {
		return o.Name, nil
	}
	return "", nil
}

// Leaves tells why no pod of the DaemonSet will be on the node again: it was deleted, or does
// not choose the node any more. Empty: one will, as after a rolling update. With an error
// nobody knows.
func (c *Client) Leaves(ctx context.Context, namespace, daemonSet, node string) (string, error) {
	d, err := c.Clientset.AppsV1().DaemonSets(namespace).Get(ctx, daemonSet, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("DaemonSet %s/%s is deleted", namespace, daemonSet), nil
	case err != nil:
		return "", fmt.Errorf("kube: read daemonset %s/%s: %w", namespace, daemonSet, err)
	case d.DeletionTimestamp != nil:
		return fmt.Sprintf("DaemonSet %s/%s is being deleted", namespace, daemonSet), nil
	}
	n, err := c.Node(ctx, node)
	if err != nil {
		return "", err
	}
	if !chooses(d, n) {
		return fmt.Sprintf("DaemonSet %s/%s does not choose node %s any more", namespace, daemonSet, node), nil
	}
	return "", nil
}

// chooses reports whether d wants a pod on n, by node selector and required affinity; taints
// come and go, and say nothing about what is meant for good. What can't be read chooses.
func chooses(d *appsv1.DaemonSet, n *corev1.Node) bool {
	spec := d.Spec.Template.Spec
	if !labels.SelectorFromSet(spec.NodeSelector).Matches(labels.Set(n.Labels)) {
		return false
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil || spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	// Terms are alternatives; requirements of a term all hold.
	return slices.ContainsFunc(spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		if len(t.MatchExpressions)+len(t.MatchFields) == 0 {
			return false // as the scheduler has it
		}
		return allMatch(t.MatchExpressions, n.Labels) && allMatch(t.MatchFields, labels.Set{metav1.ObjectNameField: n.Name})
	})
}

func allMatch(list []corev1.NodeSelectorRequirement, of labels.Set) bool {
	operators := map[corev1.NodeSelectorOperator]selection.Operator{
		corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
		corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
		corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
	}
	for _, r := range list {
		q, err := labels.NewRequirement(r.Key, operators[r.Operator], r.Values)
		if err == nil && !q.Matches(of) {
			return false
		}
	}
	return true
}
