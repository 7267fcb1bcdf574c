package show

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	v3 "github.com/weft-net/weft/api/v3"
)

// gap is the number of blanks between columns.
const gap = 3

// table is what is to be printed of objects: their cells, not they themselves, which a
// long list could not all hold.
type table struct {
	Options
	columns []column
	rows    [][]cell // that were not printed yet
	widths  []int    // of what was printed; nil: nothing, not even the heading
}

func (f Format) newTable(l List) (*table, error) {
	columns, err := f.columns(l)
	if err != nil {
		return nil, err
	}
	return &table{Options: f.Options, columns: columns}, nil
}

func (t *table) add(objects []v3.Object) {
	for _, o := range objects {
		row := make([]cell, len(t.columns))
		for i, c := range t.columns {
			row[i] = c.of(o)
		}
		t.rows = append(t.rows, row)
	}
}

// tables prints results. In weft's voice those of one kind that follow each other are
// one table.
func (f Format) tables(w io.Writer, results []List) error {
	for i := 0; i < len(results); i++ {
		t, err := f.newTable(results[i])
		if err != nil {
			return err
		}
		t.add(results[i].Objects)
		for !f.Calico && i+1 < len(results) && results[i+1].Kind.Name == results[i].Kind.Name {
			i++
			t.add(results[i].Objects)
		}
		rows := len(t.rows)
		if err := t.print(w); err != nil {
			return err
		}
		if !f.Calico && rows > 0 && anyObjects(results[i+1:]) {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
	}
	return nil
}

func anyObjects(results []List) bool {
	for _, l := range results {
		if len(l.Objects) > 0 {
			return true
		}
	}
	return false
}

// print writes the rows, and the heading before the first of them. Without any row it is
// the heading alone in Calico's voice, and nothing in weft's.
func (t *table) print(w io.Writer) error {
	if len(t.rows) == 0 && !t.Calico {
		return nil
	}
	lines := t.lines()
	if t.widths == nil {
		t.widths = make([]int, len(t.columns))
	}
	for _, line := range lines {
		for i, text := range line {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(text))
		}
	}
	if t.Width > 0 && !t.Calico {
		t.fit()
		t.shorten(lines)
	}
	b := bufio.NewWriter(w)
	for _, line := range lines {
		t.printLine(b, line)
	}
	if t.Calico {
		b.WriteByte('\n') //nolint:errcheck // Flush returns it
	}
	t.rows = nil
	return b.Flush()
}

// lines are the texts to print: of the heading, if it was not, and of the rows.
func (t *table) lines() [][]string {
	lines := make([][]string, 0, len(t.rows)+1)
	if t.widths == nil {
		heading := make([]string, len(t.columns))
		for i, c := range t.columns {
			heading[i] = c.heading
		}
		lines = append(lines, heading)
	}
	texts := make([]string, len(t.rows)*len(t.columns))
	for n, row := range t.rows {
		line := texts[n*len(row) : (n+1)*len(row) : (n+1)*len(row)]
		for i, c := range t.columns {
			line[i] = t.text(c, row[i])
		}
		lines = append(lines, line)
	}
	return lines
}

// text is a cell in one line of printable text.
func (t *table) text(c column, items cell) string {
	text := items.text()
	if t.Calico && c.limit > 0 && len(text) > c.limit {
		text = text[:c.limit-len("...")] + "..."
	}
	return text
}

func (c cell) text() string {
	text := ""
	switch len(c) {
	case 0:
		return ""
	case 1:
		text = c[0]
	default:
		text = strings.Join(c, ",")
	}
	if isPrintable(text) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// isPrintable reports whether text is plain, as nearly all is: a stored value might
// hold what steers a terminal.
func isPrintable(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

func (t *table) printLine(b *bufio.Writer, line []string) {
	last := len(line) - 1
	for !t.Calico && last > 0 && line[last] == "" {
		last--
	}
	for i, text := range line[:last+1] {
		b.WriteString(text) //nolint:errcheck // Flush returns it
		if i == last && !t.Calico {
			break
		}
		for range t.widths[i] + gap - utf8.RuneCountInString(text) {
			b.WriteByte(' ') //nolint:errcheck // Flush returns it
		}
	}
	b.WriteByte('\n') //nolint:errcheck // Flush returns it
}

// least is the width to which columns are cut; a terminal that is narrower wraps its lines.
const least = 12

// fit takes width from the widest column again and again until the table fits the
// terminal or all columns are small. Names are touched after all others.
func (t *table) fit() {
	over := gap*(len(t.widths)-1) - t.Width
	for _, w := range t.widths {
		over += w
	}
	for _, names := range []bool{false, true} {
		for ; over > 0; over-- {
			widest := -1
			for i, w := range t.widths {
				if t.columns[i].key() == names && w > max(least, len(t.columns[i].heading)) && (widest < 0 || w > t.widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			t.widths[widest]--
		}
	}
}

// shorten makes each text of a row as narrow as its column.
func (t *table) shorten(lines [][]string) {
	for n, line := range lines[len(lines)-len(t.rows):] {
		for i, text := range line {
			if utf8.RuneCountInString(text) > t.widths[i] {
				line[i] = t.rows[n][i].short(t.widths[i])
			}
		}
	}
}

// short is as many items as there is room for and the number of those left off, such as
// "10.0.0.0/16 +3 more"; if there is room for none, what can be seen of the first.
func (c cell) short(width int) string {
	for n := len(c) - 1; n > 0; n-- {
		text := fmt.Sprintf("%s +%d more", c[:n].text(), len(c)-n)
		if utf8.RuneCountInString(text) <= width {
			return text
		}
	}
	return cut(c.text(), width)
}

// cut ends text that is too long with an ellipsis.
func cut(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:max(width-1, 0)]) + "…"
}
