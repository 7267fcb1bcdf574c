package diags

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/url"
	"time"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/run"
)

// pageTimeout bounds the wait for one page of the agent.
const pageTimeout = 20 * time.Second

// Agent adds what the agent that answers on socket says of itself, and returns its status, the
// zero Status if none answers.
func (b *Bundle) Agent(ctx context.Context, socket string) agent.Status {
	var s agent.Status
	asked, cancel := context.WithTimeout(ctx, pageTimeout)
	err := run.Fetch(asked, socket, "status", &s)
	cancel()
	if err != nil {
		b.Fault("agent", err)
		return s
	}
	text := func(name, page string, form func([]byte) []byte) {
		b.Text("agent/"+name, func(w io.Writer) error {
			ctx, cancel := context.WithTimeout(ctx, pageTimeout)
			defer cancel()
			var body bytes.Buffer
			if err := run.FetchTo(ctx, socket, page, &body); err != nil {
				return err
			}
			_, err := w.Write(form(body.Bytes()))
			return err
		})
	}
	text("status.json", "status", indented)
	text("policy.json", "policy", indented)
	for _, p := range s.Peers {
		text("routes-"+fileName(p.Addr)+".json", "routes?peer="+url.QueryEscape(p.Addr), indented)
	}
	text("metrics.txt", "metrics", asIs)
	text("log.txt", "log", asIs)
	text("goroutines.txt", "goroutines", asIs)
	b.Binary("agent/heap.pprof", func(w io.Writer) error {
		ctx, cancel := context.WithTimeout(ctx, pageTimeout)
		defer cancel()
		return run.FetchTo(ctx, socket, "heap", w)
	})
	return s
}

func asIs(b []byte) []byte { return b }

// indented is JSON on lines of its own.
func indented(b []byte) []byte {
	var out bytes.Buffer
	if json.Indent(&out, b, "", " ") != nil {
		return b
	}
	return out.Bytes()
}

// fileName is text with what is not for names of files replaced.
func fileName(text string) string {
	out := []byte(text)
	for i, c := range out {
		if c == '/' || c == ':' || c == '%' || c <= ' ' {
			out[i] = '_'
		}
	}
	return string(out)
}
