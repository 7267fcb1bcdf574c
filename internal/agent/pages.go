package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/run"
)

// pageRetry is the time between two tries to listen on a port that somebody else has.
const pageRetry = 5 * time.Second

// pulseInterval is the time between two questions to the engine whether it is there.
const pulseInterval = 5 * time.Second

// pages serves health and metrics over TCP, where the settings say. It is there before the
// datastore is: a process that waits is alive, and says what it waits for. Its methods may be
// called at any time.
type pages struct {
	log    *slog.Logger
	follow [2]chan route.Page // the latest settings of health and of metrics; room for one each

	mu       sync.Mutex
	settings route.Pages
	health   func() run.Health              // nil: the agent has not begun
	metrics  func(route.Pages) http.Handler // the same
	why      string                         // what it waits for then
}

func newPages(log *slog.Logger) *pages {
	p := &pages{log: log, why: "starting"}
	for i := range p.follow {
		p.follow[i] = make(chan route.Page, 1)
	}
	return p
}

// configure says where to serve.
func (p *pages) configure(s route.Pages) {
	p.mu.Lock()
	p.settings = s
	p.mu.Unlock()
	for i, page := range []route.Page{s.Health, s.Metrics} {
		select {
		case <-p.follow[i]:
		default:
		}
		p.follow[i] <- page // this is the only sender
	}
}

// waiting says what the agent waits for before it begins.
func (p *pages) waiting(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why
}

// begin says that the agent runs, and tells by itself how it is.
func (p *pages) begin(health func() run.Health, metrics func(route.Pages) http.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.health, p.metrics = health, metrics
}

func (p *pages) now() run.Health {
	p.mu.Lock()
	health, why := p.health, p.why
	p.mu.Unlock()
	if health == nil {
		return run.Health{Live: true, Why: why}
	}
	return health()
}

// run serves until ctx ends.
func (p *pages) run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() {
		p.keep(ctx, "health", p.follow[0], func(ctx context.Context, l net.Listener) error {
			return run.Pages(ctx, l, p.now, nil)
		})
	})
	both.Go(func() { p.keep(ctx, "metrics", p.follow[1], p.serveMetrics) })
	both.Wait()
}

// keep serves where settings say last. A port that can't be had is tried again.
func (p *pages) keep(ctx context.Context, what string, settings <-chan route.Page, serve func(context.Context, net.Listener) error) {
	var page route.Page
	var again <-chan time.Time
	last, end := "", func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-settings:
			if s == page {
				continue
			}
			end()
			page, again, last, end = s, nil, "", func() {}
		case <-again:
		}
		if again = nil; !page.Enabled {
			continue
		}
		l, err := listenPage(ctx, page)
		if err != nil {
			if err.Error() != last {
				p.log.Warn("the agent's page is not served; trying again", "page", what, "err", err)
			}
			last, again = err.Error(), time.After(pageRetry)
			continue
		}
		p.log.Info("serving", "page", what, "address", l.Addr().String())
		end = until(ctx, l, serve)
	}
}

// until serves on l, and returns what ends that.
func until(ctx context.Context, l net.Listener, serve func(context.Context, net.Listener) error) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var served sync.WaitGroup
	served.Go(func() { _ = serve(ctx, l) }) // which ends by ctx
	return func() {
		cancel()
		served.Wait()
	}
}

// listenPage listens where p says. "localhost" is the loopback interface of either family,
// whatever a file or a name server says.
func listenPage(ctx context.Context, p route.Page) (net.Listener, error) {
	hosts := []string{p.Host}
	if p.Host == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var l net.Listener
	var err error
	for _, host := range hosts {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(p.Port)))
		if !errors.Is(err, unix.EADDRNOTAVAIL) {
			break
		}
	}
	return l, err
}

// serveMetrics answers /metrics.
func (p *pages) serveMetrics(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		metrics, settings := p.metrics, p.settings
		p.mu.Unlock()
		if metrics == nil {
			http.Error(w, "the agent has not begun", http.StatusServiceUnavailable)
			return
		}
		metrics(settings).ServeHTTP(w, r)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	return srv.Serve(l)
}

// pulse is when the engine was last seen to take something in.
type pulse struct {
	asked chan struct{} // the engine takes from it
	born  time.Time
	last  atomic.Int64 // nanoseconds since born: on the clock that nobody sets
}

func newPulse() *pulse { return &pulse{asked: make(chan struct{}), born: time.Now()} }

// run asks again and again until ctx ends.
func (p *pulse) run(ctx context.Context) error {
	for {
		select {
		case p.asked <- struct{}{}:
			p.last.Store(int64(time.Since(p.born)))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := pause(ctx, pulseInterval); err != nil {
			return err
		}
	}
}

// silent is how long the engine has not taken anything in.
func (p *pulse) silent() time.Duration {
	return max(time.Since(p.born)-time.Duration(p.last.Load())-pulseInterval, 0)
}

// stuck names the loop that has been at one thing for longer than the limit; empty: none.
func (a *agent) stuck(limit time.Duration) string {
	if limit <= 0 {
		return ""
	}
	for _, l := range []struct {
		name string
		busy time.Duration
	}{
		{"engine", a.engine.pulse.silent()},
		{"routes", a.network.fib.Busy()},
		{"policy", a.engine.filter.table.Busy()},
		{"devices", a.network.devices.Busy()},
		{"wireguard", a.network.wg.Busy()},
	} {
		if l.busy > limit {
			return fmt.Sprintf("loop %s: at one thing for %v, longer than dataplaneWatchdogTimeout (%v)", l.name, l.busy.Round(time.Second), limit)
		}
	}
	return ""
}
