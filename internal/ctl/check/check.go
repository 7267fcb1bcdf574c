// Package check finds out whether a machine can be a node: which abilities of the kernel are
// there, and what each is for.
//
// An ability is tried rather than looked up, in a network namespace that is thrown away: lists
// of modules say neither what is built in, nor what a container may not do. The packet filter
// is tried by the agent's own writer, a chain for each kind of rule that weft makes.
//
//	sandbox (unshare) ──► tries ──┐
//	/proc/modules, modules.dep ───┼─► Item: OK, FAIL or SKIP, why, and what to do
//	a kernel's configuration ─────┘
//
// Where no namespace can be made, for want of rights, the modules and the configuration are
// all that there is to go by, and what they don't say is skipped.
//
// Deliberately not here: whether the node's settings are right, and whether its peers can be
// reached: that is for the agent to say.
//
// Invariant: nothing of the machine's own network changes, but that the kernel may load
// modules that a try asks for, as it would for the agent.
package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// State is what came of a try, in calicoctl's words.
type State string

// The states.
const (
	OK   State = "OK"
	FAIL State = "FAIL"
	SKIP State = "SKIP" // it could not be found out
)

// Item is one ability.
type Item struct {
	Name     string `json:"name"`
	Module   string `json:"module,omitempty"` // of the kernel, that brings it; empty: it is always there
	For      string `json:"for"`
	Required bool   `json:"required"` // without it the agent can't do its work; else only what For says
	State    State  `json:"state"`
	Why      string `json:"why,omitempty"`
	Do       string `json:"do,omitempty"` // what a person may do about it
}

// Report is how a machine is.
type Report struct {
	Kernel string `json:"kernel"` // release, such as 6.12.1-amd64
	Arch   string `json:"arch"`
	Items  []Item `json:"items"`
}

// Fit reports whether the machine can be a node: nothing that is required fails.
func (r Report) Fit() bool {
	for _, i := range r.Items {
		if i.Required && i.State == FAIL {
			return false
		}
	}
	return true
}

// Options say where to look.
type Options struct {
	// KernelConfig is a kernel's configuration, lines CONFIG_X=y, perhaps compressed with gzip;
	// empty: /proc/config.gz or that of /boot, if there is one.
	KernelConfig string
	// Root is the directory under which proc, lib and boot are; empty: /.
	Root string
	// NoTries has nothing tried: what files say is all.
	NoTries bool
}

// minimum is the first kernel with sets of ranges that are part of a longer key, which the
// check of source addresses is made of.
const minimumMajor, minimumMinor = 5, 6

// Run finds out how the machine is. The error is about Options, or the end of ctx.
func Run(ctx context.Context, o Options) (Report, error) {
	facts, err := readFacts(o)
	if err != nil {
		return Report{}, err
	}
	r := Report{Kernel: facts.release, Arch: runtime.GOARCH, Items: []Item{version(facts.release)}}
	tries := abilities()
	outcome := map[string]error{}
	sandbox := errors.New("nothing is tried")
	if !o.NoTries {
		outcome, sandbox = tryAll(ctx, tries)
	}
	for _, a := range tries {
		r.Items = append(r.Items, a.judge(outcome, sandbox, facts))
	}
	return r, ctx.Err()
}

// version judges the kernel's release.
func version(release string) Item {
	item := Item{Name: "kernel", For: "all", Required: true, State: OK, Why: release}
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		item.State = SKIP
		return item
	}
	major, _ := strconv.Atoi(parts[0]) // digits only
	minor, _ := strconv.Atoi(parts[1])
	if major < minimumMajor || major == minimumMajor && minor < minimumMinor {
		item.State, item.Why = FAIL, fmt.Sprintf("%s is older than %d.%d", release, minimumMajor, minimumMinor)
		item.Do = "take a newer kernel"
	}
	return item
}

// judge makes the item of an ability of what came of its try; without a sandbox, of what the
// facts say of its module.
func (a ability) judge(outcome map[string]error, sandbox error, f facts) Item {
	item := Item{Name: a.name, Module: a.module, For: a.purpose, Required: a.required, State: OK}
	err, tried := outcome[a.name]
	known, there := f.module(a)
	switch {
	case tried && err == nil:
	case tried:
		item.State, item.Why, item.Do = FAIL, err.Error(), a.remedy
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			item.Do = "run it as root, or give the container the capability NET_ADMIN"
		} else if a.module != "" {
			item.Do = f.remedy(a, there)
		}
	case known != "" && there:
		item.Why = known
	case known != "":
		item.State, item.Why, item.Do = FAIL, known, f.remedy(a, false)
	default:
		item.State, item.Why, item.Do = SKIP, "not tried: "+sandbox.Error(), "run it as root"
	}
	return item
}

// facts are what files say of the running kernel.
type facts struct {
	release string
	loaded  map[string]bool   // modules that are in
	files   map[string]bool   // modules that could be
	builtin map[string]bool   // modules that are part of it
	config  map[string]string // CONFIG_X: y, m or n; empty: not known
}

// readFacts reads what is there; only a configuration that was named must be.
func readFacts(o Options) (facts, error) {
	at := func(path string) string { return filepath.Join(o.Root, "/", path) }
	f := facts{release: release(at), loaded: map[string]bool{}, files: map[string]bool{}, builtin: map[string]bool{}}
	for line := range strings.Lines(readText(at("/proc/modules"))) {
		name, _, _ := strings.Cut(line, " ")
		f.loaded[name] = true
	}
	dir := at("/lib/modules/" + f.release)
	for line := range strings.Lines(readText(filepath.Join(dir, "modules.dep"))) {
		path, _, _ := strings.Cut(line, ":")
		f.files[moduleName(path)] = true
	}
	for line := range strings.Lines(readText(filepath.Join(dir, "modules.builtin"))) {
		f.builtin[moduleName(line)] = true
	}
	var err error
	if o.KernelConfig != "" {
		f.config, err = readConfig(o.KernelConfig)
		return f, err
	}
	for _, path := range []string{"/proc/config.gz", "/boot/config-" + f.release} {
		if f.config, err = readConfig(at(path)); err == nil {
			break
		}
	}
	return f, nil
}

func release(at func(string) string) string {
	return strings.TrimSpace(readText(at("/proc/sys/kernel/osrelease")))
}

// readText is the content of a file, empty if it can't be read.
func readText(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// moduleName is the name of a module by its file: kernel/net/ipv4/ipip.ko.zst is ipip.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(strings.TrimSpace(path)), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// module says what is known of the module of an ability, empty if nothing is, and whether it
// is there.
func (f facts) module(a ability) (what string, there bool) {
	switch value := f.config[a.config]; {
	case a.module == "":
		return "", false
	case f.loaded[a.module]:
		return "module " + a.module + " is loaded", true
	case f.builtin[a.module], value == "y":
		return a.module + " is built in", true
	case f.files[a.module], value == "m":
		return "module " + a.module + " can be loaded", true
	case value == "n":
		return a.config + " is not set in this kernel", false
	}
	return "", false
}

// remedy says how to get an ability that is not there.
func (f facts) remedy(a ability, there bool) string {
	if there && !f.loaded[a.module] {
		return "modprobe " + a.module
	}
	if f.loaded[a.module] {
		return a.remedy
	}
	return "take a kernel with " + a.config
}
