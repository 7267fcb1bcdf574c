package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Explanation is what happens to a packet and why, in the order in which it happens.
type Explanation struct {
	Source      End    `json:"source"`
	Destination End    `json:"destination"`
	Packet      string `json:"packet"`
	Allowed     bool   `json:"allowed"`
	// Parts are the points that judge the packet. The last one decided.
	Parts  []Part          `json:"parts"`
	Staged []StagedOutcome `json:"staged,omitempty"`
	Notes  []string        `json:"notes,omitempty"`
}

// End is one end of the packet.
type End struct {
	Object string `json:"object,omitempty"` // empty: nobody that is known
	Node   string `json:"node,omitempty"`   // empty: outside of the cluster
	Addr   string `json:"address"`
	// In are the network sets that have the address.
	In []string `json:"in,omitempty"`
}

// Part is one endpoint that judges the packet in one direction and stage.
type Part struct {
	Node      string `json:"node"`
	Endpoint  string `json:"endpoint,omitempty"` // empty: the node, without a host endpoint
	Direction string `json:"direction"`
	Stage     string `json:"stage"`
	Steps     []Step `json:"steps"`
	Verdict   string `json:"verdict"` // Allow, Deny, or Pass: nothing here decides, the next point does
}

// StepKind says what a step is.
type StepKind string

// The kinds of steps.
const (
	KindRule          StepKind = "rule"          // a rule of a policy matched
	KindProfile       StepKind = "profile"       // a rule of a profile matched
	KindDefault       StepKind = "default"       // the default action of a tier
	KindEnd           StepKind = "end"           // behind the last profile
	KindNoMatch       StepKind = "no match"      // a rule that did not match
	KindFailsafe      StepKind = "failsafe"      // a port that host endpoints never close
	KindSource        StepKind = "source"        // is the source address the sender's?
	KindEncapsulation StepKind = "encapsulation" // packets that workloads encapsulate
	KindToHost        StepKind = "to host"       // from a workload to its own node
)

// Step is one thing that happens to the packet.
type Step struct {
	Kind    StepKind     `json:"kind"`
	Tier    string       `json:"tier,omitempty"`
	Object  string       `json:"object,omitempty"` // policy, profile, tier or endpoint, as Key
	Field   string       `json:"field,omitempty"`  // of the object
	Action  model.Action `json:"action"`
	Staged  bool         `json:"staged,omitempty"` // it would be so, were the policy enforced
	Reasons []Reason     `json:"reasons,omitempty"`
	Text    string       `json:"text,omitempty"` // where no rule speaks

	Key   model.Key `json:"-"`
	Index int       `json:"-"` // of the rule in its direction; -1: none
}

// StagedOutcome is what would be different if one staged policy were enforced.
type StagedOutcome struct {
	Policy string `json:"policy"`
	// Replaces is the enforced policy that would give way; empty: none does.
	Replaces string `json:"replaces,omitempty"`
	Delete   bool   `json:"delete,omitempty"` // it would take the enforced one away, and put nothing in its place
	// Own is what its rules would do with the packet, for each direction in which
	// it selects an endpoint on the way; empty where they would not be asked.
	Own     []Step `json:"own,omitempty"`
	Allowed bool   `json:"allowed"` // the verdict, were it enforced
	Differs bool   `json:"differs"` // that is not the verdict now
	By      Step   `json:"by"`      // what would decide
}

// Decider is the step that decided; ok is false if nothing polices the packet.
func (e *Explanation) Decider() (s Step, ok bool) {
	for _, p := range slices.Backward(e.Parts) {
		for _, s := range slices.Backward(p.Steps) {
			if !s.Staged && s.Kind != KindNoMatch && s.Action != model.Log && s.Action != model.Pass {
				return s, true
			}
		}
	}
	return Step{}, false
}

// part is a Part in the making.
type part struct {
	walk      *walk
	at        int // in the explanation
	subject   Subject
	direction Direction
	stage     Stage
}

// part begins the next point on the way, or goes on with the last one.
func (w *walk) part(s Subject, d Direction, st Stage) *part {
	p := Part{Node: s.Node, Direction: d.String(), Stage: st.String(), Verdict: model.Pass.String(), Steps: []Step{}}
	if s.Key != (model.Key{}) {
		p.Endpoint = s.Key.String()
	}
	n := len(w.out.Parts) - 1
	if n < 0 || w.out.Parts[n].Endpoint != p.Endpoint || w.out.Parts[n].Node != p.Node ||
		w.out.Parts[n].Direction != p.Direction || w.out.Parts[n].Stage != p.Stage {
		w.out.Parts = append(w.out.Parts, p)
		n++
	}
	return &part{w, n, s, d, st}
}

// add notes a step.
func (p *part) add(s Step) {
	if s.Key != (model.Key{}) {
		s.Object = s.Key.String()
	}
	out := &p.walk.out.Parts[p.at]
	out.Steps = append(out.Steps, s)
}

// decide notes a step that ends this point, and reports whether the packet goes on.
func (p *part) decide(s Step) bool {
	p.add(s)
	p.walk.out.Parts[p.at].Verdict = s.Action.String()
	return s.Action != model.Deny || p.walk.through
}

// note says something about the way as a whole, once.
func (w *walk) note(text string) {
	if !slices.Contains(w.out.Notes, text) {
		w.out.Notes = append(w.out.Notes, text)
	}
}

// ownStep is what the staged policy that is tried out does with the packet.
func (p *part) ownStep(l TierList, pol *model.Policy, a model.Action) Step {
	if a != model.Log {
		steps := p.walk.out.Parts[p.at].Steps
		return steps[len(steps)-1]
	}
	return Step{
		Kind: KindNoMatch, Tier: l.Tier.Name, Key: pol.Origin, Object: pol.Origin.String(), Index: -1, Action: l.Tier.Default,
		Text: "no rule of it for " + strings.ToLower(p.direction.String()) + " matches",
	}
}

// staged tries out every staged policy that has to do with the way of the packet.
func (w *walk) staged() {
	for _, l := range w.view.tiers {
		for _, pol := range l.Policies {
			if !pol.Staged {
				continue
			}
			survey := w.trial(pol, true)
			if !survey.touched {
				continue
			}
			out := StagedOutcome{Policy: pol.Origin.String(), Delete: pol.Delete, Own: survey.own}
			if e := Enforced(pol.Origin); w.view.world[e] != nil {
				out.Replaces = e.String()
			}
			try := w.trial(pol, false)
			out.Allowed, out.Differs = try.out.Allowed, try.out.Allowed != w.out.Allowed
			out.By, _ = try.out.Decider()
			w.out.Staged = append(w.out.Staged, out)
		}
	}
}

// trial is the same walk with a staged policy in force.
func (w *walk) trial(p *model.Policy, through bool) *walk {
	t := *w
	t.enact, t.through, t.out, t.own, t.touched, t.query.Verbose = p, through, &Explanation{}, nil, false, false
	t.out.Allowed = t.run()
	return &t
}

// tiersWith is Tiers with a staged policy in force, and whether that makes a
// difference: it stands in the lists, or the one that it replaces would.
func (v *View) tiersWith(s Subject, d Direction, st Stage, enact *model.Policy) (out []TierList, touched bool) {
	for _, l := range v.tiers {
		mine := TierList{Tier: l.Tier}
		for _, p := range l.Policies {
			if !Applies(p, d, st) || !p.Selector.Matches(s.Labels) {
				continue
			}
			if enact != nil && p.Origin == enact.Origin {
				now := *p
				now.Staged = false
				p, touched = &now, true
			} else if enact != nil && p.Origin == Enforced(enact.Origin) {
				touched = true
				continue
			}
			mine.Policies = append(mine.Policies, p)
		}
		if len(mine.Policies) > 0 {
			out = append(out, mine)
		}
	}
	return out, touched
}

func (v *View) end(p place) End {
	e := End{Node: p.node, Addr: p.Addr.String()}
	if p.Key != (model.Key{}) {
		e.Object = p.Key.String()
	}
	for _, h := range v.holders {
		_, set := v.world[h.Key].(model.NetworkSet)
		if set && h.Key != p.Key && slices.ContainsFunc(h.Nets, func(n netip.Prefix) bool { return n.Contains(p.Addr) }) {
			e.In = append(e.In, h.Key.String())
		}
	}
	return e
}

func packetText(p plan.Packet) string {
	text := "a packet of no protocol in particular"
	if p.Protocol != 0 {
		text = ProtocolName(p.Protocol)
	}
	switch {
	case HasPorts(p.Protocol):
		return fmt.Sprintf("%s port %d from port %d", text, p.DstPort, p.SrcPort)
	case p.Protocol == protoICMP || p.Protocol == protoICMPv6:
		return fmt.Sprintf("%s type %d code %d", text, p.ICMPType, p.ICMPCode)
	}
	return text
}

// String is the stage in words.
func (st Stage) String() string {
	return [...]string{"normal", "forwarded", "before NAT", "before tracking"}[st]
}
