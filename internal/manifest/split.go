package manifest

import (
	"bytes"
	"unicode/utf8"
)

// text is a piece of a file that one parser reads in one go: a document, or an item of a JSON
// list.
type text struct {
	file   string
	data   []byte
	line   int  // of the first byte of data
	column int  // the same, in characters
	json   bool // and nothing but JSON
}

// split cuts a file at its lines of --- and "...". What stands behind the dashes on their line
// belongs to the document. Documents that are empty, or hold comments only, are left out, but
// that calico keeps the first one, for calicoctl stops there.
func split(file string, data []byte, calico bool) []text {
	var parts []text
	isFirst := true
	add := func(t text) {
		blank := onlyComments(t.data)
		if blank && (!calico || !isFirst) {
			return
		}
		isFirst = false
		parts = append(parts, t)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	start, line, current := 0, 1, text{file: file, line: 1, column: 1}
	marks := 0
	for at := 0; at < len(data); {
		end := at + lineEnd(data[at:])
		if rest, ok := mark(data[at:end]); ok {
			current.data = data[start:at]
			if marks > 0 || !onlyComments(current.data) {
				add(current)
			}
			marks++
			start = end - len(rest)
			current = text{file: file, line: line, column: 1 + utf8.RuneCount(data[at:start])}
		}
		at = end
		line++
	}
	current.data = data[start:]
	if marks == 0 && len(bytes.TrimSpace(current.data)) == 0 {
		return nil // nothing at all
	}
	add(current)
	return parts
}

// lineEnd is the length of the first line, its end included.
func lineEnd(data []byte) int {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1
	}
	return len(data)
}

// mark reports whether a line parts documents, and gives what stands behind the mark.
func mark(line []byte) (rest []byte, ok bool) {
	rest, isStart := bytes.CutPrefix(line, []byte("---"))
	if !isStart {
		var isEnd bool
		if rest, isEnd = bytes.CutPrefix(line, []byte("...")); !isEnd {
			return nil, false
		}
	}
	if len(bytes.TrimSpace(rest)) > 0 && rest[0] != ' ' && rest[0] != '\t' {
		return nil, false
	}
	return bytes.TrimLeft(rest, " \t"), true
}

func onlyComments(doc []byte) bool {
	for len(doc) > 0 {
		end := lineEnd(doc)
		if line := bytes.TrimSpace(doc[:end]); len(line) > 0 && line[0] != '#' {
			return false
		}
		doc = doc[end:]
	}
	return true
}

// start is where the first thing stands that is not a comment.
func (t text) start() (line, column int) {
	rest, first := t.data, true
	line = t.line
	for len(rest) > 0 {
		end := lineEnd(rest)
		trimmed := bytes.TrimLeft(rest[:end], " \t\r\n")
		if len(trimmed) > 0 && trimmed[0] != '#' {
			column = 1 + utf8.RuneCount(rest[:end-len(trimmed)])
			if first {
				column += t.column - 1
			}
			return line, column
		}
		rest, first = rest[end:], false
		line++
	}
	return t.line, t.column
}

// locate turns a position within the text into one of the file.
func (t text) locate(line, column int) (int, int) {
	if line == 1 {
		column += t.column - 1
	}
	return t.line + line - 1, column
}
