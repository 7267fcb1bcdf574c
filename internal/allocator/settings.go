package allocator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// settings is what steers assignment and changes rarely.
type settings struct {
	node     *model.Node
	config   model.IPAMConfig
	pools    []model.Pool
	reserved []netip.Prefix
	badPools bool // there are pools that can't be read
}

// Step tells the allocator about pools, reservations, configuration and nodes;
// other kinds are passed over. From the first Synced batch on it reads these
// no more from the datastore, except before it refuses a request.
func (a *Allocator) Step(b model.Batch) {
	mine := model.Batch{Reset: b.Reset, Synced: b.Synced, Invalids: b.Invalids, Deletes: b.Deletes}
	a.noteBadPools(b)
	for _, v := range b.Puts {
		if isSetting(v, a.node) {
			mine.Puts = append(mine.Puts, v)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case b.Reset:
		// The old settings hold until the snapshot is complete.
		a.snapshot = a.feed.Apply(mine)
	case a.snapshot != nil:
		a.snapshot = a.snapshot.Apply(mine)
	default:
		a.feed = a.feed.Apply(mine)
	}
	if b.Synced && a.snapshot != nil {
		a.feed, a.snapshot, a.fed = a.snapshot, nil, true
	}
}

// noteBadPools keeps track of the pools that can't be read.
func (a *Allocator) noteBadPools(b model.Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b.Reset || a.badPools == nil {
		a.badPools = map[model.Key]bool{}
	}
	for _, v := range b.Puts {
		delete(a.badPools, v.Key())
	}
	for _, key := range b.Deletes {
		delete(a.badPools, key)
	}
	for _, in := range b.Invalids {
		if in.Key.Kind == model.KindIPPool {
			a.badPools[in.Key] = true
		}
	}
}

func isSetting(v model.Value, node string) bool {
	switch v := v.(type) {
	case model.Pool, model.Reservation, model.IPAMConfig:
		return true
	case model.Node:
		return v.Name == node
	}
	return false
}

// settings is what Step told, or nil while it has not told all.
func (a *Allocator) settings() *settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.fed {
		return nil
	}
	s := &settings{config: model.DefaultIPAMConfig()}
	s.badPools = len(a.badPools) > 0
	for _, v := range a.feed {
		s.add(v)
	}
	return s
}

func (s *settings) add(v model.Value) {
	switch v := v.(type) {
	case model.Pool:
		s.pools = append(s.pools, v)
	case model.Reservation:
		s.reserved = append(s.reserved, v.CIDRs...)
	case model.IPAMConfig:
		s.config = v
	case model.Node:
		s.node = &v
	}
}

// readSettings reads them from the datastore. Pools and reservations that are
// not valid are passed over: whoever watches the datastore reports them.
func readSettings(ctx context.Context, st store.Store, node string) (*settings, error) {
	s := &settings{config: model.DefaultIPAMConfig()}
	for _, kind := range []model.Kind{model.KindIPPool, model.KindIPReservation} {
		objects, err := st.List(ctx, kind, "")
		if err != nil && objects == nil {
			return nil, err
		}
		bad := err != nil
		for _, o := range objects {
			v, err := model.Parse(o.Object)
			if err == nil {
				s.add(v)
			}
			bad = bad || err != nil
		}
		s.badPools = s.badPools || bad && kind == model.KindIPPool
	}
	keys := []model.Key{model.IPAMConfig{}.Key()}
	if node != "" {
		keys = append(keys, model.Node{Name: node}.Key())
	}
	for _, key := range keys {
		o, err := st.Get(ctx, key)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v, err := model.Parse(o.Object)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", key, err)
		}
		s.add(v)
	}
	return s, nil
}
