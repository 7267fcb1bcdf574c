package policy

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// holder is what is kept of every endpoint and network set of the cluster: the nets
// that sets get of it, IPv4 first. There may be a million, so it is small.
type holder struct {
	nets  []plan.Member
	n4    uint32 // how many of nets are IPv4
	ports uint32 // number of its list of named ports
	round uint32 // snapshot that last mentioned it
	live  bool
}

// of are the nets of a family.
func (h *holder) of(v6 bool) []plan.Member {
	if v6 {
		return h.nets[h.n4:]
	}
	return h.nets[:h.n4]
}

// holderKey is a model.Key of a kind in less room.
type holderKey struct {
	namespace uint32 // in holders.namespaces
	name      string
}

// names numbers strings that many keys share.
type names struct {
	byName map[string]uint32
	list   []string
	users  []int
	free   []uint32
}

// number is the number of a name, if it has any.
func (ns *names) number(name string) (n uint32, ok bool) {
	n, ok = ns.byName[name]
	return n, ok
}

// add is the number of a name, with one user more.
func (ns *names) add(name string) uint32 {
	n, ok := ns.byName[name]
	if !ok {
		if last := len(ns.free) - 1; last >= 0 {
			n, ns.free = ns.free[last], ns.free[:last]
		} else {
			n = uint32(len(ns.list))
			ns.list, ns.users = append(ns.list, ""), append(ns.users, 0)
		}
		ns.list[n], ns.byName[name] = name, n
	}
	ns.users[n]++
	return n
}

func (ns *names) drop(n uint32) {
	if ns.users[n]--; ns.users[n] == 0 {
		delete(ns.byName, ns.list[n])
		ns.list[n] = ""
		ns.free = append(ns.free, n)
	}
}

// holderKinds are the kinds that have what rules may find.
var holderKinds = [...]model.Kind{
	model.KindWorkloadEndpoint, model.KindHostEndpoint, model.KindNetworkSet, model.KindGlobalNetworkSet,
}

// holders are all holders, by number and by key.
type holders struct {
	list  []holder
	free  []uint32
	byKey [len(holderKinds)]map[holderKey]uint32
	ports portLists

	namespaces names
}

// portLists numbers the distinct lists of named ports; 0 is the empty one. There are
// few: pods of a deployment have equal ones.
type portLists struct {
	lists  [][]model.NamedPort
	texts  []string
	users  []int
	byText map[string]uint32
	free   []uint32
	text   []byte
}

func newHolders() holders {
	hs := holders{namespaces: names{byName: map[string]uint32{}}, ports: portLists{
		lists: make([][]model.NamedPort, 1), texts: make([]string, 1), users: make([]int, 1), byText: map[string]uint32{},
	}}
	for i := range hs.byKey {
		hs.byKey[i] = map[holderKey]uint32{}
	}
	return hs
}

// of are the holders of a kind; none for other kinds.
func (hs *holders) of(k model.Kind) map[holderKey]uint32 {
	if i := slices.Index(holderKinds[:], k); i >= 0 {
		return hs.byKey[i]
	}
	return nil
}

// lookup is the number of k's holder.
func (hs *holders) lookup(k model.Key) (n uint32, ok bool) {
	ns, ok := hs.namespaces.number(k.Namespace)
	if ok {
		n, ok = hs.of(k.Kind)[holderKey{ns, k.Name}]
	}
	return n, ok
}

// find is the holder of that key, or nil; good until the next one is added.
func (hs *holders) find(k model.Key) *holder {
	if n, ok := hs.lookup(k); ok {
		return &hs.list[n]
	}
	return nil
}

// all are the keys of all holders. Holders may be deleted meanwhile.
func (hs *holders) all() iter.Seq[model.Key] {
	return func(yield func(model.Key) bool) {
		for i, of := range hs.byKey {
			for k := range of {
				if !yield(model.Key{Kind: holderKinds[i], Namespace: hs.namespaces.list[k.namespace], Name: k.name}) {
					return
				}
			}
		}
	}
}

// number is the number of k's holder, a new one if there is none.
func (hs *holders) number(k model.Key) uint32 {
	kind, key := hs.of(k.Kind), holderKey{hs.namespaces.add(k.Namespace), k.Name}
	n, ok := kind[key]
	if ok {
		hs.namespaces.drop(key.namespace)
		return n
	}
	if last := len(hs.free) - 1; last >= 0 {
		n, hs.free = hs.free[last], hs.free[:last]
	} else {
		n = uint32(len(hs.list))
		hs.list = append(hs.list, holder{})
	}
	kind[key] = n
	return n
}

// entry is a holder that is about to be put.
type entry struct {
	nets  []plan.Member
	n4    uint32
	ports []model.NamedPort
}

// holderOf makes the entry of addresses, nets and ports.
func holderOf(addrs []netip.Addr, nets []netip.Prefix, ports []model.NamedPort) entry {
	e := entry{ports: ports}
	if n := len(addrs) + len(nets); n > 0 {
		e.nets = make([]plan.Member, 0, n)
	}
	for _, v6 := range [2]bool{false, true} {
		for _, a := range addrs {
			if a.IsValid() && a.Is6() == v6 {
				e.nets = append(e.nets, plan.AddrMember(a))
			}
		}
		for _, p := range nets {
			if p.IsValid() && p.Addr().Is6() == v6 {
				e.nets = append(e.nets, plan.NetMember(p.Masked()))
			}
		}
		if !v6 {
			e.n4 = uint32(len(e.nets))
		}
	}
	return e
}

// putHolder takes in an endpoint or network set as what rules may find; fresh: it was
// not known.
func (g *Graph) putHolder(k model.Key, e entry, labels map[string]string, parents []string) (fresh bool) {
	n := g.holders.number(k)
	h := &g.holders.list[n]
	h.round, fresh = g.round, !h.live
	same := h.live && h.n4 == e.n4 && slices.Equal(h.nets, e.nets) && slices.Equal(g.holders.ports.lists[h.ports], e.ports)
	if !same {
		if h.live {
			g.members.Delete(n) // its old addresses leave the sets
			g.holders.ports.drop(h.ports)
		}
		*h = holder{nets: e.nets, n4: e.n4, ports: g.holders.ports.add(e.ports), round: g.round, live: true}
	}
	g.members.Put(n, labels, parents)
	return fresh
}

func (g *Graph) dropHolder(k model.Key) {
	n, ok := g.holders.lookup(k)
	if !ok {
		return
	}
	g.members.Delete(n)
	g.holders.ports.drop(g.holders.list[n].ports)
	g.holders.list[n] = holder{}
	g.holders.free = append(g.holders.free, n)
	ns, _ := g.holders.namespaces.number(k.Namespace)
	delete(g.holders.of(k.Kind), holderKey{ns, k.Name})
	g.holders.namespaces.drop(ns)
}

// add is the number of a list, with one user more.
func (p *portLists) add(list []model.NamedPort) uint32 {
	if len(list) == 0 {
		return 0
	}
	p.text = p.text[:0]
	for _, np := range list {
		p.text = append(append(p.text, np.Name...), 0, np.Protocol)
		p.text = binary.BigEndian.AppendUint16(p.text, np.Port)
	}
	if n, ok := p.byText[string(p.text)]; ok {
		p.users[n]++
		return n
	}
	n := uint32(len(p.lists))
	if last := len(p.free) - 1; last >= 0 {
		n, p.free = p.free[last], p.free[:last]
	} else {
		p.lists, p.texts, p.users = append(p.lists, nil), append(p.texts, ""), append(p.users, 0)
	}
	p.lists[n], p.texts[n], p.users[n] = slices.Clone(list), string(p.text), 1
	p.byText[p.texts[n]] = n
	return n
}

func (p *portLists) drop(n uint32) {
	if n == 0 {
		return
	}
	if p.users[n]--; p.users[n] > 0 {
		return
	}
	delete(p.byText, p.texts[n])
	p.lists[n], p.texts[n] = nil, ""
	p.free = append(p.free, n)
}
