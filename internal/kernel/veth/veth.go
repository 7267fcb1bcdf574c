// Package veth changes the MTU of workloads' interfaces that exist: both ends of the
// pair that joins a workload's network namespace to the node's.
//
//	node's namespace            workload's namespace
//	cali12ab (MTU) ═══ veth ═══ eth0 (MTU)
//
// The kernel changes an interface only for who is in its namespace, and a pair knows only
// the number of the other's namespace. So the package looks for a file that leads there
// (what container runtimes mount, and those of processes), compares numbers, and
// enters on a thread of its own.
//
// A pair drops without a word what is longer than the MTU of the receiving end
// (is_skb_forwardable in net/core/dev.c). So the node's end never gets an MTU below that
// of the workload's end: where the workload's namespace can't be entered the pair stays as
// it is, and what is too long further on is answered by the node's routing with ICMP
// (RFC 1191, RFC 8201), as by any router.
//
// Linux takes IPv6 from an interface whose MTU goes below 1280 bytes (RFC 8200), addresses
// and all, for good. So a workload that has an IPv6 address gets no less than that.
//
// Deliberately not here: the MTU of new interfaces, which the CNI executable sets, and
// whether an MTU is the workload's own wish: the caller says which MTU a pair must have
// to be changed.
package veth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// MinIPv6 is the least MTU with which Linux lets an interface have IPv6, bytes.
const MinIPv6 = 1280

// Options say which pairs are changed, and how.
type Options struct {
	Prefixes []string // of the names of the node's ends
	From     []int    // bytes: a pair is changed if both its ends have one of these
	To       int      // bytes; below MinIPv6 only for workloads without IPv6
	// Namespaces are patterns of files that may be workloads' network namespaces, as
	// filepath.Glob knows them; nil: DefaultNamespaces.
	Namespaces []string
}

// DefaultNamespaces are the network namespaces that are mounted, as container runtimes do
// (usually below /run/netns), and those of all processes.
func DefaultNamespaces() []string {
	text, _ := os.ReadFile("/proc/thread-self/mountinfo") // what can't be read has none
	return append(mounted(string(text)), "/proc/[0-9]*/ns/net")
}

// mounted finds network namespaces in the table of mounts (proc_pid_mountinfo(5)), as
// patterns.
func mounted(table string) []string {
	var out []string
	// The table has some bytes in octal; in a pattern others need a backslash.
	plain := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[3], "net:[") {
			out = append(out, plain.Replace(f[4]))
		}
	}
	return out
}

// Report is what SetMTU did.
type Report struct {
	Changed []string // names of the node's ends of the pairs that have another MTU now
	Left    []string // of those whose workload's namespace can't be reached: they are as before
}

// pair is a workload's pair as the node sees it.
type pair struct {
	name       string
	index, far uint32 // interface numbers, each in its namespace
	ns         uint32 // number of the workload's namespace
	mtu, to    int    // bytes: of the node's end, and what both ends are to have
}

// SetMTU changes the MTU of pairs. The machine is the network namespace of the caller's
// thread. It does all it can; the error is about the rest. A pair that is deleted meanwhile
// is no error.
func SetMTU(o Options) (Report, error) {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE})
	if err != nil {
		return Report{}, fmt.Errorf("veth: %w", err)
	}
	defer func() { _ = s.Close() }()
	if slices.ContainsFunc(o.From, func(mtu int) bool { return mtu < MinIPv6 }) {
		o.From = append(slices.Clip(o.From), MinIPv6) // what some have instead
	}
	pairs, err := pairsWith(s, o)
	if err != nil || len(pairs) == 0 {
		return Report{}, err
	}
	if o.Namespaces == nil {
		o.Namespaces = DefaultNamespaces()
	}
	wanted := map[uint32][]pair{}
	for _, p := range pairs {
		wanted[p.ns] = append(wanted[p.ns], p)
	}
	var report Report
	var errs []error
	enter := func(ns uint32, fd int) {
		changed, err := setFar(fd, wanted[ns], o)
		errs = append(errs, err)
		for _, p := range changed {
			if err := setMTU(s, p.index, p.to); err != nil {
				errs = append(errs, fmt.Errorf("veth: link %s: mtu %d: %w", p.name, p.to, err))
				continue
			}
			report.Changed = append(report.Changed, p.name)
		}
		delete(wanted, ns)
	}
	if err := find(s, o.Namespaces, func(ns uint32) bool { return wanted[ns] != nil }, enter); err != nil {
		errs = append(errs, err)
	}
	for _, left := range wanted {
		for _, p := range left {
			report.Left = append(report.Left, p.name)
		}
	}
	slices.Sort(report.Changed)
	slices.Sort(report.Left)
	return report, errors.Join(errs...)
}

// pairsWith reads the pairs that are to be changed.
func pairsWith(s *netlink.Socket, o Options) ([]pair, error) {
	const skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h)
	all := netlink.AppendAttr32(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_EXT_MASK, skipStatistics)
	for range 10 {
		var out []pair
		err := s.Dump(unix.RTM_GETLINK, all, func(_ uint16, body []byte) {
			if p, ok := parse(body); ok && hasPrefix(p.name, o.Prefixes) && p.mtu != o.To && slices.Contains(o.From, p.mtu) {
				out = append(out, p)
			}
		}, nil)
		if err == nil {
			return out, nil
		}
		if !errors.Is(err, netlink.ErrInterrupted) { // else something changed meanwhile
			return nil, fmt.Errorf("veth: list links: %w", err)
		}
	}
	return nil, fmt.Errorf("veth: list links: %w", netlink.ErrInterrupted)
}

func hasPrefix(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// parse reads a link; false: it has no other end in another namespace.
func parse(body []byte) (p pair, ok bool) {
	if len(body) < unix.SizeofIfInfomsg {
		return p, false
	}
	p.index = netlink.Uint32(body[4:])
	for typ, v := range netlink.Attributes(body[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			p.name = unix.ByteSliceToString(v)
		case unix.IFLA_MTU:
			p.mtu = int(netlink.Uint32(v))
		case unix.IFLA_LINK:
			p.far = netlink.Uint32(v)
		case unix.IFLA_LINK_NETNSID:
			p.ns, ok = netlink.Uint32(v), true
		}
	}
	return p, ok
}

// setFar changes the workloads' ends in the namespace fd, and returns the pairs whose other
// end may follow.
func setFar(fd int, pairs []pair, o Options) ([]pair, error) {
	var done []pair
	err := inside(fd, func() error {
		s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE})
		if err != nil {
			return fmt.Errorf("veth: in a workload's namespace: %w", err)
		}
		defer func() { _ = s.Close() }()
		mtus, v6, err := farEnds(s)
		if err != nil {
			return fmt.Errorf("veth: in a workload's namespace: %w", err)
		}
		var errs []error
		for _, p := range pairs {
			if p.to = o.To; v6[p.far] {
				p.to = max(o.To, MinIPv6)
			}
			switch mtu := mtus[p.far]; {
			case mtu == p.to && p.mtu == p.to:
				continue
			case mtu == p.to:
			case !slices.Contains(o.From, mtu):
				continue // the workload has changed it itself
			default:
				if err := setMTU(s, p.far, p.to); err != nil {
					errs = append(errs, fmt.Errorf("veth: other end of %s: mtu %d: %w", p.name, p.to, err))
					continue
				}
			}
			done = append(done, p)
		}
		return errors.Join(errs...)
	})
	return done, err
}

// farEnds reads the MTUs of links, by their number, and which have an IPv6 address beside
// the link-local one that any has.
func farEnds(s *netlink.Socket) (mtus map[uint32]int, v6 map[uint32]bool, err error) {
	mtus, v6 = map[uint32]int{}, map[uint32]bool{}
	err = s.Dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), func(_ uint16, body []byte) {
		if p, _ := parse(body); p.index != 0 {
			mtus[p.index] = p.mtu
		}
	}, nil)
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	all := make([]byte, unix.SizeofIfAddrmsg)
	all[0] = unix.AF_INET6
	err = s.Dump(unix.RTM_GETADDR, all, func(_ uint16, body []byte) {
		if len(body) >= unix.SizeofIfAddrmsg && body[3] == unix.RT_SCOPE_UNIVERSE {
			v6[netlink.Uint32(body[4:])] = true
		}
	}, nil)
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	return mtus, v6, nil
}

// setMTU changes one link; one that is gone is no error.
func setMTU(s *netlink.Socket, index uint32, mtu int) error {
	seq := s.Next()
	req := netlink.AppendHeader(nil, unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, seq)
	body := make([]byte, unix.SizeofIfInfomsg)
	netlink.Native.PutUint32(body[4:], index)
	req = append(req, body...)
	req = netlink.AppendAttr32(req, unix.IFLA_MTU, uint32(mtu))
	netlink.EndMessage(req, 0)
	var refused error
	err := s.Exchange(req, seq, func(_ uint32, errno unix.Errno) {
		if errno != unix.ENODEV {
			refused = errno
		}
	})
	return errors.Join(err, refused)
}

// find calls each with every namespace that wanted says is wanted, by the number it has
// for this one, until none is.
func find(s *netlink.Socket, patterns []string, wanted func(ns uint32) bool, each func(ns uint32, fd int)) error {
	var errs []error
	seen := map[[2]uint64]bool{} // one namespace has many files
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			errs = append(errs, fmt.Errorf("veth: namespaces %q: %w", pattern, err))
		}
		for _, path := range files {
			var st unix.Stat_t
			if unix.Stat(path, &st) != nil || seen[[2]uint64{st.Dev, st.Ino}] {
				continue // of a process that has just ended
			}
			seen[[2]uint64{st.Dev, st.Ino}] = true
			f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be anything
			if err != nil {
				continue // nothing that leads anywhere
			}
			if ns, ok := number(s, int(f.Fd())); ok && wanted(ns) {
				each(ns, int(f.Fd()))
			}
			_ = f.Close()
		}
	}
	return errors.Join(errs...)
}

// number is the number that this namespace has for the one of a file (RTM_GETNSID);
// false: none, or the file is no namespace.
func number(s *netlink.Socket, fd int) (ns uint32, ok bool) {
	const (
		netnsID, netnsFD = 1, 3 // NETNSA_NSID, NETNSA_FD (linux/net_namespace.h)
		bodyBytes        = 4    // struct rtgenmsg, padded
	)
	seq := s.Next()
	req := netlink.AppendHeader(nil, unix.RTM_GETNSID, unix.NLM_F_REQUEST, seq)
	req = append(req, make([]byte, bodyBytes)...)
	req = netlink.AppendAttr32(req, netnsFD, uint32(fd))
	netlink.EndMessage(req, 0)
	if s.Send(req) != nil {
		return 0, false
	}
	for {
		datagram, err := s.Read()
		if err != nil {
			return 0, false
		}
		for m := range netlink.Messages(datagram) {
			if m.Seq != seq {
				continue
			}
			if m.Type != unix.RTM_NEWNSID || len(m.Body) < bodyBytes {
				return 0, false
			}
			for typ, v := range netlink.Attributes(m.Body[bodyBytes:]) {
				if typ == netnsID && int32(netlink.Uint32(v)) >= 0 {
					return netlink.Uint32(v), true
				}
			}
			return 0, false
		}
	}
}

// inside runs f in the namespace fd, on a thread that dies afterwards.
func inside(fd int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread stays in the namespace
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("veth: enter a workload's namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
