// Package install puts the CNI plugin onto a node: the executables into the
// directory of plugins, and then, when the agent can serve them, the network
// configuration list that makes the kubelet call the node ready. It does the work
// of Calico's install-cni container, from within the node role.
//
//	image: /opt/cni/bin ── Executables ──► host: /opt/cni/bin
//	environment, node   ── Conflist ─────► host: /etc/cni/net.d/10-weft.conflist
//	                              ▲
//	              ready, pools, deleted by somebody (inotify)
//
// Names, variables and placeholders are Calico's, so the environment of its
// install-cni container works as it is. No kubeconfig and no token are written:
// weft's plugin has no credentials, it asks the agent.
//
// Each file is written under another name in the same directory, one that no
// runtime reads, synced, and renamed: whenever the process or the machine stops,
// there is the old file or the new one, whole. A directory that can't be written
// is an error that is told and tried again; what runs keeps running.
//
// Deliberately missing: removal of executables. A runtime needs them to take down
// the pods that the node still has.
package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/reconcile"
)

// Families says of which families new pods get an address.
type Families struct{ V4, V6 bool }

// Installer keeps the plugin installed. Its methods may be called at any time.
type Installer struct {
	config Config
	loop   *reconcile.Loop
	health reconcile.Health
	files  files

	mu       sync.Mutex
	families Families
	ready    bool   // the conflist may be there
	written  []byte // the conflist as it was written, or found right, last; nil: not in this life

	// The loop's alone:
	watch  *watcher // nil: not in Run
	name   string   // of the conflist's file; empty: not chosen yet
	warned bool     // that somebody changed the conflist
}

// New makes an installer; it does nothing before Run.
func New(c Config) *Installer {
	i := &Installer{config: c}
	i.health = reconcile.Health{Log: c.Log, Good: "CNI plugin is installed", Bad: "CNI plugin is not installed as wanted; trying again"}
	i.loop = reconcile.New(i.pass, reconcile.Options{MinDelay: time.Second, Health: i.health.Note})
	return i
}

// Serve says that the agent serves the plugin, with addresses of these families: from now on
// the conflist is there. It may be said again, when the families change.
func (i *Installer) Serve(f Families) {
	i.mu.Lock()
	changed := !i.ready || i.families != f
	i.ready, i.families = true, f
	i.mu.Unlock()
	if changed {
		i.loop.Kick()
	}
}

// Problem is what keeps the plugin from being installed; empty: nothing.
func (i *Installer) Problem() string { return i.health.Err() }

// Installed reports whether the conflist is in place.
func (i *Installer) Installed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.written != nil
}

// Run installs, and puts back what somebody removes, until ctx ends; it returns the cause of
// that. What was installed stays: see Remove.
func (i *Installer) Run(ctx context.Context) error {
	i.watch = newWatcher(i.config.Log)
	return i.loop.RunWith(ctx, func() error { return i.watch.run(i.loop.Kick) }, i.watch.close)
}

// pass makes executables and conflist as they must be.
func (i *Installer) pass(_ context.Context, cause reconcile.Cause) error {
	i.watch.add(i.config.ConfDir, i.config.BinDir) // before the look, so that nothing is missed
	if cause == reconcile.Resync {
		i.files.sweep(i.config.ConfDir)
		i.files.sweep(i.config.BinDir)
	}
	if err := i.executables(); err != nil {
		return err // a conflist without its plugins would make pods fail
	}
	i.mu.Lock()
	ready, families, written := i.ready, i.families, i.written
	i.mu.Unlock()
	if !ready {
		return nil
	}
	now, err := i.conflist(families, written)
	if now != nil {
		i.mu.Lock()
		i.written = now
		i.mu.Unlock()
	}
	return err
}

// conflist writes the conflist where it is missing, or what the last life left, or no JSON; last
// is what it was in this life. What somebody changed meanwhile is left to him until the next
// start. It returns what is there by us; nil: nothing.
func (i *Installer) conflist(f Families, last []byte) ([]byte, error) {
	want, err := i.config.Conflist(f)
	if err != nil {
		return nil, err
	}
	if i.name == "" {
		if i.name, err = i.config.name(); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(i.config.ConfDir, i.name)
	have, err := os.ReadFile(path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, i.config.confError(err)
	case err == nil && bytes.Equal(have, want):
		return want, nil
	case err == nil && bytes.Equal(last, want) && json.Valid(have):
		if !i.warned {
			i.config.Log.Warn("somebody changed the CNI configuration; it is left so until the next start", "file", path)
		}
		i.warned = true
		return nil, nil
	}
	if err := i.files.write(path, bytes.NewReader(want), 0o600); err != nil {
		return nil, i.config.confError(err)
	}
	i.config.Log.Info("wrote CNI configuration", "file", path)
	i.warned = false
	i.config.removeOld(i.name)
	i.config.warnOfOthers(i.name)
	return want, nil
}

// executables copies the plugins that are missing or other than the image's.
func (i *Installer) executables() error {
	all, err := i.config.executables()
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range all {
		if slices.Contains(i.config.SkipBinaries, e.name) {
			continue
		}
		to := filepath.Join(i.config.BinDir, e.name)
		changed, err := i.files.copy(e.source, to, e.like, i.config.KeepBinaries)
		if err != nil {
			errs = append(errs, fmt.Errorf("cni: install executable: %w", err))
		}
		if changed {
			i.config.Log.Debug("installed CNI executable", "file", to)
		}
	}
	if len(errs) > 0 { // they are of one kind
		return fmt.Errorf("%w: is the node's directory of CNI plugins mounted at %s and writable?", errs[0], i.config.BinDir)
	}
	return nil
}

// Remove takes the conflist away: the node's agent goes for good, and the kubelet is to start no
// more pods here. It stays if it is not ours: neither what this life wrote nor one for weft-cni.
// Executables stay. Nothing there is no error. Call it when Run has ended.
func (i *Installer) Remove() error {
	name := i.name
	if name == "" {
		var err error
		if name, err = i.config.name(); err != nil {
			return err
		}
	}
	path := filepath.Join(i.config.ConfDir, name)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return i.config.confError(err)
	case !bytes.Equal(text, i.written) && !forWeft(text):
		return fmt.Errorf("cni: %s: is not of this agent: it stays", path)
	}
	if err := os.Remove(path); err != nil {
		return i.config.confError(err)
	}
	return nil
}
