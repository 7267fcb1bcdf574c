package diags

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Objects adds what the datastore has, a file for each kind: of those that belong to nodes only
// what is that node's, unless node is empty.
func (b *Bundle) Objects(ctx context.Context, st store.Store, node string) {
	for _, k := range v3.Kinds() {
		if ctx.Err() != nil {
			b.Fault("datastore", context.Cause(ctx))
			return
		}
		if node != "" && k.Name == string(model.KindIPAMHandle) {
			continue // they name addresses, not nodes
		}
		list, err := st.List(ctx, model.Kind(k.Name), "")
		if errors.Is(err, store.ErrNoKind) {
			continue
		}
		var objects []v3.Object
		for _, o := range list {
			if node == "" || concerns(model.Kind(k.Name), o.Object, node) {
				objects = append(objects, o.Object)
			}
		}
		if len(objects) == 0 && err == nil {
			continue
		}
		b.Text("datastore/"+k.Plural+".yaml", func(w io.Writer) error {
			for _, o := range objects {
				text, merr := yaml.Marshal(o)
				if merr != nil {
					err = errors.Join(err, merr)
					continue
				}
				if _, werr := fmt.Fprintf(w, "---\n%s", text); werr != nil {
					return werr
				}
			}
			return err
		})
	}
}

// concerns reports whether an object is about that node, or about no node in particular.
func concerns(kind model.Kind, o v3.Object, node string) bool {
	raw, err := json.Marshal(o)
	if err != nil {
		return true // Objects says so
	}
	var about struct {
		Spec struct {
			Node     string  `json:"node"`
			Affinity *string `json:"affinity"`
		} `json:"spec"`
	}
	if json.Unmarshal(raw, &about) != nil {
		return true
	}
	switch kind {
	case model.KindIPAMBlock:
		return about.Spec.Affinity != nil && strings.TrimPrefix(*about.Spec.Affinity, "host:") == node || strings.Contains(string(raw), `"node":"`+node+`"`)
	case model.KindWorkloadEndpoint, model.KindHostEndpoint, model.KindBlockAffinity, model.KindCalicoNodeStatus:
		return about.Spec.Node == node
	}
	return true
}
