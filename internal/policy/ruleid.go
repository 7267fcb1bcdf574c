package policy

import "github.com/weft-net/weft/internal/model"

// Origin is where a rule of the kernel comes from.
type Origin struct {
	Key       model.Key // policy, profile or tier
	Direction Direction
	Index     int    // of the rule in its direction; -1: the default action of a tier, or of an endpoint without a match
	Field     string // of the rule in its object
}

// RuleID is the text under which the kernel knows the rule: Comment of rules and
// prefix of logs. It is stable as long as the rule keeps its place: 16 characters
// for key, i or e for the direction, and the index.
func RuleID(key model.Key, d Direction, index int) string { panic("soon") }

// ParseRuleID takes an ID apart; owner is what [Owner] gives for the key.
func ParseRuleID(id string) (owner string, d Direction, index int, ok bool) { panic("soon") }

// Owner is the part of a RuleID that stands for an object.
func Owner(key model.Key) string { panic("soon") }
