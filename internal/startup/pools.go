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
		if !p.CIDR.IsValid() {
			if p.CIDR, err = freeCIDR(p.V6, links); err != nil {
				return nil, err
			}
		}
		pool := p.object()
		if err := v3.Validate(pool); err != nil {
			return nil, fmt.Errorf("startup: default pool from %s: %w", poolVariable(p.V6, "*"), err)
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
// this machine, for IPv6 a random unique local /48 (RFC 4193).
func freeCIDR(v6 bool, links []Link) (netip.Prefix, error) {
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
		if !taken {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("startup: no default IPv4 pool: this machine has an address in each of %v and %v to %v: set CALICO_IPV4POOL_CIDR", tries[0], tries[1], tries[16])
}
