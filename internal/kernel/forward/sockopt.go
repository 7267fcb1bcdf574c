package forward

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// Socket options of linux/netfilter_ipv4/ip_tables.h; those of IPv6 have the same
// numbers.
const (
	setReplace     = 64 // IPT_SO_SET_REPLACE
	setAddCounters = 65 // IPT_SO_SET_ADD_COUNTERS
	getInfo        = 64 // IPT_SO_GET_INFO
	getEntries     = 65 // IPT_SO_GET_ENTRIES

	tableNameBytes  = 32 // XT_TABLE_MAXNAMELEN
	infoBytes       = 84 // struct ipt_getinfo
	getHeaderBytes  = 40 // struct ipt_get_entries, without entries
	setHeaderBytes  = 96 // struct ipt_replace, without entries
	countersPointer = 88 // in it
	addHeaderBytes  = 40 // struct xt_counters_info, without counters

	legacyTable = "filter"
	// lockFile is what all iptables-legacy programs of a machine lock while they read
	// and write a table; lockPatience is how long we wait for one of them.
	lockFile     = "/run/xtables.lock"
	lockPatience = 2 * time.Second
)

// legacyTables makes the FORWARD chains of iptables-legacy right, where there are any;
// with all, also where nothing seems to have changed.
func (f *Forward) legacyTables(ctx context.Context, opts Options, rewrite, all bool) error {
	var errs []error
	for _, l := range layouts() {
		c := Chain{Family: l.public, Table: legacyTable, Name: "FORWARD", Legacy: true}
		there, err := l.inUse()
		if err == nil && there {
			if all {
				delete(f.legacy, c)
			}
			err = f.legacyChain(ctx, l, c, opts, rewrite)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("forward: %v: %w", c, err))
		} else if !there {
			delete(f.opened, c)
		}
	}
	return errors.Join(errs...)
}

// inUse reports whether the table is there. To ask the kernel for it would make it.
func (l layout) inUse() (bool, error) {
	if strconv.IntSize != 64 {
		return false, nil // the layouts are those of 64 bits
	}
	names, err := os.ReadFile("/proc/thread-self/net/" + l.names)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil // no ip_tables in this kernel, or none for us
	}
	return slices.Contains(strings.Fields(string(names)), legacyTable), err
}

// legacyChain makes one chain right.
func (f *Forward) legacyChain(ctx context.Context, l layout, c Chain, opts Options, rewrite bool) error {
	fd, err := unix.Socket(l.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	info, err := readInfo(fd, l)
	began := time.Now()
	if last := f.legacy[c]; err != nil || info == last.info && began.Before(last.full) {
		return err
	}
	plan := legacyPlan{fd: fd, layout: l, opts: opts, rewrite: rewrite}
	if err := plan.make(info); err != nil {
		return err
	}
	if !f.mayMove(c, plan.edit) {
		return nil
	}
	if !plan.edit.empty() {
		// Others may be about to write what they read before: look again when nobody is.
		unlock, err := lockLegacy(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		if info, err = readInfo(fd, l); err == nil {
			err = plan.make(info)
		}
		if err == nil && !plan.edit.empty() {
			err = replaceLegacy(fd, plan.old, plan.next)
		}
		if err == nil {
			info, err = readInfo(fd, l) // who takes ours out makes it as it was before
		}
		if err != nil {
			return err
		}
	}
	f.edited(c, plan.edit, plan.had)
	took := time.Since(began)
	f.legacy[c] = look{info, began.Add(legacyShare * took)}
	return nil
}

// legacyPlan is what a table is and what it is to be.
type legacyPlan struct {
	layout
	fd        int
	opts      Options
	rewrite   bool
	old, next *legacy
	edit      edit
	had       bool // rules of ours
}

func (p *legacyPlan) make(info [infoBytes]byte) (err error) {
	if p.old, err = readLegacy(p.fd, p.layout, info); err != nil {
		return err
	}
	rules, policyDrops := p.old.forward()
	p.had = slices.ContainsFunc(rules, func(r rule) bool { return r.ours })
	p.edit = editFor(rules, policyDrops, p.old.chain, gatesFor(p.opts.Prefixes), p.opts.Append, p.rewrite)
	p.next, err = p.old.edited(p.edit)
	return err
}

// lockLegacy waits until no other program changes legacy tables, and keeps them from
// it until unlock. Where the lock cannot be made, as in a container that does not see
// the machine's, there is none.
func lockLegacy(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return func() {}, nil
	}
	for end := time.Now().Add(lockPatience); ; pause(ctx, gather) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { file.Close() }, nil
		case time.Now().After(end) || ctx.Err() != nil:
			file.Close()
			return nil, fmt.Errorf("%s is held by another program: %w", lockFile, err)
		}
	}
}

// readInfo reads how long the table is, and where its chains begin.
func readInfo(fd int, l layout) (info [infoBytes]byte, err error) {
	copy(info[:], legacyTable)
	if err := getOption(fd, l.level, getInfo, info[:]); err != nil {
		return info, fmt.Errorf("read table: %w", err)
	}
	return info, nil
}

// readLegacy reads the table that info tells of.
func readLegacy(fd int, l layout, info [infoBytes]byte) (*legacy, error) {
	number := func(i int) uint32 { return netlink.Native.Uint32(info[tableNameBytes+4*i:]) }
	var begin, end [hooks]uint32
	for h := range hooks {
		begin[h], end[h] = number(1+h), number(1+hooks+h)
	}
	size := number(2 + 2*hooks)
	b := make([]byte, getHeaderBytes+int(size))
	copy(b, legacyTable)
	netlink.Native.PutUint32(b[tableNameBytes:], size)
	if err := getOption(fd, l.level, getEntries, b); err != nil {
		return nil, fmt.Errorf("read %d bytes of rules: %w", size, err) // EAGAIN: another size by now
	}
	return parseLegacy(l, number(0), begin, end, b[getHeaderBytes:])
}

// replaceLegacy puts next in the place of old, and gives its entries the counters
// that they had.
func replaceLegacy(fd int, old, next *legacy) error {
	former := make([]byte, max(len(old.entries), 1)*counterBytes)
	b := make([]byte, setHeaderBytes, setHeaderBytes+len(next.bytes))
	copy(b, legacyTable)
	put := func(i int, v uint32) { netlink.Native.PutUint32(b[tableNameBytes+4*i:], v) }
	put(0, next.validHooks)
	put(1, uint32(len(next.entries)))
	put(2, uint32(len(next.bytes)))
	for h := range hooks {
		put(3+h, next.begin[h])
		put(3+hooks+h, next.end[h])
	}
	put(3+2*hooks, uint32(len(old.entries)))
	var pin runtime.Pinner
	pin.Pin(&former[0])
	defer pin.Unpin()
	netlink.Native.PutUint64(b[countersPointer:], uint64(uintptr(unsafe.Pointer(&former[0]))))
	if err := setOption(fd, old.level, setReplace, append(b, next.bytes...)); err != nil {
		return fmt.Errorf("replace rules: %w", err) // EAGAIN: another number of rules by now
	}
	b = make([]byte, addHeaderBytes)
	copy(b, legacyTable)
	netlink.Native.PutUint32(b[tableNameBytes:], uint32(len(next.entries)))
	b = append(b, next.counted(former)...)
	if err := setOption(fd, old.level, setAddCounters, b); err != nil {
		return fmt.Errorf("restore counters: %w", err)
	}
	return nil
}

// getOption is getsockopt(2) with b as argument and as result.
func getOption(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setOption is setsockopt(2).
func setOption(fd, level, name int, b []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
