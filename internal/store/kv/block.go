package kv

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// readBlock is a short cut for blocks, the largest values there are, one of which
// is read for every address assigned: about 13 kB, a third of the decoder's work. It
// is false where the decoder must look: at escapes, unknown fields, fields given
// twice. FuzzBlock holds one against the other.
func readBlock(value []byte) (flatBlock[flatAttribute], bool) {
	var b flatBlock[flatAttribute]
	r := blockReader{scanner: scanner{text: value}}
	r.object(func(key string) (bit int) {
		switch key {
		case "cidr":
			b.CIDR, bit = string(r.plain()), 1
		case "affinity":
			b.Affinity, bit = r.text(), 2
		case "affinity_claim_time":
			b.AffinityClaimTime, bit = r.time(), 4
		case "allocations":
			b.Allocations, bit = r.allocations(), 8
		case "unallocated":
			b.Unallocated, bit = r.numbers(), 16
		case "attributes":
			b.Attributes, bit = r.attributes(), 32
		case "sequenceNumber":
			b.SequenceNumber, bit = r.number(19), 64
		case "sequenceNumberForAllocation":
			b.SequenceNumberForAllocation, bit = r.sequences(), 128
		case "deleted":
			b.Deleted, bit = r.bool(), 256
		}
		return bit
	})
	r.space()
	return b, !r.bad && r.at == len(value)
}

// blockReader reads the parts of a block.
type blockReader struct {
	scanner
	last map[string]string // the attribute read before: the next one is much like it
}

// object reads an object. field reads the value of one field and returns a bit of
// its own, or 0 if it knows no such field.
func (r *blockReader) object(field func(key string) (bit int)) {
	seen := 0
	for more := r.open('{'); more; more = r.next('}') {
		bit := field(string(r.key()))
		r.bad = r.bad || bit == 0 || seen&bit != 0
		seen |= bit
	}
}

// text reads a string or null.
func (r *blockReader) text() *string {
	if r.word("null") {
		return nil
	}
	s := string(r.plain())
	return &s
}

// time reads a time or null.
func (r *blockReader) time() *metav1.Time {
	if r.word("null") {
		return nil
	}
	r.space()
	start := r.at
	r.plain()
	var t metav1.Time
	if r.bad || json.Unmarshal(r.scanner.text[start:r.at], &t) != nil {
		r.bad = true
	}
	return &t
}

func (r *blockReader) bool() bool {
	if r.word("true") {
		return true
	}
	r.bad = r.bad || !r.word("false")
	return false
}

func (r *blockReader) numbers() []int {
	numbers := make([]int, 0, 64)
	for more := r.open('['); more; more = r.next(']') {
		numbers = append(numbers, int(r.number(9)))
	}
	return numbers
}

// allocations reads a list of numbers and nulls.
func (r *blockReader) allocations() []*int {
	places, numbers := make([]*int, 0, 64), make([]int, 0, 64)
	for more := r.open('['); more; more = r.next(']') {
		if r.word("null") {
			places = append(places, nil)
			continue
		}
		if len(numbers) == cap(numbers) {
			numbers = make([]int, 0, 64) // those that places point to stay where they are
		}
		numbers = append(numbers, int(r.number(9)))
		places = append(places, &numbers[len(numbers)-1])
	}
	return places
}

func (r *blockReader) sequences() map[string]uint64 {
	of := map[string]uint64{}
	for more := r.open('{'); more; more = r.next('}') {
		key := string(r.key())
		of[key] = r.number(19)
	}
	return of
}

func (r *blockReader) attributes() []flatAttribute {
	list := make([]flatAttribute, 0, 64)
	for more := r.open('['); more; more = r.next(']') {
		var a flatAttribute
		r.object(func(key string) (bit int) {
			switch key {
			case "handle_id":
				a.HandleID, bit = r.text(), 1
			case "secondary":
				a.ActiveOwnerAttrs, bit = r.texts(), 2
			case "alternateOwnerAttrs":
				a.AlternateOwnerAttrs, bit = r.texts(), 4
			case "releasedAt":
				a.ReleasedAt, bit = r.time(), 8
			}
			return bit
		})
		list = append(list, a)
	}
	return list
}

// texts reads a map of strings, or null.
func (r *blockReader) texts() map[string]string {
	if r.word("null") {
		return nil
	}
	texts := make(map[string]string, len(r.last))
	for more := r.open('{'); more; more = r.next('}') {
		name := r.key()
		value := r.plain()
		old, ok := r.last[string(name)]
		if !ok || old != string(value) {
			old = string(value)
		}
		texts[attributeName(name)] = old
	}
	r.last = texts
	return texts
}

// attributeName is text as a string, of which there is one for the usual ones.
func attributeName(text []byte) string {
	switch string(text) {
	case "namespace":
		return "namespace"
	case "node":
		return "node"
	case "pod":
		return "pod"
	case "timestamp":
		return "timestamp"
	case "type":
		return "type"
	}
	return string(text)
}
