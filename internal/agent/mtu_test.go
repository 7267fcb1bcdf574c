package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/kernel/veth"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/testenv"
)

// TestUnderlayFollows: a change of a link, of the settings and of the node's address is
// told at once; links of workloads and tunnels never count.
func TestUnderlayFollows(t *testing.T) {
	t.Parallel()
	ns, other := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, ns, "eth0", []string{"10.0.0.5/24"}, other, "a", nil)
	testenv.Veth(t, ns, "bond0", []string{"10.1.0.5/24"}, other, "b", nil)
	testenv.Veth(t, ns, "cali1", nil, other, "c", nil)
	testenv.Veth(t, ns, "vxlan.calico", nil, other, "d", nil)
	mtu := func(link string, mtu int) {
		t.Helper()
		ns.MustDo(func() error {
			l, err := netlink.LinkByName(link)
			return errors.Join(err, netlink.LinkSetMTU(l, mtu))
		})
	}
	mtu("cali1", 1000)
	mtu("vxlan.calico", 1100)
	told := make(chan int, 100)
	s := underlaySettings{prefixes: []string{"cali"}, tunnels: []string{"tunl0", "vxlan.calico"}, addrs: [2]netip.Addr{netip.MustParseAddr("10.1.0.5")}}
	u := newUnderlay(s, func(mtu int) { told <- mtu }, slog.New(slog.DiscardHandler))
	wait := func(want int) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("told %d, want %d", got, want)
			}
		case <-time.After(testenv.Patience):
			t.Fatalf("not told %d", want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	// Watching happens in the namespace of the thread that begins it.
	go func() { ended <- ns.Do(func() error { return u.run(ctx) }) }()
	wait(1500)
	mtu("eth0", 1400)
	wait(1400)
	mtu("bond0", 1200) // does not match
	mtu("eth0", 1450)
	wait(1450)
	s.pattern = "^bond"
	u.configure(s)
	wait(1200)
	s.pattern = ".*"
	u.configure(s)
	mtu("eth0", 1150)
	wait(1150)
	s.pattern = "^none$"
	u.configure(s) // then by the node's address
	wait(1200)
	s.addrs[0] = netip.MustParseAddr("10.0.0.5")
	u.configure(s)
	wait(1150)
	s.addrs[0] = netip.Addr{}
	u.configure(s) // nothing is known any more: the last one stays
	s.pattern = "("
	u.configure(s)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(told) != 0 {
		t.Errorf("told %d, too", <-told)
	}
}

// podMTUTest is a podMTU whose changes are recorded.
type podMTUTest struct {
	*podMTU
	mu      sync.Mutex
	changes []string
	fail    error
	noted   []model.Problem
}

// failing makes changes of interfaces fail, or no more.
func (p *podMTUTest) failing(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

func newPodMTUTest(file string) *podMTUTest {
	p := &podMTUTest{}
	p.podMTU = newPodMTU("node-a", file, func(list []model.Problem) { p.noted = list }, slog.New(slog.DiscardHandler))
	p.change = func(o veth.Options) (veth.Report, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.changes = append(p.changes, fmt.Sprintf("%v %v>%d", o.Prefixes, o.From, o.To))
		return veth.Report{}, p.fail
	}
	return p
}

// run runs it until the test ends, in a bubble.
func (p *podMTUTest) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.podMTU.run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func (p *podMTUTest) took() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.changes, "; ")
	p.changes = nil
	return out
}

func TestPodMTU(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "sub", "mtu")
		fileHas := func(want string) {
			t.Helper()
			synctest.Wait()
			if got, err := os.ReadFile(file); string(got) != want || err != nil && want != "" {
				t.Errorf("file: %q, %v; want %q", got, err, want)
			}
		}
		is := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		cali := []string{"cali"}
		p := newPodMTUTest(file)
		p.required = true
		stop := p.start(t)
		if p.get() != 0 || p.unready() == "" {
			t.Errorf("before anything is known: %d, %q", p.get(), p.unready())
		}
		p.set(1450, cali, true)
		is(p.took(), "") // nothing was before
		fileHas("1450")
		if p.get() != 1450 || p.unready() != "" {
			t.Errorf("got %d, %q", p.get(), p.unready())
		}
		p.set(1400, cali, true)
		is(p.took(), "[cali] [1450]>1400")
		fileHas("1400")
		time.Sleep(2 * time.Second)
		is(p.took(), "[cali] [1450]>1400") // for an ADD that was under way
		p.set(1300, cali, false)
		is(p.took(), "[cali] [1450 1400]>1300")
		time.Sleep(5 * time.Minute)
		is(p.took(), strings.TrimSuffix(strings.Repeat("[cali] [1450 1400]>1300; ", len(latecomers())), "; "))
		p.set(1300, []string{"cali", "tap"}, false)
		is(p.took(), "") // what the old prefixes had was changed before
		p.set(1450, []string{"cali", "tap"}, false)
		is(p.took(), "[cali tap] [1300]>1450")
		stop()

		// The next agent knows from the file.
		p = newPodMTUTest(file)
		stop = p.start(t)
		p.set(1450, cali, true)
		is(p.took(), "")
		stop()
		p = newPodMTUTest(file)
		stop = p.start(t)
		p.set(1500, cali, true)
		is(p.took(), "[cali] [1450]>1500")
		fileHas("1500")
		stop()
	})
}

// TestPodMTUProblems: a file that can't be written and interfaces that can't be changed are
// told, and tried again.
func TestPodMTUProblems(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "sub", "mtu")
		if err := os.WriteFile(filepath.Join(dir, "sub"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p := newPodMTUTest(file)
		stop := p.start(t)
		p.set(1450, nil, true)
		p.set(1400, nil, true)
		synctest.Wait()
		if len(p.noted) != 1 || !strings.Contains(p.noted[0].Text, file) && !strings.Contains(p.noted[0].Text, "sub") || p.unready() == "" {
			t.Errorf("noted %v, %q", p.noted, p.unready())
		}
		if err := os.Remove(filepath.Join(dir, "sub")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(p.noted) != 0 || p.unready() != "" {
			t.Errorf("later: noted %v, %q", p.noted, p.unready())
		}
		p.failing(errors.New("refused"))
		p.set(1300, nil, true)
		synctest.Wait()
		if len(p.noted) != 1 || !strings.Contains(p.noted[0].Text, "refused") || p.unready() != "" {
			t.Errorf("noted %v, %q", p.noted, p.unready())
		}
		time.Sleep(time.Hour)
		p.failing(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(p.noted) != 0 {
			t.Errorf("later: noted %v", p.noted)
		}
		stop()
	})
}

func TestReadMTUFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "mtu")
	for text, want := range map[string]int{"1450": 1450, "1450\n": 1450, "": 0, "many": 0, "-3": 0, "0": 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readMTUFile(file); err == nil && got != want || err != nil && want != 0 {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	if _, err := readMTUFile(""); err == nil {
		t.Error("no file: no error")
	}
}

func TestMTUFor(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::1/128")
	for _, tt := range []struct {
		mtu, want int
		addrs     []netip.Prefix
	}{{1450, 1450, []netip.Prefix{v4, v6}}, {1200, 1200, []netip.Prefix{v4}}, {1200, 1280, []netip.Prefix{v4, v6}}, {0, 0, []netip.Prefix{v6}}} {
		if got := mtuFor(tt.mtu, tt.addrs); got != tt.want {
			t.Errorf("%d for %v: got %d, want %d", tt.mtu, tt.addrs, got, tt.want)
		}
	}
}
