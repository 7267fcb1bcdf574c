package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/weft-net/weft/internal/kernel/remnant"
	"github.com/weft-net/weft/internal/model"
)

const (
	// takeoverDelay is how long after our own rules are in force those of Calico stay: its
	// agent may be about to end, and puts back what is taken away from it until then.
	takeoverDelay = 30 * time.Second
	// takeoverInterval is the time between two looks.
	takeoverInterval = time.Minute
	// takeoverTries is how often rules are removed that somebody puts back.
	takeoverTries = 3
)

// KeepCalicoSetting is the variable that has Calico's rules stay.
const KeepCalicoSetting = "WEFT_KEEP_CALICO_RULES"

// remnants are what Calico's agent left in the packet filter.
type remnants interface {
	Find() (remnant.Found, error)
	Remove() error
}

// takeover takes away what Calico's agent left in the packet filter of this node, once
// ours is in force: it filters beside ours, and drops the packets of pods that it has not
// known. It ends when there is nothing left.
type takeover struct {
	remnants remnants
	inForce  func() bool // whether our rules are in the kernel
	ready    <-chan struct{}
	keep     bool
	notes    *notes
	log      *slog.Logger
}

// run does that until ctx ends.
func (t *takeover) run(ctx context.Context) error {
	select {
	case <-t.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	tries := 0
	for delay := takeoverDelay; ; delay = takeoverInterval {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !t.inForce() {
			continue
		}
		if done := t.look(&tries); done {
			<-ctx.Done()
			return context.Cause(ctx)
		}
	}
}

// look removes what there is, or says why it stays. done: there is nothing more to do.
func (t *takeover) look(tries *int) (done bool) {
	found, err := t.remnants.Find()
	if err == nil && found.Removable() > 0 && !t.keep && *tries < takeoverTries {
		was := found
		*tries++
		removed := t.remnants.Remove()
		if found, err = t.remnants.Find(); removed != nil {
			err = removed
		}
		if err == nil {
			t.log.Info("removed what Calico's agent left in the packet filter", "removed", was.String())
		}
	}
	text := ""
	switch {
	case err != nil:
		text = fmt.Sprintf("what Calico's agent left in the packet filter can't be removed: %v", err)
	case found.Removable() > 0 && t.keep:
		text = fmt.Sprintf("of Calico there are %s beside ours, and stay: %s is set", found, KeepCalicoSetting)
	case found.Removable() > 0:
		text = fmt.Sprintf("of Calico there are %s beside ours, which somebody puts back: its agent still runs on this node: keep it away (docs/kubernetes.md), then start this agent again", found)
	case len(found.Legacy) > 0:
		text = fmt.Sprintf("of Calico there are %s beside ours, which drop packets of new pods: remove them with iptables-legacy (docs/kubernetes.md), or restart the machine", found)
	}
	var problems []model.Problem
	if text != "" {
		problems = []model.Problem{{Text: text}}
	}
	t.notes.problems("takeover", problems)
	return err == nil && found.Empty()
}
