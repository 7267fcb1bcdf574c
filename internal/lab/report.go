package lab

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Report is what `lab run` found; its JSON form is that of -o json.
type Report struct {
	Results []Result   `json:"results"`
	Routes  []Routes   `json:"routes"`
	Pods    []string   `json:"pods"`    // the rows and columns of Answers
	Answers [][]Answer `json:"answers"` // [from][to]; the diagonal says nothing
}

// Result is one expectation and what came of it.
type Result struct {
	Expectation string  `json:"expectation"`
	Passed      bool    `json:"passed"`
	Reason      string  `json:"reason,omitempty"` // why not
	Seconds     float64 `json:"seconds"`          // until it was true
}

// Routes are the lines of `ip route` on a node.
type Routes struct {
	Node  string   `json:"node"`
	Lines []string `json:"lines"`
}

// Answer says whether one pod answered another.
type Answer struct {
	Reached      bool    `json:"reached"`
	Milliseconds float64 `json:"milliseconds"` // the round trip
	Reason       string  `json:"reason,omitempty"`
}

// Failed is how many expectations did not come true.
func (r *Report) Failed() int {
	n := 0
	for _, x := range r.Results {
		if !x.Passed {
			n++
		}
	}
	return n
}

// WriteTo prints r: routes, matrix, expectations.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for _, n := range r.Routes {
		fmt.Fprintf(&b, "%s$ ip route\n", n.Node)
		for _, line := range n.Lines {
			fmt.Fprintf(&b, "%s\n", line)
		}
		b.WriteByte('\n')
	}
	r.writeMatrix(&b)
	for _, x := range r.Results {
		if x.Passed {
			fmt.Fprintf(&b, "✓ %s\n", x.Expectation)
		} else {
			fmt.Fprintf(&b, "✗ %s: %s\n", x.Expectation, x.Reason)
		}
	}
	if len(r.Results) > 0 {
		fmt.Fprintf(&b, "\n%d of %d expectations hold\n", len(r.Results)-r.Failed(), len(r.Results))
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// mostColumns is how many pods a terminal has room for; with more, only the ways
// that fail are printed.
const mostColumns = 16

func (r *Report) writeMatrix(b *strings.Builder) {
	switch {
	case len(r.Pods) < 2:
		return
	case len(r.Pods) > mostColumns:
		r.writeFailures(b)
		return
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	short := make([]string, len(r.Pods))
	for i, p := range r.Pods {
		short[i] = strings.TrimPrefix(strings.TrimPrefix(p, "pod/"), "default/")
	}
	fmt.Fprintf(t, "FROM \\ TO\t%s\n", strings.Join(short, "\t"))
	for i, row := range r.Answers {
		cells := []string{short[i]}
		for j, a := range row {
			switch {
			case i == j:
				cells = append(cells, "-")
			case a.Reached:
				cells = append(cells, fmt.Sprintf("%.2f ms", a.Milliseconds))
			default:
				cells = append(cells, "✗")
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_ = t.Flush()
	b.WriteByte('\n')
}

func (r *Report) writeFailures(b *strings.Builder) {
	reached, all := 0, 0
	for i, row := range r.Answers {
		for j, a := range row {
			switch {
			case i == j:
				continue
			case a.Reached:
				reached++
			default:
				fmt.Fprintf(b, "✗ %s to %s: %s\n", r.Pods[i], r.Pods[j], a.Reason)
			}
			all++
		}
	}
	fmt.Fprintf(b, "%d pods: %d of %d ways answer\n\n", len(r.Pods), reached, all)
}
