package allocator

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	badPools bool        // there are pools that can't be read
	told     model.World // what Step told, with the last good version of what is invalid now
}

// feed is what Step told: the last good version of everything, and of what never
// had one the little that can be understood of it.
type feed struct {
	world   model.World
	invalid map[model.Key]model.Value // what is invalid; see model.Invalid
}

func (f feed) clone() feed { return feed{maps.Clone(f.world), maps.Clone(f.invalid)} }

// Step tells the allocator about pools, reservations, configuration and nodes;
// other kinds are passed over. From the first Synced batch on it reads these
// no more from the datastore, except before it refuses a request.
func (a *Allocator) Step(b model.Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b.Reset {
		// The old settings hold until the snapshot is complete.
		a.snapshot = &feed{model.World{}, map[model.Key]model.Value{}}
	}
	to := a.snapshot
	change := func() {
		if to == nil {
			next := a.feed.clone()
			to = &next
		}
	}
	for _, v := range b.Puts {
		if key := v.Key(); isSetting(key, a.node) {
			change()
			delete(to.invalid, key)
			to.world[key] = v
		}
	}
	for _, in := range b.Invalids {
		if !isSetting(in.Key, a.node) {
			continue
		}
		change()
		to.invalid[in.Key] = in.Strict
		if v, ok := a.feed.world[in.Key]; ok {
			to.world[in.Key] = v
		}
	}
	for _, key := range b.Deletes {
		if isSetting(key, a.node) {
			change()
			delete(to.world, key)
			delete(to.invalid, key)
		}
	}
	switch {
	case a.snapshot == nil && to != nil:
		a.feed = *to
	case a.snapshot != nil && b.Synced:
		a.feed, a.snapshot, a.fed = *to, nil, true
	}
}

// Pools are the pools that Step told about, in no order.
func (a *Allocator) Pools() []model.Pool {
	if s := a.settings(); s != nil {
		return s.pools
	}
	return nil
}

func isSetting(key model.Key, node string) bool {
	switch key.Kind {
	case model.KindIPPool, model.KindIPReservation, model.KindIPAMConfig:
		return true
	case model.KindNode:
		return key.Name == node
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
	s := &settings{config: model.DefaultIPAMConfig(), told: a.feed.world}
	for _, v := range a.feed.world {
		s.add(v)
	}
	for key, strict := range a.feed.invalid {
		s.addInvalid(key, strict)
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

// addInvalid takes in an object that is invalid now. If nothing was known of it
// before, what can be understood of it stands for it, in the sense that gives
// out the least: a mistake never frees what is reserved or another node's.
func (s *settings) addInvalid(key model.Key, strict model.Value) {
	s.badPools = s.badPools || key.Kind == model.KindIPPool
	_, known := s.told[key]
	switch {
	case known:
	case strict != nil:
		s.add(strict)
	case key == model.IPAMConfig{}.Key():
		s.config = model.IPAMConfig{StrictAffinity: true, AutoAllocateBlocks: true}
	}
}

// readSettings reads them from the datastore; told is what Step told before, nil
// if it has not. What is invalid in the datastore is as told: whoever watches the
// datastore reports it.
func readSettings(ctx context.Context, st store.Store, node string, told model.World) (*settings, error) {
	s := &settings{config: model.DefaultIPAMConfig(), told: told}
	for _, kind := range []model.Kind{model.KindIPPool, model.KindIPReservation} {
		objects, err := st.List(ctx, kind, "")
		if err != nil && objects == nil && !errors.Is(err, store.ErrUnreadable) {
			return nil, err
		}
		for _, e := range store.Errors(err) {
			s.lastGood(e.Key, nil)
		}
		for _, o := range objects {
			key, err := model.KeyOf(o.Object)
			if err != nil {
				return nil, err // no kind of these lacks a name
			}
			s.take(key, o)
		}
	}
	keys := []model.Key{model.IPAMConfig{}.Key()}
	if node != "" {
		keys = append(keys, model.Node{Name: node}.Key())
	}
	for _, key := range keys {
		o, err := st.Get(ctx, key)
		switch {
		case err == nil:
			s.take(key, o)
		case errors.Is(err, store.ErrUnreadable):
			s.lastGood(key, nil)
		case !errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("allocator: read settings: %w", err)
		}
	}
	return s, nil
}

// take adds what is stored of key, as far as it is valid.
func (s *settings) take(key model.Key, o store.Object) {
	v, err := model.Parse(o.Object)
	if err != nil {
		s.lastGood(key, model.Strict(o.Object))
		return
	}
	s.add(v)
}

// lastGood adds what was known of an object that is invalid now.
func (s *settings) lastGood(key model.Key, strict model.Value) {
	if v, ok := s.told[key]; ok {
		s.add(v)
	}
	s.addInvalid(key, strict)
}
