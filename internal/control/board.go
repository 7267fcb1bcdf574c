package control

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/run"
)

// State is how one controller is.
type State struct {
	Working bool      `json:"working"`           // its last pass was well
	Err     string    `json:"error,omitempty"`   // of its last pass
	Alarm   string    `json:"alarm,omitempty"`   // it has stopped, and a person must decide
	Since   time.Time `json:"since"`             // that it is so
	Notes   []string  `json:"notes,omitempty"`   // objects that it can't act on, a line each
	Missing []string  `json:"missing,omitempty"` // rights
	Passes  int       `json:"passes"`            // since it began to work
}

// Status is the page that says how the process is.
type Status struct {
	Leader      bool             `json:"leader"`
	Identity    string           `json:"identity"`
	Controllers map[string]State `json:"controllers"`
}

// board is where controllers say how they are: to the log when it changes, to the
// pages, the metrics and, for alarms, as an Event.
type board struct {
	log     *slog.Logger
	set     kubernetes.Interface
	config  *Config
	metrics *metrics

	mu     sync.Mutex
	leader bool
	states map[string]State
}

func newBoard(c *Config) *board {
	return &board{log: c.Log, set: c.Clientset, config: c, metrics: newMetrics(), states: map[string]State{}}
}

// lead notes whether this process leads; one that does not runs no controllers.
func (b *board) lead(leads bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leader = leads
	b.states = map[string]State{}
	b.metrics.leader.Set(0)
	if leads {
		b.metrics.leader.Set(1)
	}
}

// expect makes the controllers known, before they work.
func (b *board) expect(names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.states = map[string]State{}
	for _, name := range names {
		b.states[name] = State{Err: "starting", Since: b.config.now()}
		b.metrics.alarm.WithLabelValues(name).Set(0)
	}
}

// note takes in how a pass went.
func (b *board) note(ctx context.Context, name string, err error, notes []string) {
	state := State{Working: err == nil, Since: b.config.now(), Notes: notes}
	var mass *want.MassError
	var access *kube.AccessError
	result := "ok"
	if err != nil {
		state.Err, result = oneLine(err).Error(), "error"
	}
	if errors.As(err, &mass) {
		state.Alarm, result = mass.Error()+": "+howToConfirm(name, mass), "alarm"
	}
	if errors.As(err, &access) {
		for _, a := range access.Missing {
			state.Missing = append(state.Missing, strings.Join(a.Verbs, ", ")+" "+a.String())
		}
	}
	b.mu.Lock()
	old, known := b.states[name]
	if known && old.Err == state.Err && old.Alarm == state.Alarm && old.Working == state.Working {
		state.Since = old.Since
	}
	if !known || ctx.Err() != nil {
		b.mu.Unlock()
		return // it has been told to end
	}
	state.Passes = old.Passes + 1
	b.states[name] = state
	b.mu.Unlock()
	b.metrics.passes.WithLabelValues(name, result).Inc()
	alarmed := 0.0
	if state.Alarm != "" {
		alarmed = 1
	}
	b.metrics.alarm.WithLabelValues(name).Set(alarmed)
	switch {
	case state.Alarm != "" && old.Alarm != state.Alarm:
		b.log.Error("controller stopped", "controller", name, "err", state.Alarm)
		b.tell(ctx, name, state.Alarm)
	case state.Alarm != "":
	case state.Err != "" && old.Err != state.Err && access != nil:
		b.log.Error("controller may not do its work", "controller", name, "err", state.Err)
	case state.Err != "" && old.Err != state.Err:
		b.log.Warn("controller could not do all its work", "controller", name, "err", state.Err)
	case state.Working && !old.Working:
		b.log.Info("controller works", "controller", name)
	}
	for _, n := range notes {
		if !slices.Contains(old.Notes, n) {
			b.log.Warn("controller passes over an object", "controller", name, "err", n)
		}
	}
}

// tell makes an alarm an Event of this pod. Without the right to, the log has it.
func (b *board) tell(ctx context.Context, name, text string) {
	now := metav1.NewTime(b.config.now())
	_, err := b.set.CoreV1().Events(b.config.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: b.config.Identity + ".", Namespace: b.config.Namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: b.config.Namespace, Name: b.config.Identity, APIVersion: "v1"},
		Reason:         "MassRemovalStopped", Message: name + ": " + text, Type: corev1.EventTypeWarning,
		Source: corev1.EventSource{Component: "weft-controllers"}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil {
		b.log.Debug("no event", "err", oneLine(err))
	}
}

// status is the page.
func (b *board) status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Status{Leader: b.leader, Identity: b.config.Identity, Controllers: maps.Clone(b.states)}
}

// health is what probes are told: a process that waits for the lease is ready, one that
// leads is when all its controllers work. An alarm is a person's business and leaves
// it ready: to start it anew helps nobody.
func (b *board) health() run.Health {
	s := b.status()
	h := run.Health{Live: true, Ready: true, Why: "ok"}
	if !s.Leader {
		h.Why = "another process leads"
	}
	for _, name := range slices.Sorted(maps.Keys(s.Controllers)) {
		c := s.Controllers[name]
		switch {
		case c.Alarm != "":
			h.Why = name + ": " + c.Alarm
		case !c.Working:
			h.Ready, h.Why = false, name+": "+c.Err
			return h
		}
	}
	return h
}

// metrics are the numbers for Prometheus. Those of address management have the names
// that Calico's have.
type metrics struct {
	registry   *prometheus.Registry
	leader     prometheus.Gauge
	passes     *prometheus.CounterVec
	alarm      *prometheus.GaugeVec
	blocks     *prometheus.GaugeVec
	inUse      *prometheus.GaugeVec
	candidates prometheus.Gauge
	reclaimed  prometheus.Counter
	removed    *prometheus.CounterVec
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		leader:   gauge("weft_controllers_leader", "1 if this process leads."),
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_controllers_passes_total",
			Help: "Passes of each controller, by result.",
		}, []string{"controller", "result"}),
		alarm: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "weft_controllers_alarm",
			Help: "1 if the controller has stopped because it would remove too much at once.",
		}, []string{"controller"}),
		blocks: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ipam_blocks", Help: "Blocks by node."}, []string{"node"}),
		inUse: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ipam_allocations_in_use",
			Help: "Addresses in use by node.",
		}, []string{"node"}),
		candidates: gauge("ipam_allocations_gc_candidates", "Addresses that look leaked."),
		reclaimed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ipam_allocations_gc_reclamations",
			Help: "Leaked addresses that were released.",
		}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_controllers_removed_total",
			Help: "Objects that were removed, by kind.",
		}, []string{"kind"}),
	}
	m.registry.MustRegister(m.leader, m.passes, m.alarm, m.blocks, m.inUse, m.candidates, m.reclaimed, m.removed)
	return m
}
