package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/kernel/veth"
	"github.com/weft-net/weft/internal/model"
)

// podMTU gives workloads' interfaces the MTU that the node's tunnels leave them: new ones
// through the CNI socket and a file, and those that exist when it changes. Which of these
// are to follow is told by their MTU: one that is as the last automatic value was is taken
// for automatic; what a CNI configuration or a workload says of its own is left alone.
//
// Its methods are safe for concurrent use.
type podMTU struct {
	file   string                // for the CNI executable, and the next agent; empty: none
	report func([]model.Problem) // what can't be done; called by run
	node   string
	log    *slog.Logger
	kick   chan struct{} // room for one
	change func(veth.Options) (veth.Report, error)
	left   int // interfaces that the last pass could not reach; run's alone

	mu       sync.Mutex
	mtu      int      // bytes; 0: not known yet
	prefixes []string // of names of workloads' links
	required bool     // requireMTUFile
	written  int      // what the file has; 0: nothing of use
}

func newPodMTU(node, file string, report func([]model.Problem), log *slog.Logger) *podMTU {
	return &podMTU{node: node, file: file, report: report, log: log, kick: make(chan struct{}, 1), change: veth.SetMTU}
}

// set says what workloads' interfaces must have, bytes, how their links' names begin, and
// whether the node is of no use without the file (requireMTUFile). It must not be called
// before the datastore is known: interfaces of running workloads follow.
func (m *podMTU) set(mtu int, prefixes []string, required bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.required = required
	if mtu == m.mtu && slices.Equal(prefixes, m.prefixes) {
		return
	}
	m.mtu, m.prefixes = mtu, slices.Clone(prefixes)
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// get is the MTU of new interfaces, bytes; 0: not known.
func (m *podMTU) get() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mtu
}

// unready says why no workload may start; empty when it may.
func (m *podMTU) unready() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.required && m.file != "" && (m.mtu == 0 || m.written != m.mtu) {
		return fmt.Sprintf("the MTU of pods is not in %s yet, which requireMTUFile asks for", m.file)
	}
	return ""
}

// latecomers are the times after a change at which interfaces are looked at again: an ADD
// that was answered before it sets the old MTU a moment later.
func latecomers() []time.Duration {
	return []time.Duration{2 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute}
}

// run makes interfaces and file follow until ctx ends.
func (m *podMTU) run(ctx context.Context) error {
	var old []int // automatic values that interfaces may have still
	if mtu, err := readMTUFile(m.file); err == nil {
		old = append(old, mtu)
		m.note(mtu)
	}
	var again <-chan time.Time
	var later []time.Duration
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.kick:
			later = latecomers()
		case <-again:
		}
		m.mu.Lock()
		mtu, prefixes := m.mtu, m.prefixes
		m.mu.Unlock()
		if mtu == 0 {
			continue
		}
		problems := m.pass(mtu, prefixes, slices.DeleteFunc(slices.Clone(old), func(o int) bool { return o == mtu }))
		m.report(problems)
		old = appendNew(old, mtu)
		switch {
		case len(later) > 0:
			again, later = time.After(later[0]), later[1:]
		case len(problems) > 0:
			again = time.After(podMTURetry)
		default:
			again, old = nil, []int{mtu}
		}
	}
}

// podMTURetry is the time until the next attempt when one failed.
const podMTURetry = 30 * time.Second

func appendNew(list []int, n int) []int {
	if slices.Contains(list, n) {
		return list
	}
	return append(list, n)
}

// note says what the file has.
func (m *podMTU) note(mtu int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written = mtu
}

// pass makes interfaces and file follow once.
func (m *podMTU) pass(mtu int, prefixes []string, old []int) []model.Problem {
	var problems []model.Problem
	problem := func(format string, args ...any) {
		problems = append(problems, model.Problem{Key: model.Node{Name: m.node}.Key(), Text: fmt.Sprintf(format, args...)})
	}
	// First the interfaces: an agent that ends in between finds the old value in the file.
	if len(old) > 0 {
		got, err := m.change(veth.Options{Prefixes: prefixes, From: old, To: mtu})
		if len(got.Changed) > 0 {
			m.log.Info("MTU of workloads changed", "mtu", mtu, "links", len(got.Changed))
		}
		if len(got.Left) > 0 && len(got.Left) != m.left {
			m.log.Info("workloads keep their MTU, as their network namespaces can't be reached; ICMP tells them", "mtu", mtu, "links", len(got.Left))
		}
		m.left = len(got.Left)
		if err != nil {
			problem("MTU of workloads that run: %v", err)
		}
	}
	if m.file == "" {
		return problems
	}
	if now, err := readMTUFile(m.file); err != nil || now != mtu {
		if err := writeMTUFile(m.file, mtu); err != nil {
			problem("MTU of pods: %v", err)
			return problems
		}
	}
	m.note(mtu)
	return problems
}

// readMTUFile reads what writeMTUFile wrote, or Calico.
func readMTUFile(path string) (int, error) {
	if path == "" {
		return 0, fs.ErrNotExist
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	mtu, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && mtu <= 0 {
		err = errors.New("no MTU")
	}
	return mtu, err
}

func writeMTUFile(path string, mtu int) error {
	tmp := path + ".new"
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(tmp, []byte(strconv.Itoa(mtu)), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	return err
}
