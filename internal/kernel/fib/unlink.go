package fib

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// Unlink deletes the workload link of that index, if it still has that name: an
// index may be used again. A link that is gone is no error. The kernel takes
// some 20 ms for it, during which others wait for no lock.
func (f *FIB) Unlink(index int32, name string) error {
	f.mu.Lock()
	l := f.byIndex[index]
	same := l != nil && l.name == name
	ours := f.ours(name)
	f.mu.Unlock()
	if !ours {
		return fmt.Errorf("fib: delete link %s: its name is not that of a workload link", name)
	}
	if !same {
		return nil
	}
	f.unlinking.Lock()
	defer f.unlinking.Unlock()
	seq := f.unlinker.Next()
	body := make([]byte, linkBytes)
	netlink.Native.PutUint32(body[4:], uint32(index))
	message := append(netlink.AppendHeader(nil, unix.RTM_DELLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, seq), body...)
	netlink.EndMessage(message, 0)
	var refused unix.Errno
	err := f.unlinker.Exchange(message, seq, func(_ uint32, errno unix.Errno) { refused = errno })
	if err == nil && refused != 0 && refused != unix.ENODEV {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("fib: delete link %s: %w", name, err)
	}
	return nil
}
