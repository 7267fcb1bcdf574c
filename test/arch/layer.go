package arch

import (
	"slices"
	"strings"
)

// Module is the path of this module.
const Module = "github.com/weft-net/weft"

// Layer is a storey of the tree; a package imports from lower ones, and from its
// own.
type Layer int

// The layers. Aside packages (tests, examples, generators) are not part of the
// product: any import is theirs, and nobody's product code imports them.
const (
	Unknown Layer = iota - 1
	Nouns
	Deciders
	Doors
	Shells
	Aside
)

// String names l as its reasons do.
func (l Layer) String() string {
	return [...]string{"unknown", "nouns", "deciders", "doors", "shells", "aside"}[l+1]
}

// places gives each directory its layer; a directory inherits that of the nearest
// one above it that is listed.
func places() map[string]Layer {
	return map[string]Layer{
		"api/v3":            Nouns,
		"internal/model":    Nouns,
		"internal/selector": Nouns,
		"internal/spelling": Nouns,
		"internal/plan":     Nouns,

		"internal/policy":  Deciders,
		"internal/edge":    Deciders,
		"internal/route":   Deciders,
		"internal/ipam":    Deciders,
		"internal/audit":   Deciders,
		"internal/peering": Deciders,
		"internal/bgp":     Deciders,

		"internal/path":         Deciders,
		"internal/control/leak": Deciders,
		"internal/control/want": Deciders,

		"internal/wireguard": Deciders,

		"internal/kube":      Doors,
		"internal/manifest":  Doors,
		"internal/secret":    Doors,
		"internal/store":     Doors,
		"internal/kernel":    Doors,
		"internal/speaker":   Doors,
		"internal/reconcile": Doors,
		"internal/cni/rpc":   Doors,

		"cmd":                Shells,
		"internal/agent":     Shells,
		"internal/allocator": Shells,
		"internal/cni":       Shells,
		"internal/control":   Shells,
		"internal/ctl":       Shells,
		"internal/docker":    Shells,
		"internal/lab":       Shells,
		"internal/migrate":   Shells,
		"internal/run":       Shells,
		"internal/startup":   Shells,

		"bench":              Aside,
		"build":              Aside,
		"examples":           Aside,
		"internal/crd":       Aside,
		"internal/reference": Aside,
		"internal/testenv":   Aside,
		"test":               Aside,
	}
}

// LayerOf is the layer of the package with that import path.
func LayerOf(path string) Layer {
	dir, ours := strings.CutPrefix(path, Module+"/")
	if !ours {
		return Unknown
	}
	if strings.HasSuffix(dir, "test") && strings.HasPrefix(dir, "internal/") {
		return Aside // conformance tests such as store/storetest, after net/http/httptest
	}
	for {
		if l, ok := places()[dir]; ok {
			return l
		}
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return Unknown
		}
		dir = dir[:i]
	}
}

// impure are the packages through which nouns and deciders would touch the world.
func impure() []string {
	return []string{"context", "log", "log/slog", "net", "net/http", "os", "os/exec", "os/signal", "sync", "sync/atomic", "syscall", "unsafe"}
}

// Package is what `go list` tells of one package.
type Package struct {
	Dir        string
	ImportPath string
	GoFiles    []string
	Imports    []string // direct
	Deps       []string // all
}

// Faults gives the reasons why p breaks the rules of the layers, one a line;
// nothing when it keeps them.
func Faults(p Package) []string {
	from := LayerOf(p.ImportPath)
	if from == Aside {
		return nil
	}
	if from == Unknown {
		return []string{p.ImportPath + " has no layer: give its directory one in test/arch/layer.go"}
	}
	var faults []string
	for _, imported := range p.Imports {
		if why := reason(p.ImportPath, from, imported); why != "" {
			faults = append(faults, p.ImportPath+" imports "+imported+": "+why)
		}
	}
	if p.ImportPath == Module+"/cmd/weft-cni" {
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "k8s.io/") || strings.HasPrefix(dep, "go.etcd.io/") || strings.HasPrefix(dep, "google.golang.org/grpc") {
				faults = append(faults, p.ImportPath+" depends on "+dep+": the CNI executable stays small and holds no datastore client")
			}
		}
	}
	return faults
}

// reason says why a package in layer from must not import the other; empty if it may.
func reason(path string, from Layer, imported string) string {
	if strings.Contains(imported, "projectcalico/") || strings.HasPrefix(imported, "github.com/tigera/") {
		return "weft holds no module of Calico's"
	}
	pure := from == Nouns || from == Deciders
	if pure && slices.Contains(impure(), imported) {
		return "nouns and deciders are pure: they read no clock, socket, file, lock, environment or logger"
	}
	if pure && strings.HasPrefix(imported, "k8s.io/") &&
		!(strings.HasPrefix(path, Module+"/api/v3") && imported == "k8s.io/apimachinery/pkg/apis/meta/v1") {
		return "below the doors only api/v3 knows Kubernetes, and of it only apimachinery's meta/v1"
	}
	if !strings.HasPrefix(imported, Module+"/") {
		return ""
	}
	to := LayerOf(imported)
	switch {
	case to == Aside && imported != Module+"/examples":
		return "that is for tests only"
	case to == Aside || to <= from && !(from == Doors && to == Deciders):
		return ""
	case from == Doors && to == Deciders:
		if seam(path, imported) {
			return ""
		}
		return "doors and deciders meet only in a shell"
	default:
		return "dependencies point down: " + from.String() + " must not know " + to.String()
	}
}

// seam reports the one door that is built around one decider: the speaker is the
// sockets and the clock of the BGP core and has no other purpose.
func seam(door, decider string) bool {
	return strings.HasPrefix(door, Module+"/internal/speaker") && strings.HasPrefix(decider, Module+"/internal/bgp")
}
