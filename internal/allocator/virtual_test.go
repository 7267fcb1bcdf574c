package allocator_test

import (
	"context"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// TestVirtualOwner: services get addresses of pools for them, in blocks of their own.
func TestVirtualOwner(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: lb}\nspec: {cidr: 192.0.2.0/24, blockSize: 28, allowedUses: [LoadBalancer], nodeSelector: all()}"))
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, o)
	a := allocator.NewVirtual(s, "load-balancer", noon)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r := allocator.Request{Request: ipam.Request{Holder: model.Attribute{Handle: "lb-a"}, Use: model.UseLoadBalancer, V4: ipam.Family{Count: 1}}}
	got, err := a.Assign(t.Context(), r)
	if err != nil || len(got.Addrs) != 1 || got.Addrs[0].Pool != "lb" || got.Addrs[0].Borrowed {
		t.Fatalf("assign: %+v, %v", got, err)
	}
	claims, err := s.List(t.Context(), model.KindBlockAffinity, "")
	if err != nil || len(claims) != 1 {
		t.Fatalf("claims: %v, %v", claims, err)
	}
	if key, _ := model.KeyOf(claims[0].Object); !strings.HasPrefix(key.Name, "virtual/load-balancer/192.0.2.") {
		t.Errorf("claim: %v", key)
	}
	if freed, err := a.Release(t.Context(), "lb-a"); err != nil || len(freed) != 1 {
		t.Errorf("release: %v, %v", freed, err)
	}
	for _, kind := range []model.Kind{model.KindIPAMBlock, model.KindBlockAffinity, model.KindIPAMHandle} {
		if left, err := s.List(t.Context(), kind, ""); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}
