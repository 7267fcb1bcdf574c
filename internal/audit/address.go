package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// allocations judges each address that is allocated.
func (s *look) allocations() {
	told := map[netip.Addr]bool{}
	for i := range s.result.Allocations {
		a := &s.result.Allocations[i]
		if many := s.holds[a.Addr]; len(many) > 1 && !told[a.Addr] {
			told[a.Addr] = true
			var who []string
			for _, n := range many {
				o := s.result.Allocations[n]
				who = append(who, fmt.Sprintf("%v in block %v", o.Owner, o.Block))
			}
			s.find(Finding{Kind: DoublyOwned, Addr: a.Addr, Owner: strings.Join(who, ", "), Why: "allocated in each of several blocks"})
		}
		f := Finding{Addr: a.Addr, Block: a.Block, Handle: a.Owner.Handle, Sequence: a.Sequence, Owner: a.Owner.String(), Node: a.Owner.Node}
		if len(a.Users) == 0 {
			s.unused(a, f)
			continue
		}
		if why := stranger(a.Owner, a.Users); why != "" {
			f.Kind, f.Why = DoublyOwned, why
			s.find(f)
		}
	}
}

// unused judges an allocation of an address that nobody uses.
func (s *look) unused(a *Allocation, f Finding) {
	of := Object{a.Owner.Namespace, a.Owner.Name}
	f.Kind, f.Mends = Leaked, true
	switch a.Owner.Sort {
	case ipam.OwnerWindows:
		if s.Nodes == nil || a.Owner.Node == "" || s.Nodes[a.Owner.Node] {
			a.Kept = "Windows keeps it for itself"
			return
		}
		f.Why = "the node does not exist"
	case ipam.OwnerMachine:
		a.Kept = "a virtual machine keeps its address while it is off"
		return
	case ipam.OwnerService:
		switch {
		case s.Services == nil:
			a.Kept = "Kubernetes was not asked about services"
			return
		case s.Services[of]:
			a.Kept = "the service exists, and has not published it"
			return
		}
		f.Why = "there is no such service of type LoadBalancer"
	case ipam.OwnerTunnel:
		f.Kind, f.Why = Stray, "the node has another address for it, or none"
		if s.Nodes != nil && !s.Nodes[a.Owner.Node] {
			f.Why = "the node does not exist"
		}
	case ipam.OwnerPod:
		if s.Starting[of] {
			a.Kept = "the pod exists, and its address is not known yet"
			return
		}
		f.Why = "no endpoint or pod has it"
	default:
		f.Why = "no endpoint, pod, tunnel or service has it"
	}
	if s.broken(model.KindWorkloadEndpoint) {
		f.Mends, f.Why = false, f.Why+", unless one that can't be read"
	}
	s.find(f)
}

// stranger says why one of the users is not who holds the address; empty: all may be.
// What an endpoint of another orchestrator is called in an attribute nobody knows, so
// such holders may have any user. A virtual machine has two pods while it moves.
func stranger(o ipam.Owner, users []User) string {
	for _, u := range users {
		if u.Aside {
			continue
		}
		ok := true
		switch o.Sort {
		case ipam.OwnerOther:
		case ipam.OwnerTunnel:
			ok = u.Sort == Node && (o.Node == "" || u.Name == o.Node)
		case ipam.OwnerService:
			ok = u.Sort == Service && u.Name == o.Namespace+"/"+o.Name
		case ipam.OwnerPod:
			ok = u.Sort != Node && u.Sort != Service && (u.Pod == "" || u.Pod == o.Name && u.Namespace == o.Namespace)
		case ipam.OwnerMachine:
			ok = u.Sort != Node && u.Sort != Service
		case ipam.OwnerWindows:
			ok = false
		}
		if !ok {
			return fmt.Sprintf("used by %v", u)
		}
	}
	return ""
}

// users judges each address that is used.
func (s *look) users() {
	for _, u := range s.Users {
		list := s.uses[u.Addr]
		if len(list) == 0 || list[0] != u {
			continue // once for each address
		}
		list = slices.DeleteFunc(slices.Clone(list), func(u User) bool { return u.Aside })
		if len(list) > 1 && !s.shared(u.Addr, list) {
			s.find(Finding{Kind: DoublyOwned, Addr: u.Addr, Owner: names(list), Node: list[0].Node, Why: "used by several at once"})
		}
		if len(list) > 0 && len(s.holds[u.Addr]) == 0 {
			s.unallocated(u.Addr, list)
		}
	}
}

// shared reports whether several may have the address: a virtual machine is in two pods
// while it moves, and services of others may share one.
func (s *look) shared(a netip.Addr, list []User) bool {
	return services(list) || slices.ContainsFunc(s.holds[a], func(i int) bool {
		return s.result.Allocations[i].Owner.Sort == ipam.OwnerMachine
	})
}

// services reports whether all users are services.
func services(list []User) bool {
	return !slices.ContainsFunc(list, func(u User) bool { return u.Sort != Service })
}

func (s *look) unallocated(a netip.Addr, list []User) {
	f := Finding{Addr: a, Owner: names(list), Node: list[0].Node}
	pool, ok := s.poolOf(a)
	switch {
	case services(list) && (!ok || !pool.Uses.Has(model.UseLoadBalancer)):
		return // another's service
	case !ok && s.BadPools, s.unreadable(a):
		return
	case !ok:
		f.Kind, f.Why = OutsidePools, "in no IP pool"
	default:
		f.Kind, f.Why = Unallocated, "in pool "+pool.Name+", and no block has it allocated: another may get it"
		if s.cooling[a] {
			f.Why = "in pool " + pool.Name + ", and released a moment ago: another will get it"
		} else if r, ok := s.reserved(a); ok {
			f.Why = fmt.Sprintf("in pool %s, and not allocated; it is reserved by %v", pool.Name, r)
		}
	}
	s.find(f)
}

// unreadable reports whether a lies in a block that can't be read.
func (s *look) unreadable(a netip.Addr) bool {
	return slices.ContainsFunc(s.Broken, func(b Broken) bool { return b.MayHold(a) })
}

// MayHold reports whether b is a block in which a may be.
func (b Broken) MayHold(a netip.Addr) bool {
	cidr := b.block()
	return b.Key.Kind == model.KindIPAMBlock && (!cidr.IsValid() || cidr.Contains(a))
}

// block is the range of the block, as its name says; invalid: its name doesn't.
func (b Broken) block() netip.Prefix {
	cidr, _ := netip.ParsePrefix(strings.Replace(b.Key.Name, "-", "/", 1)) // invalid beside an error
	return cidr
}

func names(users []User) string {
	var all []string
	for _, u := range users {
		all = append(all, u.String())
	}
	return strings.Join(all, ", ")
}
