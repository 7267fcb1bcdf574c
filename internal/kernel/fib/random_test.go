package fib_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
)

// TestAnyHistoryEndsAsPlanned plays random puts, deletes, damage, link changes
// and restarts, and compares the kernel with the fold of the deltas, written
// by a second FIB into a fresh namespace.
func TestAnyHistoryEndsAsPlanned(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := history{kernel: newKernel(t), rand: rand.New(rand.NewPCG(seed, 0))}
			h.f, h.stop = h.start(fib.Options{})
			for range 120 {
				h.step()
			}
			for _, l := range []string{"cali1", "cali2"} {
				h.tryIP("link add " + l + " type veth peer name p" + l[4:])
				h.ip("link set " + l + " up")
				h.ip("link set p" + l[4:] + " up")
			}
			h.uplink()
			defaults := "route replace default via 10.0.0.1\n-6 route replace default via fd00::1"
			h.tryIP("route flush default")
			h.tryIP("-6 route flush default")
			h.ips(defaults)
			h.f.Synced()

			fresh := newKernel(t)
			fresh.ips(defaults)
			fresh.workload("cali1")
			fresh.workload("cali2")
			f, _ := fresh.start(fib.Options{})
			f.Apply(h.all())
			fresh.until(eventually, "the reference", func() bool { s := f.State(); return s.Applied == s.Routes && len(s.Pending) == 0 })
			look := func(k kernel) string {
				neighbors := strings.Split(k.ip("neigh show nud permanent"), "\n")
				slices.Sort(neighbors)
				return k.routes() + "\n" + strings.Join(neighbors, "\n")
			}
			want := look(fresh)
			h.until(eventually, "as planned\n"+want+fmt.Sprintf("\nlast steps: %q", h.log[max(0, len(h.log)-15):]), func() bool { return look(h.kernel) == want })
			h.until(eventually, "a clean state", func() bool {
				s := h.f.State()
				return s.Applied == s.Routes && s.Stale == 0 && len(s.Pending) == 0 && s.Err == ""
			})
		})
	}
}

type history struct {
	kernel
	rand *rand.Rand
	f    *fib.FIB
	stop func()
	want plan.Node
	log  []string
}

func (h *history) step() {
	switch n := h.rand.IntN(10); {
	case n < 4:
		h.apply(h.put())
	case n < 6:
		h.apply(h.delete())
	case n < 9:
		h.damage()
	case h.rand.IntN(4) == 0:
		h.log = append(h.log, "restart")
		h.stop()
		h.f, h.stop = h.start(fib.Options{})
		h.f.Apply(h.all())
	case h.rand.IntN(2) == 0:
		h.log = append(h.log, "resync")
		h.f.Resync()
	}
}

func (h *history) apply(d plan.Delta) {
	h.log = append(h.log, fmt.Sprint(d))
	h.want = h.want.Apply(d)
	h.f.Apply(d)
}

func (h *history) all() (d plan.Delta) {
	for k, a := range h.want.Routes {
		d.PutRoutes = append(d.PutRoutes, plan.Route{RouteKey: k, RouteAttrs: a})
	}
	for _, l := range h.want.Links {
		d.PutLinks = append(d.PutLinks, l)
	}
	for k, mac := range h.want.Neighbors {
		d.PutNeighbors = append(d.PutNeighbors, plan.Neighbor{NeighborKey: k, MAC: mac})
	}
	return d
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

var (
	someDsts4 = []string{"192.168.1.0/26", "192.168.2.0/26", "192.168.3.1/32"}
	someDsts6 = []string{"fd81::/122", "fd82::/122", "fd83::1/128"}
)

// put is a random route of the cluster, or a pod on either link.
func (h *history) put() (d plan.Delta) {
	for range 1 + h.rand.IntN(3) {
		v6 := h.rand.IntN(2) == 0
		dst, a, b := pick(h.rand, someDsts4...), "10.0.0.3", pick(h.rand, "10.0.0.4", "10.9.9.9")
		if v6 {
			dst, a, b = pick(h.rand, someDsts6...), "fd00::3", pick(h.rand, "fd00::4", "fd09::9")
		}
		switch h.rand.IntN(5) {
		case 0:
			d.PutRoutes = append(d.PutRoutes, cluster(dst))
		case 1:
			d.PutRoutes = append(d.PutRoutes, cluster(dst, a))
		case 2:
			d.PutRoutes = append(d.PutRoutes, cluster(dst, a, b))
		case 3:
			r := cluster(dst, a)
			r.Link = "eth0"
			d.PutRoutes = append(d.PutRoutes, r)
		case 4:
			link, addr := pick(h.rand, "cali1", "cali2"), netip.MustParsePrefix(dst).Addr()
			d.PutRoutes = append(d.PutRoutes, device(fmt.Sprintf("%v/%d", addr, addr.BitLen()), link))
			d.PutLinks = append(d.PutLinks, plan.Link{Name: link, V4: true, V6: true})
			d.PutNeighbors = append(d.PutNeighbors, plan.Neighbor{
				NeighborKey: plan.NeighborKey{Link: link, Addr: addr},
				MAC:         fmt.Sprintf("02:00:00:00:00:%02x", h.rand.IntN(3)),
			})
		}
	}
	return d
}

func (h *history) delete() (d plan.Delta) {
	for k := range h.want.Routes {
		if h.rand.IntN(3) == 0 {
			d.DeleteRoutes = append(d.DeleteRoutes, k)
		}
	}
	for k := range h.want.Neighbors {
		if h.rand.IntN(3) == 0 {
			d.DeleteNeighbors = append(d.DeleteNeighbors, k)
		}
	}
	return d
}

// damage does something to the kernel that must not matter in the end.
func (h *history) damage() {
	link := pick(h.rand, "cali1", "cali2")
	cmd := pick(h.rand,
		"route del "+pick(h.rand, someDsts4...),
		"-6 route del "+pick(h.rand, someDsts6...),
		"-6 route del "+pick(h.rand, someDsts6...)+" via fd00::3",
		"route change "+pick(h.rand, someDsts4...)+" dev eth0 proto bird", // else, once we delete ours, it is somebody's own
		"neigh flush dev "+link+" nud permanent",
		"link add "+link+" type veth peer name p"+link[4:],
		"link set "+link+" up", "link set "+link+" up",
		"link set "+link+" down",
		"link del "+link,
		"link set eth0 down",
		"uplink",
		pick(h.rand, "", "-6 ")+"route del default",
		"route replace default via "+pick(h.rand, "10.0.0.1", "10.0.0.2", "10.0.0.3"),
		"route append default metric 9 via "+pick(h.rand, "10.0.0.5", "10.0.0.6"),
		"-6 route "+pick(h.rand, "replace", "append", "del")+" default via "+pick(h.rand, "fd00::1", "fd00::5", "fd00::6"),
		pick(h.rand, "", "-6 ")+"route flush default",
	)
	h.log = append(h.log, cmd)
	if cmd == "uplink" {
		h.uplink()
		return
	}
	_, _ = h.tryIP(cmd) // what is not there cannot be damaged
}

func (h *history) uplink() {
	h.ip("link set eth0 up")
	h.ip("-6 addr replace fd00::2/64 dev eth0 nodad") // the kernel took it with the link
}
