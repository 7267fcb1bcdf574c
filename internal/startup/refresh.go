package startup

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Refresher finds the addresses of a running node again and again, and asks the datastore only
// when they, or the record, changed since: a node at rest costs its datastore nothing. Set the
// fields and leave them; its methods may be called at any time.
type Refresher struct {
	Store    store.Store
	Settings Settings
	Host     Host
	Log      *slog.Logger

	mu      sync.Mutex
	known   *v3.Node // the record as it was when it was right; nil: not known
	forgets int
}

// Forget says that somebody may have changed the record.
func (r *Refresher) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = nil
	r.forgets++
}

// Refresh does what the function of that name does, if there is anything to do.
func (r *Refresher) Refresh(ctx context.Context) error {
	r.mu.Lock()
	known, forgets := r.known, r.forgets
	r.mu.Unlock()
	if known != nil {
		links, err := r.Host.Links()
		if err != nil {
			return fmt.Errorf("startup: list interfaces: %w", err)
		}
		want, err := desired(ctx, *known, r.Settings, r.Host, links)
		if err != nil || equal(*known, want) {
			return err
		}
	}
	if err := Refresh(ctx, r.Store, r.Settings, r.Host, r.Log); err != nil {
		return err
	}
	o, err := r.Store.Get(ctx, model.Key{Kind: model.KindNode, Name: r.Settings.Node})
	if err != nil {
		return fmt.Errorf("startup: read node %s: %w", r.Settings.Node, err)
	}
	node, ok := o.Object.(*v3.Node)
	r.mu.Lock()
	defer r.mu.Unlock()
	if ok && forgets == r.forgets {
		r.known = node
	}
	return nil
}
