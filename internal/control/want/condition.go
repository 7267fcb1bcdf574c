package want

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// Finalizers that Calico's controllers put on objects begin with this: whoever takes a
// cluster over must take them off, or the objects never go.
const FinalizerPrefix = "projectcalico.org/"

// PoolCondition is the condition Allocatable of a pool: whether new addresses are taken
// from it, by the reasons that Calico gives. pools are all. Its time is not set.
func PoolCondition(p model.Pool, pools []model.Pool) metav1.Condition {
	c := metav1.Condition{Type: "Allocatable", Status: metav1.ConditionFalse}
	lost := slices.IndexFunc(ipam.Overlaps(pools), func(l model.Problem) bool { return l.Key == p.Key() })
	switch {
	case p.Terminating:
		c.Reason, c.Message = "Terminating", "the pool is being deleted"
	case p.Disabled:
		c.Reason, c.Message = "PoolDisabled", "spec.disabled is true"
	case lost >= 0:
		c.Reason, c.Message = "CIDROverlap", ipam.Overlaps(pools)[lost].Text
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, "OK", "addresses are taken from the pool"
	}
	return c
}

// TierCondition is the condition Ready of a tier that has so many policies.
func TierCondition(deleting bool, policies int) metav1.Condition {
	c := metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "OK", Message: "policies of the tier are in force"}
	if deleting {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "Terminating", "the tier goes when it has no policies any more"
		if policies == 0 {
			c.Message = "the tier is being deleted"
		}
	}
	return c
}

// WithCondition is conditions with c in the place of that of its type, and whether that
// says anything new. The time of a change is now; conditions is not changed.
func WithCondition(conditions []metav1.Condition, c metav1.Condition, now metav1.Time) ([]metav1.Condition, bool) {
	out := slices.Clone(conditions)
	i := slices.IndexFunc(out, func(x metav1.Condition) bool { return x.Type == c.Type })
	c.LastTransitionTime = now
	if i < 0 {
		return append(out, c), true
	}
	old := out[i]
	if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
		return conditions, false
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	c.ObservedGeneration = old.ObservedGeneration
	out[i] = c
	return out, true
}
