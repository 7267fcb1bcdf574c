package policy

import (
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// List is everything that judges an endpoint in a stage and direction.
// Endpoints with equal lists share a list chain.
type List struct {
	Host      bool
	Stage     Stage
	Direction Direction
	Tiers     []TierList       // of that stage and direction
	Profiles  []*model.Profile // of stage Normal only
}

// Name is the name of the list's chain: a hash of what the list is made of, by
// keys, not by content. At most 31 bytes.
func (l List) Name() string { panic("soon") }

// Class is the list as a value of the maps of classes: at most 15 bytes.
func (l List) Class() string { panic("soon") }

// TierChainName is the name of a tier's chain in lists of that stage and direction.
func TierChainName(t TierList, s Stage, d Direction) string { panic("soon") }

// PolicyChainName is the name of a policy's chain in a direction.
func PolicyChainName(key model.Key, d Direction) string { panic("soon") }

// ProfileChainName is the name of a profile's chain in a direction.
func ProfileChainName(name string, d Direction) string { panic("soon") }

// Inlined reports whether p stands in the tier chains themselves, since it has a
// Pass rule: then it has no chain of its own, and its change changes those.
func Inlined(p *model.Policy, d Direction) bool { panic("soon") }

// PolicyChain is the chain of a policy that is not inlined.
func (e Emitter) PolicyChain(p *model.Policy, d Direction) plan.Chain { panic("soon") }

// ProfileChain is the chain of a profile.
func (e Emitter) ProfileChain(p *model.Profile, d Direction) plan.Chain { panic("soon") }

// TierChain jumps to, or holds, the policies of a tier.
func (e Emitter) TierChain(t TierList, s Stage, d Direction) plan.Chain { panic("soon") }

// ListChain jumps to the tiers and profiles of a list.
func (e Emitter) ListChain(l List) plan.Chain { panic("soon") }
