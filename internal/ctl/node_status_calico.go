package ctl

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/agent"
)

// calicoStatus prints s as calicoctl prints the status of a node; asking for it failed with
// err, if that is not nil.
func (c *client) calicoStatus(s agent.Status, err error) error {
	if err != nil {
		_, _ = fmt.Fprintln(c.Stdout, "Calico process is not running.")
		_, _ = fmt.Fprintln(c.Stderr, err)
		return &ExitError{1}
	}
	_, _ = fmt.Fprintln(c.Stdout, "Calico process is running.")
	if !s.Ready {
		_, _ = fmt.Fprintln(c.Stderr, "not ready:", s.Why)
	}
	now := time.Now()
	for _, family := range []string{"IPv4", "IPv6"} {
		_, _ = fmt.Fprintf(c.Stdout, "\n%s BGP status\n", family)
		var rows [][]string
		for _, p := range s.Peers {
			if overIPv6(p) == (family == "IPv6") {
				state, info := birdWords(p)
				rows = append(rows, []string{p.Addr, p.Type, state, since(p.Since, now), info})
			}
		}
		if len(rows) == 0 {
			_, _ = fmt.Fprintf(c.Stdout, "No %s peers found.\n", family)
			continue
		}
		grid(c.Stdout, []string{"PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"}, rows)
	}
	_, err = fmt.Fprintln(c.Stdout)
	return err
}

// birdWords are a session's state and what is said of it, as BIRD puts them.
func birdWords(p agent.Peer) (state, info string) {
	if p.State == established {
		return "up", p.State
	}
	if p.Info == "" {
		return "start", p.State
	}
	return "start", fmt.Sprintf("%-14s%s", p.State, p.Info)
}

// grid prints a table with lines around its cells; what stands in the head is centred.
func grid(w io.Writer, head []string, rows [][]string) {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	rule := "+"
	for _, n := range widths {
		rule += strings.Repeat("-", n+2) + "+"
	}
	line := func(row []string, centred bool) {
		text := "|"
		for i, cell := range row {
			left := 0
			if centred {
				left = (widths[i] - len(cell)) / 2
			}
			text += fmt.Sprintf(" %-*s |", widths[i], strings.Repeat(" ", left)+cell)
		}
		_, _ = fmt.Fprintln(w, text)
	}
	_, _ = fmt.Fprintln(w, rule)
	line(head, true)
	_, _ = fmt.Fprintln(w, rule)
	for _, row := range rows {
		line(row, false)
	}
	_, _ = fmt.Fprintln(w, rule)
}
