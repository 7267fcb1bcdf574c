package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/run"
)

// socket answers over the status socket. It is there before the datastore is, so that who asks
// a waiting agent hears what it waits for.
type socket struct {
	node    string // as it is called on this machine
	version string
	started time.Time
	pages   *pages
	recent  *run.Recent
	agent   atomic.Pointer[agent] // nil: it has not begun
}

// PeerRoutes are the routes of one BGP peer: the page "routes?peer=ADDRESS".
type PeerRoutes struct {
	Peer       string      `json:"peer"` // its address
	Received   []PeerRoute `json:"received"`
	Advertised []PeerRoute `json:"advertised"`
}

// PeerRoute is one of them.
type PeerRoute struct {
	Prefix      netip.Prefix `json:"prefix"`
	NextHop     netip.Addr   `json:"nextHop"`
	ASPath      string       `json:"asPath"`
	LocalPref   uint32       `json:"localPref,omitempty"`
	MED         uint32       `json:"med,omitempty"`
	Communities []string     `json:"communities,omitempty"`
	Best        bool         `json:"best"` // received: it is the one in use
	Stale       bool         `json:"stale,omitempty"`
}

// serve answers on l until ctx ends.
func (s *socket) serve(ctx context.Context, l net.Listener) error {
	return run.Pages(ctx, l, s.pages.now, map[string]http.Handler{
		"status":  run.Page(func(context.Context) (any, error) { return s.status(), nil }),
		"policy":  s.running(func(r *http.Request, a *agent) (any, error) { return a.engine.filter.stats(r.Context()) }),
		"routes":  s.running(func(r *http.Request, a *agent) (any, error) { return a.routesOf(r.FormValue("peer")) }),
		"metrics": http.HandlerFunc(s.metrics),
		"log": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = s.recent.WriteTo(w) // who asked is gone
		}),
		"goroutines": profile("goroutine", 1),
		"heap":       profile("heap", 0),
	})
}

// running makes a page that there is only when the agent has begun.
func (s *socket) running(page func(*http.Request, *agent) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := s.agent.Load()
		if a == nil {
			http.Error(w, "the agent has not begun: "+s.pages.now().Why, http.StatusServiceUnavailable)
			return
		}
		run.Page(func(context.Context) (any, error) { return page(r, a) }).ServeHTTP(w, r)
	})
}

func (s *socket) metrics(w http.ResponseWriter, r *http.Request) {
	s.pages.mu.Lock()
	metrics, settings := s.pages.metrics, s.pages.settings
	s.pages.mu.Unlock()
	if metrics == nil {
		http.Error(w, "the agent has not begun: "+s.pages.now().Why, http.StatusServiceUnavailable)
		return
	}
	metrics(settings).ServeHTTP(w, r)
}

// profile is a page with a profile of this process, as runtime/pprof writes it.
func profile(name string, debug int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = pprof.Lookup(name).WriteTo(w, debug) // who asked is gone
	})
}

// status is how the agent is, also before it has begun.
func (s *socket) status() Status {
	if a := s.agent.Load(); a != nil {
		return a.status()
	}
	return Status{Node: s.node, Version: s.version, PID: os.Getpid(), Since: s.started, Why: s.pages.now().Why}
}

// routesOf is what the peer with that address told and was told.
func (a *agent) routesOf(peer string) (PeerRoutes, error) {
	addr, err := netip.ParseAddr(peer)
	if err != nil {
		return PeerRoutes{}, fmt.Errorf("peer %q: must be an IP address", peer)
	}
	if a.speaker == nil {
		return PeerRoutes{}, fmt.Errorf("peer %v: this node does not speak BGP (CALICO_NETWORKING_BACKEND=%s)", addr, a.Backend)
	}
	routes, ok := a.speaker.Routes(addr)
	if !ok {
		return PeerRoutes{}, fmt.Errorf("peer %v: this node has no such peer", addr)
	}
	return PeerRoutes{Peer: addr.String(), Received: peerRoutes(routes.Received), Advertised: peerRoutes(routes.Advertised)}, nil
}

func peerRoutes(list []bgp.PeerRoute) []PeerRoute {
	out := make([]PeerRoute, 0, len(list))
	for _, r := range list {
		out = append(out, PeerRoute(r))
	}
	return out
}
