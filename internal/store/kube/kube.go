package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"k8s.io/client-go/rest"
)

// openTimeout bounds Open: an API server that hangs is an error.
const openTimeout = 10 * time.Second

// absentPause is how long a kind whose CRD is missing is not looked for again.
const absentPause = time.Minute

// Options are settings of a Store. The zero Options are right.
type Options struct {
	// Group is where Calico's kinds are, as CALICO_API_GROUP says. Empty: found out.
	Group Group
	// InterfacePrefixes is FELIX_INTERFACEPREFIX: what the host's ends of pods' links
	// begin with; the first of a list counts. Empty: cali.
	InterfacePrefixes string
	Log               *slog.Logger // nil: none
}

// Store implements store.Store on an API server. It is safe for concurrent use.
type Store struct {
	client   *kube.Client
	rest     rest.Interface // objects as text
	group    Group
	served   []string // resources of group, when the store was opened
	prefixes string
	log      *slog.Logger
	now      func() time.Time
	absent   time.Duration // see absentPause
	backends map[model.Kind]backend

	mu       sync.Mutex
	presence map[string]presence // of API groups, by path
}

// backend is how objects of a kind are kept.
type backend interface {
	get(ctx context.Context, k model.Key) (store.Object, error)
	// list gives the objects that can be read, and errors about those that can't.
	list(ctx context.Context, namespace string) ([]store.Object, []error, error)
	// write carries out op and returns the object as written.
	write(ctx context.Context, op store.Op, k model.Key) (store.Object, error)
	sources() []source
}

// Open connects to the API server and finds out how Calico's kinds are kept there. The
// error is one line that says what is missing and what to do: the server can't be reached,
// CRDs are not installed or only some of them, or both API groups hold different clusters.
func Open(ctx context.Context, c kube.Config, o Options) (*Store, error) {
	client, err := kube.Connect(c)
	if err != nil {
		return nil, err
	}
	return OpenOn(ctx, client, o)
}

// OpenOn is Open on a client that exists already; they share its connection.
func OpenOn(ctx context.Context, client *kube.Client, o Options) (*Store, error) {
	raw, err := jsonREST(client.REST, client.HTTP)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", oneLine(err))
	}
	s := &Store{
		client: client, rest: raw, prefixes: o.InterfacePrefixes, log: o.Log, now: time.Now,
		absent: absentPause, presence: map[string]presence{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer within %v", openTimeout))
	defer cancel()
	if err := s.detect(ctx, o.Group); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	s.backends = s.newBackends()
	return s, nil
}

// newBackends says how each kind is kept.
func (s *Store) newBackends() map[model.Kind]backend {
	all := map[model.Kind]backend{
		model.KindNode: nodes{s}, model.KindWorkloadEndpoint: pods{s}, model.KindProfile: profiles{s},
	}
	for _, k := range append(kinds(), model.KindIPAMConfiguration) {
		if all[k] != nil {
			continue
		}
		if r, ok := upstreamResource(k); ok {
			all[k] = custom{s, form{kind: k}, r}
			continue
		}
		all[k] = custom{s, form{k, s.group}, s.group.customResource(k)}
	}
	return all
}

// Group is the API group that Calico's kinds are in.
func (s *Store) Group() Group { return s.group }

// Client is what the store speaks through.
func (s *Store) Client() *kube.Client { return s.client }

// Close implements store.Store. The connection is the client's and stays.
func (s *Store) Close() error { return nil }

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, k model.Key) (store.Object, error) {
	b, ok := s.backends[k.Kind]
	if !ok {
		return store.Object{}, &store.Error{Key: k, Err: errKind(k.Kind)}
	}
	return b.get(ctx, k)
}

// List implements store.Store. The objects are in the order of their names in the API.
func (s *Store) List(ctx context.Context, kind model.Kind, namespace string) ([]store.Object, error) {
	b, ok := s.backends[kind]
	if !ok {
		return nil, fmt.Errorf("list %s: %w", kind, errKind(kind))
	}
	objects, unread, err := b.list(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	return objects, errors.Join(unread...)
}

// sources are what a Watch of kinds follows, each once.
func (s *Store) sources(wanted []model.Kind) ([]source, error) {
	if len(wanted) == 0 {
		wanted = kinds()
	}
	var out []source
	for i, k := range wanted {
		b, ok := s.backends[k]
		if !ok {
			return nil, errKind(k)
		}
		if !slices.Contains(wanted[:i], k) {
			out = append(out, b.sources()...)
		}
	}
	return out, nil
}

// Ready reports whether the cluster may be changed: false while somebody migrates the
// datastore (ClusterInformation's datastoreReady). A cluster without one is ready.
func (s *Store) Ready(ctx context.Context) (bool, error) {
	o, err := s.Get(ctx, model.Cluster{}.Key())
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	v, err := model.Parse(o.Object)
	if err != nil {
		return false, err
	}
	return v.(model.Cluster).Ready, nil
}
