package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/store"
)

// Config is what the controllers run on.
type Config struct {
	Store     store.Store
	Clientset kubernetes.Interface
	// Raw sends requests about objects that Clientset has no types for; nil: none are
	// sent, and finalizers stay.
	Raw rest.Interface
	// Etcd says that the datastore is etcd, into which things are copied; else it is
	// Kubernetes itself.
	Etcd bool
	// Compact forgets etcd's history before a revision and returns the present one; nil:
	// there is none to forget.
	Compact func(ctx context.Context, before int64) (int64, error)
	Env     Env
	// MaxShare is how much of anything may be removed at once, 0 to 1.
	MaxShare float64
	// Namespace is where the Lease and the Events are, Identity this process's own name:
	// its pod's.
	Namespace, Identity string
	// Health is where probes, status and metrics are served; nil: nowhere. It is closed
	// when Run returns.
	Health net.Listener
	Log    *slog.Logger
	Level  *slog.LevelVar // of Log, follows the settings; nil: does not
	Now    func() time.Time
	// Lease is how leading is settled; the zero Lease is the usual one.
	Lease Lease
	// Retry bounds the wait after a failure; zero: 1 s to 30 s.
	RetryFirst, RetryLast time.Duration
}

func (c *Config) now() time.Time { return c.Now() }

// Run leads when it may, and runs the controllers then, until ctx ends. It returns the
// cause, or why it could not begin.
func Run(ctx context.Context, c Config) error {
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Lease = c.Lease.filled()
	b := newBoard(&c)
	var pages sync.WaitGroup
	defer pages.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := newPages(&c, b)
	if c.Health != nil {
		pages.Go(func() {
			if err := p.probes(ctx, c.Health); ctx.Err() == nil {
				cancel(fmt.Errorf("controllers: health page: %w", err))
			}
		})
	}
	return lead(ctx, &c, b, func(ctx context.Context) { work(ctx, &c, b, p) })
}

// work runs the controllers as the settings say, anew when these change, until ctx
// ends: the lease is lost, or the process is told to end.
func work(ctx context.Context, c *Config, b *board, p *pages) {
	var s settings
	var last string // error that was logged
	for ctx.Err() == nil {
		next, err := configure(ctx, c)
		if err != nil {
			if text := oneLine(err).Error(); text != last && ctx.Err() == nil {
				c.Log.Warn("no settings yet", "err", text)
				last = text
			}
			sleep(ctx, c.retry().first)
			continue
		}
		s, last = next, ""
		c.apply(s)
		p.apply(ctx, s)
		inner, cancel := context.WithCancel(ctx)
		t := newTerm(inner, c, b, s)
		var all sync.WaitGroup
		all.Go(func() { t.run(inner) })
		all.Go(func() { watchSettings(inner, c, s, cancel) })
		all.Wait()
		cancel()
		p.stop()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// apply makes the log's level that of the settings.
func (c *Config) apply(s settings) {
	if level, err := run.ParseLevel(s.LogSeverity); err == nil && c.Level != nil {
		c.Level.Set(level)
	}
}

// retries are the bounds of the wait after a failure.
type retries struct{ first, last time.Duration }

func (c *Config) retry() retries {
	r := retries{c.RetryFirst, c.RetryLast}
	if r.first <= 0 {
		r.first = time.Second
	}
	if r.last <= 0 {
		r.last = 30 * time.Second
	}
	return r
}

// configurationKey is the object that holds the settings.
func configurationKey() model.Key {
	return model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"}
}

// configure reads the settings, creates them where there are none, and writes down
// which are in force. What is stored and invalid is an error: nothing runs on half of
// it.
func configure(ctx context.Context, c *Config) (settings, error) {
	o, err := c.Store.Get(ctx, configurationKey())
	if errors.Is(err, store.ErrNotFound) {
		var written []store.Object
		written, err = c.Store.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(defaultConfiguration(c.Etcd))})
		if err == nil {
			o = written[0]
		}
	}
	if err != nil {
		return settings{}, err
	}
	stored, ok := o.Object.(*v3.KubeControllersConfiguration)
	if !ok {
		return settings{}, fmt.Errorf("%v: is a %T", configurationKey(), o.Object)
	}
	s, err := settingsFor(c.Env, stored)
	if err != nil {
		return settings{}, fmt.Errorf("%v: %w", configurationKey(), err)
	}
	status := v3.KubeControllersConfigurationStatus{RunningConfig: &s.running, EnvironmentVars: s.vars}
	if len(s.vars) == 0 {
		status.EnvironmentVars = nil
	}
	if !sameJSON(stored.Status, status) {
		next := *stored
		next.Status = status
		if _, err := c.Store.Commit(ctx, store.Op{Verb: store.Update, Object: o.With(&next)}); err != nil {
			// What runs is not what is reported, that is all.
			c.Log.Warn("settings in force can't be written down", "err", oneLine(err))
		}
	}
	return s, nil
}

// watchSettings ends with ctx, or cancels it when the stored settings come to others
// than s.
func watchSettings(ctx context.Context, c *Config, s settings, cancel func()) {
	for batch, err := range c.Store.Watch(ctx, model.KindKubeControllersConfiguration) {
		if err != nil || ctx.Err() != nil {
			continue // the watch begins anew by itself
		}
		if len(batch.Puts)+len(batch.Deletes)+len(batch.Invalids) == 0 && !batch.Synced {
			continue
		}
		o, err := c.Store.Get(ctx, configurationKey())
		if err != nil {
			if errors.Is(err, store.ErrNotFound) {
				cancel()
				return
			}
			continue
		}
		stored, ok := o.Object.(*v3.KubeControllersConfiguration)
		if !ok {
			continue
		}
		next, err := settingsFor(c.Env, stored)
		if err != nil {
			c.Log.Warn("settings are invalid: the last good ones stay", "err", oneLine(err))
			continue
		}
		if !sameJSON(next.running, s.running) {
			c.Log.Info("settings changed")
			cancel()
			return
		}
	}
}

func sameJSON(a, b any) bool { return reflect.DeepEqual(plain(a), plain(b)) }

// term is the time in which one process leads with one set of settings.
type term struct {
	*Config
	settings
	board *board
	store store.Store
	feeds *feeds
	log   *slog.Logger
	retry retries
	// free releases addresses; it has no node.
	free *allocator.Allocator
}

func newTerm(ctx context.Context, c *Config, b *board, s settings) *term {
	return &term{
		Config: c, settings: s, board: b, store: c.Store, feeds: newFeeds(ctx, c.Clientset), log: c.Log, retry: c.retry(),
		free: allocator.New(c.Store, "", c.Now),
	}
}

func (t *term) workersOf(name string) int { return max(t.workers[name], 1) }

// controller is one of them, ready to run.
type controller struct {
	name  string
	needs []kube.Access
	run   func(ctx context.Context) error
}

// run runs all controllers that the settings name until ctx ends.
func (t *term) run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { _ = t.free.Run(ctx) })
	var chosen []controller
	var names []string
	for _, name := range t.runs() {
		c, ok := t.controller(name)
		if !ok {
			t.log.Info("controller has nothing to do: the datastore is Kubernetes itself", "controller", name)
			continue
		}
		chosen, names = append(chosen, c), append(names, name)
	}
	if !t.Etcd {
		c := t.conditions()
		chosen, names = append(chosen, c), append(names, c.name)
	}
	t.board.expect(names)
	for _, c := range chosen {
		all.Go(func() { t.supervise(ctx, c) })
	}
	if t.Etcd && t.Compact != nil && t.CompactionPeriod > 0 {
		all.Go(func() { t.compact(ctx) })
	}
	all.Wait()
	t.feeds.wait.Wait()
}

// controller makes the controller of that name; false: it has nothing to do with this
// datastore.
func (t *term) controller(name string) (controller, bool) {
	switch name {
	case Node:
		return t.nodes(), true
	case LoadBalancer:
		return t.services(), true
	}
	if !t.Etcd {
		return controller{}, false
	}
	switch name {
	case Policy:
		return t.mirrored(name, networkPolicies, t.policies), true
	case Namespace:
		return t.mirrored(name, namespaces, t.namespaceProfiles), true
	case ServiceAccount:
		return t.mirrored(name, serviceAccounts, t.accountProfiles), true
	}
	return t.endpoints(), true
}

func (t *term) mirrored(name string, from resource, make func(guard, *feed) *mirror) controller {
	return controller{name: name, needs: []kube.Access{reading(from)}, run: func(ctx context.Context) error {
		f, err := t.feed(ctx, name, from)
		if err != nil {
			return err
		}
		return make(t.guarded(name, mirrorMinimum), f).run(ctx)
	}}
}

// mirrorMinimum is how many copies may go at once in the smallest cluster.
const mirrorMinimum = 16

// guardWindow is the time over which removals are added up.
const guardWindow = 5 * time.Minute

func (t *term) guarded(name string, minimum int) guard {
	return guard{term: t, name: name, budget: t.budgetOf(minimum, guardWindow)}
}

// feed is the complete feed of a kind. It waits for it, and says what it waits for.
func (t *term) feed(ctx context.Context, name string, what resource) (*feed, error) {
	f := t.feeds.of(what)
	for {
		patience, cancel := context.WithTimeout(ctx, t.retry.last)
		err := f.synced(ctx, patience.Done())
		cancel()
		if err == nil || ctx.Err() != nil {
			return f, err
		}
		t.board.note(ctx, name, err, nil)
	}
}

// supervise runs a controller, again after it failed, until ctx ends.
func (t *term) supervise(ctx context.Context, c controller) {
	delay := t.retry.first
	for ctx.Err() == nil {
		err := allowed(ctx, t.Clientset, c.needs)
		if err == nil {
			err = c.run(ctx)
		}
		t.board.note(ctx, c.name, err, nil)
		sleep(ctx, delay)
		delay = min(2*delay, t.retry.last)
	}
}

// compact makes etcd forget, each period, what was of use a period before.
func (t *term) compact(ctx context.Context) {
	var before int64
	var last string
	for ctx.Err() == nil {
		rev, err := t.Compact(ctx, before)
		switch {
		case err != nil && ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			t.log.Warn("etcd's history can't be cut", "err", err)
		case err == nil:
			before, last = rev, ""
		}
		sleep(ctx, t.CompactionPeriod)
	}
}
