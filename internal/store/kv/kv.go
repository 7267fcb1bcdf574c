// Package kv is a store.Store over an ordered map of keys to bytes that has
// revisions and transactions, in Calico's layout of keys and values. The map is
// a [DB]: etcd itself (package etcd) or its likeness in memory (package mem), so
// both stores behave alike because they are the same code.
//
//	store.Store, store.Source          Get List Commit Watch
//	─────────── kv ───────────         layout · encode · decode · merge · blame
//	DB                                 Range Txn Watch Close
//
// The layout (recorded from Calico itself in test/fixtures/etcd and stored):
//
//	/calico/resources/v3/projectcalico.org/PLURAL[/NAMESPACE]/NAME   a v3 resource
//	/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26                 a block
//	/calico/ipam/v2/host/NODE/ipv4/block/10.0.0.0-26                  a node's claim
//	/calico/ipam/v2/handle/ID                                         a handle
//	/calico/ipam/v2/config                                            the IPAMConfig
//
// Address management's values are flat JSON without metadata; all others are
// the resource as package v3 encodes it. A revision is the DB's and is never
// stored in the value.
//
// Invariant: a byte that weft does not understand is written back as it was:
// keys of other kinds are never touched, unknown fields survive an update, and an
// update that changes nothing writes the very bytes that were read.
package kv

import (
	"context"
	"errors"
	"iter"
)

// ErrCompacted says that the DB has forgotten the revision asked for.
var ErrCompacted = errors.New("revision is compacted")

// DB is an ordered map of keys to bytes with revisions, as etcd is one. Revisions
// start at 1 and go up by one with each transaction that changes something. It
// is safe for concurrent use.
type DB interface {
	// Range reads the entries with from ≤ key < to in the byte order of keys,
	// at most limit of them (0: all), as they were at rev (0: now). The error
	// wraps ErrCompacted when rev is forgotten.
	Range(ctx context.Context, from, to string, limit int, rev int64) (Page, error)
	// Txn carries out all of writes if each finds what it expects, else none.
	// No key may occur twice.
	Txn(ctx context.Context, writes []Write) (Outcome, error)
	// Watch yields the changes of keys with from ≤ key < to that came after
	// the revision after, in order; those of one revision are never apart. It
	// ends with ctx, or with an error when the stream breaks.
	Watch(ctx context.Context, from, to string, after int64) iter.Seq2[[]Change, error]
	// Close releases the connection.
	Close() error
}

// Entry is one key with its value. Rev is the revision of its last change; 0
// means that there is no such key.
type Entry struct {
	Key   string
	Value []byte
	Rev   int64
}

// Page is a part of a range. Rev is the revision it was read at.
type Page struct {
	Entries []Entry
	Rev     int64
	More    bool // entries were left off by the limit
}

// What a Write expects of its key, beside a revision above 0.
const (
	Absent  int64 = 0  // there is no such key
	Present int64 = -1 // the key exists, at any revision
)

// Write is one change of a transaction.
type Write struct {
	Key    string
	Value  []byte // nil: delete the key
	Expect int64  // Absent, Present or the revision of the last change
}

// holds reports whether e, the current entry of w.Key, is what w expects.
func (w Write) holds(e Entry) bool {
	if w.Expect == Present {
		return e.Rev > 0
	}
	return e.Rev == w.Expect
}

// Holds reports whether each write finds what it expects in the entry at its
// place of found; for implementations of DB.
func Holds(writes []Write, found []Entry) bool {
	for i, w := range writes {
		if !w.holds(found[i]) {
			return false
		}
	}
	return true
}

// Outcome is what became of a transaction.
type Outcome struct {
	Rev int64 // the revision of the writes
	// Refused is nil when the writes were carried out; else the current
	// entries of their keys, in the order of the writes.
	Refused []Entry
}

// Change is what became of one key at one revision. A nil Value means that the
// key was deleted.
type Change struct {
	Key   string
	Value []byte
	Rev   int64
}
