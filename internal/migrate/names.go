package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// tierPrefix is what older versions put before the names of policies of the default tier.
const tierPrefix = v3.DefaultTier + "."

// Rename is a policy that was stored under an older name.
type Rename struct {
	Kind      model.Kind
	Namespace string // empty: none
	From, To  string
	// Twice says that it was stored under the new name already, and only the older one had
	// to go.
	Twice bool
}

// RenamePolicies gives policies of the default tier the names by which users know them: older
// versions stored them with "default." before it. A policy that says itself what it is called,
// as newer versions store it, keeps that name. It goes on after an error and returns what was
// done beside it; doing it again does the rest. A policy of which both names are taken by
// policies that differ is an error, and both stay.
func RenamePolicies(ctx context.Context, in Datastore) ([]Rename, error) {
	var done []Rename
	var failed []error
	kinds := []model.Kind{
		model.KindNetworkPolicy, model.KindGlobalNetworkPolicy, model.KindStagedNetworkPolicy, model.KindStagedGlobalNetworkPolicy,
	}
	for _, kind := range kinds {
		objects, err := in.Store.List(ctx, kind, "")
		if errors.Is(err, store.ErrNoKind) {
			continue
		}
		if err != nil && !errors.Is(err, store.ErrUnreadable) {
			return done, fmt.Errorf("migrate: policy names: %w", errors.Join(append(failed, err)...))
		}
		if err != nil {
			failed = append(failed, err)
		}
		for _, o := range objects {
			from, to, ok := oldName(o, in.Kubernetes)
			if !ok {
				continue
			}
			r, err := rename(ctx, in.Store, o, from, to, objects)
			if err != nil {
				failed = append(failed, fmt.Errorf("%s %s to %s: %w", strings.ToLower(string(kind)), from, to, err))
				continue
			}
			done = append(done, r)
		}
	}
	if len(failed) > 0 {
		return done, fmt.Errorf("migrate: policy names: %w", errors.Join(failed...))
	}
	return done, nil
}

// oldName is the name under which a policy is stored and the one it should have, if they
// differ.
func oldName(o store.Object, kubernetes bool) (from, to string, old bool) {
	var stored struct {
		APIVersion string
		Metadata   struct {
			Name        string
			Annotations map[string]string
		}
		Spec struct{ Tier string }
	}
	if json.Unmarshal(o.Raw(), &stored) != nil || kubernetes && stored.APIVersion == v3.APIVersion {
		return "", "", false // in the API group of v3 names are what users see
	}
	from = stored.Metadata.Name
	to, old = strings.CutPrefix(from, tierPrefix)
	if !old || to == "" || stored.Spec.Tier != "" && stored.Spec.Tier != v3.DefaultTier {
		return "", "", false
	}
	var said struct{ Name string }
	if json.Unmarshal([]byte(stored.Metadata.Annotations[metadataAnnotation]), &said) == nil && said.Name != "" {
		to = said.Name
	}
	return from, to, from != to
}

// rename moves one policy: the new one is there before the old one goes.
func rename(ctx context.Context, s store.Store, o store.Object, from, to string, all []store.Object) (Rename, error) {
	fresh := copyOf(o.Object)
	fresh.Meta().Name = to
	k := keyOf(fresh)
	r := Rename{Kind: k.Kind, Namespace: k.Namespace, From: from, To: to}
	at := slices.IndexFunc(all, func(other store.Object) bool {
		return other.Object.Meta().Namespace == k.Namespace && storedName(other) == to
	})
	if at >= 0 {
		if d := differences("", anyOf(canonical(fresh)), anyOf(canonical(all[at].Object))); len(d) > 0 {
			return r, fmt.Errorf("there is a policy of that name, and its %s is another: delete one of both", d[0].Path)
		}
		r.Twice = true
	}
	remove := store.Op{Verb: store.Delete, Object: o}
	if r.Twice {
		_, err := s.Commit(ctx, remove)
		return r, err
	}
	// One after the other: not every datastore does both or neither, and between the two
	// there are only two policies that say the same.
	stripped(fresh)
	v3.Default(fresh)
	if _, err := s.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(fresh)}); err != nil {
		return r, err
	}
	_, err := s.Commit(ctx, remove)
	return r, err
}

// storedName is the name that an object is stored under.
func storedName(o store.Object) string {
	var stored struct{ Metadata struct{ Name string } }
	if json.Unmarshal(o.Raw(), &stored) != nil {
		return ""
	}
	return stored.Metadata.Name
}
