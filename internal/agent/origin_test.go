package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
)

// TestOrigins: rules are known by their IDs, with what they do, and stand in the order
// in which packets meet them; what is gone is not known.
func TestOrigins(t *testing.T) {
	t.Parallel()
	key := func(kind model.Kind, name string) model.Key { return model.Key{Kind: kind, Name: name} }
	late, early := key(model.KindGlobalNetworkPolicy, "a-late"), key(model.KindGlobalNetworkPolicy, "z-early")
	trial, profile := key(model.KindStagedGlobalNetworkPolicy, "trial"), model.Profile{Name: "kns.x", Egress: []model.Rule{{Action: model.Allow}}}
	first, second := model.Tier{Name: "z-first", Order: 1, Default: model.Pass}, model.Tier{Name: "a-second", Order: 2}
	o := newOrigins()
	o.step(model.Batch{Reset: true, Puts: []model.Value{
		first, second, profile,
		model.Policy{Origin: late, Tier: "a-second", Order: 20, Ingress: []model.Rule{{Action: model.Log}, {Action: model.Pass}}},
		model.Policy{Origin: early, Tier: "a-second", Order: 10, Egress: []model.Rule{{Action: model.Allow}}},
		model.Policy{Origin: trial, Tier: "z-first", Order: 5, Staged: true, Ingress: []model.Rule{{Action: model.Deny}}},
	}, Synced: true})
	ids := []string{
		policy.RuleID(model.Key{}, policy.Ingress, policy.Default), policy.RuleID(profile.Key(), policy.Egress, 0),
		policy.RuleID(second.Key(), policy.Ingress, policy.Default), policy.RuleID(first.Key(), policy.Egress, policy.Default),
		policy.RuleID(late, policy.Ingress, 1), policy.RuleID(late, policy.Ingress, 0), policy.RuleID(early, policy.Egress, 0), policy.RuleID(trial, policy.Ingress, 0),
	}
	list := func() string {
		var stats []stat
		for _, id := range ids {
			if s, ok := o.stat(id); ok {
				stats = append(stats, s)
			}
		}
		var out strings.Builder
		for _, s := range inOrder(stats) {
			fmt.Fprintf(&out, "%s %s %s %s %s staged=%t\n", s.Tier, s.Object, s.Direction, s.place(), s.Action, s.Staged)
		}
		return out.String()
	}
	const want = `z-first StagedGlobalNetworkPolicy/trial Ingress 0 Deny staged=true
z-first Tier/z-first Egress end Pass staged=false
a-second GlobalNetworkPolicy/z-early Egress 0 Allow staged=false
a-second GlobalNetworkPolicy/a-late Ingress 0 Log staged=false
a-second GlobalNetworkPolicy/a-late Ingress 1 Pass staged=false
a-second Tier/a-second Ingress end Deny staged=false
 Profile/kns.x Egress 0 Allow staged=false
  Ingress end Deny staged=false
`
	if got := list(); got != want {
		t.Errorf("rules:\n%s\nwant:\n%s", got, want)
	}
	o.step(model.Batch{Deletes: []model.Key{late}})
	if got := list(); strings.Contains(got, "a-late") {
		t.Errorf("known although it is gone:\n%s", got)
	}
	// What a snapshot does not have is gone, but for what is invalid now.
	o.step(model.Batch{Reset: true, Puts: []model.Value{first}, Invalids: []model.Invalid{{Key: early}}, Synced: true})
	if got := list(); strings.Contains(got, "trial") || !strings.Contains(got, "z-early") {
		t.Errorf("after a snapshot:\n%s", got)
	}
}
