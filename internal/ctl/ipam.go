package ctl

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/audit"
)

// ipamCommand holds what looks at addresses and puts them right.
func (c *client) ipamCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ipam",
		Short: "Look at addresses: which are in use, and whether the records of them are right",
		Long: "Look at the addresses that pools hold and who has them, find records that are wrong and\n" +
			"release what nobody uses, split pools, and change how addresses are given out.",
		Example: "  " + c.name() + " ipam show                     how full the pools are\n  " + c.name() + " ipam check                    whether the records agree with what is in use",
	}
	cmd.AddCommand(c.ipamShowCommand(), c.ipamCheckCommand(), c.ipamReleaseCommand(), c.ipamSplitCommand(), c.ipamConfigureCommand())
	return cmd
}

// addrArgument reads an address that the user gave. calicoctl says what is wrong with it
// where others have their answer.
func (c *client) addrArgument(flag, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err == nil && a.Zone() == "":
		return a.Unmap(), nil
	case c.calico:
		_, _ = fmt.Fprintf(c.Stdout, "Error executing command: invalid IP address specified: %s\n", text)
		return a, &ExitError{1}
	}
	return a, &UsageError{fmt.Errorf("--%s: %q: must be an IP address such as 10.0.0.1 or fd00::1", flag, text)}
}

// ipamProgress tells on a terminal what is being done, in a line that the next one replaces;
// an empty text takes it away.
func (c *client) ipamProgress() func(text string) {
	if c.calico || !isTerminal(c.Stderr) {
		return func(string) {}
	}
	return func(text string) {
		if text != "" {
			text += " ..."
		}
		_, _ = fmt.Fprintf(c.Stderr, "\r\x1b[K%s", text)
	}
}

// printRows prints a table without trailing blanks. Its last column is cut to fit into width,
// if that is not 0.
func printRows(w io.Writer, width int, lines [][]string) error {
	var widths []int
	for _, line := range lines {
		for i, cell := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		var b strings.Builder
		at := 0
		for i, cell := range line {
			if i > 0 {
				b.WriteString(strings.Repeat(" ", at-utf8.RuneCountInString(b.String())))
			}
			if i == len(line)-1 && width > at+8 && utf8.RuneCountInString(cell) > width-at {
				cell = string([]rune(cell)[:width-at-1]) + "…"
			}
			b.WriteString(cell)
			at += widths[i] + 2
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// frame prints a table as calicoctl does, with lines around its cells; the columns from
// the one with number right on are aligned to the right, but for their heads.
func frame(w io.Writer, right int, lines [][]string) error {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len(cell))
		}
	}
	border := "+"
	for _, n := range widths {
		border += strings.Repeat("-", n+2) + "+"
	}
	var b strings.Builder
	b.WriteString(border + "\n")
	for n, line := range lines {
		b.WriteString("|")
		for i, cell := range line {
			if n > 0 && i >= right {
				fmt.Fprintf(&b, " %*s |", widths[i], cell)
			} else {
				fmt.Fprintf(&b, " %-*s |", widths[i], cell)
			}
		}
		b.WriteString("\n")
		if n == 0 {
			b.WriteString(border + "\n")
		}
	}
	b.WriteString(border + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// plural is n with the word, in its plural unless n is 1.
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	switch {
	case strings.HasSuffix(word, "s"):
		return fmt.Sprintf("%d %ses", n, word)
	case strings.HasSuffix(word, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(word, "y"))
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// calicoKinds are the kinds that calicoctl counts, in the order of its lines.
func calicoKinds() [][]audit.Kind {
	return [][]audit.Kind{
		{audit.Leaked, audit.Stray}, {audit.OutsidePools}, {audit.Unallocated}, {audit.OrphanHandle}, {audit.MissingHandle}, {audit.InvalidBlock},
	}
}
