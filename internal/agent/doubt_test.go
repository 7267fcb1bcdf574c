package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/model"
)

// TestDoubt: what passes of what the datastore says, and what the agent says to it. Batches
// are written as letters: R begins a snapshot and S completes it, b is a block, w an
// endpoint, i an invalid block, p a pool; -b deletes the block. "kernel W B" is how many
// workloads and blocks the kernel has from here on, and "again" a look without news.
func TestDoubt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		want   string // after each step: the number of batches that pass, ! if nothing new may begin, k if routes stay
	}{
		"a new cluster":                 {"R, p, S, b", "0, 0, 3, 1"},
		"a usual start":                 {"kernel 3 4, R p, b, w S", "0, 2, 1"},
		"a block that can't be read":    {"kernel 3 4, R i S", "1"},
		"wrong prefix":                  {"kernel 3 4, R S, p, again, b", "0!k, 0!k, 0!k, 3"},
		"wrong prefix, no block routes": {"kernel 3 0, R p S", "0!k"},
		"pods end meanwhile":            {"kernel 1 0, R S, kernel 0 0, again", "0!k, 1"},
		"foreign addresses":             {"kernel 3 0, R w S", "1"},
		"definitions made anew":         {"kernel 3 4, R w S, w, b", "1k, 1k, 1"},
		"machine of an older cluster":   {"kernel 0 4, R p S, w, b", "1k, 1k, 1"},
		"it comes back empty":           {"R b S, kernel 3 4, R, S, R w S, R w b S", "1, 0, 0!k, 0!k, 1"},
		"it comes back without blocks":  {"R b w S, kernel 0 4, R S, kernel 0 0, again", "1, 0!k, 1"},
		"somebody deleted all":          {"R b w S, kernel 3 4, -b, -w, kernel 0 0, R S", "1, 1, 1, 1"},
		"deletion ends doubt":           {"kernel 0 4, R S, -b", "1k, 1"},
		"the kernel can't be asked":     {"kernel ? ?, R S, kernel 0 0, again", "0!k, 1"},
		"trusted":                       {"trust, kernel 3 4, R S", "1"},
	} {
		var log strings.Builder
		var kernel fib.Sighting
		var fault error
		logger := slog.New(slog.NewTextHandler(&log, nil))
		n := newNotes(logger)
		d := newDoubt(func() (fib.Sighting, error) { return kernel, fault }, strings.Contains(tt.script, "trust"), n, logger)
		var got []string
		for step := range strings.SplitSeq(tt.script, ", ") {
			var pass []model.Batch
			fields := strings.Fields(step)
			switch fields[0] {
			case "trust":
				continue
			case "kernel":
				kernel, fault = fib.Sighting{}, nil
				if _, err := fmt.Sscan(fields[1]+" "+fields[2], &kernel.Workloads, &kernel.Blocks); err != nil {
					fault = errors.New("no answer")
				}
				continue
			case "again":
				pass = d.decide()
			default:
				pass = d.step(spelled(fields))
			}
			text := fmt.Sprint(len(pass))
			if d.unready() != "" {
				text += "!"
			}
			if d.keeps() {
				text += "k"
				if all := strings.Join(n.all(), "\n"); !strings.Contains(all, TrustEmptySetting) || !strings.Contains(log.String(), "level=ERROR") {
					t.Errorf("%s: said: %s\nlogged: %s", name, all, log.String())
				}
			} else if len(n.all()) > 0 {
				t.Errorf("%s: still says %v", name, n.all())
			}
			got = append(got, text)
		}
		if got := strings.Join(got, ", "); got != tt.want {
			t.Errorf("%s (%s): got %s, want %s", name, tt.script, got, tt.want)
		}
	}
}

// spelled is a batch of the letters of [TestDoubt].
func spelled(letters []string) model.Batch {
	block := model.Block{CIDR: netip.MustParsePrefix("10.65.0.0/26")}
	endpoint := model.Endpoint{Namespace: "shop", Name: "web"}
	var b model.Batch
	for _, l := range letters {
		switch l {
		case "R":
			b.Reset = true
		case "S":
			b.Synced = true
		case "b":
			b.Puts = append(b.Puts, block)
		case "w":
			b.Puts = append(b.Puts, endpoint)
		case "p":
			b.Puts = append(b.Puts, model.Pool{Name: "pool"})
		case "i":
			b.Invalids = append(b.Invalids, model.Invalid{Key: block.Key(), Err: errors.New("no JSON")})
		case "-b":
			b.Deletes = append(b.Deletes, block.Key())
		case "-w":
			b.Deletes = append(b.Deletes, endpoint.Key())
		default:
			panic("no letter: " + l)
		}
	}
	return b
}
