package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// ipamCheckFlags are those of one call of ipam check.
type ipamCheckFlags struct {
	all, problems bool
	kubeconfig    string
	report        string // file to write; empty: none
	output        string // table, json or yaml
}

func (c *client) ipamCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find addresses whose records disagree with what is in use",
		Long: "Compare blocks, handles, affinities and pools with the addresses that endpoints, pods, tunnels\n" +
			"and services use. It finds addresses that are allocated and not used, used and not allocated,\n" +
			"held twice; handles that hold nothing; blocks and affinities that are wrong. Pods and services\n" +
			"are asked for where a kubeconfig is given or the datastore is Kubernetes. Nothing is changed.\n" +
			"What is found is no failure: the exit code is 0.",
		Example: "  " + c.name() + " ipam check\n",
		Args:    cobra.NoArgs,
	}
	var f ipamCheckFlags
	flags := cmd.Flags()
	flags.BoolVar(&f.all, "show-all-ips", false, "print all addresses that are looked at")
	flags.BoolVar(&f.problems, "show-problem-ips", false, "print the addresses that something is wrong with")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster whose pods and services are asked for; else that of KUBECONFIG")
	var outputs []string
	if c.calico {
		flags.StringVarP(&f.report, "output", "o", "", "file to write a report to, which ipam release --from-report takes")
		cmd.Example += "  " + c.name() + " ipam check -o report.json"
	} else {
		flags.StringArrayVarP(&outputs, "output", "o", nil, "how to print: table, json or yaml; report=FILE writes a report, which ipam release --from-report takes; may be repeated")
		cmd.Example += "  " + c.name() + " ipam check -o report=report.json"
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.take(outputs); err != nil {
			return err
		}
		r, err := c.ipamReader(cmd.Context(), f.kubeconfig)
		if err != nil {
			return err
		}
		defer r.store.Close() //nolint:errcheck // nothing was written
		return c.ipamCheck(cmd.Context(), r, f)
	}
	return cmd
}

// take reads the values of -o.
func (f *ipamCheckFlags) take(outputs []string) error {
	f.output = "table"
	for _, o := range outputs {
		file, ok := strings.CutPrefix(o, "report=")
		switch {
		case ok && file == "":
			return &UsageError{errors.New("-o report=: must name a file")}
		case ok:
			f.report = file
		case o == "table" || o == "json" || o == "yaml":
			f.output = o
		default:
			return &UsageError{fmt.Errorf("-o %s: must be table, json, yaml or report=FILE", o)}
		}
	}
	return nil
}

func (c *client) ipamCheck(ctx context.Context, r *ipamReader, f ipamCheckFlags) error {
	if c.calico {
		return c.auditAsCalico(ctx, r, f)
	}
	w, result, err := r.look(ctx)
	r.progress("")
	if err != nil {
		return err
	}
	if f.report != "" {
		if err := c.writeReport(ctx, r, w, result, f.report); err != nil {
			return err
		}
	}
	s := newCheckSummary(r, w, result)
	if f.all {
		s.Lines = audit.Lines(result)
	}
	return printAs(c.Stdout, f.output, s, func(out io.Writer) error { return c.checkTable(out, s, result, f.all) })
}

// checkSummary is what a check found, as it is printed.
type checkSummary struct {
	Blocks      int                     `json:"blocks"`
	Pools       int                     `json:"pools"`
	Handles     int                     `json:"handles"`
	Allocations int                     `json:"allocations"`
	InUse       int                     `json:"inUse"` // addresses that somebody uses
	Kept        int                     `json:"kept"`  // allocated, not used, and right so
	Kubernetes  bool                    `json:"kubernetesAsked"`
	Counts      map[audit.Kind]int      `json:"counts"`
	Findings    []audit.Finding         `json:"findings"`
	Lines       map[string][]audit.Line `json:"addresses,omitempty"`
}

func newCheckSummary(r *ipamReader, w audit.World, result audit.Result) checkSummary {
	s := checkSummary{
		Blocks: len(w.Blocks), Pools: len(w.Pools), Handles: len(w.Handles), Allocations: len(result.Allocations),
		InUse: inUse(w.Users), Kubernetes: r.kube != nil, Counts: map[audit.Kind]int{}, Findings: append([]audit.Finding{}, result.Findings...),
	}
	for _, a := range result.Allocations {
		if a.Kept != "" {
			s.Kept++
		}
	}
	for _, k := range audit.Kinds() {
		if n := result.Count(k); n > 0 {
			s.Counts[k] = n
		}
	}
	return s
}

// inUse counts the addresses that are used.
func inUse(users []audit.User) int {
	seen := map[string]bool{}
	for _, u := range users {
		seen[u.Addr.String()] = true
	}
	return len(seen)
}

func (c *client) checkTable(w io.Writer, s checkSummary, result audit.Result, all bool) error {
	if all {
		lines := [][]string{{"ADDRESS", "BLOCK", "HELD BY", "USED BY"}}
		for _, a := range result.Allocations {
			users := a.Kept
			for _, u := range a.Users {
				users = strings.TrimPrefix(users+", "+u.String(), ", ")
			}
			lines = append(lines, []string{a.Addr.String(), a.Block.String(), a.Owner.String(), cmp.Or(users, "nobody")})
		}
		if err := printRows(w, width(c.Stdout), lines); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(w)
	}
	if len(s.Findings) > 0 {
		lines := [][]string{{"PROBLEM", "OF", "OWNER", "WHY"}}
		for _, f := range s.Findings {
			lines = append(lines, []string{string(f.Kind), findingOf(f), f.Owner, f.Why})
		}
		if err := printRows(w, width(c.Stdout), lines); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(w)
	}
	asked := ""
	if !s.Kubernetes {
		asked = "; Kubernetes was not asked about pods and services"
	}
	_, err := fmt.Fprintf(w, "%s in %s of %s, %s; %s in use%s\n", plural(s.Allocations, "allocation"), plural(s.Blocks, "block"),
		plural(s.Pools, "pool"), plural(s.Handles, "handle"), plural(s.InUse, "address"), asked)
	if err != nil {
		return err
	}
	var parts []string
	for _, k := range audit.Kinds() {
		if n := s.Counts[k]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k))
		}
	}
	if len(parts) == 0 {
		_, err = fmt.Fprintln(w, "no problems")
		return err
	}
	_, err = fmt.Fprintf(w, "%s: %s\n", plural(len(s.Findings), "problem"), strings.Join(parts, ", "))
	return err
}

// findingOf is what a finding is about.
func findingOf(f audit.Finding) string {
	switch {
	case f.Addr.IsValid():
		return f.Addr.String()
	case f.Block.IsValid():
		return f.Block.String()
	case f.Handle != "":
		return f.Handle
	}
	return f.Owner
}

// writeReport writes the report of a check to a file: all of it, or nothing.
func (c *client) writeReport(ctx context.Context, r *ipamReader, w audit.World, result audit.Result, path string) error {
	info, err := ipamCluster(ctx, r.store)
	if err != nil {
		return err
	}
	report := audit.Report{
		Version: c.Version, ClusterGUID: info.Spec.ClusterGUID, DatastoreLocked: locked(info), ClusterRevision: info.ResourceVersion,
		ClusterType: info.Spec.ClusterType, Allocations: audit.Lines(result),
	}
	for _, f := range result.Of(audit.OrphanHandle) {
		o, err := r.store.Get(ctx, model.HandleKey(f.Handle))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("ipam: %w", err)
		}
		report.LeakedHandles = append(report.LeakedHandles, audit.HandleLine{ID: f.Handle, Revision: o.Meta().ResourceVersion, UID: string(o.Meta().UID)})
	}
	if !c.calico {
		report.Findings = result.Findings
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("ipam: report: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return fmt.Errorf("ipam: report %s: %w", path, err)
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // it is gone when all went well
	_, err = temp.Write(text)
	err = cmp.Or(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("ipam: report %s: %w", path, err)
	}
	return nil
}

// ipamCluster is the cluster's information; without any it is empty, which is not locked.
func ipamCluster(ctx context.Context, st store.Store) (*v3.ClusterInformation, error) {
	info, err := clusterInformation(ctx, st)
	if errors.Is(err, store.ErrNotFound) {
		return &v3.ClusterInformation{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	return info, nil
}

// locked reports whether the datastore is: nothing gives out addresses then.
func locked(info *v3.ClusterInformation) bool {
	return info.Spec.DatastoreReady != nil && !*info.Spec.DatastoreReady
}

// nodeCounts are the numbers of allocations by node, most first. Calico leaves the order of
// equal ones to chance; here it is that of its recordings.
func nodeCounts(result audit.Result) (names []string, counts map[string]int) {
	counts = map[string]int{}
	for _, a := range result.Allocations {
		if a.Owner.Node == "" {
			continue
		}
		if counts[a.Owner.Node]++; counts[a.Owner.Node] == 1 {
			names = append(names, a.Owner.Node)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(b, a)) })
	return names, counts
}
