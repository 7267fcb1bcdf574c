package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/startup"
)

// underlaySettings is what the underlay's MTU is found by. The zero value finds it among
// all links with the usual names.
type underlaySettings struct {
	pattern  string         // of links' names; empty: model.DefaultMTUPattern
	prefixes []string       // of names of workloads' links
	tunnels  []string       // names of tunnels' devices
	addrs    [2]netip.Addr  // the node's, IPv4 and IPv6; zero: none
	compiled *regexp.Regexp // of pattern
}

// underlay follows the MTU of the network between the nodes, as this one sees it, by the
// kernel's events. Its methods are safe for concurrent use.
type underlay struct {
	tell func(mtu int) // called by run, with each new value but 0
	log  *slog.Logger

	mu       sync.Mutex
	settings underlaySettings
	changed  chan struct{} // closed when settings change
}

func newUnderlay(s underlaySettings, tell func(mtu int), log *slog.Logger) *underlay {
	u := &underlay{tell: tell, log: log, changed: make(chan struct{})}
	u.configure(s)
	return u
}

// configure puts changed settings to use. A pattern that is no regular expression, which
// the model refuses, leaves the last one.
func (u *underlay) configure(s underlaySettings) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.pattern == "" {
		s.pattern = model.DefaultMTUPattern
	}
	old := u.settings
	if old.compiled != nil && s.pattern == old.pattern && s.addrs == old.addrs && slices.Equal(s.prefixes, old.prefixes) && slices.Equal(s.tunnels, old.tunnels) {
		return
	}
	compiled, err := regexp.Compile(s.pattern)
	if err != nil {
		u.log.Error("mtuIfacePattern is no regular expression; the last one stays", "err", err)
		s.pattern, compiled = old.pattern, old.compiled
	}
	s.compiled = compiled
	s.prefixes, s.tunnels = slices.Clone(s.prefixes), slices.Clone(s.tunnels)
	u.settings = s
	close(u.changed)
	u.changed = make(chan struct{})
}

// skips reports whether a link is a workload's or a tunnel's, or leads nowhere.
func (s underlaySettings) skips(name string) bool {
	return name == "lo" || slices.Contains(s.tunnels, name) ||
		slices.ContainsFunc(s.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// watchRetry is how long run waits before it watches again when the kernel could not be
// asked.
const watchRetry = 5 * time.Second

// run follows the MTU until ctx ends.
func (u *underlay) run(ctx context.Context) error {
	last, failure := 0, ""
	for {
		u.mu.Lock()
		s, changed := u.settings, u.changed
		u.mu.Unlock()
		watching, stop := context.WithCancel(ctx)
		var wait sync.WaitGroup
		wait.Go(func() {
			select {
			case <-changed:
				stop()
			case <-watching.Done():
			}
		})
		err := startup.WatchLinks(watching, s.skips, func(links []startup.Link) {
			mtu := startup.UnderlayMTU(links, s.compiled, s.skips, s.addrs[0], s.addrs[1])
			if mtu != 0 && mtu != last {
				u.log.Info("MTU of the underlay", "mtu", mtu, "before", last)
				u.tell(mtu)
				last = mtu
			}
		})
		stop()
		wait.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, context.Canceled) {
			continue
		}
		if err.Error() != failure {
			failure = err.Error()
			u.log.Warn("links can't be watched; the MTU of the underlay stays as it was", "err", err)
		}
		if err := pause(ctx, watchRetry); err != nil {
			return err
		}
	}
}
