package allocator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// known is what the loop believes about the datastore: a view for decisions and
// beside it, by key, the objects as they were read or written, with the
// revisions that a write is conditional on.
type known struct {
	view    ipam.View
	objects map[model.Key]store.Object
	loaded  bool // the node's own blocks are known
}

// forget starts anew.
func (k *known) forget() {
	*k = known{objects: map[model.Key]store.Object{}}
	k.view.Blocks, k.view.Handles = map[netip.Prefix]model.Block{}, map[string]model.Handle{}
	k.view.Missing = map[model.Key]bool{}
}

// shrink keeps what pays off to remember between rounds: the node's own blocks,
// and the handles in them.
func (k *known) shrink(owner model.Affinity) {
	for cidr, b := range k.view.Blocks {
		if b.Owner != owner {
			delete(k.view.Blocks, cidr)
			delete(k.objects, b.Key())
		}
	}
	for id, h := range k.view.Handles {
		for cidr := range h.Blocks {
			if _, ok := k.view.Blocks[cidr]; !ok {
				delete(k.view.Handles, id)
				delete(k.objects, h.Key())
				break
			}
		}
	}
	own := string(owner.Type) + "/" + owner.Node + "/"
	for key := range k.objects {
		if key.Kind == model.KindBlockAffinity && !strings.HasPrefix(key.Name, own) {
			delete(k.objects, key)
		}
	}
	k.view.Complete, k.view.Claims = false, nil
	clear(k.view.Missing)
}

// read learns what is stored at key now, whatever was believed before.
func (k *known) read(ctx context.Context, st store.Store, key model.Key) error {
	o, err := st.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		k.lose(key)
		return nil
	}
	if err != nil {
		return err
	}
	return k.learn(key, o)
}

// lose records that there is no object at key.
func (k *known) lose(key model.Key) {
	delete(k.objects, key)
	k.view.Missing[key] = true
	switch key.Kind {
	case model.KindIPAMHandle:
		delete(k.view.Handles, key.Name)
	case model.KindIPAMBlock:
		maps.DeleteFunc(k.view.Blocks, func(_ netip.Prefix, b model.Block) bool { return b.Key() == key })
	}
}

// learn records an object. A block that can't be used is recorded as such: it
// is in the way, but nothing is taken from it.
func (k *known) learn(key model.Key, o store.Object) error {
	delete(k.view.Missing, key)
	k.objects[key] = o
	v, err := model.Parse(o.Object)
	if key.Kind == model.KindIPAMBlock && err != nil {
		return k.unusable(key)
	}
	if err != nil {
		return fmt.Errorf("%v: %w", key, err)
	}
	switch v := v.(type) {
	case model.Block:
		k.view.Blocks[v.CIDR] = v
	case model.Handle:
		k.view.Handles[v.ID] = v
	}
	return nil
}

func (k *known) unusable(key model.Key) error {
	cidr, err := netip.ParsePrefix(strings.Replace(key.Name, "-", "/", 1))
	if err != nil {
		return fmt.Errorf("%v: %w", key, err)
	}
	k.view.Blocks[cidr] = model.Block{CIDR: cidr, Deleted: true}
	return nil
}

// readAll learns every block and affinity. Handles are not listed, there are
// too many; those that are known stay.
func (k *known) readAll(ctx context.Context, st store.Store, owner model.Affinity) error {
	handles, objects, old := k.view.Handles, k.objects, k.view
	k.forget()
	k.view.Name, k.view.Virtual, k.view.Now = old.Name, old.Virtual, old.Now
	for id, h := range handles {
		k.view.Handles[id], k.objects[h.Key()] = h, objects[h.Key()]
	}
	for _, kind := range []model.Kind{model.KindIPAMBlock, model.KindBlockAffinity} {
		if err := k.list(ctx, st, kind); err != nil {
			return err
		}
	}
	k.view.Claims = map[netip.Prefix]bool{}
	for _, a := range k.affinities() {
		if a.State == model.AffinityPending && a.Owner != owner {
			k.view.Claims[a.CIDR] = true
		}
	}
	k.view.Complete, k.loaded = true, true
	return nil
}

// affinities is the known ones.
func (k *known) affinities() []model.BlockAffinity {
	var all []model.BlockAffinity
	for key, o := range k.objects {
		if key.Kind != model.KindBlockAffinity {
			continue
		}
		if v, err := model.Parse(o.Object); err == nil {
			all = append(all, v.(model.BlockAffinity))
		}
	}
	return all
}

// readHandle learns a handle and the blocks that it has addresses in, so that
// what it holds can be told without writing.
func (k *known) readHandle(ctx context.Context, st store.Store, key model.Key) error {
	if err := k.read(ctx, st, key); err != nil {
		return err
	}
	for cidr := range k.view.Handles[key.Name].Blocks {
		if err := k.read(ctx, st, model.BlockKey(cidr)); err != nil {
			return err
		}
	}
	return nil
}

// list learns all objects of a kind. Those that can't be read are recorded as
// far as their key is known.
func (k *known) list(ctx context.Context, st store.Store, kind model.Kind) error {
	objects, err := st.List(ctx, kind, "")
	if err != nil && objects == nil {
		return err
	}
	for _, e := range store.Errors(err) {
		if e.Key.Kind == model.KindIPAMBlock {
			if err := k.unusable(e.Key); err != nil {
				return err
			}
		}
	}
	for _, o := range objects {
		key, err := model.KeyOf(o.Object)
		if err != nil {
			continue // its key in the datastore tells what it is, but not to us
		}
		if err := k.learn(key, o); err != nil && kind == model.KindIPAMBlock {
			return err
		}
	}
	return nil
}

// put is the operation that makes value what is stored at key.
func (k *known) put(key model.Key, value v3.Object) store.Op {
	stored, ok := k.objects[key]
	if !ok {
		return store.Op{Verb: store.Create, Object: store.New(value)}
	}
	*value.Meta() = *stored.Object.Meta().DeepCopy()
	return store.Op{Verb: store.Update, Object: stored.With(value)}
}

// remove is the operation that deletes what is stored at key; false when there
// is nothing. An affinity may be deleted unread, as unread is; nil: may not.
func (k *known) remove(key model.Key, unread v3.Object) (store.Op, bool) {
	if stored, ok := k.objects[key]; ok {
		return store.Op{Verb: store.Delete, Object: stored}, true
	}
	if unread == nil || k.view.Missing[key] {
		return store.Op{}, false
	}
	return store.Op{Verb: store.Delete, Object: store.New(unread)}, true
}
