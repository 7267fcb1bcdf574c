package edit

import (
	"context"
	"slices"
	"sync"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// Verb is what to do to an object.
type Verb uint8

// The verbs of Run.
const (
	Create Verb = iota
	Apply
	Replace
	Delete
)

const (
	// parallel is how many objects are under way at once.
	parallel = 32
	// patience is how long an object that is under way may still take after ctx ended.
	patience = 10 * time.Second
)

// Run does the same to many objects and returns what became of each, in their order. An object
// that fails stops no other. When ctx ends, what is under way is finished and the rest is
// NotTried: doing all again does the rest.
func (e *Editor) Run(ctx context.Context, verb Verb, objects []v3.Object) []Result {
	results := make([]Result, len(objects))
	finishing, stop := outlive(ctx)
	defer stop()
	done := 0
	for _, group := range e.groups(verb, objects) {
		workers := parallel
		if group.alone {
			workers = 1
		}
		slots := make(chan struct{}, workers)
		var all sync.WaitGroup
		for _, i := range group.members {
			slots <- struct{}{}
			if ctx.Err() != nil {
				results[i] = Result{Object: objects[i]}
				results[i].Key, _ = model.KeyOf(objects[i])
				<-slots
				continue
			}
			all.Go(func() {
				defer func() { <-slots }()
				results[i] = e.do(finishing, verb, objects[i])
				e.tell(&done, len(objects))
			})
		}
		all.Wait()
	}
	return results
}

// outlive is a context that ends some time after ctx, so that what is under way is finished.
func outlive(ctx context.Context) (context.Context, func()) {
	later, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var mu sync.Mutex
	var timer *time.Timer
	release := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(patience, func() { cancel(context.Cause(ctx)) })
	})
	return later, func() {
		release()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel(nil)
	}
}

// tell reports that one more object is done.
func (e *Editor) tell(done *int, all int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*done++
	if e.Progress != nil {
		e.Progress(*done, all)
	}
}

func (e *Editor) do(ctx context.Context, verb Verb, o v3.Object) Result {
	switch verb {
	case Create:
		return e.Create(ctx, o)
	case Apply:
		return e.Apply(ctx, o)
	case Replace:
		return e.Replace(ctx, o)
	}
	return e.Delete(ctx, o)
}

// group is objects that may be done side by side, or one after the other.
type group struct {
	members []int // indices
	rank    int
	alone   bool // one at a time: the rule for each looks at the others
}

// rank is when objects of a kind are written: what others must find comes first.
func rank(o v3.Object) int {
	switch o.(type) {
	case *v3.Tier, *v3.BGPFilter:
		return 0
	case *v3.IPPool:
		return 1
	}
	return 2
}

// groups cuts objects into groups, to be done one after the other. No object occurs twice in
// one group.
func (e *Editor) groups(verb Verb, objects []v3.Object) []group {
	order := make([]int, len(objects))
	for i := range order {
		order[i] = i
	}
	of := func(i int) int {
		if verb == Delete {
			return -rank(objects[i])
		}
		return rank(objects[i])
	}
	if !e.InOrder {
		slices.SortStableFunc(order, func(a, b int) int { return of(a) - of(b) })
	}
	var groups []group
	var used map[model.Key]bool
	for _, i := range order {
		k, _ := model.KeyOf(objects[i]) // of one without a key Run says so in time
		if len(groups) == 0 || groups[len(groups)-1].rank != of(i) || used[k] {
			_, pool := objects[i].(*v3.IPPool)
			groups = append(groups, group{rank: of(i), alone: pool})
			used = map[model.Key]bool{}
		}
		used[k] = true
		last := &groups[len(groups)-1]
		last.members = append(last.members, i)
	}
	return groups
}
