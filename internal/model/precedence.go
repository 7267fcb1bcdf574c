package model

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// FelixConfigsFor are the FelixConfigs among values that bear upon a node, the
// strongest first: the one named node.NAME, those whose selector matches the node, by
// name, the one named default. A nil values is empty.
func FelixConfigsFor(node Node, values iter.Seq[Value]) []FelixConfig {
	if values == nil {
		return nil
	}
	var out []FelixConfig
	own := "node." + node.Name
	for v := range values {
		c, ok := v.(FelixConfig)
		if !ok {
			continue
		}
		selects := c.NodeSelector != nil && !strings.HasPrefix(c.Name, "node.") && c.NodeSelector.Matches(node.Labels)
		if felixRank(c.Name, own) != 1 || selects {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b FelixConfig) int {
		return cmp.Or(cmp.Compare(felixRank(a.Name, own), felixRank(b.Name, own)), strings.Compare(a.Name, b.Name))
	})
	return out
}

// felixRank orders configurations by their names, the strongest first.
func felixRank(name, own string) int {
	switch name {
	case own:
		return 0
	case "default":
		return 2
	}
	return 1
}
