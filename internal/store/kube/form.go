package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metadataAnnotation is where an object of the legacy group keeps the metadata that its
// user gave it.
const metadataAnnotation = "projectcalico.org/metadata"

// document is the top level of an object.
type document map[string]json.RawMessage

// form knows how objects of one kind stand in the API.
type form struct {
	kind model.Kind
	api  Group // empty: an object of Kubernetes, which is as it is
}

// typeMeta is what documents of the kind say they are, in the API.
func (f form) typeMeta() metav1.TypeMeta {
	if f.api == "" {
		k, _ := v3.KindByName(string(f.kind))
		return k.TypeMeta()
	}
	return metav1.TypeMeta{Kind: f.api.customKind(f.kind), APIVersion: string(f.api)}
}

// isAddressing reports whether the kind is address management's: without metadata of users.
func (f form) isAddressing() bool {
	switch f.kind {
	case model.KindIPAMBlock, model.KindBlockAffinity, model.KindIPAMHandle, model.KindIPAMConfig, model.KindIPAMConfiguration:
		return true
	}
	return false
}

// decode reads an object of the API. The error fits on one line.
func (f form) decode(raw []byte) (store.Object, error) {
	plain, err := f.plain(raw)
	if err != nil {
		return store.Object{}, unreadable{oneLine(err)}
	}
	o, err := v3.DecodeStored(plain)
	if err != nil {
		return store.Object{}, unreadable{oneLine(err)}
	}
	o.Meta().ManagedFields = nil
	if c, ok := o.(*v3.IPAMConfiguration); ok && f.kind == model.KindIPAMConfig {
		o = asIPAMConfig(c)
	}
	*o.Type() = v3.KindOf(o).TypeMeta()
	return store.Stored(o, raw), nil
}

// plain is an object of the API as package v3 has it.
func (f form) plain(raw []byte) ([]byte, error) {
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	if d == nil {
		return nil, errors.New("is no object")
	}
	if f.api == Legacy {
		if err := f.unfold(d); err != nil {
			return nil, err
		}
	}
	kind := f.kind
	if kind == model.KindIPAMConfig {
		kind = model.KindIPAMConfiguration
	}
	k, _ := v3.KindByName(string(kind))
	meta := k.TypeMeta()
	d["kind"], d["apiVersion"] = quoted(meta.Kind), quoted(meta.APIVersion)
	return json.Marshal(d)
}

// unfold puts the metadata of a legacy object in its place.
func (f form) unfold(d document) error {
	var outer metav1.ObjectMeta
	if err := json.Unmarshal(d["metadata"], &outer); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	if text, ok := outer.Annotations[metadataAnnotation]; ok {
		var inner metav1.ObjectMeta
		if err := json.Unmarshal([]byte(text), &inner); err != nil {
			return fmt.Errorf("annotation %s: %w", metadataAnnotation, err)
		}
		if inner.Name == "" || !f.isPolicy() {
			inner.Name = outer.Name
		}
		inner.Namespace, inner.UID, inner.ResourceVersion = outer.Namespace, outer.UID, outer.ResourceVersion
		inner.Generation, inner.DeletionTimestamp = outer.Generation, outer.DeletionTimestamp
		inner.Finalizers, inner.OwnerReferences = outer.Finalizers, outer.OwnerReferences
		if inner.CreationTimestamp.IsZero() {
			inner.CreationTimestamp = outer.CreationTimestamp
		}
		outer = inner
	}
	outer.ManagedFields = nil
	meta, err := json.Marshal(outer)
	if err != nil {
		return err
	}
	d["metadata"] = meta
	if f.kind == model.KindBlockAffinity {
		d["spec"], err = withField(d["spec"], "deleted", func(v json.RawMessage) json.RawMessage {
			return bytes.Trim(v, `"`) // old versions made it a text
		})
	}
	return err
}

// isPolicy reports whether names of the kind may stand in the API with their tier before
// them.
func (f form) isPolicy() bool {
	switch f.kind {
	case "NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy":
		return true
	}
	return false
}

// encode writes o for the API under name. stored is what it replaces, nil if nothing; what
// that holds and weft does not know is kept. rev is the revision that must still hold;
// empty: any.
func (f form) encode(o v3.Object, name, rev string, stored []byte, now time.Time) ([]byte, error) {
	if c, ok := o.(*v3.IPAMConfig); ok {
		o = asIPAMConfiguration(c)
	}
	var was []byte
	var before document
	if stored != nil {
		// What can't be read has nothing to keep.
		if plain, err := f.plain(stored); err == nil {
			if _, err := v3.DecodeStored(plain); err == nil {
				was = plain
			}
		}
		_ = json.Unmarshal(stored, &before)
	}
	text, err := v3.Merge(was, o)
	if err != nil {
		return nil, err
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	meta := f.typeMeta()
	d["kind"], d["apiVersion"] = quoted(meta.Kind), quoted(meta.APIVersion)
	var outer metav1.ObjectMeta
	_ = json.Unmarshal(before["metadata"], &outer) // the zero value if there is none
	if d["metadata"], err = f.fold(*o.Meta(), outer, name, rev, now); err != nil {
		return nil, err
	}
	if f.api == Legacy && f.kind == model.KindBlockAffinity {
		if d["spec"], err = withField(d["spec"], "deleted", func(v json.RawMessage) json.RawMessage { return quoted(string(v)) }); err != nil {
			return nil, err
		}
	}
	return json.Marshal(d)
}

// fold is the metadata of an object for the API. outer is that of what it replaces: births
// and owners are the API server's business.
func (f form) fold(m, outer metav1.ObjectMeta, name, rev string, now time.Time) ([]byte, error) {
	out := metav1.ObjectMeta{
		Name: name, Namespace: m.Namespace, ResourceVersion: rev, Labels: m.Labels, Annotations: m.Annotations,
		Finalizers: outer.Finalizers, OwnerReferences: outer.OwnerReferences,
	}
	if f.isAddressing() {
		out.Namespace = ""
	}
	if f.api != Legacy || f.isAddressing() && len(m.Labels)+len(m.Annotations) == 0 && outer.Annotations[metadataAnnotation] == "" {
		return json.Marshal(out)
	}
	inner := metav1.ObjectMeta{Labels: m.Labels, Annotations: m.Annotations, CreationTimestamp: metav1.NewTime(now.UTC().Truncate(time.Second))}
	var old metav1.ObjectMeta
	if json.Unmarshal([]byte(outer.Annotations[metadataAnnotation]), &old) == nil && !old.CreationTimestamp.IsZero() {
		inner.CreationTimestamp = old.CreationTimestamp
	} else if !outer.CreationTimestamp.IsZero() {
		inner.CreationTimestamp = outer.CreationTimestamp
	}
	if f.isPolicy() {
		inner.Name = m.Name
	}
	text, err := json.Marshal(inner)
	if err != nil {
		return nil, err
	}
	// Labels and annotations beside ours are of others, who know nothing of Calico.
	out.Labels, out.Annotations = outer.Labels, map[string]string{}
	for k, v := range outer.Annotations {
		out.Annotations[k] = v
	}
	out.Annotations[metadataAnnotation] = string(text)
	return json.Marshal(out)
}

// withField changes one field of an object, if it is there.
func withField(object json.RawMessage, name string, change func(json.RawMessage) json.RawMessage) (json.RawMessage, error) {
	var d document
	if object == nil {
		return nil, nil
	}
	if err := json.Unmarshal(object, &d); err != nil {
		return nil, err
	}
	if v, ok := d[name]; ok {
		if d[name] = change(v); len(d[name]) == 0 {
			delete(d, name)
		}
	}
	return json.Marshal(d)
}

// quoted is text as JSON.
func quoted(text string) json.RawMessage {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err) // text always has a JSON form
	}
	return out
}

// asIPAMConfig and asIPAMConfiguration turn one form of the setting into the other.
func asIPAMConfig(c *v3.IPAMConfiguration) *v3.IPAMConfig {
	o := v3.NewIPAMConfig()
	o.ObjectMeta = c.ObjectMeta
	o.Spec = v3.IPAMConfigSpec{
		StrictAffinity: c.Spec.StrictAffinity, AutoAllocateBlocks: c.Spec.AutoAllocateBlocks, MaxBlocksPerHost: int(c.Spec.MaxBlocksPerHost),
		KubeVirtVMAddressPersistence: c.Spec.KubeVirtVMAddressPersistence, IPCooldownSeconds: int(c.Spec.IPCooldownSeconds),
	}
	return o
}

func asIPAMConfiguration(c *v3.IPAMConfig) *v3.IPAMConfiguration {
	o := &v3.IPAMConfiguration{ObjectMeta: c.ObjectMeta}
	o.Name = "default"
	o.Spec = v3.IPAMConfigurationSpec{
		StrictAffinity: c.Spec.StrictAffinity, AutoAllocateBlocks: c.Spec.AutoAllocateBlocks, MaxBlocksPerHost: int32(c.Spec.MaxBlocksPerHost),
		KubeVirtVMAddressPersistence: c.Spec.KubeVirtVMAddressPersistence, IPCooldownSeconds: int32(c.Spec.IPCooldownSeconds),
	}
	return o
}

// unreadable is why a stored object makes no sense; it is store.ErrUnreadable.
type unreadable struct{ error }

func (unreadable) Is(target error) bool { return target == store.ErrUnreadable }

func (e unreadable) Unwrap() error { return e.error }

// lineError prints an error of several lines as one.
type lineError struct{ error }

func (e lineError) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e lineError) Unwrap() error { return e.error }

// oneLine is err, in one line.
func oneLine(err error) error {
	if err == nil || !strings.Contains(err.Error(), "\n") {
		return err
	}
	return lineError{err}
}
