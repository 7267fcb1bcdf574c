package manifest

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// readJSON reports whether the text is JSON that means the same as YAML, and gives it without
// what is around it. Numbers with fractions or exponents, for YAML prints them anew, and fields
// given twice are left to the other parser.
func readJSON(t text) ([]byte, bool) {
	data := bytes.TrimSpace(t.data)
	if len(data) == 0 || data[0] != '{' && data[0] != '[' || !json.Valid(data) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var open []map[string]bool // the names of each object that is not closed yet; nil for a list
	isKey := false
	for {
		token, err := d.Token()
		if err != nil {
			return data, true // io.EOF: it is valid
		}
		switch token := token.(type) {
		case json.Delim:
			switch token {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
			}
			isKey = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			if isKey {
				names := open[len(open)-1]
				if names[token] {
					return nil, false
				}
				names[token] = true
				isKey = false
				continue
			}
		case json.Number:
			if !isPlain(token.String()) {
				return nil, false
			}
		}
		isKey = len(open) > 0 && open[len(open)-1] != nil
	}
}

// isPlain reports whether a number is printed again as it is.
func isPlain(number string) bool {
	const digits = 18 // fit 64 bits
	return len(number) <= digits && number != "-0" && !strings.ContainsAny(number, ".eE")
}

// jsonItems cuts a JSON list into its items, each a text of its own: they are found by their
// lengths, in order.
func jsonItems(t text, path string, items []json.RawMessage) ([]place, []position) {
	places, at := make([]place, len(items)), make([]position, len(items))
	line, column := t.start()
	rest := t.data
	if path != "" {
		if i := listStart(t.data, path); i >= 0 {
			line, column = advance(t.line, t.column, t.data[:i])
			rest = t.data[i:]
		}
	} else {
		line, column = t.line, t.column
	}
	for i, item := range items {
		skip := bytes.Index(rest, item)
		if skip < 0 {
			skip = 0
		}
		line, column = advance(line, column, rest[:skip])
		at[i] = position{line, column}
		places[i] = place{text: text{file: t.file, data: item, line: line, column: column, json: true}}
		line, column = advance(line, column, rest[skip:skip+len(item)])
		rest = rest[skip+len(item):]
	}
	return places, at
}

// listStart is the offset of the value of a field of the outermost object.
func listStart(data []byte, field string) int {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil {
		return -1
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return -1
		}
		if name == field {
			return int(d.InputOffset())
		}
		if err := d.Decode(new(json.RawMessage)); err != nil {
			return -1
		}
	}
	return -1
}

// advance is the position behind the text that begins at one.
func advance(line, column int, over []byte) (int, int) {
	if last := bytes.LastIndexByte(over, '\n'); last >= 0 {
		return line + bytes.Count(over, []byte("\n")), 1 + utf8.RuneCount(over[last+1:])
	}
	return line, column + utf8.RuneCount(over)
}
