package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/examples"
	"github.com/weft-net/weft/internal/lab"
)

// labFlags are what all commands of the lab have.
type labFlags struct {
	p    Process
	name string
}

func (f *labFlags) dir() (lab.Dir, error) {
	dir, err := lab.DirFor(f.name, f.p.Getenv)
	if err != nil {
		return "", &UsageError{err}
	}
	return dir, nil
}

// labCommand is the lab: a cluster on this machine.
func labCommand(p Process) *cobra.Command {
	f := &labFlags{p: p}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run a whole cluster on this machine",
		Long: "A lab is a cluster on one machine: nodes, pods, racks and routers as network\n" +
			"namespaces, real node agents and a real etcd. It needs no root where user\n" +
			"namespaces are allowed, and leaves nothing behind.",
	}
	cmd.PersistentFlags().StringVar(&f.name, "name", "default", "name of the lab; several can be up at once")
	cmd.AddCommand(labUp(f), labDown(f), labStatus(f), labExec(f), labRun(f), labCheck(f), labEnv(f), labStop(f), labStart(f), labHold())
	return cmd
}

// labSpec collects what a lab is made from; file may be empty, for the quickstart,
// or - for standard input.
func (f *labFlags) spec(file, cni string) (lab.Spec, error) {
	dir, err := f.dir()
	if err != nil {
		return lab.Spec{}, err
	}
	exe, err := os.Executable()
	if err != nil {
		return lab.Spec{}, fmt.Errorf("lab: %w", err)
	}
	if cni == "" {
		cni = filepath.Join(filepath.Dir(exe), "weft-cni")
	}
	if cni, err = filepath.Abs(cni); err != nil {
		return lab.Spec{}, fmt.Errorf("lab: %w", err)
	}
	patience, err := lab.ParsePatience(f.p.Getenv("WEFT_LAB_PATIENCE"))
	if err != nil {
		return lab.Spec{}, &UsageError{err}
	}
	s := lab.Spec{Name: f.name, Dir: dir, File: file, Executable: exe, CNI: cni, Environ: f.p.Environ, Patience: patience}
	switch file {
	case "":
		s.File, s.Topology = "quickstart.yaml", examples.Quickstart
	case "-":
		s.File = "standard input"
		s.Topology, err = io.ReadAll(f.p.Stdin)
	default:
		s.Topology, err = os.ReadFile(file)
	}
	if err != nil {
		return lab.Spec{}, fmt.Errorf("lab: topology: %w", err)
	}
	return s, nil
}

// topologyFlags adds the flags of commands that bring a lab up.
func topologyFlags(cmd *cobra.Command) (file, cni *string) {
	file = cmd.Flags().StringP("file", "f", "", "topology, - for standard input (default: the built-in quickstart of 3 nodes and 6 pods)")
	cni = cmd.Flags().String("cni", "", "the CNI executable (default: weft-cni beside weft)")
	return file, cni
}

func labUp(f *labFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "up",
		Short:   "Bring a lab up; it stays until `weft lab down`",
		Example: "  weft lab up\n  weft lab up -f examples/vxlan.yaml",
		Args:    cobra.NoArgs,
	}
	file, cni := topologyFlags(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := f.spec(*file, *cni)
		if err != nil {
			return err
		}
		progress := lab.NewProgress(f.p.Stderr)
		l, err := lab.Up(cmd.Context(), s, false, progress.Step)
		if err != nil {
			progress.Done("")
			return err
		}
		progress.Done(fmt.Sprintf("up: %d nodes, %d pods", len(l.Status.Nodes), len(l.Status.Pods)))
		return printStatus(f.p.Stdout, *output, l.Status)
	}
	return cmd
}

func printStatus(w io.Writer, output string, s lab.Status) error {
	return printAs(w, output, s, func(w io.Writer) error { _, err := s.WriteTo(w); return err })
}

func labDown(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Take a lab down, or clean up after one that was killed",
		Example: "  weft lab down",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			was, err := dir.Down(cmd.Context())
			if err == nil && !was {
				fmt.Fprintf(f.p.Stderr, "lab %s is not up\n", f.name)
			}
			return err
		},
	}
}

func labStatus(f *labFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the nodes, routers and pods of a lab",
		Example: "  weft lab status",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := f.dir()
		if err != nil {
			return err
		}
		s, err := dir.StatusOf(cmd.Context())
		if err != nil {
			return err
		}
		return printStatus(f.p.Stdout, *output, s)
	}
	return cmd
}

func labExec(f *labFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "exec TARGET -- COMMAND…",
		Short:   "Run a command in a node, a router, a pod (pod/NAMESPACE/NAME) or the fabric",
		Example: "  weft lab exec node-a -- ip route\n  weft lab exec pod/default/web-1 -- ping -c 1 10.173.32.12",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			argv := args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return &UsageError{fmt.Errorf("lab exec %s: no command: write it after --", args[0])}
			}
			c := lab.Command{Target: args[0], Argv: argv, Environ: f.p.Environ}
			if c.Cwd, err = os.Getwd(); err != nil {
				c.Cwd = "/"
			}
			var ok [3]bool
			c.Stdin, ok[0] = f.p.Stdin.(*os.File)
			c.Stdout, ok[1] = f.p.Stdout.(*os.File)
			c.Stderr, ok[2] = f.p.Stderr.(*os.File)
			if ok != [3]bool{true, true, true} {
				return errors.New("lab: exec: the standard streams must be files")
			}
			code, err := dir.Exec(cmd.Context(), c)
			if err == nil && code != 0 {
				return &ExitError{code}
			}
			return err
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the target is the command's
	return cmd
}

func labRun(f *labFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Bring a lab up, check what its topology expects, print it, take it down",
		Long: "Run brings a lab of its own up, checks every expectation of the topology, prints the\n" +
			"routes of each node, who reaches whom, and what came of each expectation, and\n" +
			"takes it down. It exits with 1 when an expectation does not come true.",
		Example: "  weft lab run -f examples/quickstart.yaml",
		Args:    cobra.NoArgs,
	}
	file, cni := topologyFlags(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("name") {
			f.name = fmt.Sprintf("run-%d", os.Getpid()) // beside a lab that is up, and other runs
		}
		s, err := f.spec(*file, *cni)
		if err != nil {
			return err
		}
		progress := lab.NewProgress(f.p.Stderr)
		report, err := runLab(cmd.Context(), s, progress)
		if err != nil {
			progress.Done("")
			return err
		}
		return printReport(f.p.Stdout, *output, report, s.File)
	}
	return cmd
}

// printReport prints what was found; an expectation that did not come true is an
// error.
func printReport(w io.Writer, output string, r *lab.Report, of string) error {
	err := printAs(w, output, r, func(w io.Writer) error { _, err := r.WriteTo(w); return err })
	if n := r.Failed(); n > 0 && err == nil {
		return fmt.Errorf("lab: %d of %d expectations of %s did not come true", n, len(r.Results), of)
	}
	return err
}

func labCheck(f *labFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "check",
		Short:   "Check the expectations of a lab that is up, as `run` does",
		Example: "  weft lab check",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := f.dir()
		if err != nil {
			return err
		}
		progress := lab.NewProgress(f.p.Stderr)
		report, err := dir.Check(cmd.Context(), progress.Step)
		progress.Done("")
		if err != nil {
			return err
		}
		return printReport(f.p.Stdout, *output, report, "lab "+f.name)
	}
	return cmd
}

// runLab has a lab up for as long as its expectations are checked.
func runLab(ctx context.Context, s lab.Spec, progress *lab.Progress) (*lab.Report, error) {
	l, err := lab.Up(ctx, s, true, progress.Step)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	progress.Done(fmt.Sprintf("up: %d nodes, %d pods", len(l.Status.Nodes), len(l.Status.Pods)))
	report, err := l.Dir.Check(ctx, progress.Step)
	if err != nil {
		return nil, err
	}
	progress.Done(fmt.Sprintf("checked: %d of %d expectations hold", len(report.Results)-report.Failed(), len(report.Results)))
	return report, nil
}

func labEnv(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "env",
		Short:   "Print the settings with which weft and etcd clients reach the lab's store",
		Example: "  eval \"$(weft lab env)\"",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			if _, err := dir.StatusOf(cmd.Context()); err != nil {
				return err
			}
			for _, kv := range lab.Settings(dir) {
				if _, err := fmt.Fprintln(f.p.Stdout, "export", kv); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func labStop(f *labFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "stop NAME",
		Short:   "End the agent of a node, or a router; its pods stay",
		Example: "  weft lab stop node-b",
		Args:    cobra.ExactArgs(1),
	}
	kill := cmd.Flags().Bool("kill", false, "by SIGKILL, at once")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := f.dir()
		if err != nil {
			return err
		}
		return dir.Stop(cmd.Context(), args[0], *kill)
	}
	return cmd
}

func labStart(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "start NAME",
		Short:   "Start the agent of a node, or a router, again",
		Example: "  weft lab start node-b",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			return dir.Start(cmd.Context(), args[0])
		},
	}
}

// labHold is the process behind a lab; see package lab.
func labHold() *cobra.Command {
	return &cobra.Command{
		Use:    "hold",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return lab.Hold(lab.HolderFiles())
		},
	}
}
