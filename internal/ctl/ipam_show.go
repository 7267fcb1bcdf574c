package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

func (c *client) ipamShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show how full pools and blocks are, or who has an address",
		Long: "Show how many addresses of each pool are in use, reserved and free; or of each block, or\n" +
			"those that a node borrowed of another's block; or who has one address; or the settings.",
		Example: "  " + c.name() + " ipam show\n  " + c.name() + " ipam show --show-blocks\n  " + c.name() + " ipam show --show-borrowed\n  " +
			c.name() + " ipam show --ip=10.0.0.1\n  " + c.name() + " ipam show --show-configuration",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	ip := f.String("ip", "", "say who has this address")
	blocks := f.Bool("show-blocks", false, "show the blocks of each pool as well")
	borrowed := f.Bool("show-borrowed", false, "show addresses that are on another node than their block")
	configuration := f.Bool("show-configuration", false, "show how addresses are given out")
	output := new(string)
	if !c.calico {
		output = outputFlag(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var addr netip.Addr
		if *ip != "" {
			var err error
			if addr, err = c.addrArgument("ip", *ip); err != nil {
				return err
			}
		}
		st, err := c.open(cmd.Context())
		if err != nil {
			return err
		}
		defer st.Close() //nolint:errcheck // nothing was written
		s := ipamShow{client: c, store: st, output: *output}
		switch {
		case *ip != "":
			return s.address(cmd.Context(), addr)
		case *borrowed && (!*blocks || !c.calico):
			return s.borrowed(cmd.Context())
		case *configuration && !*blocks:
			return s.configuration(cmd.Context())
		}
		return s.usage(cmd.Context(), *blocks)
	}
	return cmd
}

// ipamShow answers one call of ipam show.
type ipamShow struct {
	*client
	store  store.Store
	output string
}

// print prints v, or its table.
func (s ipamShow) print(v any, table func(io.Writer) error) error {
	if s.calico {
		return table(s.Stdout)
	}
	return printAs(s.Stdout, s.output, v, table)
}

// usageOf is how full a pool or block is, as it is printed.
type usageOf struct {
	Name     string    `json:"name,omitempty"`
	CIDR     string    `json:"cidr"`
	Owner    string    `json:"owner,omitempty"` // of a block
	Total    *big.Int  `json:"total"`
	Used     *big.Int  `json:"used"`
	Reserved *big.Int  `json:"reserved"`
	Free     *big.Int  `json:"free"`
	Blocks   []usageOf `json:"blocks,omitempty"`
}

func usageFor(cidr netip.Prefix, blocks []model.Block, reserved []netip.Prefix) usageOf {
	u := ipam.UsageOf(cidr, blocks, reserved)
	return usageOf{CIDR: cidr.String(), Total: u.Total, Used: u.Used, Reserved: u.Reserved, Free: u.Free}
}

// usage prints how full the pools are. Blocks that lie in no pool, as their pool is gone,
// come last.
func (s ipamShow) usage(ctx context.Context, withBlocks bool) error {
	pools, _, err := listed[model.Pool](ctx, s.store, model.KindIPPool)
	if err != nil {
		return fmt.Errorf("ipam: %w", err)
	}
	blocks, broken, err := listed[model.Block](ctx, s.store, model.KindIPAMBlock)
	if err != nil {
		return fmt.Errorf("ipam: %w", err)
	}
	reserved, err := reservations(ctx, s.store)
	if err != nil {
		return fmt.Errorf("ipam: %w", err)
	}
	for _, b := range broken {
		_, _ = fmt.Fprintf(s.Stderr, "%v can't be read, and is not counted: %v\n", b.Key, b.Err)
	}
	var all []usageOf
	shown := map[netip.Prefix]bool{}
	inside := func(cidr netip.Prefix) []usageOf {
		var out []usageOf
		for _, b := range blocks {
			if shown[b.CIDR] || cidr.IsValid() && (cidr.Bits() > b.CIDR.Bits() || !cidr.Contains(b.CIDR.Addr())) {
				continue
			}
			shown[b.CIDR] = true
			u := usageFor(b.CIDR, []model.Block{b}, reserved)
			u.Owner = b.Owner.String()
			out = append(out, u)
		}
		return out
	}
	for _, p := range pools {
		u := usageFor(p.CIDR, blocks, reserved)
		u.Name = p.Name
		if in := inside(p.CIDR); withBlocks {
			u.Blocks = in
		}
		all = append(all, u)
	}
	lost := inside(netip.Prefix{})
	if s.calico {
		return calicoUsage(s.Stdout, all, lost, withBlocks)
	}
	type answer struct {
		Pools []usageOf `json:"pools"`
		Lost  []usageOf `json:"blocksOfNoPool,omitempty"`
	}
	return s.print(answer{all, lost}, func(w io.Writer) error { return s.usageTable(w, all, lost, withBlocks) })
}

func calicoUsage(w io.Writer, pools, lost []usageOf, withBlocks bool) error {
	lines := [][]string{{"GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"}}
	number := func(n *big.Int) string {
		f, _ := new(big.Float).SetInt(n).Float64()
		return fmt.Sprintf("%.5g", f)
	}
	add := func(grouping string, u usageOf) {
		share := func(n *big.Int) string { return number(n) + " (" + ipam.Percent(n, u.Total) + ")" }
		lines = append(lines, []string{grouping, u.CIDR, number(u.Total), share(u.Used), share(u.Reserved), share(u.Free)})
	}
	for _, p := range pools {
		add("IP Pool", p)
		for _, b := range p.Blocks {
			add("Block", b)
		}
	}
	if withBlocks {
		for _, b := range lost {
			add("Block", b)
		}
	}
	return frame(w, 2, lines)
}

func (s ipamShow) usageTable(w io.Writer, pools, lost []usageOf, withBlocks bool) error {
	lines := [][]string{{"POOL", "CIDR", "TOTAL", "IN USE", "RESERVED", "FREE"}}
	if withBlocks {
		lines[0] = append(lines[0], "OWNER")
	}
	add := func(name string, u usageOf) {
		share := func(n *big.Int) string { return n.String() + " (" + ipam.Percent(n, u.Total) + ")" }
		line := []string{name, u.CIDR, u.Total.String(), share(u.Used), share(u.Reserved), share(u.Free)}
		if withBlocks {
			line = append(line, u.Owner)
		}
		lines = append(lines, line)
	}
	for _, p := range pools {
		add(p.Name, p)
		for _, b := range p.Blocks {
			b.CIDR = "  " + b.CIDR
			add("", b)
		}
	}
	for _, b := range lost {
		b.CIDR = "  " + b.CIDR
		add("(no pool)", b)
	}
	return printRows(w, width(s.Stdout), lines)
}

// loan is a borrowed address as it is printed.
type loan struct {
	Addr     netip.Addr `json:"address"`
	Borrower string     `json:"borrower"`
	Block    string     `json:"block"`
	Owner    string     `json:"owner"`
	Type     string     `json:"type"`
	To       string     `json:"allocatedTo"`
}

// borrowed prints the addresses that are on another node than their block.
func (s ipamShow) borrowed(ctx context.Context) error {
	blocks, _, err := listed[model.Block](ctx, s.store, model.KindIPAMBlock)
	if err != nil {
		return fmt.Errorf("ipam: %w", err)
	}
	all := []loan{}
	for _, l := range ipam.Loans(blocks) {
		one := loan{Addr: l.Addr, Borrower: l.Borrower, Block: l.Block.String(), Owner: l.Owner.Node, Type: "pod", To: l.Holder.Namespace + "/" + l.Holder.Name}
		if l.Holder.Sort != ipam.OwnerPod && l.Holder.Sort != ipam.OwnerMachine {
			one.Type, one.To = l.Holder.Name, l.Holder.Handle
		}
		all = append(all, one)
	}
	return s.print(all, func(w io.Writer) error {
		lines := [][]string{{"IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"}}
		for _, l := range all {
			lines = append(lines, []string{l.Addr.String(), l.Borrower, l.Block, l.Owner, l.Type, l.To})
		}
		if s.calico {
			return frame(w, len(lines[0]), lines)
		}
		return printRows(w, width(s.Stdout), lines)
	})
}

// configuration prints how addresses are given out.
func (s ipamShow) configuration(ctx context.Context) error {
	o, err := ipamConfig(ctx, s.store)
	if err != nil {
		return err
	}
	spec := o.Object.(*v3.IPAMConfig).Spec
	return s.print(map[string]any{
		"strictAffinity": spec.StrictAffinity, "autoAllocateBlocks": spec.AutoAllocateBlocks, "maxBlocksPerHost": spec.MaxBlocksPerHost,
		"kubeVirtVMAddressPersistence": persistence(spec), "ipCooldownSeconds": spec.IPCooldownSeconds,
	}, func(w io.Writer) error {
		lines := [][]string{
			{"PROPERTY", "VALUE"},
			{"StrictAffinity", fmt.Sprint(spec.StrictAffinity)},
			{"AutoAllocateBlocks", fmt.Sprint(spec.AutoAllocateBlocks)},
			{"MaxBlocksPerHost", fmt.Sprint(spec.MaxBlocksPerHost)},
			{"KubeVirtVMAddressPersistence", persistence(spec)},
			{"IPCooldownSeconds", fmt.Sprint(spec.IPCooldownSeconds)},
		}
		if s.calico {
			return frame(w, len(lines[0]), lines)
		}
		return printRows(w, width(s.Stdout), lines)
	})
}

func persistence(spec v3.IPAMConfigSpec) string {
	if spec.KubeVirtVMAddressPersistence == nil {
		return "Enabled"
	}
	return *spec.KubeVirtVMAddressPersistence
}

// ipamConfig reads the settings; what holds without any is an object that was not read
// from the datastore.
func ipamConfig(ctx context.Context, st store.Store) (store.Object, error) {
	o, err := st.Get(ctx, model.IPAMConfig{}.Key())
	if errors.Is(err, store.ErrNotFound) {
		return store.New(v3.NewIPAMConfig()), nil
	}
	if err != nil {
		return o, fmt.Errorf("ipam: %w", err)
	}
	if _, ok := o.Object.(*v3.IPAMConfig); !ok {
		return o, fmt.Errorf("ipam: settings: %T is none", o.Object)
	}
	return o, nil
}

// addressAnswer is who has an address, as it is printed.
type addressAnswer struct {
	Addr      netip.Addr        `json:"address"`
	Assigned  bool              `json:"assigned"`
	Block     string            `json:"block,omitempty"`
	Pool      string            `json:"pool,omitempty"`
	Handle    string            `json:"handle,omitempty"`
	Owner     map[string]string `json:"owner,omitempty"`
	Alternate map[string]string `json:"alternateOwner,omitempty"`
	Note      string            `json:"note,omitempty"`
}

// address prints who has an address.
func (s ipamShow) address(ctx context.Context, a netip.Addr) error {
	held, err := allocationsOf(ctx, s.store, a)
	if err != nil {
		return err
	}
	if len(held) == 0 {
		return s.print(addressAnswer{Addr: a}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%v is not assigned\n", a)
			return err
		})
	}
	answers := make([]addressAnswer, len(held))
	for i, h := range held {
		answers[i] = addressAnswer{Addr: a, Assigned: true, Block: h.block.CIDR.String(), Handle: h.by.Handle, Owner: h.by.Secondary, Alternate: h.by.AlternateOwner}
		if !h.by.ReleasedAt.IsZero() {
			answers[i].Assigned, answers[i].Note = false, "released at "+h.by.ReleasedAt.UTC().Format("2006-01-02T15:04:05Z")+", and not used again for a while"
		}
	}
	var v any = answers[0]
	if len(answers) > 1 {
		v = answers // two blocks have it: ipam check tells more
	}
	return s.print(v, func(w io.Writer) error {
		for _, one := range answers {
			if err := one.text(w); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a addressAnswer) text(w io.Writer) error {
	if !a.Assigned {
		_, err := fmt.Fprintf(w, "%v is not assigned\n", a.Addr)
		return err
	}
	if _, err := fmt.Fprintf(w, "IP %v is in use\nHandle ID: %s\n", a.Addr, a.Handle); err != nil {
		return err
	}
	for _, part := range []struct {
		title string
		attrs map[string]string
	}{{"Active Owner Attributes:", a.Owner}, {"Alternate Owner Attributes:", a.Alternate}} {
		if len(part.attrs) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(w, part.title); err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(part.attrs)) {
			if _, err := fmt.Fprintf(w, "  %s: %s\n", key, part.attrs[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// ipamHolding is one block's record of an address.
type ipamHolding struct {
	block    model.Block
	by       model.Attribute
	sequence uint64
}

// allocationsOf are the records of an address: one, none, or several where blocks overlap.
func allocationsOf(ctx context.Context, st store.Store, a netip.Addr) ([]ipamHolding, error) {
	blocks, broken, err := listed[model.Block](ctx, st, model.KindIPAMBlock)
	if err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	for _, b := range broken {
		if b.MayHold(a) {
			return nil, fmt.Errorf("ipam: %v: %w", b.Key, b.Err)
		}
	}
	var out []ipamHolding
	for _, b := range blocks {
		if !b.CIDR.Contains(a) {
			continue
		}
		for ord, at := range b.Allocations {
			if at >= 0 && ipam.AddrAt(b.CIDR, ord) == a {
				out = append(out, ipamHolding{b, b.Attributes[at], b.SequenceOf[ord]})
			}
		}
	}
	return out, nil
}
