package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/show"
	"github.com/weft-net/weft/internal/manifest"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

func modelKind(k v3.Kind) model.Kind { return model.Kind(k.Name) }

// named is what the documents of the file name.
func (g *get) named() ([]wanted, error) {
	documents, err := manifest.Read(manifest.Options{
		Recursive: g.recursive, SkipEmpty: g.skipNone, Namespace: g.namespace, Stdin: g.Stdin,
	}, g.file)
	if err != nil {
		return nil, err
	}
	var wants []wanted
	for _, d := range documents {
		w := wanted{kind: v3.KindOf(d.Object), name: d.Object.Meta().Name}
		if w.kind.Namespaced {
			w.namespace = or(d.Object.Meta().Namespace, or(g.namespace, v3.DefaultNamespace))
		}
		wants = append(wants, w)
	}
	return wants, nil
}

// one reads what w wants. The list is nil if it can't be read; beside a list the error is
// about those objects in it that can't.
func (g *get) one(ctx context.Context, w wanted) (*show.List, error) {
	if err := g.allowed(w); err != nil {
		return nil, err
	}
	l := g.head(w)
	if w.kind.Name == "Node" {
		l.ASNumber = g.asNumber(ctx)
	}
	if w.name != "" {
		o, err := g.object(ctx, w)
		if err != nil {
			return nil, g.about(w, err)
		}
		if g.export {
			o.Object = show.Export(o.Object, false)
		}
		l.Objects = []v3.Object{o.Object}
		return &l, nil
	}
	var all []store.Object
	var bad []error
	for page, err := range store.Pages(ctx, g.store, modelKind(w.kind), w.namespace) {
		if err != nil {
			return nil, err
		}
		all, bad, l.ResourceVersion = append(all, page.Objects...), append(bad, page.Unread...), page.Revision
	}
	l.Objects = g.chosen(sorted(w.kind, all))
	return &l, errors.Join(bad...)
}

// object reads one object by its name.
func (g *get) object(ctx context.Context, w wanted) (store.Object, error) {
	switch w.kind.Name {
	case "BlockAffinity", "IPAMBlock", "IPAMHandle": // their keys are made of what is in them
		return g.search(ctx, w)
	}
	o, err := g.store.Get(ctx, model.Key{Kind: modelKind(w.kind), Namespace: w.namespace, Name: w.name})
	if errors.Is(err, store.ErrNotFound) && w.kind.Name == "Profile" && w.name == v3.DefaultAllowProfile {
		return defaultAllow(), nil
	}
	return o, err
}

// search finds an object of address management by the name it is listed with, or its CIDR.
func (g *get) search(ctx context.Context, w wanted) (store.Object, error) {
	for page, err := range store.Pages(ctx, g.store, modelKind(w.kind), "") {
		if err != nil {
			return store.Object{}, err
		}
		for _, o := range page.Objects {
			block, isBlock := o.Object.(*v3.IPAMBlock)
			if o.Meta().Name == w.name || isBlock && block.Spec.CIDR == w.name {
				return o, nil
			}
		}
	}
	return store.Object{}, store.ErrNotFound
}

// about says which object a failure is about.
func (g *get) about(w wanted, err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	name := w.name
	if w.namespace != "" {
		name = w.namespace + "/" + name
	}
	if g.calico {
		return fmt.Errorf("resource does not exist: %s(%s) with error: <nil>", w.kind.Name, name)
	}
	return fmt.Errorf("get %s %s: %w", strings.ToLower(w.kind.Name), name, store.ErrNotFound)
}

// asNumber is the AS number of nodes that have none of their own; 0 if the cluster's
// configuration does not say, or can't be read: the table says nothing of it then.
func (g *get) asNumber(ctx context.Context) v3.ASNumber {
	o, err := g.store.Get(ctx, model.Key{Kind: model.KindBGPConfiguration, Name: "default"})
	if err != nil {
		return 0
	}
	config, ok := o.Object.(*v3.BGPConfiguration)
	if !ok || config.Spec.ASNumber == nil {
		return 0
	}
	return *config.Spec.ASNumber
}

// isSorted reports whether lists of the kind are in another order than that of the
// datastore, or hold more than it has, or need something beside.
func isSorted(kind v3.Kind) bool {
	return kind.Name == "Tier" || kind.Name == "Profile" || kind.Name == "Node"
}

// sorted brings tiers in the order in which they apply, and adds the built-in profile.
func sorted(kind v3.Kind, objects []store.Object) []store.Object {
	switch kind.Name {
	case "Tier":
		slices.SortStableFunc(objects, func(a, b store.Object) int { return cmp.Compare(place(a), place(b)) })
	case "Profile":
		if !slices.ContainsFunc(objects, func(o store.Object) bool { return o.Meta().Name == v3.DefaultAllowProfile }) {
			objects = append(objects, defaultAllow())
		}
		slices.SortStableFunc(objects, func(a, b store.Object) int { return strings.Compare(a.Meta().Name, b.Meta().Name) })
	}
	return objects
}

// place is where a tier stands; without an order it is last.
func place(o store.Object) float64 {
	if t, ok := o.Object.(*v3.Tier); ok && t.Spec.Order != nil {
		return *t.Spec.Order
	}
	return math.Inf(1)
}

// defaultAllow is the profile that every cluster has and no datastore.
func defaultAllow() store.Object {
	allow := []v3.Rule{{Action: v3.ActionAllow}}
	o := &v3.Profile{Spec: v3.ProfileSpec{Ingress: allow, Egress: allow}}
	v3.Default(o)
	o.Name, o.ResourceVersion = v3.DefaultAllowProfile, "1"
	return store.New(o)
}
