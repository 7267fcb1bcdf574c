package agent

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/weft-net/weft/internal/model"
)

// notes is what the agent has to say about objects. It logs what is new, and
// keeps all of it for the status. It is safe for concurrent use.
type notes struct {
	log *slog.Logger

	mu       sync.Mutex
	invalid  map[model.Key]string
	seen     map[model.Key]bool         // invalid ones that the snapshot in progress has mentioned
	byOrigin map[string][]model.Problem // by the decider that found them
	unbuilt  map[model.Key]string
	ready    bool
	broken   string // why nothing comes from the datastore; empty: it does
}

func newNotes(log *slog.Logger) *notes {
	return &notes{log: log, invalid: map[model.Key]string{}, byOrigin: map[string][]model.Problem{}, unbuilt: map[model.Key]string{}, ready: true}
}

// step notes which objects are invalid, and which ask for what this version
// does not do.
func (n *notes) step(b model.Batch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b.Reset {
		n.seen = map[model.Key]bool{}
	}
	for _, in := range b.Invalids {
		text := in.Err.Error()
		if n.invalid[in.Key] != text {
			n.log.Warn("object is invalid; what was known of it before stays", "object", in.Key.String(), "err", text)
		}
		n.invalid[in.Key] = text
		if n.seen != nil {
			n.seen[in.Key] = true
		}
	}
	for _, v := range b.Puts {
		delete(n.invalid, v.Key())
		n.put(v)
	}
	for _, k := range b.Deletes {
		delete(n.invalid, k)
		delete(n.unbuilt, k)
	}
	if b.Synced && n.seen != nil {
		for k := range n.invalid {
			if !n.seen[k] {
				delete(n.invalid, k)
			}
		}
		n.seen = nil
	}
}

func (n *notes) put(v model.Value) {
	var text string
	switch v := v.(type) {
	case model.Cluster:
		if n.ready != v.Ready {
			n.log.Info("datastore is locked or unlocked", "ready", v.Ready)
		}
		n.ready = v.Ready
	case model.FelixConfig:
		if len(v.Unbuilt) > 0 {
			text = fmt.Sprintf("%v: stored, without effect in this version", v.Unbuilt)
		}
	}
	if text != "" && n.unbuilt[v.Key()] != text {
		n.log.Warn("settings without effect", "object", v.Key().String(), "err", text)
	}
	if text == "" {
		delete(n.unbuilt, v.Key())
	} else {
		n.unbuilt[v.Key()] = text
	}
}

// problems replaces what a decider found.
func (n *notes) problems(origin string, now []model.Problem) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range now {
		if !slices.Contains(n.byOrigin[origin], p) {
			n.log.Warn("can't be done as asked", "object", p.Key.String(), "err", p.Text)
		}
	}
	n.byOrigin[origin] = now
}

// errors is problems for what a person must act upon.
func (n *notes) errors(origin string, now []model.Problem) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range now {
		if !slices.Contains(n.byOrigin[origin], p) {
			n.log.Error("must be put right", "object", p.Key.String(), "err", p.Text)
		}
	}
	n.byOrigin[origin] = now
}

// keep replaces what somebody found who logs it himself.
func (n *notes) keep(origin string, now []model.Problem) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.byOrigin[origin] = now
}

// locked reports whether the datastore asks for no changes.
func (n *notes) locked() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.ready
}

// setBroken notes why nothing comes from the datastore; empty: it does.
func (n *notes) setBroken(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = why
}

// all is everything that is noted, a line each, sorted.
func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	if n.broken != "" {
		out = append(out, fmt.Sprintf("datastore: %s: what was known last stays in force", n.broken))
	}
	for k, text := range n.invalid {
		out = append(out, fmt.Sprintf("%v: invalid: %s", k, text))
	}
	for k, text := range n.unbuilt {
		out = append(out, fmt.Sprintf("%v: %s", k, text))
	}
	for _, list := range n.byOrigin {
		for _, p := range list {
			out = append(out, p.String())
		}
	}
	slices.Sort(out)
	return out
}
