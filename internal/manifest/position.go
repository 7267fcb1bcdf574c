package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// position is one of a file, from 1.
type position struct{ line, column int }

// parse reads a document into nodes that know their positions; nil when it holds none.
func parse(data []byte) (*yaml.Node, error) {
	var root yaml.Node
	if err := yaml.Load(data, &root); err != nil {
		return nil, err
	}
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		return root.Content[0], nil
	}
	return nil, nil
}

// locator finds fields in one text.
type locator struct {
	text text
	root *yaml.Node // nil when the text could not be read
}

func newLocator(t text) locator {
	root, _ := parse(t.data) // the other parser took it: without nodes there are no better positions
	return locator{t, root}
}

// find is where a field stands: its value, if that is on one line, else its name. Of a field
// that is not there it is what is nearest around it, and start when that is the whole object. nameOnly: the name is
// at fault, not the value.
func (l locator) find(object, field string, start position, nameOnly bool) (line, column int) {
	if l.root == nil {
		return start.line, start.column
	}
	root, _, _ := walk(l.root, nil, object)
	node, key, rest := walk(root, nil, field)
	switch {
	case node == root:
		return start.line, start.column
	case key != nil && (nameOnly || rest != "" || isLong(node)):
		node = key
	}
	return l.text.locate(node.Line, node.Column)
}

// isLong reports whether a value stands below its key.
func isLong(n *yaml.Node) bool {
	return (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && n.Style&yaml.FlowStyle == 0
}

// walk follows a path such as spec.ingress[0].source as far as it exists. It returns the last
// node, the key under which that stands (nil in a list), and what of the path is left.
func walk(node, key *yaml.Node, path string) (last, lastKey *yaml.Node, rest string) {
	for path != "" {
		if node.Kind == yaml.AliasNode && node.Alias != nil {
			node = node.Alias
		}
		var next, nextKey *yaml.Node
		var left string
		switch node.Kind {
		case yaml.SequenceNode:
			next, left = element(node, path)
		case yaml.MappingNode:
			next, nextKey, left = member(node, path)
		}
		if next == nil {
			break
		}
		node, key, path = next, nextKey, left
	}
	return node, key, path
}

// element takes [3] from the path.
func element(list *yaml.Node, path string) (*yaml.Node, string) {
	inner, ok := strings.CutPrefix(path, "[")
	digits, rest, closed := strings.Cut(inner, "]")
	i, err := strconv.Atoi(digits)
	if !ok || !closed || err != nil || i < 0 || i >= len(list.Content) {
		return nil, ""
	}
	return list.Content[i], strings.TrimPrefix(rest, ".")
}

// member takes a name from the path. Names may hold dots themselves, as those of labels do: the
// longest that fits counts. Their case does not, as in decoding.
func member(object *yaml.Node, path string) (value, key *yaml.Node, rest string) {
	longest := 0
	for i := 0; i+1 < len(object.Content); i += 2 {
		name := object.Content[i]
		n := len(name.Value)
		if n < longest || n == 0 || n > len(path) || !strings.EqualFold(path[:n], name.Value) {
			continue
		}
		if left := path[n:]; left == "" || left[0] == '.' || left[0] == '[' {
			if n > longest || path[:n] == name.Value {
				value, key, rest, longest = object.Content[i+1], name, strings.TrimPrefix(left, "."), n
			}
		}
	}
	return value, key, rest
}

// duplicates finds the fields that stand twice in one object; cause is what the other parser
// said of them. Aliases are not followed, so the work is bounded by the text.
func duplicates(t text, node *yaml.Node, cause error) Problems {
	var all Problems
	var visit func(node *yaml.Node, path string)
	visit = func(node *yaml.Node, path string) {
		if node.Kind == yaml.SequenceNode {
			for i, item := range node.Content {
				visit(item, path+"["+strconv.Itoa(i)+"]")
			}
			return
		}
		if node.Kind != yaml.MappingNode {
			return
		}
		first := make(map[string]*yaml.Node, len(node.Content)/2)
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			where := strings.TrimPrefix(path+"."+key.Value, ".")
			if before := first[key.Value]; key.Kind == yaml.ScalarNode && before != nil {
				if len(all) >= maxDuplicates {
					return
				}
				p := &Problem{File: t.file, Path: where}
				p.Line, p.Column = t.locate(key.Line, key.Column)
				line, _ := t.locate(before.Line, before.Column)
				p.Err = &DuplicateError{Field: where, Line: line, Err: cause}
				all = append(all, p)
				continue
			}
			first[key.Value] = key
			visit(node.Content[i+1], where)
		}
	}
	visit(node, "")
	return all
}

// maxDuplicates is how many such fields of one document are told.
const maxDuplicates = 50

// yamlItems gives the places of the items of a list.
func yamlItems(t text, path string, n int) ([]place, []position) {
	places, at := make([]place, n), make([]position, n)
	line, column := t.start()
	root, _ := parse(t.data)
	var list *yaml.Node
	if root != nil {
		list, _, _ = walk(root, nil, path)
	}
	for i := range n {
		places[i] = place{t, fmt.Sprintf("%s[%d]", path, i)}
		at[i] = position{line, column}
		if list != nil && list.Kind == yaml.SequenceNode && i < len(list.Content) {
			at[i].line, at[i].column = t.locate(list.Content[i].Line, list.Content[i].Column)
		}
	}
	return places, at
}
