package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/ctl/settings"
	"github.com/weft-net/weft/internal/migrate"
)

// datastoreCommand holds what concerns the datastore as a whole.
func (c *client) datastoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "datastore",
		Short: "Lock the datastore, carry it to another, rename old policies",
	}
	move := &cobra.Command{
		Use:   "migrate",
		Short: "Carry everything from one datastore to another: etcd to Kubernetes, back, or etcd to etcd",
		Long: `Carry everything from one datastore to another: from etcd to Kubernetes, back, or from
etcd to etcd. The steps are

  1. lock     no pod is started any more, and no address taken; what runs goes on
  2. export   with the settings of the old datastore, into a file
  3. import   with those of the new one; it is locked, too, and read back at the end
  4. change the settings of the node agents and controllers, and start them anew
  5. unlock   the new datastore

If an import breaks off, run it again: it goes on.`,
		Example: "  weft datastore migrate lock\n  weft datastore migrate export > cluster.yaml",
	}
	move.AddCommand(c.lockCommand(false), c.lockCommand(true), c.exportCommand(), c.importCommand())
	cmd.AddCommand(move, c.renameCommand())
	return cmd
}

// end opens the datastore as an end of a migration.
func (c *client) end(ctx context.Context) (migrate.Datastore, error) {
	kind, err := c.datastoreType()
	if err != nil {
		return migrate.Datastore{}, err
	}
	st, err := c.open(ctx)
	return migrate.Datastore{Store: st, Kubernetes: kind == settings.Kubernetes}, err
}

// lockCommand locks the datastore, or unlocks it.
func (c *client) lockCommand(unlock bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Lock the datastore: no pod is started and no address taken until it is unlocked",
		Long: `Lock the datastore (datastoreReady of the ClusterInformation is false): node agents start
no pods and take no addresses until it is unlocked. Traffic goes on, and so do changes that
you make yourself.`,
		Example: "  weft datastore migrate lock",
		Args:    cobra.NoArgs,
	}
	done, already := "Datastore locked.", "Datastore is locked already."
	if unlock {
		cmd.Use, cmd.Short = "unlock", "Unlock the datastore: pods are started again"
		cmd.Long = "Unlock the datastore: node agents start pods and take addresses again."
		cmd.Example = "  weft datastore migrate unlock"
		done, already = "Datastore unlocked.", "Datastore is not locked."
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		st, err := c.open(cmd.Context())
		if err != nil {
			return err
		}
		defer func() { _ = st.Close() }()
		changed, err := migrate.SetReady(cmd.Context(), st, unlock)
		if err != nil {
			return err
		}
		if !changed && !c.calico {
			done = already
		}
		_, err = fmt.Fprintln(c.Stdout, done)
		return err
	}
	return cmd
}

// exportCommand writes the file of a migration.
func (c *client) exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write everything that is in the datastore to the standard output",
		Long: `Write everything that is in the datastore to the standard output, in the form of Calico's
tool, for import. The datastore must be locked, or --unlocked be given: then the file is a copy
of what may change meanwhile. Secrets are not in it: objects only name them.`,
		Example: "  weft datastore migrate export > cluster.yaml\n  weft datastore migrate export --unlocked > backup.yaml",
		Args:    cobra.NoArgs,
	}
	unlocked := cmd.Flags().Bool("unlocked", false, "export although the datastore is not locked")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		from, err := c.end(cmd.Context())
		if err != nil {
			return err
		}
		defer func() { _ = from.Store.Close() }()
		if c.calico && from.Kubernetes {
			return errors.New("export reads an etcdv3 datastore, and the type of this one is kubernetes")
		}
		locked, err := migrate.IsLocked(cmd.Context(), from.Store)
		switch {
		case err != nil:
			return err
		case !locked && !*unlocked:
			return fmt.Errorf("datastore is not locked: run `%s datastore migrate lock` first, or give --unlocked for a copy of what is in use", c.spoken())
		}
		d, err := migrate.Read(cmd.Context(), from)
		if err != nil {
			return err
		}
		if c.calico { // whose import takes names as they are
			d = d.Renamed()
		}
		if err := d.Write(c.Stdout); err != nil {
			return err
		}
		if !c.calico {
			_, _ = fmt.Fprintf(c.Stderr, "exported %d objects\n", d.Count())
		}
		return nil
	}
	return cmd
}

// spoken is how a user calls this program.
func (c *client) spoken() string {
	if c.name() == kubectlPlugin {
		return "kubectl weft"
	}
	return c.name()
}

// importCommand carries a file into a datastore.
func (c *client) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import -f FILE",
		Short: "Put everything that an export wrote into the datastore",
		Long: `Put everything that an export wrote, of weft or of Calico's tool, into the datastore, lock
it, and read everything back. The datastore must be empty, but for what is in the file too: an
import that broke off goes on when it is run again.

Kubernetes keeps nodes, pods, namespaces and service accounts itself: what the file says of
nodes is put on those, and endpoints and profiles are passed over.

The exit code is 1 if anything did not land as it is in the file; a table says what.`,
		Example: "  weft datastore migrate import -f cluster.yaml\n  weft datastore migrate import -c new.cfg -f - < cluster.yaml",
		Args:    cobra.NoArgs,
	}
	file := cmd.Flags().StringP("filename", "f", "", "the file of an export; - is the standard input")
	var o migrate.Options
	cmd.Flags().BoolVar(&o.Overwrite, "overwrite", false, "replace what differs in the datastore, and let stay what the file does not have")
	cmd.Flags().BoolVar(&o.DropUnknown, "drop-unknown", false, "leave out fields that this version does not know")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *file == "" {
			return &UsageError{errors.New("import: -f FILE is missing: name the file of an export, or - for the standard input")}
		}
		return c.importFile(cmd.Context(), *file, *output, o)
	}
	return cmd
}

// importFile is what the command does.
func (c *client) importFile(ctx context.Context, file, output string, o migrate.Options) error {
	if output != "table" && output != "json" && output != "yaml" {
		return &UsageError{fmt.Errorf("-o %s: must be table, json or yaml", output)}
	}
	data, err := c.whole(file)
	if err != nil {
		return err
	}
	d, err := migrate.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	to, err := c.end(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = to.Store.Close() }()
	if c.calico && !to.Kubernetes {
		return errors.New("import writes to a kubernetes datastore, and the type of this one is etcdv3")
	}
	var clear func()
	o.Progress, clear = c.progress("imported")
	r, err := migrate.Import(ctx, to, d, o)
	clear()
	if err != nil {
		if n := r.Created + r.Updated; n > 0 {
			err = fmt.Errorf("%w: %d objects have landed: run it again to go on", err, n)
		}
		return err
	}
	for _, note := range r.Notes {
		_, _ = fmt.Fprintf(c.Stderr, "note: %s\n", note)
	}
	for _, failed := range r.Failed {
		_, _ = fmt.Fprintf(c.Stderr, "refused: %v\n", failed)
	}
	if err := printAs(c.Stdout, output, outcomeOf(r), func(w io.Writer) error { return c.outcome(w, r) }); err != nil {
		return err
	}
	if !r.Done() {
		return fmt.Errorf("import: %d objects did not land as they are in %s", len(r.Different), file)
	}
	return nil
}

// whole is a file's text.
func (c *client) whole(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(c.Stdin)
	}
	return os.ReadFile(file)
}

// progress shows on a terminal how far something is; clear ends that.
func (c *client) progress(did string) (step migrate.Progress, clear func()) {
	if !isTerminal(c.Stderr) {
		return nil, func() {}
	}
	last := -1
	return func(done, all int) {
			if percent := 100 * done / max(all, 1); percent != last {
				last = percent
				_, _ = fmt.Fprintf(c.Stderr, "\r%s %d of %d", did, done, all)
			}
		}, func() {
			if last >= 0 {
				_, _ = fmt.Fprint(c.Stderr, "\r\x1b[K")
			}
		}
}

// importOutcome is what came of an import, as -o json and yaml print it.
type importOutcome struct {
	Created   int              `json:"created"`
	Updated   int              `json:"updated"`
	Unchanged int              `json:"unchanged"`
	LeftOut   []string         `json:"leftOut,omitempty"`
	Refused   []string         `json:"refused,omitempty"`
	Different []importMismatch `json:"different,omitempty"`
}

// importMismatch is a field of an object that is not as it is in the file; an object without
// one is missing.
type importMismatch struct {
	Object string `json:"object"`
	Field  string `json:"field,omitempty"`
	Want   string `json:"want,omitempty"`
	Got    string `json:"got,omitempty"`
}

func outcomeOf(r migrate.Report) importOutcome {
	out := importOutcome{Created: r.Created, Updated: r.Updated, Unchanged: r.Same, LeftOut: r.Notes}
	for _, err := range r.Failed {
		out.Refused = append(out.Refused, err.Error())
	}
	for _, m := range r.Different {
		if len(m.Fields) == 0 {
			out.Different = append(out.Different, importMismatch{Object: m.Key.String()})
		}
		for _, f := range m.Fields {
			out.Different = append(out.Different, importMismatch{m.Key.String(), f.Path, f.Want, f.Got})
		}
	}
	return out
}

// outcome prints what came of an import.
func (c *client) outcome(w io.Writer, r migrate.Report) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "created %d, updated %d, unchanged %d", r.Created, r.Updated, r.Same)
	if r.Done() {
		fmt.Fprintf(&text, ": everything is there as in the file.\nThe datastore is locked. When everything uses it: %s datastore migrate unlock\n", c.spoken())
	} else {
		text.WriteString("; not as in the file:\n\n")
		columns := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
		fmt.Fprintf(columns, "OBJECT\tFIELD\tIN THE FILE\tTHERE\n")
		for _, m := range outcomeOf(r).Different {
			if m.Field == "" {
				m.Field, m.Got = "-", "is missing"
			}
			fmt.Fprintf(columns, "%s\t%s\t%s\t%s\n", m.Object, m.Field, or(short(m.Want), "-"), or(short(m.Got), "-"))
		}
		if err := columns.Flush(); err != nil {
			return err
		}
	}
	_, err := w.Write(text.Bytes())
	return err
}

// short is a value as it fits a table.
func short(value string) string {
	const most = 40
	if r := []rune(value); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return strings.ReplaceAll(value, "\t", " ")
}

// renameCommand renames policies of the default tier that older versions stored.
func (c *client) renameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate-policy-names",
		Short: "Take the tier from before the names of policies that older versions stored",
		Long: `Give policies of the default tier the names by which users know them: older versions stored
them with "default." before it. Each is made under its new name before it goes from the old one.
It may be run at any time, and again.`,
		Example: "  weft datastore migrate-policy-names",
		Args:    cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		in, err := c.end(cmd.Context())
		if err != nil {
			return err
		}
		defer func() { _ = in.Store.Close() }()
		done, failed := migrate.RenamePolicies(cmd.Context(), in)
		if !c.calico {
			for _, r := range done {
				from := strings.TrimPrefix(r.Namespace+"/"+r.From, "/")
				_, _ = fmt.Fprintf(c.Stdout, "%s %s is %s now\n", strings.ToLower(string(r.Kind)), from, r.To)
			}
		}
		if failed != nil {
			return failed
		}
		_, err = fmt.Fprintf(c.Stdout, "%d policies renamed.\n", len(done))
		return err
	}
	return cmd
}
