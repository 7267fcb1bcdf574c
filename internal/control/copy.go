package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/model"
)

// policies copies NetworkPolicy as knp.default.NAME.
func (t *term) policies(g guard, from *feed) *mirror {
	return &mirror{
		guard: g, from: from, kind: model.KindNetworkPolicy, what: "network policies",
		want: func(o any) (v3.Object, error) {
			p := o.(*networkingv1.NetworkPolicy)
			spec, err := json.Marshal(p.Spec)
			if err != nil {
				return nil, err
			}
			made, err := want.Policy(p.Namespace, p.Name, spec)
			if made == nil {
				return nil, err
			}
			return made, err
		},
		source: func(o v3.Object) (string, bool) {
			name, ours := strings.CutPrefix(o.Meta().Name, want.PolicyPrefix)
			return o.Meta().Namespace + "/" + name, ours
		},
		key: func(source string) model.Key {
			namespace, name, _ := strings.Cut(source, "/")
			return model.Key{Kind: model.KindNetworkPolicy, Namespace: namespace, Name: want.PolicyPrefix + name}
		},
		exists: func(ctx context.Context, source string) (bool, error) {
			namespace, name, _ := strings.Cut(source, "/")
			_, err := t.Clientset.NetworkingV1().NetworkPolicies(namespace).Get(ctx, name, metav1.GetOptions{})
			return isThere(err, networkPolicies, source)
		},
	}
}

// namespaceProfiles makes the profile kns.NAME of each namespace.
func (t *term) namespaceProfiles(g guard, from *feed) *mirror {
	return &mirror{
		guard: g, from: from, kind: model.KindProfile, what: "namespaces",
		want: func(o any) (v3.Object, error) {
			n := o.(*corev1.Namespace)
			return want.NamespaceProfile(n.Name, n.Labels), nil
		},
		source: func(o v3.Object) (string, bool) { return strings.CutPrefix(o.Meta().Name, want.NamespacePrefix) },
		key: func(source string) model.Key {
			return model.Key{Kind: model.KindProfile, Name: want.NamespacePrefix + source}
		},
		exists: func(ctx context.Context, source string) (bool, error) {
			_, err := t.Clientset.CoreV1().Namespaces().Get(ctx, source, metav1.GetOptions{})
			return isThere(err, namespaces, source)
		},
	}
}

// accountProfiles makes the profile ksa.NAMESPACE.NAME of each service account. A
// namespace has no dots in its name.
func (t *term) accountProfiles(g guard, from *feed) *mirror {
	return &mirror{
		guard: g, from: from, kind: model.KindProfile, what: "service accounts",
		want: func(o any) (v3.Object, error) {
			a := o.(*corev1.ServiceAccount)
			return want.AccountProfile(a.Namespace, a.Name, a.Labels), nil
		},
		source: func(o v3.Object) (string, bool) {
			rest, ours := strings.CutPrefix(o.Meta().Name, want.AccountPrefix)
			namespace, name, dotted := strings.Cut(rest, ".")
			return namespace + "/" + name, ours && dotted
		},
		key: func(source string) model.Key {
			namespace, name, _ := strings.Cut(source, "/")
			return model.Key{Kind: model.KindProfile, Name: want.AccountPrefix + namespace + "." + name}
		},
		exists: func(ctx context.Context, source string) (bool, error) {
			namespace, name, _ := strings.Cut(source, "/")
			_, err := t.Clientset.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
			return isThere(err, serviceAccounts, source)
		},
	}
}

// isThere is whether an object exists by the error of a live read of it: one without a
// resource version, which the API server answers from its store.
func isThere(err error, what resource, name string) (bool, error) {
	isGone, err := gone(err)
	if err != nil {
		return false, fmt.Errorf("read %s %s: %w", what, name, oneLine(err))
	}
	return !isGone, nil
}
