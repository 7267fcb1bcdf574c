package edit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// checkRules are the rules for writing o that need other objects, or the one before; before is
// nil when o is new.
func (e *Editor) checkRules(ctx context.Context, before, o v3.Object) error {
	if before != nil {
		if err := v3.ValidateUpdate(before, o); err != nil {
			return &fixed{err}
		}
	}
	if tier := v3.TierOf(o); tier != "" && (before == nil || v3.TierOf(before) != tier) {
		there, err := e.isThere(ctx, tierKey(tier))
		if err != nil {
			return err
		}
		if !there {
			return missing(o, tierKey(tier), v3.CheckTier(o, func(string) bool { return false }))
		}
	}
	switch o := o.(type) {
	case *v3.IPPool:
		if before == nil {
			return e.checkOverlap(ctx, o)
		}
	case *v3.BGPPeer:
		return e.checkFilters(ctx, o)
	}
	return nil
}

// fixed is an error of v3.ValidateUpdate; it is ErrFixed.
type fixed struct{ error }

func (*fixed) Is(target error) bool { return target == ErrFixed }

func (f *fixed) Unwrap() error { return f.error }

// missing is the error of o, which names other; err says so in words.
func missing(o v3.Object, other model.Key, err error) error {
	text := err.Error()
	if one := v3.FieldErrors(err); len(one) > 0 {
		text = fmt.Sprintf("%s: %s: %s", one[0].Field, one[0].Value, one[0].Reason)
	}
	return &RuleError{Rule: ErrMissing, Object: o, Other: &other, Text: text}
}

// isThere reports whether there is an object k, or would be in a dry run.
func (e *Editor) isThere(ctx context.Context, k model.Key) (bool, error) {
	e.mu.Lock()
	there := e.there[k]
	e.mu.Unlock()
	if there || e.DryRun && k.Kind == model.KindTier && isBuiltinTier(k.Name) {
		return true, nil
	}
	switch _, err := e.store.Get(ctx, k); {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil && !errors.Is(err, store.ErrUnreadable):
		return false, err
	}
	e.remember(k, nil)
	return true, nil
}

func isBuiltinTier(name string) bool {
	return slices.ContainsFunc(v3.BuiltinTiers(), func(t *v3.Tier) bool { return t.Name == name })
}

// remember notes that there is an object k, which is o.
func (e *Editor) remember(k model.Key, o v3.Object) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.there[k] = true
	if pool, ok := o.(*v3.IPPool); ok && e.pools != nil {
		e.pools = append(e.pools, pool)
	}
}

// forget notes that there may be no object k any more.
func (e *Editor) forget(k model.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.there, k)
	e.pools = nil
}

// checkOverlap refuses a new pool that has addresses of another.
func (e *Editor) checkOverlap(ctx context.Context, o *v3.IPPool) error {
	cidr, err := netip.ParsePrefix(o.Spec.CIDR)
	if err != nil {
		return fmt.Errorf("%s: spec.cidr: %w", v3.Describe(o), err)
	}
	pools, err := e.allPools(ctx)
	if err != nil {
		return err
	}
	for _, other := range pools {
		theirs, err := netip.ParsePrefix(other.Spec.CIDR)
		if err != nil || other.Name == o.Name || !theirs.Overlaps(cidr) {
			continue
		}
		k := model.Key{Kind: model.KindIPPool, Name: other.Name}
		return &RuleError{
			Rule: ErrOverlap, Object: o, Other: &k,
			Text: fmt.Sprintf("spec.cidr: %q: must not overlap with ippool %s, which has %s", o.Spec.CIDR, other.Name, other.Spec.CIDR),
		}
	}
	return nil
}

// allPools are the pools that there are, or would be in a dry run.
func (e *Editor) allPools(ctx context.Context) ([]*v3.IPPool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pools != nil {
		return slices.Clone(e.pools), nil
	}
	objects, err := e.store.List(ctx, model.KindIPPool, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return nil, err
	}
	e.pools = []*v3.IPPool{}
	for _, o := range objects {
		if pool, ok := o.Object.(*v3.IPPool); ok {
			e.pools = append(e.pools, pool)
		}
	}
	return slices.Clone(e.pools), nil
}

// checkFilters refuses a peer whose filters do not exist.
func (e *Editor) checkFilters(ctx context.Context, o *v3.BGPPeer) error {
	for i, name := range o.Spec.Filters {
		k := model.Key{Kind: model.KindBGPFilter, Name: name}
		there, err := e.isThere(ctx, k)
		if err != nil {
			return err
		}
		if !there {
			return missing(o, k, &v3.FieldError{
				Field: fmt.Sprintf("spec.filters[%d]", i), Value: fmt.Sprintf("%q", name),
				Reason: "must be a BGPFilter that exists: make the filter first",
			})
		}
	}
	return nil
}

// checkDelete are the rules for deleting o.
func (e *Editor) checkDelete(ctx context.Context, o v3.Object) error {
	if err := v3.CheckWritable(o); err != nil {
		return &readOnly{err}
	}
	t, ok := o.(*v3.Tier)
	if !ok {
		return nil
	}
	if isBuiltinTier(t.Name) {
		return &RuleError{Rule: ErrBuiltIn, Object: o, Text: "built in: every cluster has this tier, it can't be deleted"}
	}
	policies, err := e.policiesOf(ctx, t.Name)
	if err != nil || len(policies) == 0 {
		return err
	}
	const some = 3 // that are named
	names := make([]string, 0, some+1)
	for _, p := range policies[:min(some, len(policies))] {
		names = append(names, v3.Describe(p))
	}
	if more := len(policies) - some; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	k, _ := model.KeyOf(policies[0])
	return &RuleError{
		Rule: ErrInUse, Object: o, Other: &k,
		Text: "in use: delete or move its policies first: " + strings.Join(names, ", "),
	}
}

// policiesOf are the policies in a tier.
func (e *Editor) policiesOf(ctx context.Context, tier string) ([]v3.Object, error) {
	var out []v3.Object
	for _, kind := range []model.Kind{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"} {
		objects, err := e.store.List(ctx, kind, "")
		if err != nil && !errors.Is(err, store.ErrNoKind) {
			return nil, err // one that can't be read may be in the tier
		}
		for _, o := range objects {
			if v3.TierOf(o.Object) == tier {
				out = append(out, o.Object)
			}
		}
	}
	return out, nil
}
