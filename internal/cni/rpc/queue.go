package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Queue keeps the DELs that no agent was there to carry out: one file each in
// a directory of root's own. The executable puts them there; the agent carries
// them out with [Queue.Each] before it serves and again now and then, as an
// executable that found no agent may write a moment later. Several processes may
// use one queue at the same time.
//
// A queued DEL must not hit an ADD that came after it. So whoever adds an
// attachment calls [Queue.Settle] first, and an entry is carried out and removed
// under one lock.
type Queue struct {
	Dir string // empty means [DefaultQueue]
}

const entrySuffix = ".json"

// Put writes r to disk: when Put returns nil, r survives a loss of power.
// Putting the same attachment twice keeps the later one.
func (q Queue) Put(r DelRequest) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cni: queue: %v: %w", r.Attachment, err)
	}
	if err := os.MkdirAll(q.dir(), 0o700); err != nil {
		return fmt.Errorf("cni: queue: %w", err)
	}
	tmp, err := os.CreateTemp(q.dir(), ".new-*")
	if err != nil {
		return fmt.Errorf("cni: queue: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = tmp.Write(body)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), q.entry(r.Attachment, r.AddressesOnly))
	}
	if err == nil {
		err = syncDir(q.dir())
	}
	if err != nil {
		return fmt.Errorf("cni: queue: %v: %w", r.Attachment, err)
	}
	return nil
}

// Each carries out what is queued with del and removes what succeeded. It goes
// through all entries, then returns their errors joined. An entry that cannot be
// read is set aside (renamed to .bad) and reported once. An absent directory is
// an empty queue.
func (q Queue) Each(ctx context.Context, del func(context.Context, DelRequest) error) error {
	files, err := os.ReadDir(q.dir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("cni: queue: %w", err)
	}
	var errs []error
	for _, f := range files {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		if strings.HasSuffix(f.Name(), entrySuffix) {
			errs = append(errs, q.carryOut(ctx, filepath.Join(q.dir(), f.Name()), del))
		}
	}
	return errors.Join(errs...)
}

// Settle carries out what is queued for a, if anything, so that it cannot
// follow a later ADD.
func (q Queue) Settle(ctx context.Context, a Attachment, del func(context.Context, DelRequest) error) error {
	for _, addressesOnly := range []bool{false, true} {
		path := q.entry(a, addressesOnly)
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			continue // the usual case, and cheap
		}
		if err := q.carryOut(ctx, path, del); err != nil {
			return err
		}
	}
	return nil
}

// carryOut runs one entry under the queue's lock. An entry that has gone by then
// was carried out by somebody else.
func (q Queue) carryOut(ctx context.Context, path string, del func(context.Context, DelRequest) error) error {
	unlock, err := q.lock()
	if err != nil {
		return err
	}
	defer unlock()
	body, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("cni: queue: %w", err)
	}
	var r DelRequest
	if err := json.Unmarshal(body, &r); err != nil {
		err = errors.Join(err, os.Rename(path, strings.TrimSuffix(path, entrySuffix)+".bad"))
		return fmt.Errorf("cni: queue: %s: not a DEL, set aside: %w", path, err)
	}
	if err := del(ctx, r); err != nil {
		return fmt.Errorf("cni: queue: %v: %w", r.Attachment, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cni: queue: %w", err)
	}
	return nil
}

// lock takes the lock that all users of the directory share.
func (q Queue) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(q.dir(), ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cni: queue: lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("cni: queue: lock: %w", err)
		}
	}
}

func (q Queue) dir() string {
	if q.Dir == "" {
		return DefaultQueue
	}
	return q.Dir
}

// entry is the file of an attachment in one role. Names are hashed: a container
// ID may be longer than a file name, and is not ours to trust.
func (q Queue) entry(a Attachment, addressesOnly bool) string {
	sum := sha256.Sum256([]byte(a.Network + "\x00" + a.ContainerID + "\x00" + a.IfName))
	name := hex.EncodeToString(sum[:16])
	if addressesOnly {
		name += ".ipam"
	}
	return filepath.Join(q.dir(), name+entrySuffix)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
