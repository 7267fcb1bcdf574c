package crd

import (
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	v3 "github.com/weft-net/weft/api/v3"
)

// legacyGroup is the group in which Calico keeps its objects with the older layout.
const legacyGroup = "crd.projectcalico.org"

// Definition is a CustomResourceDefinition of apiextensions.k8s.io/v1.
type Definition struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       Spec           `json:"spec"`
}

// Spec is what a definition defines.
type Spec struct {
	Group    string    `json:"group"`
	Names    Names     `json:"names"`
	Scope    string    `json:"scope"`
	Versions []Version `json:"versions"`
}

// Names is what the kind is called.
type Names struct {
	Kind       string   `json:"kind"`
	ListKind   string   `json:"listKind"`
	Plural     string   `json:"plural"`
	Singular   string   `json:"singular"`
	ShortNames []string `json:"shortNames,omitempty"`
	Categories []string `json:"categories,omitempty"`
}

// Version is the one version of a kind.
type Version struct {
	Name         string            `json:"name"`
	Served       bool              `json:"served"`
	Storage      bool              `json:"storage"`
	Columns      []Column          `json:"additionalPrinterColumns,omitempty"`
	Subresources map[string]any    `json:"subresources,omitempty"`
	Schema       map[string]Schema `json:"schema"`
}

// Column is a column of `kubectl get`. A Priority above 0 is for -o wide only.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	JSONPath string `json:"jsonPath"`
	Priority int    `json:"priority,omitempty"`
}

// Native makes the definitions of projectcalico.org/v3, by file name. The comments
// are those of api/v3; see [ReadComments].
func Native(docs Comments) (map[string][]byte, error) {
	b := builder{docs: docs, rules: rules()}
	files := map[string][]byte{}
	for _, k := range customKinds() {
		o, _ := v3.New(k.Name) // the kind is of the table of kinds
		root := b.schemaOf(reflect.TypeOf(o).Elem())
		root.Description = line(docs[k.Name])
		finish(root)
		v := Version{Name: "v3", Columns: columns(k.Name)}
		if root.Properties["status"] != nil {
			v.Subresources = map[string]any{"status": map[string]any{}}
		}
		if err := add(files, define(v3.Group, k, v, *root)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Legacy makes definitions of crd.projectcalico.org/v1 that take anything, by file name.
func Legacy() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, k := range customKinds() {
		if k.Name == "IPAMConfiguration" {
			k.Name, k.Plural = "IPAMConfig", "ipamconfigs"
		}
		k.ShortNames = nil
		root := Schema{Type: "object", PreserveUnknown: true}
		if err := add(files, define(legacyGroup, k, Version{Name: "v1"}, root)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// customKinds are the kinds that are custom resources. Of the others Kubernetes has
// objects of its own: nodes, pods, namespaces and service accounts, and policies.
func customKinds() []v3.Kind {
	return slices.DeleteFunc(v3.Kinds(), func(k v3.Kind) bool {
		return slices.Contains([]string{"Node", "Profile", "WorkloadEndpoint"}, k.Name) || k.TypeMeta().APIVersion != v3.APIVersion
	})
}

func define(group string, k v3.Kind, v Version, root Schema) Definition {
	v.Served, v.Storage, v.Schema = true, true, map[string]Schema{"openAPIV3Schema": root}
	scope := "Cluster"
	if k.Namespaced {
		scope = "Namespaced"
	}
	return Definition{
		APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition",
		Metadata: map[string]any{"name": k.Plural + "." + group},
		Spec: Spec{
			Group: group, Scope: scope, Versions: []Version{v},
			Names: Names{
				Kind: k.Name, ListKind: k.Name + "List", Plural: k.Plural, Singular: strings.ToLower(k.Name),
				ShortNames: k.ShortNames,
			},
		},
	}
}

// header begins every file.
const header = "# Made from api/v3 by \"make crds\". Changes go there, or into internal/crd.\n"

func add(files map[string][]byte, d Definition) error {
	text, err := yaml.Marshal(d)
	if err != nil {
		return fmt.Errorf("crd: %s: %w", d.Spec.Names.Kind, err)
	}
	files[d.Spec.Group+"_"+d.Spec.Names.Plural+".yaml"] = append([]byte(header), text...)
	return nil
}

// finish makes the schema of a kind that of a document: what is required of the spec
// is required of who leaves it out.
func finish(root *Schema) {
	if spec := root.at("spec"); len(spec.Required) > 0 {
		root.require("spec")
	} else {
		spec.Default = map[string]any{}
	}
	if status := root.Properties["status"]; status != nil {
		loosen(status)
	}
}

// loosen takes the rules off a status: programs write it, of whatever version.
func loosen(s *Schema) {
	s.Rules, s.Enum, s.Pattern, s.Default, s.Required, s.MaxItems, s.MaxLength = nil, nil, "", nil, nil, 0, nil
	for _, p := range s.Properties {
		loosen(p)
	}
	for _, p := range []*Schema{s.Items, s.AdditionalProperties} {
		if p != nil {
			loosen(p)
		}
	}
}

// Files makes both sets of definitions, by the names of their files below root, which is
// the top of the module. Of root only the sources of api/v3 are read.
func Files(root fs.FS) (map[string][]byte, error) {
	sources, err := fs.Sub(root, "api/v3")
	if err != nil {
		return nil, err
	}
	docs, err := ReadComments(sources)
	if err != nil {
		return nil, err
	}
	native, err := Native(docs)
	if err != nil {
		return nil, err
	}
	legacy, err := Legacy()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, text := range native {
		files["deploy/crds/"+name] = text
	}
	for name, text := range legacy {
		files["test/fixtures/crd-v1/"+name] = text
	}
	return files, nil
}
