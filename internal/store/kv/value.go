package kv

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// decode reads the value of k as it was at revision rev. The error is about k
// and fits on one line.
func decode(k model.Key, value []byte, rev int64) (store.Object, error) {
	var o v3.Object
	var err error
	if isFlat(k.Kind) {
		o, err = decodeFlat(k, value)
	} else {
		o, err = v3.DecodeStored(value)
	}
	if err == nil {
		err = belongs(k, o)
	}
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: unreadable{oneLine(err)}}
	}
	*o.Type() = v3.KindOf(o).TypeMeta()
	o.Meta().ResourceVersion = strconv.FormatInt(rev, 10)
	return store.Stored(o, value), nil
}

// belongs refuses a value that is not that of its key: who reads it under the
// one name and writes it under the other would make a second object of it.
func belongs(k model.Key, o v3.Object) error {
	got, err := model.KeyOf(o)
	if err == nil && got != k {
		return fmt.Errorf("the stored value is that of %v", got)
	}
	return err
}

// encode writes o. If stored is not nil o is the next version of it: then what
// stored says of the object's birth is kept, as are fields that weft does not
// know, and the very bytes if nothing changed.
func encode(o v3.Object, stored []byte, now time.Time) ([]byte, error) {
	was, err := decodeAny(o, stored)
	if stored == nil || err != nil { // what can't be read has nothing to keep
		was, stored = nil, nil
	}
	if !isFlat(kindOf(o)) {
		o = shallow(o)
		if was == nil {
			birth(o.Meta(), metav1.ObjectMeta{UID: newUID(), CreationTimestamp: metav1.NewTime(now.UTC().Truncate(time.Second))})
		} else {
			birth(o.Meta(), *was.Meta())
		}
	}
	fresh, err := encodeAny(o, nil)
	if err != nil || was == nil {
		return fresh, err
	}
	known, err := encodeAny(was, nil)
	switch {
	case err != nil:
		return nil, err
	case bytes.Equal(known, fresh):
		return stored, nil
	case bytes.Equal(known, stored): // nothing unknown in it
		return fresh, nil
	}
	return encodeAny(o, stored)
}

// decodeAny reads an earlier version of o.
func decodeAny(o v3.Object, stored []byte) (v3.Object, error) {
	if !isFlat(kindOf(o)) {
		return v3.DecodeStored(stored)
	}
	k, err := model.KeyOf(o)
	if err != nil {
		return nil, err
	}
	return decodeFlat(k, stored)
}

// encodeAny writes o together with what stored holds and weft does not know.
func encodeAny(o v3.Object, stored []byte) ([]byte, error) {
	if isFlat(kindOf(o)) {
		return encodeFlat(o, stored)
	}
	return v3.Merge(stored, o)
}

// birth sets what users may not: it comes from was, and what was does not say
// is not said.
func birth(m *metav1.ObjectMeta, was metav1.ObjectMeta) {
	m.UID, m.CreationTimestamp = was.UID, was.CreationTimestamp
	m.Generation, m.GenerateName = was.Generation, was.GenerateName
	m.DeletionTimestamp, m.DeletionGracePeriodSeconds = was.DeletionTimestamp, was.DeletionGracePeriodSeconds
	m.OwnerReferences, m.Finalizers = was.OwnerReferences, was.Finalizers
}

// newUID makes a random identity (RFC 9562 version 4).
func newUID() types.UID {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails: crypto/rand's contract
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return types.UID(strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"))
}

// shallow copies the object itself, not what it points to.
func shallow(o v3.Object) v3.Object {
	c := reflect.New(reflect.TypeOf(o).Elem())
	c.Elem().Set(reflect.ValueOf(o).Elem())
	return c.Interface().(v3.Object)
}

func kindOf(o v3.Object) model.Kind { return model.Kind(v3.KindOf(o).Name) }

// revOf reads the revision of o; 0 means that o has none.
func revOf(o v3.Object) (int64, error) {
	text := o.Meta().ResourceVersion
	if text == "" {
		return 0, nil
	}
	rev, err := strconv.ParseInt(text, 10, 64)
	if err != nil || rev <= 0 {
		return 0, fmt.Errorf("metadata.resourceVersion %q: must be a number as the datastore gave it, or empty", text)
	}
	return rev, nil
}

// unreadable is why a stored value makes no sense; it is store.ErrUnreadable.
type unreadable struct{ error }

func (unreadable) Is(target error) bool { return target == store.ErrUnreadable }

func (e unreadable) Unwrap() error { return e.error }

// lineError prints an error of several lines as one.
type lineError struct{ error }

func (e lineError) Error() string {
	return strings.ReplaceAll(strings.TrimSpace(e.error.Error()), "\n", "; ")
}

func (e lineError) Unwrap() error { return e.error }

// oneLine is err, in one line.
func oneLine(err error) error {
	if err == nil || !strings.Contains(err.Error(), "\n") {
		return err
	}
	return lineError{err}
}

// isAbout reports whether err already names an object.
func isAbout(err error) bool {
	var e *store.Error
	return errors.As(err, &e)
}
