package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/lab/topology"
)

// How probes are sent.
const (
	probeWait  = time.Second            // for one answer
	probeEvery = 100 * time.Millisecond // between tries
	quietWait  = 200 * time.Millisecond // for an answer that must not come
	quietTries = 3                      // unanswered requests that prove unreachable
	atOnce     = 64                     // probes under way
)

// check tries every expectation, in order, and then takes the picture that
// `lab run` prints: the routes of every node and who reaches whom.
func (h *holder) check(ctx context.Context, progress func(format string, args ...any)) *Report {
	var r Report
	for i, e := range h.topo.Expect {
		progress("checking %d of %d: %s", i+1, len(h.topo.Expect), describe(e))
		r.Results = append(r.Results, h.expect(ctx, e))
	}
	progress("reading routes")
	for _, n := range h.nodes {
		lines, err := h.routes(ctx, n.ns)
		if err != nil {
			lines = []string{err.Error()}
		}
		r.Routes = append(r.Routes, Routes{Node: n.target.Name, Lines: lines})
	}
	r.Pods, r.Answers = h.matrix(ctx)
	return &r
}

// patient is a time as long as the machine needs it.
func (u *upRequest) patient(d time.Duration) time.Duration { return d * time.Duration(u.Patience) }

// describe is an expectation in words.
func describe(e topology.Expectation) string {
	words := func(refs []string) string { return strings.Join(refs, ", ") }
	pair := func(p *topology.Pair, verb string) string {
		out := words(p.From) + verb + words(p.To)
		if p.Port != 0 {
			out += fmt.Sprintf(" at %s port %d", p.Protocol, p.Port)
		}
		if p.Carried != "" {
			out += ", carried: " + p.Carried
		}
		if p.Source != "" {
			out += ", source: " + p.Source
		}
		if e.By != "" {
			out += ", by " + e.By
		}
		return out
	}
	switch {
	case e.Reachable != nil:
		return pair(e.Reachable, " reach ")
	case e.Unreachable != nil:
		return pair(e.Unreachable, " do not reach ")
	case e.MTU != nil:
		return fmt.Sprintf("%s send %s packets of %d bytes and no more", words(e.MTU.From), words(e.MTU.To), e.MTU.Bytes)
	case e.Route != nil:
		return "route on " + words(e.Route.At) + ": " + e.Route.Line
	default:
		return "no route on " + words(e.NoRoute.At) + ": " + e.NoRoute.Line
	}
}

// expect waits until e is true, or its time is over.
func (h *holder) expect(ctx context.Context, e topology.Expectation) Result {
	start := time.Now()
	within := h.patient(e.Within)
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %v", within))
	defer cancel()
	var err error
	switch {
	case e.Reachable != nil:
		err = h.judged(ctx, *e.Reachable, h.reachable, e.By, true)
	case e.Unreachable != nil:
		err = h.judged(ctx, *e.Unreachable, h.unreachable, e.By, false)
	case e.MTU != nil:
		err = h.largest(ctx, *e.MTU)
	case e.Route != nil:
		err = h.awaitRoute(ctx, *e.Route, true)
	default:
		err = h.awaitRoute(ctx, *e.NoRoute, false)
	}
	r := Result{Expectation: describe(e), Passed: err == nil, Seconds: time.Since(start).Seconds()}
	if err != nil {
		r.Reason = err.Error()
	}
	return r
}

// judged tries every way of the pair, and then checks who decides about them.
func (h *holder) judged(ctx context.Context, p topology.Pair, try func(context.Context, topology.Pair) error, by string, allowed bool) error {
	if err := try(ctx, p); err != nil || by == "" {
		return err
	}
	return h.decidedBy(ctx, p, by, allowed)
}

// reachable tries every way of the pair until it answers. Packets that are to be looked
// at are sent one way after the other, so that each is known by its time.
func (h *holder) reachable(ctx context.Context, p topology.Pair) error {
	if p.Carried == "" && p.Source == "" {
		return h.eachPair(ctx, p, atOnce, func(ctx context.Context, w way) error {
			return persist(ctx, func() error { return w.ask(ctx, probeWait, rand.Uint64()) })
		})
	}
	o, err := h.observer(ctx)
	if err != nil {
		return err
	}
	return h.eachPair(ctx, p, 1, func(ctx context.Context, w way) error {
		return persist(ctx, func() error { return o.try(ctx, p, w) })
	})
}

// unreachable tries every way of the pair until it stays without an answer.
func (h *holder) unreachable(ctx context.Context, p topology.Pair) error {
	return h.eachPair(ctx, p, atOnce, func(ctx context.Context, w way) error { return reachesNot(ctx, w, h.patient(quietWait)) })
}

// way is one direction between two things, of one family, and what is asked.
type way struct {
	from, to topology.Target
	ns       *namespace
	source   netip.Addr // an address of from, of the family of addr
	addr     netip.Addr
	protocol string // icmp, tcp or udp
	port     uint16 // 0 for icmp
}

func (w way) String() string { return fmt.Sprintf("%v to %v (%v)", w.from, w.to, w.addr) }

// eachPair runs try for every way of the pair, a number at once. Its error names the
// first that failed, and how many did.
func (h *holder) eachPair(ctx context.Context, p topology.Pair, slots int, try func(context.Context, way) error) error {
	ways, err := h.ways(p)
	if err != nil {
		return err
	}
	if len(ways) == 0 {
		return errors.New("nothing to try: no two of them have an address of the same family")
	}
	if err := h.listenAt(ways); err != nil {
		return err
	}
	var mu sync.Mutex
	var first error
	failed, untried := 0, 0
	parallel(ways, slots, func(w way) {
		over := ctx.Err() != nil && slots == 1
		err := error(nil)
		if !over {
			err = try(ctx, w)
		}
		mu.Lock()
		defer mu.Unlock()
		if over {
			untried++
		}
		if err != nil {
			if failed++; first == nil {
				first = fmt.Errorf("%v: %w", w, err)
			}
		}
	})
	switch {
	case first == nil && untried > 0:
		return fmt.Errorf("%w: %d of %d ways are left untried", context.Cause(ctx), untried, len(ways))
	case untried > 0:
		return fmt.Errorf("%w; %d of %d ways are left untried", first, untried, len(ways))
	case failed > 1:
		return fmt.Errorf("%w; %d of %d ways fail", first, failed, len(ways))
	}
	return first
}

// parallel runs f for all of them, a number at once.
func parallel[T any](all []T, slots int, f func(T)) {
	var wait sync.WaitGroup
	free := make(chan struct{}, slots)
	for _, x := range all {
		free <- struct{}{}
		wait.Go(func() {
			defer func() { <-free }()
			f(x)
		})
	}
	wait.Wait()
}

// ways lists what a pair of sets means: every source to every address of every
// other destination of which it has the family.
func (h *holder) ways(p topology.Pair) ([]way, error) {
	from, err := h.targets(p.From)
	if err != nil {
		return nil, err
	}
	to, err := h.targets(p.To)
	if err != nil {
		return nil, err
	}
	var out []way
	for _, f := range from {
		ns, own := h.place(f)
		for _, t := range to {
			if f == t {
				continue
			}
			addrs := []netip.Addr{t.Addr}
			if t.Kind != topology.ToAddress {
				_, addrs = h.place(t)
			}
			for _, a := range addrs {
				source, ok := ofFamily(own, a)
				if t.Kind == topology.ToAddress || ok {
					out = append(out, way{f, t, ns, source, a, p.Protocol, p.Port})
				}
			}
		}
	}
	return out, nil
}

// ofFamily is the first of addrs that is of the family of like.
func ofFamily(addrs []netip.Addr, like netip.Addr) (netip.Addr, bool) {
	for _, a := range addrs {
		if a.Is4() == like.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (h *holder) targets(refs []string) ([]topology.Target, error) {
	var out []topology.Target
	for _, ref := range refs {
		ts, err := h.topo.Targets(ref)
		if err != nil {
			return nil, err
		}
		out = append(out, ts...)
	}
	return out, nil
}

// place is where a target is and what its addresses are.
func (h *holder) place(t topology.Target) (*namespace, []netip.Addr) {
	switch t.Kind {
	case topology.ToPod:
		for _, p := range h.pods {
			if p.Target() == t {
				p.mu.Lock()
				defer p.mu.Unlock()
				return p.ns, p.addrs
			}
		}
	case topology.ToNode:
		for i, m := range h.nodes {
			if m.target == t {
				return m.ns, h.topo.Nodes[i].Addresses
			}
		}
	case topology.ToOutside:
		for _, o := range h.outside {
			if o.target == t {
				return o.ns, o.addrs
			}
		}
	case topology.ToRouter:
		for i, m := range h.routers {
			if m.target == t {
				return m.ns, h.topo.Routers[i].Addresses
			}
		}
	}
	var gateways []netip.Addr
	for _, r := range h.topo.Racks {
		for _, s := range r.Subnets {
			gateways = append(gateways, topology.Gateway(s))
		}
	}
	return &namespace{}, gateways
}

// persist tries until there is no error, or the time is over. What was wrong is the
// last error that is not just the end of the time, which leaves a try without an answer.
func persist(ctx context.Context, try func() error) error {
	var wrong error
	for {
		err := try()
		if err == nil {
			return nil
		}
		ended := ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
		switch cut := ended || ctx.Err() != nil && errors.Is(err, errNoAnswer); {
		case cut && wrong != nil:
		case ended:
			wrong = errNoAnswer
		default:
			wrong = err
		}
		if !pause(ctx) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), wrong)
		}
	}
}

// reachesNot tries until some requests in a row stay without an answer for a time each.
func reachesNot(ctx context.Context, w way, wait time.Duration) error {
	quiet := 0
	for {
		if err := w.ask(ctx, wait, rand.Uint64()); err != nil {
			quiet++
		} else {
			quiet = 0
		}
		if quiet >= quietTries {
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("%w: it answers", context.Cause(ctx))
		}
	}
}

// pause waits between two tries; false when the time is over.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(probeEvery):
		return true
	}
}

// awaitRoute reads routes until the line is there, or gone, on each target.
func (h *holder) awaitRoute(ctx context.Context, want topology.RouteLine, present bool) error {
	targets, err := h.targets(want.At)
	if err != nil {
		return err
	}
	match, err := topology.Matcher(want.Line)
	if err != nil {
		return err
	}
	for _, t := range targets {
		ns, _ := h.place(t)
		for {
			lines, err := h.routes(context.WithoutCancel(ctx), ns)
			if err != nil {
				return err
			}
			found := ""
			for _, line := range lines {
				if match.MatchString(line) {
					found = line
				}
			}
			if (found != "") == present {
				break
			}
			if !pause(ctx) {
				if present {
					return fmt.Errorf("%w: %v has: %s", context.Cause(ctx), t, strings.Join(lines, "; "))
				}
				return fmt.Errorf("%w: %v has: %s", context.Cause(ctx), t, found)
			}
		}
	}
	return nil
}
