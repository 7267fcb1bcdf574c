package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// ipamReleaseFlags are those of one call of ipam release.
type ipamReleaseFlags struct {
	ip         string
	reports    []string
	force      bool
	kubeconfig string
}

func (c *client) ipamReleaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Release an address, or those that a report calls leaked",
		Long: "Release one address, or all that every given report of ipam check calls leaked. Each line of a\n" +
			"report is checked again against the datastore: an address that came into use or changed hands\n" +
			"since is left alone. The datastore must be locked for a report, or --force given.",
		Example: "  " + c.name() + " ipam release --ip=10.0.0.1\n  " + c.name() + " ipam release --from-report report.json",
		Args:    cobra.NoArgs,
	}
	var f ipamReleaseFlags
	flags := cmd.Flags()
	flags.StringVar(&f.ip, "ip", "", "release this address")
	flags.StringArrayVar(&f.reports, "from-report", nil, "release what this report of ipam check calls leaked; of several reports, what all of them do")
	flags.BoolVar(&f.force, "force", false, "release although the datastore is not locked, or the address is in use")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster whose pods and services are asked for; else that of KUBECONFIG")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		switch {
		case f.ip != "" && len(f.reports) > 0:
			return &UsageError{errors.New("--ip and --from-report: only one may be given")}
		case f.ip != "":
			a, err := c.addrArgument("ip", f.ip)
			if err != nil {
				return err
			}
			return c.releaseAddr(ctx, a, f)
		case len(f.reports) > 0:
			return c.releaseReports(ctx, f)
		case c.calico:
			return nil
		}
		return &UsageError{errors.New("nothing to release: --ip or --from-report must be given")}
	}
	return cmd
}

// releaser runs an allocator that can only release, until stop is called.
func releaser(ctx context.Context, st store.Store) (a *allocator.Allocator, stop func()) {
	a = allocator.New(st, "", time.Now)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx) // it ends with ctx
	}()
	return a, func() { cancel(); <-done }
}

// releaseAddr releases one address. calicoctl does so whoever uses it; weft asks first.
func (c *client) releaseAddr(ctx context.Context, a netip.Addr, f ipamReleaseFlags) error {
	st, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // what was written is confirmed
	held, err := allocationsOf(ctx, st, a)
	if err != nil {
		return err
	}
	notAssigned := fmt.Errorf("IP address %v is not assigned", a)
	if len(held) == 0 || !held[0].by.ReleasedAt.IsZero() {
		return notAssigned
	}
	if len(held) > 1 {
		return fmt.Errorf("ipam: release %v: blocks %v and %v have it: delete the one that is wrong", a, held[0].block.CIDR, held[1].block.CIDR)
	}
	if !c.calico && !f.force {
		if err := c.unusedOr(ctx, a, f.kubeconfig); err != nil {
			return err
		}
	}
	alloc, stop := releaser(ctx, st)
	defer stop()
	err = alloc.ReleaseAddr(ctx, a, ipam.Check{Handle: held[0].by.Handle, Sequence: held[0].sequence})
	if errors.Is(err, ipam.ErrNotAssigned) {
		return notAssigned
	}
	if err != nil {
		return err
	}
	if c.calico {
		_, err = fmt.Fprintf(c.Stdout, "Successfully released IP address %v\n", a)
	} else {
		_, err = fmt.Fprintf(c.Stdout, "%v released: it was of %v\n", a, ipam.OwnerFor(held[0].by))
	}
	return err
}

// unusedOr is an error that names who uses the address.
func (c *client) unusedOr(ctx context.Context, a netip.Addr, kubeconfig string) error {
	r, err := c.ipamReader(ctx, kubeconfig)
	if err != nil {
		return err
	}
	defer r.store.Close() //nolint:errcheck // nothing was written
	err = r.rest(ctx)
	r.progress("")
	if err != nil {
		return fmt.Errorf("ipam: release %v: is it in use? %w", a, err)
	}
	var users []string
	for _, u := range r.world.Users {
		if u.Addr == a {
			users = append(users, u.String())
		}
	}
	if len(users) > 0 {
		return fmt.Errorf("ipam: release %v: in use by %s: --force releases it nevertheless, and another may get it then", a, strings.Join(users, ", "))
	}
	return nil
}

// releaseReports releases what all reports call leaked and still is.
func (c *client) releaseReports(ctx context.Context, f ipamReleaseFlags) error {
	var reports []audit.Report
	for _, path := range f.reports {
		report, err := readReport(path)
		if err != nil {
			return err
		}
		reports = append(reports, report)
	}
	r, err := c.releaseReader(ctx, f)
	if err != nil {
		return err
	}
	defer r.store.Close() //nolint:errcheck // what was written is confirmed
	if err := mayRelease(ctx, r.store, f, reports); err != nil {
		return err
	}
	_, now, err := r.look(ctx)
	if err != nil {
		r.progress("")
		return err
	}
	releases, err := audit.Releasable(reports, now)
	if err != nil {
		r.progress("")
		return fmt.Errorf("ipam: release: %w", err)
	}
	released, err := c.release(ctx, r, releases)
	r.progress("")
	return errors.Join(c.tellReleased(releases, released), err)
}

// releaseReader is ipamReader, but that it does without Kubernetes in calicoctl's voice,
// too: calicoctl asks it for nothing here.
func (c *client) releaseReader(ctx context.Context, f ipamReleaseFlags) (*ipamReader, error) {
	r, err := c.ipamReader(ctx, f.kubeconfig)
	if !errors.Is(err, errNoKubeconfig) {
		return r, err
	}
	st, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	return &ipamReader{store: st, progress: c.ipamProgress()}, nil
}

func readReport(path string) (audit.Report, error) {
	var report audit.Report
	text, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return report, fmt.Errorf("%s: is no report of ipam check: %w", path, err)
	}
	if report.ClusterGUID == "" && report.Allocations == nil {
		return report, fmt.Errorf("%s: is no report of ipam check: it has neither clusterGUID nor allocations", path)
	}
	return report, nil
}

// mayRelease is nil if the datastore is locked, or that does not matter; and the reports
// are of this cluster.
func mayRelease(ctx context.Context, st store.Store, f ipamReleaseFlags, reports []audit.Report) error {
	info, err := ipamCluster(ctx, st)
	if err != nil {
		return err
	}
	if !locked(info) && !f.force {
		return errors.New("data store is not locked. Either lock the data store, or re-run with --force")
	}
	for i, report := range reports {
		if report.ClusterGUID != info.Spec.ClusterGUID {
			return fmt.Errorf("%s: the report is of cluster %q: must be of this one, %q", f.reports[i], report.ClusterGUID, info.Spec.ClusterGUID)
		}
	}
	return nil
}

// released is what became of the releases.
type released struct {
	addrs, handles int
	skipped        []audit.Skipped
}

// parallelReleases is how many releases wait at a time: those that wait share one
// transaction.
const parallelReleases = 100

// release carries out the releases: each by compare-and-swap with what was seen. What has
// changed since is left alone. It does all it can, and returns what it could not.
func (c *client) release(ctx context.Context, r *ipamReader, todo audit.Releases) (released, error) {
	alloc, stop := releaser(ctx, r.store)
	defer stop()
	out := released{skipped: todo.Skipped}
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	room := make(chan struct{}, parallelReleases)
	for _, f := range todo.Addrs {
		room <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			err := alloc.ReleaseAddr(ctx, f.Addr, ipam.Check{Handle: f.Handle, Sequence: f.Sequence})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				out.addrs++
				r.progress(fmt.Sprintf("released %d of %d", out.addrs, len(todo.Addrs)))
			case errors.Is(err, ipam.ErrChanged), errors.Is(err, ipam.ErrNotAssigned):
				out.skipped = append(out.skipped, audit.Skipped{Addr: f.Addr, Handle: f.Handle, Why: "it has changed hands since"})
			default:
				errs = append(errs, err)
			}
			<-room
		})
	}
	all.Wait()
	for _, h := range todo.Handles {
		if ctx.Err() != nil {
			break
		}
		ok, err := dropHandle(ctx, r.store, h)
		switch {
		case err != nil:
			errs = append(errs, err)
		case ok:
			out.handles++
		}
	}
	if ctx.Err() != nil {
		errs = append(errs, fmt.Errorf("interrupted: a second run releases the rest: %w", context.Cause(ctx)))
	}
	return out, errors.Join(errs...)
}

// dropHandle deletes a handle that holds nothing, by the revision at which no block had an
// address of it.
func dropHandle(ctx context.Context, st store.Store, id string) (bool, error) {
	o, err := st.Get(ctx, model.HandleKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ipam: release: %w", err)
	}
	// Who gives the handle an address writes it, and so changes its revision.
	blocks, broken, err := listed[model.Block](ctx, st, model.KindIPAMBlock)
	if err != nil || len(broken) > 0 {
		return false, err
	}
	for _, b := range blocks {
		for _, a := range b.Attributes {
			if strings.EqualFold(a.Handle, id) && a.ReleasedAt.IsZero() {
				return false, nil
			}
		}
	}
	_, err = st.Commit(ctx, store.Op{Verb: store.Delete, Object: o})
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// tellReleased prints what was released.
func (c *client) tellReleased(todo audit.Releases, done released) error {
	if c.calico {
		_, _ = fmt.Fprintf(c.Stdout, "Releasing %d old IPs...\nReleased %d IPs successfully\n", len(todo.Addrs), done.addrs)
		if len(todo.Handles) == 0 {
			_, _ = fmt.Fprintln(c.Stdout, "Report didn't contain any handles to clean up.")
		} else {
			_, _ = fmt.Fprintf(c.Stdout, "Released %d handles; %d skipped\n", done.handles, len(todo.Handles)-done.handles)
		}
		_, err := fmt.Fprintln(c.Stdout, "You may now unlock the data store.")
		return err
	}
	for _, s := range done.skipped {
		what := "handle " + s.Handle
		if s.Addr.IsValid() {
			what = s.Addr.String()
		}
		_, _ = fmt.Fprintf(c.Stdout, "%s left alone: %s\n", what, s.Why)
	}
	_, err := fmt.Fprintf(c.Stdout, "%s and %s released, %d left alone\n", plural(done.addrs, "address"), plural(done.handles, "handle"), len(done.skipped))
	return err
}
