package peering

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/model"
)

// TestAConfigurationThatNeverWasValid: what can be read of it still closes the
// mesh; a good version before or after it counts instead.
func TestAConfigurationThatNeverWasValid(t *testing.T) {
	t.Parallel()
	off, on := false, true
	config := func(mesh *bool) model.BGPConfig { return model.BGPConfig{Name: "default", Mesh: mesh} }
	invalid := func(mesh *bool) model.Batch {
		return model.Batch{Invalids: []model.Invalid{{Key: config(nil).Key(), Err: errors.New("bad"), Strict: config(mesh)}}}
	}
	put := func(mesh *bool) model.Batch { return model.Batch{Puts: []model.Value{config(mesh)}} }
	nodes := model.Batch{Reset: true, Synced: true, Puts: []model.Value{
		model.Node{Name: "a", IPv4: netip.MustParsePrefix("10.0.0.1/24")},
		model.Node{Name: "b", IPv4: netip.MustParsePrefix("10.0.0.2/24")},
	}}
	again := nodes // the snapshot after a break, with the object still invalid
	again.Invalids = invalid(&off).Invalids
	for name, tt := range map[string]struct {
		then  []model.Batch
		peers int
	}{
		"nothing said":            {nil, 1},
		"mesh off":                {[]model.Batch{invalid(&off)}, 0},
		"mesh not mentioned":      {[]model.Batch{invalid(nil)}, 1},
		"edited, still invalid":   {[]model.Batch{invalid(&on), invalid(&off)}, 0},
		"good before":             {[]model.Batch{put(&on), invalid(&off)}, 1},
		"good after":              {[]model.Batch{invalid(&off), put(&on)}, 1},
		"deleted":                 {[]model.Batch{invalid(&off), {Deletes: []model.Key{config(nil).Key()}}}, 1},
		"still there after break": {[]model.Batch{invalid(&off), again}, 0},
		"gone after break":        {[]model.Batch{invalid(&off), nodes}, 1},
	} {
		v := NewView("a")
		v.Step(nodes)
		for _, b := range tt.then {
			v.Step(b)
		}
		if c, _, _ := v.Plan(Options{}); len(c.Peers) != tt.peers {
			t.Errorf("%s: %d peers, want %d", name, len(c.Peers), tt.peers)
		}
	}
}
