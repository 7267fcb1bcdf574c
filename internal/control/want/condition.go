package want

import (
	"slices"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// Finalizers that Calico's controllers put on objects begin with this: whoever takes a
// cluster over must take them off, or the objects never go.
const FinalizerPrefix = "projectcalico.org/"

// Condition is what an object's status says in one respect.
type Condition struct {
	Type            string // of the condition: Allocatable, Ready
	Holds           bool
	Reason, Message string // one word; for people
}

// PoolCondition is the condition Allocatable of a pool: whether new addresses are taken
// from it, by the reasons that Calico gives. pools are all.
func PoolCondition(p model.Pool, pools []model.Pool) Condition {
	c := Condition{Type: "Allocatable"}
	lost := slices.IndexFunc(ipam.Overlaps(pools), func(l model.Problem) bool { return l.Key == p.Key() })
	switch {
	case p.Terminating:
		c.Reason, c.Message = "Terminating", "the pool is being deleted"
	case p.Disabled:
		c.Reason, c.Message = "PoolDisabled", "spec.disabled is true"
	case lost >= 0:
		c.Reason, c.Message = "CIDROverlap", ipam.Overlaps(pools)[lost].Text
	default:
		c.Holds, c.Reason, c.Message = true, "OK", "addresses are taken from the pool"
	}
	return c
}

// TierCondition is the condition Ready of a tier that has so many policies.
func TierCondition(deleting bool, policies int) Condition {
	c := Condition{Type: "Ready", Holds: true, Reason: "OK", Message: "policies of the tier are in force"}
	if deleting {
		c.Holds, c.Reason, c.Message = false, "Terminating", "the tier goes when it has no policies any more"
		if policies == 0 {
			c.Message = "the tier is being deleted"
		}
	}
	return c
}
