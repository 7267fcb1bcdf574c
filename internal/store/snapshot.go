package store

import (
	"context"
	"errors"

	"github.com/weft-net/weft/internal/model"
)

// Snapshot reads all objects of these kinds once. Of an invalid object the world holds
// what counts where no earlier version of it is known (Invalid.Strict), if anything.
func Snapshot(ctx context.Context, s Source, kinds ...model.Kind) (model.World, []model.Invalid, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := model.World{}
	var invalids []model.Invalid
	for b, err := range s.Watch(ctx, kinds...) {
		if err != nil {
			return nil, nil, err
		}
		if b.Reset {
			invalids = nil
		}
		w = w.Apply(b)
		for _, in := range b.Invalids {
			invalids = append(invalids, in)
			if in.Strict != nil {
				w[in.Key] = in.Strict
			}
		}
		if b.Synced {
			return w, invalids, nil
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	return nil, nil, errors.New("store: the watch ended before its snapshot was whole")
}
