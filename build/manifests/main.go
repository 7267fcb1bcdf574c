// Command manifests renders the chart of deploy/chart into the plain manifests
// of deploy: the chart is their one source.
//
//	manifests                          deploy/*.yaml, as the repository has them
//	manifests -check                   fail when they differ from what the chart gives
//	manifests -out bin -image NAME:TAG [-set KEY=VALUE]…
//	                                   the same for one image, with settings of the chart
//
// It is a module of its own: Helm's engine brings many dependencies, and the
// product needs none of them.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"helm.sh/helm/v4/pkg/strvals"
)

// manifest is one file of plain YAML.
type manifest struct {
	file, about string
	values      map[string]any // settings of the chart, as in its values.yaml
}

func manifests() []manifest {
	type m = map[string]any
	return []manifest{
		{file: "weft.yaml", about: "weft on a cluster, with the Kubernetes API as datastore."},
		{
			file:   "weft-etcd.yaml",
			about:  "weft on a cluster, with an etcd of your own as datastore: put its address for ETCD_ADDRESS\n# (twice), and its certificates into the Secret weft-etcd.",
			values: m{"datastore": m{"type": "etcdv3", "etcd": m{"endpoints": "https://ETCD_ADDRESS:2379"}}},
		},
		{
			file:  "weft-takeover.yaml",
			about: "weft in the place of Calico, whose objects are in the Kubernetes API, group crd.projectcalico.org:\n# it comes to a node when the node is labelled weft.net/takeover=true.",
			values: m{
				"datastore": m{"apiGroup": "crd.projectcalico.org/v1"}, "crds": false, "ipv4pool": m{"create": false},
				"node": m{"ip": "", "ip6": "", "nodeSelector": m{"weft.net/takeover": "true"}},
			},
		},
	}
}

// order is that of the templates in a manifest: what others need comes first.
func order() []string {
	return []string{"namespace.yaml", "crds.yaml", "node-rbac.yaml", "node.yaml", "controllers-rbac.yaml", "controllers.yaml"}
}

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn) // Helm would tell of the link to deploy/crds
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(args []string) error {
	var set list
	fs := flag.NewFlagSet("manifests", flag.ExitOnError)
	chart := fs.String("chart", "../../deploy/chart", "directory of the chart")
	out := fs.String("out", "../../deploy", "directory of the manifests")
	image := fs.String("image", "", "image reference; default: the chart's")
	check := fs.Bool("check", false, "write nothing; fail when a file differs")
	fs.Var(&set, "set", "KEY=VALUE, a setting of the chart (repeatable)")
	_ = fs.Parse(args) // ends the process itself
	if *image != "" {
		i := strings.LastIndexByte(*image, ':')
		if i <= strings.LastIndexByte(*image, '/') {
			return fmt.Errorf("-image: %q: want NAME:TAG", *image)
		}
		set = append(set, "image.repository="+(*image)[:i], "image.tag="+(*image)[i+1:])
	}
	var faults []error
	for _, m := range manifests() {
		text, err := render(*chart, m.values, set)
		if err != nil {
			return fmt.Errorf("%s: %w", m.file, err)
		}
		text = append([]byte("# "+m.about+"\n# Rendered from deploy/chart by `make manifests`; see docs/kubernetes.md.\n"), text...)
		path := filepath.Join(*out, m.file)
		if !*check {
			faults = append(faults, os.WriteFile(path, text, 0o644))
			continue
		}
		have, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(have, text) {
			err = fmt.Errorf("%s is not what the chart gives: run `make manifests`", path)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// render gives the objects of the chart as one YAML stream. The values, which may be nil,
// come before those that are set, and are changed.
func render(dir string, values map[string]any, set []string) ([]byte, error) {
	c, err := loader.LoadDir(dir)
	if err != nil {
		return nil, err
	}
	if values == nil {
		values = map[string]any{}
	}
	for _, s := range set {
		if err := strvals.ParseInto(s, values); err != nil {
			return nil, fmt.Errorf("-set %s: %w", s, err)
		}
	}
	release := common.ReleaseOptions{Name: "weft", Namespace: "kube-system", Revision: 1, IsInstall: true}
	top, err := util.ToRenderValues(c, values, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(c, top)
	if err != nil {
		return nil, err
	}
	byName := map[string]string{}
	for path, text := range rendered {
		if name := filepath.Base(path); name != "NOTES.txt" && !strings.HasPrefix(name, "_") {
			byName[name] = text
		}
	}
	var out bytes.Buffer
	for _, name := range order() {
		text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(byName[name]), "---"))
		delete(byName, name)
		if text != "" {
			fmt.Fprintf(&out, "---\n%s\n", text)
		}
	}
	if len(byName) > 0 {
		return nil, fmt.Errorf("templates %q have no place in a manifest: give them one in order", slices.Sorted(maps.Keys(byName)))
	}
	return out.Bytes(), nil
}
