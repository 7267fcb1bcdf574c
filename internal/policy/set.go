package policy

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// SetKind says where the contents of a set come from.
type SetKind uint8

// The kinds of sets that rules ask for.
const (
	SetSelected       SetKind = iota // addresses of endpoints and nets of network sets that Selector selects
	SetNamedPort                     // address, protocol, port of endpoints that Selector selects, for ports named Port
	SetServicePorts                  // address, protocol, port of a service's backends
	SetServiceAddrs                  // addresses of a service's backends
	SetServiceAnyPort                // addresses of those whose slice says all ports of Protocol; none: there is no set
	SetNodes                         // addresses of nodes that Selector selects
	SetConstNets                     // the nets in Const
	SetConstPorts                    // the ranges of ports in Const
)

// SetRef describes a set that a rule needs. It is comparable: rules with equal
// SetRefs share a set. It says nothing of the family, each table has its own.
type SetRef struct {
	Kind     SetKind
	Selector string // canonical text; of SetSelected, SetNamedPort and SetNodes
	Port     string // name of the port; of SetNamedPort
	Protocol uint8  // of SetNamedPort; 0: any; and of SetServiceAnyPort
	Service  model.Service
	Const    string // members of a constant set as text, sorted, between commas
}

// Need is a set that rules need, with its selector parsed.
type Need struct {
	SetRef
	Of *selector.Selector // of SetSelected, SetNamedPort and SetNodes; nil there: all(); else nil
}

// Parts says which sets there are of a selector (SetSelected). Its single addresses are
// in a set of their own, since a change of one costs nothing there; while in a set of
// intervals, where prefixes must be, it costs the more the larger that is. All other
// SetRefs have one set, which is that of addresses here.
type Parts struct{ Addrs, Nets bool }

// PartsFor are the sets that are needed for so many single addresses and prefixes. A
// selector that matches nothing has an empty set.
func (r SetRef) PartsFor(addrs, nets int) Parts {
	return Parts{Addrs: addrs > 0 || nets == 0 && r.Kind != SetServiceAnyPort, Nets: nets > 0}
}

// Sets are r's sets.
func (r SetRef) Sets(p Parts) []plan.Set {
	var out []plan.Set
	if p.Addrs {
		out = append(out, r.Set())
	}
	if p.Nets {
		out = append(out, r.NetSet())
	}
	return out
}

// Set is r's set; of SetSelected that of single addresses. Its name has at most 31 bytes:
// two letters for kind and type, and a hash of all that r says.
func (r SetRef) Set() plan.Set {
	k := [...]struct {
		prefix string
		plan.SetType
	}{
		SetSelected: {"sa-", plan.SetAddrs}, SetNamedPort: {"np-", plan.SetAddrPorts}, SetServicePorts: {"vp-", plan.SetAddrPorts},
		SetServiceAddrs: {"va-", plan.SetAddrs}, SetServiceAnyPort: {"vy-", plan.SetAddrs}, SetNodes: {"na-", plan.SetAddrs}, SetConstNets: {"cn-", plan.SetNets}, SetConstPorts: {"cp-", plan.SetPorts},
	}[r.Kind]
	return plan.Set{Name: k.prefix + r.hash(), Type: k.SetType}
}

// NetSet is the set of the prefixes of SetSelected.
func (r SetRef) NetSet() plan.Set { return plan.Set{Name: "sn-" + r.hash(), Type: plan.SetNets} }

func (r SetRef) hash() string {
	return hash(24, r.Selector, r.Port, strconv.Itoa(int(r.Protocol)), r.Service.Namespace, r.Service.Name, r.Const)
}

// Constant reports whether the set's members follow from r alone.
func (r SetRef) Constant() bool { return r.Kind >= SetConstNets }

// Members are the members of a constant set, sorted.
func (r SetRef) Members() []plan.Member {
	if !r.Constant() || r.Const == "" {
		return nil
	}
	var out []plan.Member
	for text := range strings.SplitSeq(r.Const, ",") {
		if r.Kind == SetConstNets {
			out = append(out, plan.NetMember(netip.MustParsePrefix(text)))
			continue
		}
		first, last, _ := strings.Cut(text, "-")
		a, _ := strconv.ParseUint(first, 10, 16)
		b, _ := strconv.ParseUint(last, 10, 16)
		out = append(out, plan.PortMember(uint16(a), uint16(b)))
	}
	slices.SortFunc(out, plan.Member.Compare)
	return out
}

// netsRef is the constant set of nets, which are sorted and do not overlap.
func netsRef(nets []netip.Prefix) SetRef {
	text := make([]string, len(nets))
	for i, n := range nets {
		text[i] = n.String()
	}
	return SetRef{Kind: SetConstNets, Const: strings.Join(text, ",")}
}

// portsRef is the constant set of ranges, which are sorted and do not overlap.
func portsRef(ranges []model.PortRange) SetRef {
	text := make([]string, len(ranges))
	for i, r := range ranges {
		text[i] = fmt.Sprintf("%d-%d", r.First, r.Last)
	}
	return SetRef{Kind: SetConstPorts, Const: strings.Join(text, ",")}
}

// MaximalNets are the nets of one family that no other one of them holds: sorted, each
// once, disjoint. It is what a set of plan.SetNets can take.
func MaximalNets(nets []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range nets {
		if n.Addr().Is4() != v6 {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	kept := out[:0]
	for _, n := range out {
		// Sorted, a net stands behind those that hold it, and the last kept one is
		// the only one that can: kept ones are disjoint.
		if len(kept) == 0 || !kept[len(kept)-1].Overlaps(n) {
			kept = append(kept, n)
		}
	}
	return kept
}

// mergedPorts are the ranges sorted, with those made one that overlap or touch.
func mergedPorts(ranges []model.PortRange) []model.PortRange {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b model.PortRange) int { return int(a.First) - int(b.First) })
	out := sorted[:0]
	for _, r := range sorted {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
		} else if r.First <= r.Last {
			out = append(out, r)
		}
	}
	return out
}

// letters are what names of chains and sets are made of.
const letters = "abcdefghijklmnopqrstuvwxyz234567"

// hash is n characters, 1 to 32, of 5 bits each, that stand for the parts.
func hash(n int, parts ...string) string {
	in := make([]byte, 0, 128)
	for _, p := range parts {
		in = strconv.AppendInt(in, int64(len(p)), 10) // so that no two lists of parts give one text
		in = append(append(in, ':'), p...)
	}
	sum := sha256.Sum256(in)
	var out [32]byte
	for i := range n {
		at := i * 5
		two := uint16(sum[at/8])<<8 | uint16(sum[at/8+1])
		out[i] = letters[two>>(11-at%8)&31]
	}
	return string(out[:n])
}
