package route

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// event is one step of a test: a batch, what BGP learned, or fixed routes.
type event struct {
	batch   model.Batch
	learned bgp.LearnedBatch
	fixed   map[netip.Prefix]plan.Hops // nil: no change
	mtu     *int                       // of the underlay; nil: no change
}

// events reads steps, separated by ";", each a list of objects or of learned
// routes separated by ",":
//
//	ep NAME NODE LINK ADDR[+ADDR] [MAC]      block CIDR OWNER [deleted] [ADDR@NODE]
//	node NAME ADDR [ADDR6] [ipip=ADDR vxlan=ADDR vxlan6=ADDR mac=MAC mac6=MAC] [label=value]
//	felix NAME [selector] [metric4=N metric6=N proto=N src=ADDR ipip=BOOL vxlan=BOOL ipipmtu=N …]
//	pool NAME CIDR [ipip=MODE vxlan=MODE]    mtu N
//	bgp NAME metric4=N                       learn PREFIX VIA[+VIA]
//	fix PREFIX VIA                           reset  synced  rset  rsynced
//
// "-" before an object deletes it, "!" says that it is invalid.
func events(t testing.TB, script string) []event {
	t.Helper()
	var out []event
	for step := range strings.SplitSeq(script, ";") {
		var e event
		for item := range strings.SplitSeq(step, ",") {
			if f := strings.Fields(item); len(f) > 0 {
				e.add(t, f)
			}
		}
		out = append(out, e)
	}
	return out
}

func (e *event) add(t testing.TB, f []string) {
	sign, word := "+", f[0]
	if word[0] == '-' || word[0] == '!' {
		sign, word = word[:1], word[1:]
	}
	switch word {
	case "reset":
		e.batch.Reset = true
	case "synced":
		e.batch.Synced = true
	case "rset":
		e.learned.Reset = true
	case "rsynced":
		e.learned.Synced = true
	case "learn":
		p := netip.MustParsePrefix(f[1])
		if sign == "-" {
			e.learned.Deletes = append(e.learned.Deletes, p)
			return
		}
		e.learned.Puts = append(e.learned.Puts, bgp.Learned{Prefix: p, NextHops: addrs(f[2]), Source: bgp.FromIBGP})
	case "mtu":
		n, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		e.mtu = &n
	case "fix":
		if e.fixed == nil {
			e.fixed = map[netip.Prefix]plan.Hops{}
		}
		if len(f) > 1 {
			e.fixed[netip.MustParsePrefix(f[1])] = plan.MakeHops(addrs(f[2])...)
		}
	default:
		v := value(t, word, f[1:])
		switch sign {
		case "-":
			e.batch.Deletes = append(e.batch.Deletes, v.Key())
		case "!":
			e.batch.Invalids = append(e.batch.Invalids, model.Invalid{Key: v.Key(), Err: fmt.Errorf("bad")})
		default:
			e.batch.Puts = append(e.batch.Puts, v)
		}
	}
}

func value(t testing.TB, word string, f []string) model.Value {
	t.Helper()
	f = append(f, "", "", "", "")
	switch word {
	case "ep":
		return model.Endpoint{Namespace: "default", Name: f[0], Node: f[1], Link: strings.Trim(f[2], "-"), Addrs: addrs(f[3]), MAC: f[4]}
	case "block":
		return blockValue(f)
	case "pool":
		p := model.Pool{Name: f[0], CIDR: netip.MustParsePrefix(f[1]), IPIP: model.EncapNever, VXLAN: model.EncapNever}
		for _, s := range f[2:] {
			switch k, v, _ := strings.Cut(s, "="); k {
			case "ipip":
				p.IPIP = model.EncapMode(v)
			case "vxlan":
				p.VXLAN = model.EncapMode(v)
			}
		}
		return p
	case "node":
		return nodeValue(f)
	case "felix":
		return felixValue(t, f)
	case "bgp":
		n, _ := strconv.Atoi(strings.TrimPrefix(f[1], "metric4="))
		return model.BGPConfig{Name: f[0], IPv4Priority: &n}
	}
	t.Fatalf("unknown word %q", word)
	return nil
}

func blockValue(f []string) model.Value {
	b := model.Block{CIDR: netip.MustParsePrefix(f[0])}
	if f[1] != "" && f[1] != "-" {
		b.Owner = model.HostAffinity(f[1])
	}
	for _, s := range f[2:] {
		at, node, loan := strings.Cut(s, "@")
		switch {
		case s == "deleted":
			b.Deleted = true
		case loan:
			b.Allocations = append(b.Allocations, -1)
			for a := b.CIDR.Addr(); a != netip.MustParseAddr(at); a = a.Next() {
				b.Allocations = append(b.Allocations, -1)
			}
			b.Allocations[len(b.Allocations)-1] = len(b.Attributes)
			b.Attributes = append(b.Attributes, model.Attribute{Handle: "h", Secondary: map[string]string{"node": node}})
		}
	}
	return b
}

func nodeValue(f []string) model.Value {
	n := model.Node{Name: f[0], Labels: map[string]string{}}
	for _, s := range f[1:] {
		k, v, word := strings.Cut(s, "=")
		p, _ := netip.ParsePrefix(s)
		a, _ := netip.ParseAddr(v)
		switch {
		case k == "ipip":
			n.IPIPTunnel = a
		case k == "vxlan":
			n.VXLANTunnel = a
		case k == "vxlan6":
			n.VXLANTunnelV6 = a
		case k == "mac":
			n.VXLANMAC = v
		case k == "mac6":
			n.VXLANMACV6 = v
		case word:
			n.Labels[k] = v
		case p.Addr().Is4():
			n.IPv4 = p
		case p.Addr().Is6():
			n.IPv6 = p
		}
	}
	return n
}

func felixValue(t testing.TB, f []string) model.Value {
	c := model.FelixConfig{Name: f[0]}
	for _, s := range f[1:] {
		k, v, _ := strings.Cut(s, "=")
		n, _ := strconv.Atoi(v)
		on := v == "true"
		vni, port := uint32(n), uint16(n)
		switch k {
		case "":
		case "metric4":
			c.IPv4Priority = &n
		case "metric6":
			c.IPv6Priority = &n
		case "proto":
			c.DeviceRouteProtocol = &n
		case "src":
			c.DeviceRouteSource = netip.MustParseAddr(v)
		case "ipip":
			c.Tunnel.IPIP = &on
		case "vxlan":
			c.Tunnel.VXLAN = &on
		case "wg":
			c.Tunnel.WireGuard = &on
		case "wg6":
			c.Tunnel.WireGuardV6 = &on
		case "wgmtu":
			c.Tunnel.WireGuardMTU = &n
		case "ipipmtu":
			c.Tunnel.IPIPMTU = &n
		case "vxlanmtu":
			c.Tunnel.VXLANMTU = &n
		case "vxlanmtu6":
			c.Tunnel.VXLANMTUV6 = &n
		case "vni":
			c.Tunnel.VNI = &vni
		case "port":
			c.Filter.VXLANPort = &port
		case "badsum":
			c.Tunnel.ChecksumBroken = &on
		default:
			sel, err := selector.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			c.NodeSelector = sel
		}
	}
	return c
}

func addrs(s string) []netip.Addr {
	var out []netip.Addr
	for a := range strings.SplitSeq(s, "+") {
		if a != "" && a != "-" {
			out = append(out, netip.MustParseAddr(a))
		}
	}
	return out
}
