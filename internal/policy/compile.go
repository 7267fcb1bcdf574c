package policy

import (
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Link is an interface of the node, with the addresses that the kernel gives it.
// Host endpoints are found by them.
type Link struct {
	Name  string
	Addrs []netip.Addr
}

// Compile is the packet filter of a node, from scratch: the slow and obvious
// reference of [Graph].
func Compile(node string, world model.World, links []Link, settings Settings) plan.Filter {
	panic("soon")
}
