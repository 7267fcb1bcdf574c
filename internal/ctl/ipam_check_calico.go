package ctl

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// auditAsCalico prints a check in the lines of calicoctl. What Calico does not look for is
// told only where it was found.
func (c *client) auditAsCalico(ctx context.Context, r *ipamReader, f ipamCheckFlags) error {
	w, result, err := r.look(ctx)
	if err != nil {
		return err
	}
	balanced, err := balances(ctx, r.store)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(c.Stdout)
	p := calicoAudit{Writer: out, ipamCheckFlags: f, world: w, result: result}
	p.records()
	p.uses(balanced)
	p.nodes()
	p.findings()
	if err := out.Flush(); err != nil {
		return err
	}
	if f.report == "" {
		return nil
	}
	return c.writeReport(ctx, r, w, result, f.report)
}

// balances reports whether the controllers are told to give services addresses.
func balances(ctx context.Context, st store.Store) (bool, error) {
	o, err := st.Get(ctx, model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"})
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ipam: %w", err)
	}
	k, ok := o.Object.(*v3.KubeControllersConfiguration)
	return ok && k.Spec.Controllers.LoadBalancer != nil, nil
}

// calicoAudit is the printing of one check. What the buffer can't write shows in its
// Flush.
type calicoAudit struct {
	io.Writer
	ipamCheckFlags
	world  audit.World
	result audit.Result
}

func (p calicoAudit) say(format string, args ...any) { _, _ = fmt.Fprintf(p, format+"\n", args...) }

// records tells of blocks and pools.
func (p calicoAudit) records() {
	p.say("Checking IPAM for inconsistencies...\n")
	p.say("Loading all IPAM blocks...")
	p.say("Found %d IPAM blocks.", len(p.world.Blocks))
	inBlock := map[string][]audit.Allocation{}
	for _, a := range p.result.Allocations {
		inBlock[a.Block.String()] = append(inBlock[a.Block.String()], a)
	}
	for _, b := range p.world.Blocks {
		p.say(" IPAM block %v affinity=%s:", b.CIDR, cmp.Or(b.Owner.String(), "<none>"))
		if !p.all {
			continue
		}
		for _, a := range inBlock[b.CIDR.String()] {
			p.say("  %v allocated; attrs %s", a.Addr, attrs(a))
		}
	}
	p.say("IPAM blocks record %d allocations.\n", len(p.result.Allocations))
	p.say("Loading all IPAM pools...")
	active := 0
	for _, pool := range p.world.Pools {
		if !pool.Disabled {
			active++
			p.say("  %v", pool.CIDR)
		}
	}
	p.say("Found %d active IP pools.\n", active)
}

// attrs is how calicoctl prints who holds an address.
func attrs(a audit.Allocation) string {
	if a.By.Handle == "" {
		return "<missing>"
	}
	var extra []string
	for _, key := range slices.Sorted(maps.Keys(a.By.Secondary)) {
		extra = append(extra, key+"="+a.By.Secondary[key])
	}
	return "Main:" + a.By.Handle + " Extra:" + strings.Join(extra, ",")
}

// uses tells who uses addresses.
func (p calicoAudit) uses(balanced bool) {
	p.say("Loading all nodes.")
	p.say("Found %d node tunnel IPs.\n", p.used(audit.Node))
	p.say("Loading all service load balancer IPs.")
	if balanced {
		p.say("Found %d service load balancer IPs.\n", p.used(audit.Service))
	} else {
		p.say("No configuration for LoadBalancer kubecontroller found, skipping service check\n")
	}
	p.say("Loading all workload endpoints.")
	p.say("Found %d workload IPs.", p.used(audit.Workload, audit.Pod))
	p.say("Workloads and nodes are using %d IPs.\n", inUse(p.world.Users))
}

// used counts the addresses of users of these sorts, and prints them if all are to be.
func (p calicoAudit) used(sorts ...audit.UserSort) int {
	seen := map[string]bool{}
	for _, u := range p.world.Users {
		if !slices.Contains(sorts, u.Sort) {
			continue
		}
		if !seen[u.Addr.String()] && p.all {
			p.say("  %v belongs to %v", u.Addr, u)
		}
		seen[u.Addr.String()] = true
	}
	return len(seen)
}

// nodes tells which nodes have most addresses.
func (p calicoAudit) nodes() {
	p.say("Loading all handles")
	p.say("Looking for top (up to 20) nodes by allocations...")
	names, counts := nodeCounts(p.result)
	for _, name := range names[:min(20, len(names))] {
		p.say("  %s has %d allocations", name, counts[name])
	}
	if len(names) > 0 {
		p.say("Node with most allocations has %d; median is %d\n", counts[names[0]], counts[names[len(names)/2]])
	}
}

// findings tells what is wrong.
func (p calicoAudit) findings() {
	byAddr := map[string]audit.Allocation{}
	for _, a := range p.result.Allocations {
		byAddr[a.Addr.String()] = a
	}
	kinds := calicoKinds()
	each := func(kinds []audit.Kind, line func(audit.Finding) string) int {
		found := p.result.Of(kinds...)
		for _, f := range found {
			if p.problems || p.all {
				p.say("  %s", line(f))
			}
		}
		return len(found)
	}
	total := 0
	count := func(format string, n int, more ...any) {
		total += n
		p.say(format, append([]any{n}, more...)...)
	}
	p.say("Scanning for IPs that are allocated but not actually in use...")
	count("Found %d IPs that are allocated in IPAM but not actually in use.", each(kinds[0], func(f audit.Finding) string {
		return fmt.Sprintf("%v leaked; attrs %s", f.Addr, attrs(byAddr[f.Addr.String()]))
	}))
	p.say("Scanning for IPs that are in use by a workload or node but not allocated in IPAM...")
	outside := each(kinds[1], func(f audit.Finding) string {
		return fmt.Sprintf("%v in use by %s and not in any active IP pool.", f.Addr, f.Owner)
	})
	missing := each(kinds[2], func(f audit.Finding) string {
		return fmt.Sprintf("%v in use by %s and in active IPAM pool but has no IPAM allocation.", f.Addr, f.Owner)
	})
	count("Found %d in-use IPs that are not in active IP pools.", outside)
	count("Found %d in-use IPs that are in active IP pools but have no corresponding IPAM allocation.\n", missing)
	if n := each([]audit.Kind{audit.DoublyOwned}, func(f audit.Finding) string {
		return fmt.Sprintf("%v has several owners: %s; %s", f.Addr, f.Owner, f.Why)
	}); n > 0 {
		count("Found %d IPs with several owners.\n", n)
	}
	p.say("Scanning for IPAM handles with no matching IPs...")
	orphans := each(kinds[3], func(f audit.Finding) string { return f.Handle + " doesn't have any active IPs" })
	count("Found %d handles with no matching IPs (and %d handles with matches).", orphans, len(p.world.Handles)-orphans)
	p.say("Scanning for IPs with missing handle...")
	count("Found %d handles mentioned in blocks with no matching handle resource.", each(kinds[4], func(f audit.Finding) string {
		return fmt.Sprintf("%s of %v doesn't have a handle resource", f.Handle, f.Addr)
	}))
	p.say("Validating IPAMBlock structures...")
	count("Found %d invalid IPAMBlocks.", each(kinds[5], func(f audit.Finding) string { return fmt.Sprintf("%v: %s", f.Block, f.Why) }))
	p.say("Check complete; found %d problems.", total)
}
