package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// custom is a kind whose objects are custom resources, or, where form has no group,
// objects of Kubernetes that are only read.
type custom struct {
	*Store
	form
	resource
}

// get implements backend.
func (c custom) get(ctx context.Context, k model.Key) (store.Object, error) {
	name, err := c.nameOf(k)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	raw, err := c.read(ctx, k.Namespace, name)
	if c.api == Legacy && c.isPolicy() && errors.Is(translated(c.resource, err), store.ErrNotFound) {
		// Older versions put the tier before the name.
		if older, olderErr := c.read(ctx, k.Namespace, v3.DefaultTier+"."+name); olderErr == nil {
			raw, err = older, nil
		}
	}
	if err != nil {
		return store.Object{}, about(k, c.resource, err)
	}
	return c.object(k, raw)
}

func (c custom) read(ctx context.Context, namespace, name string) ([]byte, error) {
	return text(c.rest.Get().AbsPath(c.in(namespace), name).Do(ctx))
}

// object reads what was found for k. Two keys may have one name: what belongs to another
// key is not there for this one.
func (c custom) object(k model.Key, raw []byte) (store.Object, error) {
	o, err := c.decode(raw)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	got, err := c.keyOf(o.Object)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: unreadable{err}}
	}
	if got != k {
		return store.Object{}, &store.Error{Key: k, Err: store.ErrNotFound}
	}
	return o, nil
}

// keyOf is the key of an object of this kind.
func (c custom) keyOf(o v3.Object) (model.Key, error) {
	k, err := model.KeyOf(o)
	if err == nil && c.api == "" {
		k.Kind = c.kind
	}
	return k, err
}

// nameOf is the name in the API of the object of k.
func (c custom) nameOf(k model.Key) (string, error) {
	if !c.isAddressing() {
		switch {
		case c.namespaced:
			if err := checkName("namespace", k.Namespace); err != nil {
				return "", err
			}
		case k.Namespace != "":
			return "", fmt.Errorf("namespace %q: must be empty: the kind is for the whole cluster", k.Namespace)
		}
	}
	return objectName(k)
}

// list implements backend.
func (c custom) list(ctx context.Context, namespace string) ([]store.Object, []error, error) {
	raw, err := text(c.rest.Get().AbsPath(c.in(namespace)).Do(ctx))
	if isUninstalled(err) && c.optional {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, translated(c.resource, err)
	}
	var found struct{ Items []json.RawMessage }
	if err := json.Unmarshal(raw, &found); err != nil {
		return nil, nil, fmt.Errorf("answer of the API server: %w", err)
	}
	var objects []store.Object
	var unread []error
	for _, item := range found.Items {
		o, err := c.decode(item)
		if err == nil {
			_, err = c.keyOf(o.Object)
		}
		if err != nil {
			unread = append(unread, &store.Error{Key: c.keyIn(item), Err: unreadable{err}})
			continue
		}
		objects = append(objects, o)
	}
	return objects, unread, nil
}

// keyIn is the key of an object that can't be read, as far as its name tells.
func (c custom) keyIn(raw []byte) model.Key {
	var head struct {
		Metadata struct{ Name, Namespace string }
		Spec     struct{ CIDR, Node, Type, HandleID string }
	}
	_ = json.Unmarshal(raw, &head) // as far as it goes
	k := model.Key{Kind: c.kind, Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}
	var o v3.Object
	switch c.kind {
	case model.KindIPAMBlock:
		o = &v3.IPAMBlock{Spec: v3.IPAMBlockSpec{CIDR: head.Spec.CIDR}}
	case model.KindBlockAffinity:
		o = &v3.BlockAffinity{Spec: v3.BlockAffinitySpec{CIDR: head.Spec.CIDR, Node: head.Spec.Node, Type: head.Spec.Type}}
	case model.KindIPAMHandle:
		o = &v3.IPAMHandle{Spec: v3.IPAMHandleSpec{HandleID: head.Spec.HandleID}}
	default:
		return k
	}
	if exact, err := model.KeyOf(o); err == nil && exact.Name != "" {
		return exact
	}
	return k
}

// write implements backend.
func (c custom) write(ctx context.Context, op store.Op, k model.Key) (store.Object, error) {
	if c.api == "" {
		return store.Object{}, &store.Error{Key: k, Err: refusedError{store.ErrRefused, errors.New("it is Kubernetes' own: change it by kubectl")}}
	}
	name, err := c.nameOf(k)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	switch op.Verb {
	case store.Create:
		body, err := c.encode(op.Object.Object, name, "", nil, c.now())
		if err != nil {
			return store.Object{}, &store.Error{Key: k, Err: err}
		}
		raw, err := text(c.rest.Post().AbsPath(c.in(k.Namespace)).Body(body).Do(ctx))
		if err != nil {
			return store.Object{}, about(k, c.resource, err)
		}
		return c.withStatus(ctx, k, body, raw)
	case store.Update:
		return c.update(ctx, op.Object, k)
	case store.Delete:
		return op.Object, c.remove(ctx, op.Object, k, name)
	}
	return store.Object{}, &store.Error{Key: k, Err: fmt.Errorf("verb %d is none", op.Verb)}
}

// update replaces an object. Without a revision whatever changes it meanwhile is no
// conflict, but a reason to look again.
func (c custom) update(ctx context.Context, o store.Object, k model.Key) (store.Object, error) {
	want := o.Meta().ResourceVersion
	for {
		stored, rev := o.Raw(), want
		if stored == nil || want == "" {
			was, err := c.current(ctx, k)
			if err != nil {
				return store.Object{}, err
			}
			if stored, rev = was, revisionOf(was); want != "" && rev != want {
				return store.Object{}, &store.Error{Key: k, Err: store.ErrConflict}
			}
		}
		// The name in the API is the one that it was found by.
		name := headOf(stored).Name
		body, err := c.encode(o.Object, name, rev, stored, c.now())
		if err != nil {
			return store.Object{}, &store.Error{Key: k, Err: err}
		}
		raw, err := text(c.rest.Put().AbsPath(c.in(k.Namespace), name).Body(body).Do(ctx))
		if err == nil {
			return c.withStatus(ctx, k, body, raw)
		}
		if err = about(k, c.resource, err); want != "" || !errors.Is(err, store.ErrConflict) {
			return store.Object{}, err
		}
	}
}

// current is the stored form of the object of k, readable or not.
func (c custom) current(ctx context.Context, k model.Key) ([]byte, error) {
	o, err := c.get(ctx, k)
	if !errors.Is(err, store.ErrUnreadable) {
		return o.Raw(), err
	}
	name, err := c.nameOf(k)
	if err != nil {
		return nil, &store.Error{Key: k, Err: err}
	}
	raw, err := c.read(ctx, k.Namespace, name)
	return raw, about(k, c.resource, err)
}

// remove deletes an object, of the caller's revision only if it has one.
func (c custom) remove(ctx context.Context, o store.Object, k model.Key, name string) error {
	options := map[string]any{"apiVersion": "v1", "kind": "DeleteOptions"}
	if rev := o.Meta().ResourceVersion; rev != "" {
		options["preconditions"] = map[string]any{"resourceVersion": rev}
	}
	if raw := o.Raw(); raw != nil {
		name = headOf(raw).Name
	}
	body, err := json.Marshal(options)
	if err != nil {
		return &store.Error{Key: k, Err: err}
	}
	err = c.rest.Delete().AbsPath(c.in(k.Namespace), name).Body(body).Do(ctx).Error()
	return about(k, c.resource, err)
}

// withStatus is the object as written. Where the API keeps the status of the kind apart,
// a status that is not what it should be is written after the rest.
func (c custom) withStatus(ctx context.Context, k model.Key, sent, raw []byte) (store.Object, error) {
	if !c.hasStatus(c.plural) {
		return c.object(k, raw)
	}
	var want, have document
	if json.Unmarshal(sent, &want) != nil || json.Unmarshal(raw, &have) != nil || !differ(want["status"], have["status"]) {
		return c.object(k, raw)
	}
	have["status"] = want["status"]
	body, err := json.Marshal(have)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	after, err := text(c.rest.Verb(http.MethodPut).AbsPath(c.in(k.Namespace), headOf(raw).Name, "status").Body(body).Do(ctx))
	if err != nil {
		return store.Object{}, about(k, c.resource, err)
	}
	return c.object(k, after)
}

// differ reports whether a status says something else than the one that there is. One
// that says nothing changes nothing.
func differ(want, have json.RawMessage) bool {
	norm := func(text json.RawMessage) string {
		var v any
		if json.Unmarshal(text, &v) != nil || v == nil {
			return "{}"
		}
		out, err := json.Marshal(v)
		if err != nil {
			return "{}"
		}
		return string(out)
	}
	w := norm(want)
	return w != "{}" && w != norm(have)
}

// head is the part of an object's metadata that requests need.
type head struct{ Name, Namespace, ResourceVersion, UID string }

// headOf reads the head of an object; what it does not have is empty.
func headOf(raw []byte) head {
	var o struct{ Metadata head }
	_ = json.Unmarshal(raw, &o)
	return o.Metadata
}

func revisionOf(raw []byte) string { return headOf(raw).ResourceVersion }

// sources implements backend.
func (c custom) sources() []source {
	return []source{{
		name: c.crd(), resource: c.resource, lister: rawLister{c.rest, c.resource},
		convert: func(obj any) found {
			raw := obj.(*item).raw
			o, err := c.decode(raw)
			var k model.Key
			if err == nil {
				k, err = c.keyOf(o.Object)
			}
			if err != nil {
				return found{invalids: []model.Invalid{{Key: c.keyIn(raw), Err: err}}}
			}
			return parsed(k, o.Object)
		},
	}}
}

// parsed is what becomes of an object in a batch.
func parsed(k model.Key, o v3.Object) found {
	v, err := model.Parse(o)
	switch {
	case err != nil:
		return found{invalids: []model.Invalid{{Key: k, Err: oneLine(err), Strict: model.Strict(o)}}}
	case v == nil:
		return found{} // kept in the datastore, and of no use here
	}
	return found{puts: []model.Value{v}}
}

// hasStatus reports whether the group keeps the status of a resource apart.
func (s *Store) hasStatus(plural string) bool { return slices.Contains(s.served, plural+"/status") }
