package policy

import (
	"strconv"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// Origin is where a rule of the kernel comes from.
type Origin struct {
	Key       model.Key // policy, profile or tier; zero: the end of an endpoint's list
	Direction Direction
	Index     int    // of the rule in its direction; -1: the default action of a tier, or the end of a list
	Field     string // of the rule in its object
}

// Default is the index of what is decided where no rule matched.
const Default = -1

// RuleID is the text under which the kernel knows the rule: Comment of rules and
// prefix of logs. It is stable as long as the rule keeps its place: 16 characters
// for key, a dot, i or e for the direction, and the index, or - for [Default].
// Where one rule is several in the kernel, all have its ID.
func RuleID(key model.Key, d Direction, index int) string { return ruleID(Owner(key), d, index) }

func ruleID(owner string, d Direction, index int) string {
	at := "-"
	if index >= 0 {
		at = strconv.Itoa(index)
	}
	return owner + "." + letterOf(d) + at
}

func letterOf(d Direction) string { return [...]string{"i", "e"}[d] }

// ParseRuleID takes an ID apart; owner is what [Owner] gives for the key.
func ParseRuleID(id string) (owner string, d Direction, index int, ok bool) {
	owner, at, ok := strings.Cut(id, ".")
	if !ok || len(at) < 2 || owner == "" {
		return "", 0, 0, false
	}
	switch at[0] {
	case 'i':
	case 'e':
		d = Egress
	default:
		return "", 0, 0, false
	}
	if at[1:] == "-" {
		return owner, d, Default, true
	}
	n, err := strconv.ParseUint(at[1:], 10, 31)
	if err != nil {
		return "", 0, 0, false
	}
	return owner, d, int(n), true
}

// Owner is the part of a RuleID that stands for an object.
func Owner(key model.Key) string {
	return hash(16, string(key.Kind), key.Namespace, key.Name)
}

// LogGroup is the group of nfnetlink_log that packets of a direction go to, the same
// as Calico's.
func LogGroup(d Direction) uint16 { return [...]uint16{1, 2}[d] }
