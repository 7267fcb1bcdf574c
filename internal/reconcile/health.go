package reconcile

import (
	"log/slog"
	"sync"
)

// Health remembers how the last pass went, and logs when that changes: a loop that
// fails the same way again and again says so once. Set the fields before the first Note
// and leave them. Its methods may be called at any time, by anybody.
type Health struct {
	Log  *slog.Logger // nil: nothing is logged
	Good string       // logged, as information, when a pass is well after one that was not
	Bad  string       // logged, as a warning and with the error, when a pass fails in another way than the last

	mu  sync.Mutex
	err string
}

// Note takes in the result of a pass; it is an Options.Health. nil: the pass was well.
func (h *Health) Note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	h.mu.Lock()
	changed := text != h.err
	h.err = text
	h.mu.Unlock()
	switch {
	case !changed || h.Log == nil:
	case err == nil:
		h.Log.Info(h.Good)
	default:
		h.Log.Warn(h.Bad, "err", err)
	}
}

// Err is the text of the last pass's error; empty: it was well, or there was none yet.
func (h *Health) Err() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}
