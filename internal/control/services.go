package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// stripService keeps what [serviceFor] needs, and the addresses.
func stripService(s *corev1.Service) *corev1.Service {
	out := &corev1.Service{ObjectMeta: meta(&s.ObjectMeta, nil, some(s.Annotations, want.Pools4Annotation, want.Pools6Annotation, want.AddressesAnnotation))}
	out.Spec.Type, out.Spec.LoadBalancerClass, out.Spec.IPFamilies = s.Spec.Type, s.Spec.LoadBalancerClass, s.Spec.IPFamilies
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		out.Status.LoadBalancer = s.Status.LoadBalancer
	}
	return out
}

func serviceFor(s *corev1.Service) want.Service {
	out := want.Service{
		Namespace: s.Namespace, Name: s.Name, UID: string(s.UID), Annotations: s.Annotations,
		LoadBalancer: s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil, Class: s.Spec.LoadBalancerClass,
	}
	for _, f := range s.Spec.IPFamilies {
		out.V4, out.V6 = out.V4 || f == corev1.IPv4Protocol, out.V6 || f == corev1.IPv6Protocol
	}
	return out
}

// balancer gives services their addresses.
type balancer struct {
	guard
	from  *feed
	alloc *allocator.Allocator
	// held is what services hold, by handle, as of the last full pass and since.
	held  map[string]holding
	notes map[string]string
}

// holding is the addresses of one service.
type holding struct {
	namespace, name string // as its attribute says
	seen            []ipam.Assignment
}

func (h holding) addrs() []netip.Addr {
	var out []netip.Addr
	for _, a := range h.seen {
		out = append(out, a.Addr)
	}
	return out
}

// servicesMinimum is how many services may lose their addresses at once in the smallest
// cluster.
const servicesMinimum = 8

func (t *term) services() controller {
	needs := []kube.Access{reading(services), {Verbs: []string{"update"}, Resource: string(services), Subresource: "status"}}
	return controller{name: LoadBalancer, needs: needs, run: func(ctx context.Context) error {
		f, err := t.feed(ctx, LoadBalancer, services)
		if err != nil {
			return err
		}
		b := &balancer{
			guard: t.guarded(LoadBalancer, servicesMinimum), from: f, notes: map[string]string{},
			alloc: allocator.NewVirtual(t.store, want.LoadBalancerOwner, t.Now),
		}
		changed, stop := follow(f, nil)
		defer stop()
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); _ = b.alloc.Run(ctx) }()
		defer func() { cancel(); <-done }()
		return t.loop(ctx, LoadBalancer, changed.kick, func(ctx context.Context, all bool) error {
			keys, seen := changed.take()
			err := b.pass(ctx, keys, seen, all)
			if err != nil {
				changed.again(keys)
				return err
			}
			changed.settled(slices.Collect(maps.Keys(keys)))
			return nil
		}, func() []string { return slices.Sorted(maps.Values(b.notes)) })
	}}
}

// pass looks at the services that changed, or at all, and at holders of which there is
// no service any more.
func (b *balancer) pass(ctx context.Context, keys, seen map[string]bool, all bool) error {
	pools, err := b.pools(ctx)
	if err != nil {
		return err
	}
	if all || b.held == nil {
		if b.held, err = b.holdings(ctx); err != nil {
			return err
		}
		clear(b.notes)
		for _, k := range b.from.keys() {
			keys[k] = true
		}
	}
	if err := b.release(ctx, seen); err != nil {
		return err
	}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		delete(b.notes, k)
		s, ok := b.from.get(k).(*corev1.Service)
		if !ok {
			continue
		}
		if err := b.serve(ctx, s, pools); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// pools are those that services get addresses of.
func (b *balancer) pools(ctx context.Context) ([]model.Pool, error) {
	objects, err := b.store.List(ctx, model.KindIPPool, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return nil, err
	}
	var out []model.Pool
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		if p, ok := v.(model.Pool); ok && err == nil && p.Uses.Has(model.UseLoadBalancer) {
			out = append(out, p)
		}
	}
	return out, nil
}

// holdings reads what services hold.
func (b *balancer) holdings(ctx context.Context) (map[string]holding, error) {
	blocks, _, err := readBlocks(ctx, b.store)
	if err != nil {
		return nil, err
	}
	out := map[string]holding{}
	for _, block := range blocks {
		for ord, at := range block.Allocations {
			if at < 0 || at >= len(block.Attributes) {
				continue
			}
			a := block.Attributes[at]
			if !strings.HasPrefix(a.Handle, want.HandlePrefix) || !a.ReleasedAt.IsZero() {
				continue
			}
			h := out[a.Handle]
			h.namespace, h.name = a.Secondary["namespace"], a.Secondary["service"]
			h.seen = append(h.seen, ipam.Assignment{Addr: ipam.AddrAt(block.CIDR, ord), Block: block.CIDR, Sequence: block.SequenceOf[ord]})
			out[a.Handle] = h
		}
	}
	return out, nil
}

// release frees what services hold that are gone, or not ours any more.
func (b *balancer) release(ctx context.Context, seen map[string]bool) error {
	ours := map[string]bool{}
	for _, k := range b.from.keys() {
		if s, ok := b.from.get(k).(*corev1.Service); ok {
			if of := serviceFor(s); of.Ours(b.LoadBalancer.RequestedOnly) {
				ours[of.Handle()] = true
			}
		}
	}
	var stale []string
	unseen := 0
	for _, handle := range slices.Sorted(maps.Keys(b.held)) {
		h := b.held[handle]
		if ours[handle] || h.namespace == "" || h.name == "" {
			continue
		}
		stale = append(stale, handle)
		source := h.namespace + "/" + h.name
		if b.from.get(source) == nil && !seen[source] {
			unseen++
		}
	}
	r := removal{what: "services with addresses", n: len(stale), total: len(b.held), listed: len(b.from.keys()), unseen: unseen}
	if err := b.check(ctx, r); err != nil {
		return err
	}
	var errs []error
	freed := 0
	for _, handle := range stale {
		ok, err := b.releaseOne(ctx, handle, b.held[handle])
		if errs = append(errs, err); ok {
			delete(b.held, handle)
			freed++
		}
	}
	b.spent(freed)
	return errors.Join(errs...)
}

// releaseOne frees what a service holds if the API server itself says that it is gone
// or not ours, after taking the addresses off its status.
func (b *balancer) releaseOne(ctx context.Context, handle string, h holding) (bool, error) {
	s, err := b.Clientset.CoreV1().Services(h.namespace).Get(ctx, h.name, metav1.GetOptions{})
	there, err := isThere(err, services, h.namespace+"/"+h.name)
	if err != nil {
		return false, err
	}
	if there {
		if of := serviceFor(s); of.Handle() == handle {
			if of.Ours(b.LoadBalancer.RequestedOnly) {
				return false, nil // the cache is behind
			}
			if err := b.withdraw(ctx, s, h.addrs()); err != nil {
				return false, err
			}
		}
	}
	freed, err := b.alloc.ReleaseSeen(ctx, handle, h.seen)
	if errors.Is(err, ipam.ErrChanged) {
		return false, nil // seen anew in the next full pass
	}
	if err != nil {
		return false, fmt.Errorf("release addresses of service %s/%s: %w", h.namespace, h.name, err)
	}
	b.board.metrics.removed.WithLabelValues("service-address").Add(float64(len(freed)))
	b.log.Info("released addresses of a service", "service", h.namespace+"/"+h.name, "addresses", freed)
	return true, nil
}

// serve gives a service the addresses that it asks for, and publishes them. What the
// service asks for and can't have is a note, not an error: others wait for nothing.
func (b *balancer) serve(ctx context.Context, s *corev1.Service, pools []model.Pool) error {
	of := serviceFor(s)
	source := s.Namespace + "/" + s.Name
	if !of.Ours(b.LoadBalancer.RequestedOnly) {
		return nil
	}
	has := func(v6 bool) bool {
		return slices.ContainsFunc(pools, func(p model.Pool) bool { return p.CIDR.Addr().Is6() == v6 })
	}
	both := of.V4 && of.V6
	of.V4, of.V6 = of.V4 && (has(false) || !both), of.V6 && (has(true) || !both)
	request, err := of.Claim(b.now())
	if err != nil {
		b.notes[source] = "service " + source + ": " + err.Error()
		return nil
	}
	handle := request.Holder.Handle
	had := b.held[handle].addrs()
	if want.Suits(had, request, pools) {
		return b.publish(ctx, s, had)
	}
	result, err := b.assign(ctx, had, allocator.Request{Request: request})
	if err != nil {
		if errors.Is(err, allocator.ErrUnknownOutcome) || errors.Is(err, store.ErrRefused) || ctx.Err() != nil {
			return fmt.Errorf("service %s: %w", source, err)
		}
		b.notes[source] = "service " + source + ": " + oneLine(err).Error()
		return nil
	}
	if err := b.remember(ctx, handle, s, result); err != nil {
		return err
	}
	got := b.held[handle].addrs()
	b.log.Info("assigned addresses to a service", "service", source, "addresses", got)
	return b.publish(ctx, s, got)
}

// assign gets what the service asks for, in place of what it had.
func (b *balancer) assign(ctx context.Context, had []netip.Addr, r allocator.Request) (allocator.Result, error) {
	if len(had) > 0 {
		return b.alloc.Move(ctx, r)
	}
	return b.alloc.Assign(ctx, r)
}

// remember reads back with which assignments a service holds its addresses.
func (b *balancer) remember(ctx context.Context, handle string, s *corev1.Service, r allocator.Result) error {
	h := holding{namespace: s.Namespace, name: s.Name}
	for _, a := range r.Addrs {
		o, err := b.store.Get(ctx, model.BlockKey(a.Block))
		if err != nil {
			return err
		}
		v, err := model.Parse(o.Object)
		if err != nil {
			return err
		}
		block := v.(model.Block)
		for ord := range block.Allocations {
			if ipam.AddrAt(block.CIDR, ord) == a.Addr {
				h.seen = append(h.seen, ipam.Assignment{Addr: a.Addr, Block: a.Block, Sequence: block.SequenceOf[ord]})
			}
		}
	}
	b.held[handle] = h
	return nil
}

// publish makes the status of a service name just these addresses. The service is read
// live before it is written: the cache may be behind.
func (b *balancer) publish(ctx context.Context, s *corev1.Service, now []netip.Addr) error {
	return b.rewrite(ctx, s, func([]corev1.LoadBalancerIngress) []corev1.LoadBalancerIngress {
		var out []corev1.LoadBalancerIngress
		for _, a := range now {
			out = append(out, corev1.LoadBalancerIngress{IP: a.String()})
		}
		return out
	})
}

// withdraw takes addresses off the status of a service that is not ours any more.
func (b *balancer) withdraw(ctx context.Context, s *corev1.Service, had []netip.Addr) error {
	return b.rewrite(ctx, s, func(have []corev1.LoadBalancerIngress) []corev1.LoadBalancerIngress {
		return slices.DeleteFunc(slices.Clone(have), func(e corev1.LoadBalancerIngress) bool {
			a, err := netip.ParseAddr(e.IP)
			return err == nil && slices.Contains(had, a)
		})
	})
}

func (b *balancer) rewrite(ctx context.Context, s *corev1.Service, change func([]corev1.LoadBalancerIngress) []corev1.LoadBalancerIngress) error {
	sameIPs := func(x, y []corev1.LoadBalancerIngress) bool {
		return slices.EqualFunc(x, y, func(a, b corev1.LoadBalancerIngress) bool { return a.IP == b.IP && a.Hostname == b.Hostname })
	}
	if have := s.Status.LoadBalancer.Ingress; sameIPs(have, change(have)) {
		return nil
	}
	api := b.Clientset.CoreV1().Services(s.Namespace)
	live, err := api.Get(ctx, s.Name, metav1.GetOptions{})
	if isGone, err := gone(err); isGone || err != nil {
		return err
	}
	have := live.Status.LoadBalancer.Ingress
	if live.UID != s.UID || sameIPs(have, change(have)) {
		return nil
	}
	live.Status.LoadBalancer.Ingress = change(have)
	if _, err := api.UpdateStatus(ctx, live, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("service %s/%s: write its addresses: %w", s.Namespace, s.Name, oneLine(err))
	}
	return nil
}
