package wireguard

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// Problems are what keeps this node from encrypting as it should, sorted by text.
func (g *Graph) Problems() []model.Problem {
	var out []model.Problem
	for f, s := range g.sides {
		if !s.on {
			continue
		}
		family, name := "IPv4", "wireguardEnabled"
		if f == 1 {
			family, name = "IPv6", "wireguardEnabledV6"
		}
		self := model.Node{Name: g.opts.Node}.Key()
		switch {
		case s.twin:
			out = append(out, model.Problem{Text: fmt.Sprintf(
				"wireguardInterfaceNameV6: %q: no device for IPv6: that of IPv4 has this name; they must differ", s.link)})
		case !s.addr.IsValid():
			out = append(out, model.Problem{Key: self, Text: fmt.Sprintf(
				"%s: the node has no %s address, so its %s packets are not encrypted; give it one", name, family, family)})
		case s.narrow():
			out = append(out, model.Problem{Key: self, Text: fmt.Sprintf(
				"%s: no device of MTU %d: IPv6 needs at least 1280, that is %d on the underlay", name, s.mtuBytes(), 1280+overhead6)})
		}
		for key := range g.doubled[f] {
			for _, node := range g.holders[f][key] {
				out = append(out, model.Problem{Key: model.Node{Name: node}.Key(), Text: fmt.Sprintf(
					"status.wireguardPublicKey: of %s: not taken as a peer: nodes %s have the same key; each must have its own",
					family, strings.Join(g.holders[f][key], ", "))})
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Problem) int { return strings.Compare(a.String(), b.String()) })
	return out
}
