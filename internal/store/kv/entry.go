package kv

import (
	"fmt"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// EntryOf is the key and the value under which an object stands in etcd, with what its stored
// form holds and weft does not know. It is for who carries objects about outside a datastore:
// a Store does it by itself.
func EntryOf(o store.Object) (key string, value []byte, err error) {
	k, err := model.KeyOf(o.Object)
	if err != nil {
		return "", nil, fmt.Errorf("entry: %s: %w", v3.Describe(o.Object), err)
	}
	if key, err = newLayout().keyFor(k); err != nil {
		return "", nil, &store.Error{Key: k, Err: err}
	}
	stored := o.Raw()
	if _, err := decodeAny(o.Object, stored); stored == nil || err != nil {
		stored = nil // of another datastore
	}
	if value, err = encodeAny(o.Object, stored); err != nil {
		return "", nil, &store.Error{Key: k, Err: err}
	}
	return key, value, nil
}

// ParseEntry is the inverse of EntryOf: the object that has that key and value. The error
// names the key.
func ParseEntry(key string, value []byte) (store.Object, error) {
	k, ok := newLayout().parse(key)
	if !ok {
		return store.Object{}, fmt.Errorf("entry: %q: is the key of no kind", key)
	}
	o, err := decode(k, value, 1)
	if err == nil {
		o.Meta().ResourceVersion = ""
	}
	return o, err
}
