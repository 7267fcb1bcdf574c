package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// conditionsName is that of the loop that keeps conditions; it is no controller that
// users choose.
const conditionsName = "conditions"

// conditions keeps the conditions of pools and tiers, and takes finalizers off that
// Calico's controllers left, when nothing depends on the object any more. Where the
// datastore is etcd nobody reads conditions, and there are no finalizers.
func (t *term) conditions() controller {
	return controller{name: conditionsName, run: func(ctx context.Context) error {
		kick := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for batch, err := range t.store.Watch(ctx, model.KindIPPool, model.KindTier) {
				if err != nil || batch.Empty() {
					continue
				}
				select {
				case kick <- struct{}{}:
				default:
				}
			}
		}()
		defer func() { cancel(); <-done }()
		return t.loop(ctx, conditionsName, kick, func(ctx context.Context, _ bool) error {
			return errors.Join(t.tendPools(ctx), t.tendTiers(ctx))
		}, func() []string { return nil })
	}}
}

// tendPools writes the condition Allocatable.
func (t *term) tendPools(ctx context.Context) error {
	objects, err := t.store.List(ctx, model.KindIPPool, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return err
	}
	var pools []model.Pool
	for _, o := range objects {
		if v, err := model.Parse(o.Object); err == nil {
			pools = append(pools, v.(model.Pool))
		}
	}
	var writes []write
	var errs []error
	for _, o := range objects {
		p, ok := o.Object.(*v3.IPPool)
		i := slices.IndexFunc(pools, func(m model.Pool) bool { return m.Name == p.Name })
		if !ok || i < 0 {
			continue
		}
		if p.DeletionTimestamp != nil && len(p.Finalizers) > 0 {
			errs = append(errs, t.letPoolGo(ctx, p, pools[i], pools))
			continue
		}
		next := *p
		next.Status = &v3.IPPoolStatus{}
		if p.Status != nil {
			*next.Status = *p.Status
		}
		var changed bool
		next.Status.Conditions, changed = withCondition(next.Status.Conditions, want.PoolCondition(pools[i], pools), metav1.NewTime(t.now()))
		if changed {
			writes = append(writes, write{p.Name, store.Op{Verb: store.Update, Object: o.With(&next)}})
		}
	}
	return errors.Join(append(errs, t.commit(ctx, writes))...)
}

// letPoolGo takes the finalizers off a pool of which no address is in use, but in blocks
// that other pools hold: those a pool was split into.
func (t *term) letPoolGo(ctx context.Context, p *v3.IPPool, pool model.Pool, pools []model.Pool) error {
	blocks, unreadable, err := readBlocks(ctx, t.store)
	if err != nil || unreadable {
		return err
	}
	for _, b := range blocks {
		elsewhere := slices.ContainsFunc(pools, func(other model.Pool) bool {
			return other.Name != pool.Name && !other.Terminating && other.CIDR.Bits() <= b.CIDR.Bits() && other.CIDR.Contains(b.CIDR.Addr())
		})
		if pool.CIDR.Overlaps(b.CIDR) && ipam.InUse(b) > 0 && !elsewhere {
			return nil
		}
	}
	return t.letGo(ctx, "ippools", p.Name)
}

// tendTiers writes the condition Ready.
func (t *term) tendTiers(ctx context.Context) error {
	objects, err := t.store.List(ctx, model.KindTier, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return err
	}
	var writes []write
	var errs []error
	for _, o := range objects {
		tier, ok := o.Object.(*v3.Tier)
		if !ok {
			continue
		}
		deleting := tier.DeletionTimestamp != nil
		policies := 0
		if deleting {
			if policies, err = t.policiesOf(ctx, tier.Name); err != nil {
				errs = append(errs, err)
				continue
			}
			if policies == 0 && len(tier.Finalizers) > 0 {
				errs = append(errs, t.letGo(ctx, "tiers", tier.Name))
				continue
			}
		}
		next := *tier
		var changed bool
		next.Status.Conditions, changed = withCondition(tier.Status.Conditions, want.TierCondition(deleting, policies), metav1.NewTime(t.now()))
		if changed {
			writes = append(writes, write{tier.Name, store.Op{Verb: store.Update, Object: o.With(&next)}})
		}
	}
	return errors.Join(append(errs, t.commit(ctx, writes))...)
}

// policiesOf counts the policies of a tier.
func (t *term) policiesOf(ctx context.Context, tier string) (int, error) {
	n := 0
	for _, kind := range []model.Kind{
		model.KindNetworkPolicy, model.KindGlobalNetworkPolicy, model.KindStagedNetworkPolicy, model.KindStagedGlobalNetworkPolicy,
	} {
		objects, err := t.store.List(ctx, kind, "")
		if err != nil {
			return 0, err // one that can't be read may be of the tier
		}
		for _, o := range objects {
			v, err := model.Parse(o.Object)
			if p, ok := v.(model.Policy); err != nil || ok && p.Tier == tier {
				n++
			}
		}
	}
	return n, nil
}

// letGo takes Calico's finalizers off an object that is being deleted. The store leaves
// finalizers alone, so this is a request of its own.
func (t *term) letGo(ctx context.Context, plural, name string) error {
	if t.Raw == nil {
		return nil
	}
	var errs []error
	for _, group := range []string{"projectcalico.org/v3", "crd.projectcalico.org/v1"} {
		path := "/apis/" + group + "/" + plural + "/" + name
		text, err := t.Raw.Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
		if apierrors.IsNotFound(err) {
			continue
		}
		var fields map[string]any
		if err == nil {
			err = json.Unmarshal(text, &fields)
		}
		if err == nil && dropFinalizers(fields) {
			text, err = json.Marshal(fields)
			if err == nil {
				err = t.Raw.Put().AbsPath(path).SetHeader("Accept", "application/json").SetHeader("Content-Type", "application/json").Body(text).Do(ctx).Error()
			}
			if err == nil {
				t.log.Info("let an object go that was being deleted", "object", plural+"/"+name)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take finalizers off %s/%s: %w", plural, name, oneLine(err)))
		}
	}
	return errors.Join(errs...)
}

// dropFinalizers takes Calico's finalizers off an object, if it is being deleted, and
// reports whether there were any.
func dropFinalizers(fields map[string]any) bool {
	m, _ := fields["metadata"].(map[string]any)
	list, _ := m["finalizers"].([]any)
	rest := slices.DeleteFunc(slices.Clone(list), func(f any) bool {
		text, _ := f.(string)
		return strings.HasPrefix(text, want.FinalizerPrefix)
	})
	if m["deletionTimestamp"] == nil || len(rest) == len(list) {
		return false
	}
	m["finalizers"] = rest
	return true
}

// withCondition is conditions with c in the place of that of its type, and whether that
// says anything new. The time of a change is now; conditions is not changed.
func withCondition(conditions []metav1.Condition, c want.Condition, now metav1.Time) ([]metav1.Condition, bool) {
	next := metav1.Condition{Type: c.Type, Status: metav1.ConditionFalse, Reason: c.Reason, Message: c.Message, LastTransitionTime: now}
	if c.Holds {
		next.Status = metav1.ConditionTrue
	}
	out := slices.Clone(conditions)
	i := slices.IndexFunc(out, func(x metav1.Condition) bool { return x.Type == c.Type })
	if i < 0 {
		return append(out, next), true
	}
	old := out[i]
	if old.Status == next.Status && old.Reason == next.Reason && old.Message == next.Message {
		return conditions, false
	}
	if old.Status == next.Status {
		next.LastTransitionTime = old.LastTransitionTime
	}
	next.ObservedGeneration = old.ObservedGeneration
	out[i] = next
	return out, true
}
