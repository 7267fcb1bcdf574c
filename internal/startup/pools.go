package startup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// missingPool is a default pool to create.
type missingPool struct {
	*v3.IPPool
	v6       bool
	ifSpoken bool // only if the node has an address of that family
}

// missingPools are the default pools of the families that have no pool at all.
// Pools that exist are never changed.
func missingPools(ctx context.Context, st store.Store, s Settings, links []Link) ([]missingPool, error) {
	have, err := st.List(ctx, model.KindIPPool, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return nil, fmt.Errorf("startup: list pools: %w", err)
	}
	if err != nil {
		return nil, nil // one that can't be read may be of any family
	}
	var missing []missingPool
	for _, p := range s.Pools {
		if hasPool(have, p.V6) {
			continue
		}
		if p, err = p.withCIDR(s.Cluster, links); err != nil {
			return nil, err
		}
		pool := p.object()
		if err := v3.Validate(pool); err != nil {
			return nil, fmt.Errorf("startup: default pool from %s: %w", p.source(), err)
		}
		if service, ok := overlap(p.CIDR, s.Cluster.ServiceCIDRs); ok {
			return nil, fmt.Errorf("startup: default pool %v from %s: overlaps the range %v of the cluster's services: set %s to another range", p.CIDR, p.source(), service, poolVariable(p.V6, "CIDR"))
		}
		// A family that the node does not speak gets a pool only on request.
		missing = append(missing, missingPool{pool, p.V6, !p.Explicit})
	}
	return missing, nil
}

// createPools creates pools. Another node, starting at the same time, may be first.
func createPools(ctx context.Context, st store.Store, pools []missingPool, node model.Node, log *slog.Logger) error {
	for _, pool := range pools {
		if pool.ifSpoken && !node.Addr(pool.v6).IsValid() {
			continue
		}
		_, err := st.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(pool.IPPool)})
		if errors.Is(err, store.ErrExists) {
			continue
		}
		if err != nil {
			return fmt.Errorf("startup: create pool %s: %w", pool.Name, err)
		}
		log.Info("created default pool", "pool", pool.Name, "prefix", pool.Spec.CIDR)
	}
	return nil
}

// withCIDR is p with a range: its own, else the one that kubeadm was told, else a free one.
func (p PoolSetting) withCIDR(c Cluster, links []Link) (PoolSetting, error) {
	if p.CIDR.IsValid() {
		return p, nil
	}
	for _, cidr := range c.PodCIDRs {
		if cidr.Addr().Is6() == p.V6 {
			p.CIDR, p.Explicit, p.kubeadm = cidr, true, true
			return p, nil
		}
	}
	var err error
	p.CIDR, err = freeCIDR(p.V6, links, c.ServiceCIDRs)
	return p, err
}

// source names where the range of p comes from.
func (p PoolSetting) source() string {
	if p.kubeadm {
		return "kubeadm's podSubnet (configmap kube-system/kubeadm-config) and " + poolVariable(p.V6, "*")
	}
	return poolVariable(p.V6, "*")
}

// overlap finds the first of ranges that shares an address with p.
func overlap(p netip.Prefix, ranges []netip.Prefix) (netip.Prefix, bool) {
	for _, r := range ranges {
		if r.Overlaps(p) {
			return r, true
		}
	}
	return netip.Prefix{}, false
}

// Overlaps says which pools share addresses with services: traffic to such an address goes
// to a pod on some nodes and to a service on others.
func Overlaps(pools []model.Pool, services []netip.Prefix) []model.Problem {
	var out []model.Problem
	for _, p := range pools {
		if service, ok := overlap(p.CIDR, services); ok {
			out = append(out, model.Problem{Key: p.Key(), Text: fmt.Sprintf("%v overlaps the range %v of the cluster's services: move pods to another pool, then delete this one", p.CIDR, service)})
		}
	}
	return out
}

func (p PoolSetting) object() *v3.IPPool {
	o, _ := v3.New(string(model.KindIPPool))
	pool := o.(*v3.IPPool)
	pool.Name = "default-ipv4-ippool"
	if p.V6 {
		pool.Name = "default-ipv6-ippool"
	}
	pool.Spec = p.Spec
	pool.Spec.CIDR = p.CIDR.String()
	v3.Default(pool)
	return pool
}

// hasPool reports whether one of the pools is, or may be, of the family.
func hasPool(pools []store.Object, v6 bool) bool {
	return slices.ContainsFunc(pools, func(o store.Object) bool {
		pool, ok := o.Object.(*v3.IPPool)
		if !ok {
			return false
		}
		cidr, err := netip.ParsePrefix(pool.Spec.CIDR)
		return err != nil || cidr.Addr().Is6() == v6
	})
}

// freeCIDR chooses the range of a default pool: for IPv4 the first of
// 192.168.0.0/16 and 172.16.0.0/16 to 172.31.0.0/16 that holds no address of
// this machine and none of a service, for IPv6 a random unique local /48 (RFC 4193).
func freeCIDR(v6 bool, links []Link, services []netip.Prefix) (netip.Prefix, error) {
	if v6 {
		raw := [16]byte{0: 0xfd}
		if _, err := rand.Read(raw[1:6]); err != nil {
			return netip.Prefix{}, fmt.Errorf("startup: choose an IPv6 range: %w", err)
		}
		return netip.PrefixFrom(netip.AddrFrom16(raw), 48), nil
	}
	tries := []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	for i := range 16 {
		tries = append(tries, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i), 0, 0}), 16))
	}
	for _, p := range tries {
		taken := slices.ContainsFunc(links, func(l Link) bool {
			return slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return p.Contains(a.Addr()) })
		})
		if _, service := overlap(p, services); !taken && !service {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("startup: no default IPv4 pool: this machine or the cluster's services have an address in each of %v and %v to %v: set CALICO_IPV4POOL_CIDR", tries[0], tries[1], tries[16])
}
