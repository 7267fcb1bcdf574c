package kube

import (
	"context"
	"errors"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// profiles are the namespaces, as kns.NAMESPACE, and the service accounts, as
// ksa.NAMESPACE.NAME. They are only read.
type profiles struct{ *Store }

// What the names of profiles, and the labels that they give, begin with.
const (
	namespacePrefix, namespaceLabel = "kns.", "pcns."
	accountPrefix, accountLabel     = "ksa.", "pcsa."
	labelName                       = "projectcalico.org/name"
)

func namespaceResource() resource { return resource{path: "/api/v1", plural: "namespaces"} }

func accountResource() resource {
	return resource{path: "/api/v1", plural: "serviceaccounts", namespaced: true}
}

// namespaceProfile is the profile of a namespace: its labels, and what is allowed where no
// policy selects a pod, which is everything.
func namespaceProfile(m *metav1.ObjectMeta) *v3.Profile {
	p := profileOf(m, namespacePrefix+m.Name, namespaceLabel)
	p.Spec.Ingress, p.Spec.Egress = []v3.Rule{{Action: v3.ActionAllow}}, []v3.Rule{{Action: v3.ActionAllow}}
	return p
}

// accountProfile is the profile of a service account: labels and no rules.
func accountProfile(m *metav1.ObjectMeta) *v3.Profile {
	return profileOf(m, accountPrefix+m.Namespace+"."+m.Name, accountLabel)
}

func profileOf(m *metav1.ObjectMeta, name, prefix string) *v3.Profile {
	fresh, _ := v3.New("Profile")
	p := fresh.(*v3.Profile)
	p.Name, p.UID, p.ResourceVersion, p.CreationTimestamp = name, m.UID, m.ResourceVersion, m.CreationTimestamp
	p.Spec.LabelsToApply = make(map[string]string, len(m.Labels)+1)
	for k, v := range m.Labels {
		p.Spec.LabelsToApply[prefix+k] = v
	}
	p.Spec.LabelsToApply[prefix+labelName] = m.Name
	return p
}

// get implements backend.
func (p profiles) get(ctx context.Context, k model.Key) (store.Object, error) {
	if err := checkName("name", k.Name); err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	if name, ok := strings.CutPrefix(k.Name, namespacePrefix); ok && name != "" {
		ns, err := p.client.Clientset.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return store.Object{}, about(k, namespaceResource(), err)
		}
		return store.New(namespaceProfile(&ns.ObjectMeta)), nil
	}
	// Neither namespaces nor their names have a dot: what follows it is the account's.
	rest, ok := strings.CutPrefix(k.Name, accountPrefix)
	namespace, name, whole := strings.Cut(rest, ".")
	if !ok || !whole || namespace == "" || name == "" {
		return store.Object{}, &store.Error{Key: k, Err: store.ErrNotFound}
	}
	sa, err := p.client.Clientset.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return store.Object{}, about(k, accountResource(), err)
	}
	return store.New(accountProfile(&sa.ObjectMeta)), nil
}

// list implements backend.
func (p profiles) list(ctx context.Context, _ string) ([]store.Object, []error, error) {
	spaces, err := p.client.Clientset.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, translated(namespaceResource(), err)
	}
	accounts, err := p.client.Clientset.CoreV1().ServiceAccounts(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, translated(accountResource(), err)
	}
	var out []store.Object
	for i := range spaces.Items {
		out = append(out, store.New(namespaceProfile(&spaces.Items[i].ObjectMeta)))
	}
	for i := range accounts.Items {
		out = append(out, store.New(accountProfile(&accounts.Items[i].ObjectMeta)))
	}
	slices.SortFunc(out, func(a, b store.Object) int { return strings.Compare(a.Meta().Name, b.Meta().Name) })
	return out, nil, nil
}

// write implements backend.
func (p profiles) write(_ context.Context, _ store.Op, k model.Key) (store.Object, error) {
	return store.Object{}, &store.Error{Key: k, Err: refusedError{store.ErrRefused, errors.New("in Kubernetes profiles are the namespaces and service accounts: change those")}}
}

// sources implements backend.
func (p profiles) sources() []source {
	core := p.client.Clientset.CoreV1()
	convert := func(o *v3.Profile) found {
		return parsed(model.Key{Kind: model.KindProfile, Name: o.Name}, o)
	}
	return []source{
		{
			name: "namespaces", resource: namespaceResource(), expected: &corev1.Namespace{},
			lister:  typedLister[*corev1.NamespaceList]{core.Namespaces()},
			convert: func(obj any) found { return convert(namespaceProfile(&obj.(*corev1.Namespace).ObjectMeta)) },
		},
		{
			name: "serviceaccounts", resource: accountResource(), expected: &corev1.ServiceAccount{},
			lister:  typedLister[*corev1.ServiceAccountList]{core.ServiceAccounts(metav1.NamespaceAll)},
			convert: func(obj any) found { return convert(accountProfile(&obj.(*corev1.ServiceAccount).ObjectMeta)) },
		},
	}
}
