package policy

import (
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Emitter writes the rules of one family. It is a value; Graph and Compile make
// one for each family and setting.
type Emitter struct {
	Settings Settings
	V6       bool
	// Type is the present type of a set that is not constant; nil: what
	// SetRef.Type(false) gives. When it changes, whatever uses the set is to be
	// emitted again.
	Type func(SetRef) plan.SetType
}

// Needs are the sets that these rules need in a family, each once, in order of
// appearance. They don't depend on settings.
func Needs(rules []model.Rule, v6 bool) []Need { panic("soon") }
