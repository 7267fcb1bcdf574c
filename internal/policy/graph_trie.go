package policy

import (
	"encoding/binary"
	"math/bits"

	"github.com/weft-net/weft/internal/plan"
)

// netTrie is the nets of a set by their bits, so that it is quick to tell which nets
// hold or are held by which. It is a binary trie without chains of single nodes; the
// root holds no net unless that is everything. Node 0 is the root.
type netTrie struct {
	v6    bool
	nodes []netNode
	free  []int32
}

type netNode struct {
	net     plan.Member
	present bool     // it is a net of the set, not only a fork
	kids    [2]int32 // 0: none
}

func newNetTrie(v6 bool) *netTrie { return &netTrie{v6: v6, nodes: make([]netNode, 1)} }

// netBits are the address of a net, from the highest bit, and its length.
type netBits struct {
	hi, lo uint64
	n      int
}

func (t *netTrie) bits(m plan.Member) netBits {
	p := m.Net(t.v6)
	if t.v6 {
		a := p.Addr().As16()
		return netBits{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:]), p.Bits()}
	}
	a := p.Addr().As4()
	return netBits{uint64(binary.BigEndian.Uint32(a[:])) << 32, 0, p.Bits()}
}

// at is bit i.
func (b netBits) at(i int) int {
	if i < 64 {
		return int(b.hi >> (63 - i) & 1)
	}
	return int(b.lo >> (127 - i) & 1)
}

// common is how many leading bits two nets share, at most the length of the shorter.
func (b netBits) common(o netBits) int {
	n := bits.LeadingZeros64(b.hi ^ o.hi)
	if n == 64 {
		n += bits.LeadingZeros64(b.lo ^ o.lo)
	}
	return min(n, b.n, o.n)
}

// insert adds m.
func (t *netTrie) insert(m plan.Member) {
	want := t.bits(m)
	at := int32(0)
	for {
		here := t.bitsOf(at)
		if here.n == want.n {
			t.nodes[at].net, t.nodes[at].present = m, true
			return
		}
		side := want.at(here.n)
		kid := t.nodes[at].kids[side]
		if kid == 0 {
			t.nodes[at].kids[side] = t.node(m, true)
			return
		}
		below := t.bitsOf(kid)
		common := below.common(want)
		switch {
		case common == below.n:
			at = kid
			continue
		case common == want.n: // m holds what is there
			n := t.node(m, true)
			t.nodes[n].kids[below.at(common)] = kid
			t.nodes[at].kids[side] = n
		default:
			fork := t.node(t.cut(m, common), false)
			t.nodes[fork].kids[below.at(common)] = kid
			leaf := t.node(m, true)
			t.nodes[fork].kids[want.at(common)] = leaf
			t.nodes[at].kids[side] = fork
		}
		return
	}
}

// remove takes m out; it must be there.
func (t *netTrie) remove(m plan.Member) {
	want := t.bits(m)
	var path []int32
	at := int32(0)
	for t.bitsOf(at).n != want.n {
		path = append(path, at)
		at = t.nodes[at].kids[want.at(t.bitsOf(at).n)]
	}
	t.nodes[at].present = false
	for len(path) > 0 && at != 0 && !t.nodes[at].present {
		kids := t.nodes[at].kids
		if kids[0] != 0 && kids[1] != 0 {
			return
		}
		up := path[len(path)-1]
		t.nodes[up].kids[t.bitsOf(at).at(t.bitsOf(up).n)] = kids[0] + kids[1]
		t.nodes[at] = netNode{}
		t.free = append(t.free, at)
		at, path = up, path[:len(path)-1]
	}
}

// covered reports whether a net of the set other than m holds m.
func (t *netTrie) covered(m plan.Member) bool {
	want := t.bits(m)
	at := int32(0)
	for {
		here := t.bitsOf(at)
		if here.n >= want.n || here.common(want) < here.n {
			return false
		}
		if t.nodes[at].present {
			return true
		}
		if at = t.nodes[at].kids[want.at(here.n)]; at == 0 {
			return false
		}
	}
}

// below calls visit for the largest nets of the set that m holds, m excluded.
func (t *netTrie) below(m plan.Member, visit func(plan.Member)) {
	want := t.bits(m)
	at := int32(0)
	for {
		here := t.bitsOf(at)
		if here.n > want.n {
			if here.common(want) == want.n {
				t.maximal(at, visit)
			}
			return
		}
		if here.common(want) < here.n {
			return
		}
		if here.n == want.n {
			t.kids(at, visit)
			return
		}
		if at = t.nodes[at].kids[want.at(here.n)]; at == 0 {
			return
		}
	}
}

// maximal calls visit for the nets at and below a node that no other one there holds.
func (t *netTrie) maximal(at int32, visit func(plan.Member)) {
	if t.nodes[at].present {
		visit(t.nodes[at].net)
		return
	}
	t.kids(at, visit)
}

func (t *netTrie) kids(at int32, visit func(plan.Member)) {
	for _, kid := range t.nodes[at].kids {
		if kid != 0 {
			t.maximal(kid, visit)
		}
	}
}

func (t *netTrie) bitsOf(at int32) netBits { return t.bits(t.nodes[at].net) }

func (t *netTrie) node(m plan.Member, present bool) int32 {
	n := netNode{net: m, present: present}
	if last := len(t.free) - 1; last >= 0 {
		at := t.free[last]
		t.free, t.nodes[at] = t.free[:last], n
		return at
	}
	t.nodes = append(t.nodes, n)
	return int32(len(t.nodes) - 1)
}

// cut is the first n bits of m.
func (t *netTrie) cut(m plan.Member, n int) plan.Member {
	p, _ := m.Net(t.v6).Addr().Prefix(n)
	return plan.NetMember(p)
}
