package lab

import (
	"context"
	"math/rand/v2"
	"os/exec"
	"strings"
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

// matrix probes every pod from every pod, once.
func (h *holder) matrix(ctx context.Context) ([]string, [][]Answer) {
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
			took, err := echo(ctx, from.ns, addr, probeWait, rand.Uint64())
			if err != nil {
				a.Reached, a.Reason = false, err.Error()
			}
			a.Milliseconds = max(a.Milliseconds, float64(took.Microseconds())/1000)
		}
		answers[at[0]][at[1]] = a
	})
	return pods, answers
}
