package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

func (c *client) ipamSplitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "split NUMBER",
		Short: "Split a pool into smaller ones of equal size",
		Long: "Put NUMBER pools of equal size in the place of one; NUMBER is a power of two. Addresses keep their\n" +
			"blocks and holders. The datastore must be locked. The pool goes when all new ones are there, so\n" +
			"that a run that was broken off is finished by the same command.",
		Example: "  " + c.name() + " ipam split 4 --name=pool-a\n  " + c.name() + " ipam split 2 --cidr=10.10.0.0/16",
		Args:    cobra.ExactArgs(1),
	}
	s := ipamSplit{client: c}
	cmd.Flags().StringVar(&s.name, "name", "", "name of the pool")
	cmd.Flags().StringVar(&s.cidr, "cidr", "", "range of the pool")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case s.name == "" && s.cidr == "" && c.calico:
			return errors.New("no name or CIDR provided. Provide a name or CIDR to denote the IP pool to split")
		case s.name == "" && s.cidr == "", s.name != "" && s.cidr != "":
			return &UsageError{errors.New("which pool is to be split? One of --name and --cidr must be given")}
		}
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return &UsageError{fmt.Errorf("%q: must be a number of pools, such as 4", args[0])}
		}
		st, err := c.open(cmd.Context())
		if err != nil {
			return err
		}
		defer st.Close() //nolint:errcheck // what was written is confirmed
		s.store, s.n = st, n
		return s.run(cmd.Context())
	}
	return cmd
}

// ipamSplit is one call of ipam split.
type ipamSplit struct {
	*client
	store      store.Store
	name, cidr string
	n          int
}

// Calico's words for what is wrong, and what weft adds to say what to do.
var (
	errSplitUnlocked = errors.New("datastore is not locked. Run the `calicoctl datastore migrate lock` command in order split the IP pools")
	errSplitTooSmall = errors.New("error with field spec (IP pool size is too small for use with Calico IPAM. It must be equal to or greater than the block size.)")
)

func (s ipamSplit) run(ctx context.Context) error {
	info, err := ipamCluster(ctx, s.store)
	if err != nil {
		return err
	}
	if !locked(info) {
		if s.calico {
			return errSplitUnlocked
		}
		return fmt.Errorf("ipam: split: the datastore is not locked: '%s datastore migrate lock' first, so that nothing takes an address of the pool meanwhile", s.client.name())
	}
	old, pool, err := s.find(ctx)
	if err != nil {
		return err
	}
	parts, err := s.parts(pool)
	if err != nil {
		return err
	}
	if err := s.fits(ctx, pool, parts); err != nil {
		return err
	}
	pools := s.pools(old.Object.(*v3.IPPool), parts)
	missing, err := s.missing(ctx, pools)
	if err != nil {
		return err
	}
	if err := s.create(ctx, missing); err != nil {
		return fmt.Errorf("ipam: split %s: the same command again finishes it: %w", pool.Name, err)
	}
	_, err = s.store.Commit(ctx, store.Op{Verb: store.Delete, Object: old})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("ipam: split %s: the new pools are there, and the old one is not deleted: the same command again finishes it: %w", pool.Name, err)
	}
	return s.tell(pool, pools)
}

// find reads the pool that is meant.
func (s ipamSplit) find(ctx context.Context) (store.Object, model.Pool, error) {
	objects, err := s.store.List(ctx, model.KindIPPool, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return store.Object{}, model.Pool{}, fmt.Errorf("ipam: split: %w", err)
	}
	var cidr netip.Prefix
	if s.cidr != "" {
		if cidr, err = netip.ParsePrefix(s.cidr); err != nil {
			return store.Object{}, model.Pool{}, &UsageError{fmt.Errorf("--cidr: %q: must be the range of a pool, such as 10.10.0.0/16", s.cidr)}
		}
	}
	for _, o := range objects {
		p, ok := o.Object.(*v3.IPPool)
		if !ok || s.name != "" && p.Name != s.name {
			continue
		}
		if has, err := netip.ParsePrefix(p.Spec.CIDR); s.cidr != "" && (err != nil || has.Masked() != cidr.Masked()) {
			continue
		}
		v, err := model.Parse(o.Object)
		if err != nil {
			return o, model.Pool{}, fmt.Errorf("ipam: split %s: %w", p.Name, err)
		}
		return o, v.(model.Pool), nil
	}
	switch {
	case s.calico && s.name != "":
		err = fmt.Errorf("unable to find IP pool with name %s: resource does not exist: IPPool(%s) with error: <nil>", s.name, s.name)
	case s.calico:
		err = fmt.Errorf("unable to find IP pool covering the specified CIDR %s", s.cidr)
	default:
		err = s.unknown(objects)
	}
	return store.Object{}, model.Pool{}, err
}

// unknown says which pools there are, or that the pool was split before.
func (s ipamSplit) unknown(objects []store.Object) error {
	var names []string
	for _, o := range objects {
		if p, ok := o.Object.(*v3.IPPool); ok {
			names = append(names, p.Name+" "+p.Spec.CIDR)
		}
		if s.name != "" && o.Meta().Name == partName(s.name, 0) {
			return fmt.Errorf("ipam: split %s: no such pool: it was split before, as %s exists", s.name, o.Meta().Name)
		}
	}
	return fmt.Errorf("ipam: split %s%s: no such pool: there are %q", s.name, s.cidr, names)
}

// parts cuts the range.
func (s ipamSplit) parts(pool model.Pool) ([]netip.Prefix, error) {
	parts, err := ipam.Split(pool, s.n)
	switch {
	case err == nil, !s.calico:
		return parts, err
	case errors.Is(err, ipam.ErrPowerOfTwo):
		return nil, fmt.Errorf("error splitting the CIDR %v into %d CIDRs: number to split CIDR into is not a valid power of 2: %d", pool.CIDR, s.n, s.n)
	case len(parts) > 0:
		return nil, fmt.Errorf("error using unsafe create to make split pool with cidr %v: %w", parts[0], errSplitTooSmall)
	}
	return nil, err
}

// fits refuses to cut a block in two: it would be in no pool.
func (s ipamSplit) fits(ctx context.Context, pool model.Pool, parts []netip.Prefix) error {
	blocks, broken, err := listed[model.Block](ctx, s.store, model.KindIPAMBlock)
	if err != nil {
		return fmt.Errorf("ipam: split: %w", err)
	}
	for _, b := range broken {
		if b.MayHold(pool.CIDR.Addr()) {
			return fmt.Errorf("ipam: split %s: %v: %w", pool.Name, b.Key, b.Err)
		}
	}
	for _, b := range blocks {
		if pool.CIDR.Overlaps(b.CIDR) && b.CIDR.Bits() < parts[0].Bits() {
			return fmt.Errorf("ipam: split %s into %d: block %v would be cut: the parts must be as large as it", pool.Name, s.n, b.CIDR)
		}
	}
	return nil
}

// partName is the name of the n-th part of a pool.
func partName(pool string, n int) string { return fmt.Sprintf("split-%s-%d", pool, n) }

// pools are those that take the place of old.
func (s ipamSplit) pools(old *v3.IPPool, parts []netip.Prefix) []*v3.IPPool {
	var out []*v3.IPPool
	for i, cidr := range parts {
		o, _ := v3.New("IPPool")
		p := o.(*v3.IPPool)
		p.Name = partName(old.Name, i)
		p.Labels, p.Annotations = old.Labels, old.Annotations
		p.Spec = old.Spec
		p.Spec.CIDR = cidr.String()
		out = append(out, p)
	}
	return out
}

// missing are those of pools that do not exist yet. One that exists must be what a run that
// was broken off made.
func (s ipamSplit) missing(ctx context.Context, pools []*v3.IPPool) ([]*v3.IPPool, error) {
	var out []*v3.IPPool
	for _, p := range pools {
		if err := v3.Validate(p); err != nil {
			return nil, fmt.Errorf("ipam: split: %s: %w", p.Name, err)
		}
		o, err := s.store.Get(ctx, model.Key{Kind: model.KindIPPool, Name: p.Name})
		switch {
		case errors.Is(err, store.ErrNotFound):
			out = append(out, p)
		case err != nil:
			return nil, fmt.Errorf("ipam: split: %w", err)
		default:
			if have, ok := o.Object.(*v3.IPPool); !ok || !reflect.DeepEqual(have.Spec, p.Spec) {
				return nil, fmt.Errorf("ipam: split: pool %s exists and is another: delete or rename it first; nothing is changed", p.Name)
			}
		}
	}
	return out, nil
}

// create writes the new pools. They overlap the old one, which is older: until it is gone
// they give out nothing.
func (s ipamSplit) create(ctx context.Context, pools []*v3.IPPool) error {
	const most = 100 // of one transaction
	done := 0
	for chunk := range slices.Chunk(pools, most) {
		var ops []store.Op
		for _, p := range chunk {
			ops = append(ops, store.Op{Verb: store.Create, Object: store.New(p)})
		}
		if _, err := s.store.Commit(ctx, ops...); err != nil {
			return fmt.Errorf("%d of %d new pools are there: %w", done, len(pools), err)
		}
		done += len(chunk)
	}
	return nil
}

func (s ipamSplit) tell(pool model.Pool, pools []*v3.IPPool) error {
	if s.calico {
		_, _ = fmt.Fprintf(s.Stdout, "IP Pool %s was successfully split into %d smaller pools.", pool.Name, s.n)
		for _, p := range pools {
			_, _ = fmt.Fprintf(s.Stdout, "Created %s with CIDR %s.\n", p.Name, p.Spec.CIDR)
		}
		_, err := fmt.Fprint(s.Stdout, "Please refer to the documentation for final steps.")
		return err
	}
	for _, p := range pools {
		_, _ = fmt.Fprintf(s.Stdout, "ippool %s created with %s\n", p.Name, p.Spec.CIDR)
	}
	_, err := fmt.Fprintf(s.Stdout, "ippool %s deleted: it is %s now\n", pool.Name, plural(len(pools), "pool"))
	return err
}
