package policy

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/weft-net/weft/internal/model"
)

// String is e for people: who sends what to whom, then each point that judges it with
// its steps, then the verdict and what staged policies would change.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  to %s\n  %s\n", e.Source, e.Destination, e.Packet)
	for _, p := range e.Parts {
		p.print(&b)
	}
	fmt.Fprintf(&b, "\n%s", strings.ToUpper(word(e.Allowed)))
	if s, ok := e.Decider(); ok {
		fmt.Fprintf(&b, " by %s", s.by())
	} else {
		b.WriteString(": nothing polices it")
	}
	b.WriteByte('\n')
	for _, s := range e.Staged {
		s.print(&b)
	}
	for _, n := range e.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

func word(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

// String is an end as one phrase.
func (e End) String() string {
	text := e.Addr
	switch {
	case e.Object == "" && len(e.In) == 0:
		text += ", of nobody that is known"
	case e.Object != "":
		text += ", " + e.Object
	}
	if e.Node != "" && e.Object != "Node/"+e.Node {
		text += " on " + e.Node
	}
	if len(e.In) > 0 {
		text += ", in " + strings.Join(e.In, " and ")
	}
	return text
}

func (p Part) print(b *strings.Builder) {
	at, stage := p.Endpoint, ""
	if at == "" {
		at = "Node/" + p.Node
	}
	if p.Stage != Normal.String() {
		stage = ", " + p.Stage
	}
	fmt.Fprintf(b, "\n%s of %s on %s%s: %s\n", strings.ToLower(p.Direction), at, p.Node, stage, p.Verdict)
	w := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	for _, s := range p.Steps {
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", s.stage(), s.Object, s.place(), s.outcome())
	}
	_ = w.Flush()
	trim(b)
	for _, s := range p.Steps {
		if len(s.Reasons) == 0 || s.Action == model.Pass && s.Kind == KindNoMatch {
			continue
		}
		fmt.Fprintf(b, "  because of %s:\n", s.Field)
		for _, r := range s.Reasons {
			fmt.Fprintf(b, "    %s\n", r)
		}
	}
}

// trim takes away the blanks at the ends of lines that padding leaves.
func trim(b *strings.Builder) {
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	b.Reset()
	b.WriteString(strings.Join(lines, "\n"))
}

// stage is where in the order of evaluation s is.
func (s Step) stage() string {
	switch s.Kind {
	case KindRule, KindNoMatch, KindDefault:
		if s.Tier != "" {
			return "tier " + s.Tier
		}
		return "profile"
	case KindEnd:
		return "end"
	}
	return string(s.Kind)
}

func (s Step) place() string {
	if s.Kind == KindDefault {
		return "default action"
	}
	return s.Field
}

func (s Step) outcome() string {
	text := s.Action.String()
	switch {
	case s.Kind == KindNoMatch:
		return s.Text
	case s.Staged:
		text = "would " + text + ", is staged"
	}
	if s.Text != "" {
		text += ": " + s.Text
	}
	return text
}

// by is s as the answer to the question who decided.
func (s Step) by() string {
	switch s.Kind {
	case KindDefault:
		return "the default action of " + s.Object
	case KindEnd:
		return "the end of all profiles: " + s.Text
	case KindRule, KindProfile:
		return s.Object + " " + s.Field
	}
	return strings.TrimSpace(s.Field + ": " + s.Text)
}

// String is r on one line.
func (r Reason) String() string {
	text := r.Field + " " + r.Value
	if r.Object == "" {
		return text
	}
	text += fmt.Sprintf(": %s in %s of %s", r.ObjectValue, r.ObjectField, r.Object)
	if len(r.Labels) > 0 {
		text += " with " + strings.Join(r.Labels, ", ")
	}
	return text
}

func (s StagedOutcome) print(b *strings.Builder) {
	fmt.Fprintf(b, "\nif %s were enforced", s.Policy)
	switch {
	case s.Delete && s.Replaces == "":
		b.WriteString(" (there is nothing for it to delete)")
	case s.Delete:
		fmt.Fprintf(b, " (it deletes %s)", s.Replaces)
	case s.Replaces != "":
		fmt.Fprintf(b, " (it replaces %s)", s.Replaces)
	}
	verdict := "still " + word(s.Allowed)
	if s.Differs {
		verdict = "it would be " + strings.ToUpper(word(s.Allowed))
	}
	fmt.Fprintf(b, ": %s", verdict)
	if s.By.Action != model.Deny || s.By.Kind != "" {
		fmt.Fprintf(b, ", by %s", s.By.by())
	}
	b.WriteByte('\n')
	for _, own := range s.Own {
		if own.Kind == KindNoMatch {
			fmt.Fprintf(b, "  %s\n", own.Text)
			continue
		}
		fmt.Fprintf(b, "  %s %s would %v\n", own.Object, own.Field, own.Action)
		for _, r := range own.Reasons {
			fmt.Fprintf(b, "    %s\n", r)
		}
	}
}
