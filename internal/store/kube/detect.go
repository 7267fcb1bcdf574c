package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// presence is what a group version serves, and when that was asked.
type presence struct {
	served []string
	at     time.Time
}

// resourcesOf asks which resources a group version serves: "ippools", "tiers/status". None
// where there is no such group.
func (s *Store) resourcesOf(ctx context.Context, path string) ([]string, error) {
	raw, err := text(s.rest.Get().AbsPath(path).Do(ctx))
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, unfollowed("read", resource{path: path, plural: path}, err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read %s: answer of the API server: %w", path, oneLine(err))
	}
	var names []string
	for _, r := range list.APIResources {
		names = append(names, r.Name)
	}
	return names, nil
}

// installed reports whether a resource is served. The answer may be as old as s.absent
// when it is no: all kinds of a group that are missing are looked for in one request.
func (s *Store) installed(ctx context.Context, r resource) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.presence[r.path]
	if slices.Contains(known.served, r.plural) {
		return true, nil
	}
	if !ok || s.now().Sub(known.at) >= s.absent*9/10 {
		served, err := s.resourcesOf(ctx, r.path)
		if err != nil {
			return false, err
		}
		known = presence{served, s.now()}
		s.presence[r.path] = known
	}
	return slices.Contains(known.served, r.plural), nil
}

// forget says that a resource was found not to be served.
func (s *Store) forget(r resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.presence[r.path]
	known.served = slices.DeleteFunc(slices.Clone(known.served), func(name string) bool { return name == r.plural })
	s.presence[r.path] = known
}

// detect chooses the group. Where a cluster is in the legacy group, that is used as it is.
func (s *Store) detect(ctx context.Context, asked Group) error {
	served := map[Group][]string{}
	for _, g := range []Group{Native, Legacy} {
		if asked != "" && g != asked {
			continue
		}
		names, err := s.resourcesOf(ctx, "/apis/"+string(g))
		if err != nil {
			return err
		}
		served[g] = names
	}
	group := asked
	if group == "" {
		var err error
		if group, err = s.choose(ctx, served); err != nil {
			return err
		}
	}
	if err := complete(group, served[group]); err != nil {
		return err
	}
	s.group, s.served = group, served[group]
	s.presence["/apis/"+string(group)] = presence{served[group], s.now()}
	return nil
}

// choose finds the group that holds the cluster.
func (s *Store) choose(ctx context.Context, served map[Group][]string) (Group, error) {
	ids := map[Group]string{}
	for g, names := range served {
		if !slices.Contains(names, "clusterinformations") {
			continue
		}
		id, err := s.clusterID(ctx, g)
		if err != nil {
			return "", err
		}
		ids[g] = id
	}
	legacy, native := ids[Legacy], ids[Native]
	switch {
	case legacy != "" && native != "" && legacy != native:
		return "", fmt.Errorf("%s and %s hold different clusters (clusterGUID %s and %s): set CALICO_API_GROUP to the one to use, or delete the ClusterInformation of the other", Legacy, Native, legacy, native)
	case legacy != "":
		return Legacy, nil // the native group may be Calico's API server in front of it
	case native != "" || len(served[Native]) > 0:
		return Native, nil
	case len(served[Legacy]) > 0:
		return Legacy, nil
	}
	return Native, nil
}

// clusterID is the GUID of the cluster in a group; empty if there is none. One without a
// GUID is called so.
func (s *Store) clusterID(ctx context.Context, g Group) (string, error) {
	r := g.customResource(model.KindClusterInformation)
	raw, err := text(s.rest.Get().AbsPath(r.in(""), "default").Do(ctx))
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", unfollowed("get", r, err)
	}
	var o struct{ Spec struct{ ClusterGUID string } }
	if err := json.Unmarshal(raw, &o); err != nil {
		return "", fmt.Errorf("read %s default: %w", r.crd(), oneLine(err))
	}
	if o.Spec.ClusterGUID == "" {
		return "none", nil
	}
	return o.Spec.ClusterGUID, nil
}

// complete refuses a group of which resources are missing that no cluster can be without.
func complete(g Group, served []string) error {
	var missing []string
	needed := 0
	for _, kind := range append(customKinds(), model.KindIPAMConfig) {
		r := g.customResource(kind)
		if r.optional || kind == model.KindIPAMConfiguration {
			continue
		}
		needed++
		if !slices.Contains(served, r.plural) {
			missing = append(missing, r.crd())
		}
	}
	slices.Sort(missing)
	switch {
	case len(missing) == 0:
		return nil
	case len(missing) == needed:
		return fmt.Errorf("no CRD of %s is installed: apply the CRDs that come with weft (deploy/crds), or set CALICO_API_GROUP if Calico's kinds are in another group", g.name())
	}
	return fmt.Errorf("the CRDs of %s are installed in part: missing are %s: apply all CRDs that come with weft (deploy/crds)", g.name(), strings.Join(missing, ", "))
}
