package kv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// flatBlock is a block as its value holds it, fields in Calico's order. A is
// flatAttribute, or its text.
type flatBlock[A any] struct {
	CIDR                        string            `json:"cidr"`
	Affinity                    *string           `json:"affinity"`
	AffinityClaimTime           *metav1.Time      `json:"affinity_claim_time,omitempty"`
	Allocations                 []*int            `json:"allocations"`
	Unallocated                 []int             `json:"unallocated"`
	Attributes                  []A               `json:"attributes"`
	SequenceNumber              uint64            `json:"sequenceNumber"`
	SequenceNumberForAllocation map[string]uint64 `json:"sequenceNumberForAllocation"`
	Deleted                     bool              `json:"deleted"`
}

// flatAttribute is the holder of addresses in a flatBlock.
type flatAttribute struct {
	HandleID            *string           `json:"handle_id,omitempty"`
	ActiveOwnerAttrs    map[string]string `json:"secondary,omitempty"`
	AlternateOwnerAttrs map[string]string `json:"alternateOwnerAttrs,omitempty"`
	ReleasedAt          *metav1.Time      `json:"releasedAt,omitempty"`
}

type flatAffinity struct {
	State   v3.AffinityState `json:"state"`
	Deleted bool             `json:"deleted"`
}

type flatHandle struct {
	Block   map[string]int `json:"block"`
	Deleted bool           `json:"deleted"`
}

// isFlat reports whether values of the kind are flat JSON without metadata.
func isFlat(kind model.Kind) bool {
	switch kind {
	case model.KindIPAMBlock, model.KindBlockAffinity, model.KindIPAMHandle, model.KindIPAMConfig:
		return true
	}
	return false
}

// decodeFlat reads the value of k, whose kind is flat.
func decodeFlat(k model.Key, value []byte) (v3.Object, error) {
	switch k.Kind {
	case model.KindIPAMBlock:
		return decodeBlock(value)
	case model.KindBlockAffinity:
		return decodeAffinity(k, value)
	case model.KindIPAMHandle:
		var f flatHandle
		err := json.Unmarshal(value, &f)
		o := &v3.IPAMHandle{Spec: v3.IPAMHandleSpec{HandleID: k.Name, Block: f.Block, Deleted: f.Deleted}}
		o.Name = strings.ToLower(k.Name)
		return o, err
	default:
		o := &v3.IPAMConfig{}
		o.Name = k.Name
		return o, json.Unmarshal(value, &o.Spec)
	}
}

func decodeBlock(value []byte) (v3.Object, error) {
	f, ok := readBlock(value)
	if !ok {
		f = flatBlock[flatAttribute]{}
		if err := json.Unmarshal(value, &f); err != nil {
			return nil, err
		}
	}
	o := &v3.IPAMBlock{Spec: v3.IPAMBlockSpec{
		CIDR: f.CIDR, Affinity: f.Affinity, AffinityClaimTime: f.AffinityClaimTime,
		Allocations: f.Allocations, Unallocated: f.Unallocated, SequenceNumber: f.SequenceNumber,
		SequenceNumberForAllocation: f.SequenceNumberForAllocation, Deleted: f.Deleted,
		Attributes: make([]v3.AllocationAttribute, len(f.Attributes)),
	}}
	for i, a := range f.Attributes {
		o.Spec.Attributes[i] = v3.AllocationAttribute(a)
	}
	o.Name = dashed(f.CIDR)
	return o, nil
}

// decodeAffinity reads a claim. Old versions stored claims without a value.
func decodeAffinity(k model.Key, value []byte) (v3.Object, error) {
	var f flatAffinity
	if len(value) > 0 {
		if err := json.Unmarshal(value, &f); err != nil {
			return nil, err
		}
	}
	parts := strings.Split(k.Name, "/")
	cidr, err := prefixOf(parts[2])
	if err != nil {
		return nil, err
	}
	o := &v3.BlockAffinity{Spec: v3.BlockAffinitySpec{
		State: f.State, Type: parts[0], Node: parts[1], CIDR: cidr.String(), Deleted: f.Deleted,
	}}
	o.Name = parts[1] + "-" + dashed(o.Spec.CIDR)
	return o, nil
}

// dashed is a CIDR as names of resources hold it.
func dashed(cidr string) string {
	return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr)
}

// encodeFlat writes o, whose kind is flat, and keeps the fields of stored that o
// has no place for; stored is nil if there are none.
func encodeFlat(o v3.Object, stored []byte) ([]byte, error) {
	switch o := o.(type) {
	case *v3.IPAMBlock:
		return encodeBlock(o.Spec, stored)
	case *v3.BlockAffinity:
		return encodeFields(flatAffinity{o.Spec.State, o.Spec.Deleted}, stored, "state", "deleted")
	case *v3.IPAMHandle:
		block := o.Spec.Block
		if block == nil {
			block = map[string]int{}
		}
		return encodeFields(flatHandle{block, o.Spec.Deleted}, stored, "block", "deleted")
	case *v3.IPAMConfig:
		return encodeFields(o.Spec, stored, "strict_affinity", "auto_allocate_blocks", "maxBlocksPerHost",
			"kubeVirtVMAddressPersistence", "ipCooldownSeconds")
	}
	return nil, fmt.Errorf("%T has no flat form", o)
}

func encodeBlock(s v3.IPAMBlockSpec, stored []byte) ([]byte, error) {
	if stored == nil {
		f := flatten[flatAttribute](s)
		for i, a := range s.Attributes {
			f.Attributes[i] = flatAttribute(a)
		}
		return json.Marshal(f)
	}
	f := flatten[json.RawMessage](s)
	was, err := storedAttributes(stored)
	if err != nil {
		return nil, err
	}
	for i, a := range s.Attributes {
		text, err := json.Marshal(flatAttribute(a))
		if err != nil {
			return nil, err
		}
		if raw, ok := was[string(text)]; ok {
			text = raw
		}
		f.Attributes[i] = text
	}
	return encodeFields(f, stored, "cidr", "affinity", "affinity_claim_time", "allocations", "unallocated",
		"attributes", "sequenceNumber", "sequenceNumberForAllocation", "deleted")
}

// flatten is s in flat form, but for the attributes, which are empty.
func flatten[A any](s v3.IPAMBlockSpec) flatBlock[A] {
	f := flatBlock[A]{
		CIDR: s.CIDR, Affinity: s.Affinity, AffinityClaimTime: s.AffinityClaimTime,
		Allocations: notNil(s.Allocations), Unallocated: notNil(s.Unallocated), SequenceNumber: s.SequenceNumber,
		SequenceNumberForAllocation: s.SequenceNumberForAllocation, Deleted: s.Deleted,
		Attributes: make([]A, len(s.Attributes)),
	}
	if f.SequenceNumberForAllocation == nil {
		f.SequenceNumberForAllocation = map[string]uint64{}
	}
	return f
}

// storedAttributes gives the stored text of each attribute by the text of what
// weft knows of it: attributes move within their list, so their place says nothing.
func storedAttributes(stored []byte) (map[string]json.RawMessage, error) {
	if stored == nil {
		return nil, nil
	}
	var was struct{ Attributes []json.RawMessage }
	if err := json.Unmarshal(stored, &was); err != nil {
		return nil, err
	}
	byKnown := make(map[string]json.RawMessage, len(was.Attributes))
	for _, raw := range was.Attributes {
		var a flatAttribute
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, err
		}
		known, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		byKnown[string(known)] = raw
	}
	return byKnown, nil
}

// encodeFields writes flat, then those fields of stored that are not known.
func encodeFields(flat any, stored []byte, known ...string) ([]byte, error) {
	text, err := json.Marshal(flat)
	if err != nil || len(stored) == 0 {
		return text, err
	}
	text = text[:len(text)-1]
	err = eachField(stored, func(name string, value json.RawMessage) {
		for _, k := range known {
			if strings.EqualFold(k, name) {
				return
			}
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(text, mustQuote(name)...)
		text = append(append(text, ':'), value...)
	})
	return append(text, '}'), err
}

// eachField visits the fields of a JSON object in order.
func eachField(object []byte, visit func(name string, value json.RawMessage)) error {
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("stored value is no JSON object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		visit(t.(string), value)
	}
	return nil
}

// mustQuote is name as JSON text; text can always be quoted.
func mustQuote(name string) []byte {
	text, err := json.Marshal(name)
	if err != nil {
		panic(err)
	}
	return text
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
