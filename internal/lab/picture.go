package lab

import (
	"context"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/lab/topology"
)

// routes are the lines of `ip route` in ns, IPv4 first; the hops of a route with
// several are on its line. What the kernel adds for each interface by itself in
// IPv6 (fe80::/64) is left out.
func (h *holder) routes(ctx context.Context, ns *namespace) ([]string, error) {
	ip, err := findProgram("ip", "iproute2")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range []string{"-4", "-6"} {
		body, err := h.ps.output(ns, ctx.Done(), exec.Command(ip, f, "route", "show"))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(body)) {
			text := strings.Join(strings.Fields(line), " ")
			switch {
			case strings.HasPrefix(text, "fe80::/64 "):
			case strings.HasPrefix(line, "\t") && len(out) > 0:
				out[len(out)-1] += " " + text
			case text != "":
				out = append(out, text)
			}
		}
	}
	return out, nil
}

// lossyTries are the probes of a way before it counts as closed, where packets get lost.
const lossyTries = 5

// matrix probes every pod from every pod, once, or where racks lose packets some times.
func (h *holder) matrix(ctx context.Context) ([]string, [][]Answer) {
	tries := 1
	if slices.ContainsFunc(h.topo.Racks, func(r topology.Rack) bool { return r.Loss > 0 }) {
		tries = lossyTries
	}
	pods := make([]string, len(h.pods))
	answers := make([][]Answer, len(h.pods))
	var all [][2]int
	for i, p := range h.pods {
		pods[i] = p.Target().String()
		answers[i] = make([]Answer, len(h.pods))
		for j := range h.pods {
			if i != j {
				all = append(all, [2]int{i, j})
			}
		}
	}
	parallel(all, atOnce, func(at [2]int) {
		from, to := h.pods[at[0]], h.pods[at[1]]
		a := Answer{Reached: true}
		_, addrs := h.place(to.Target())
		_, own := h.place(from.Target())
		for _, addr := range addrs {
			if _, ok := ofFamily(own, addr); !ok {
				continue
			}
			took, err := echo(ctx, from.ns, addr, h.patient(probeWait), rand.Uint64())
			for n := 1; n < tries && err != nil; n++ {
				took, err = echo(ctx, from.ns, addr, h.patient(probeWait), rand.Uint64())
			}
			if err != nil {
				a.Reached, a.Reason = false, err.Error()
			}
			a.Milliseconds = max(a.Milliseconds, float64(took.Microseconds())/1000)
		}
		answers[at[0]][at[1]] = a
	})
	return pods, answers
}
