package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/show"
	"github.com/weft-net/weft/internal/selector"
	"github.com/weft-net/weft/internal/store"
)

// get is one call of the command: what is wanted, and how it is printed.
type get struct {
	*client
	store  store.Store
	format show.Format

	output, namespace, file, selector   string
	allNamespaces, export, watch        bool
	namespaceGiven, recursive, skipNone bool

	matches *selector.Selector // of labels; nil: all
}

// wanted is objects that were asked for: one, or all of a kind.
type wanted struct {
	kind      v3.Kind
	name      string // empty: all
	namespace string // of a kind without any: empty
}

func (c *client) getCommand() *cobra.Command {
	g := &get{client: c}
	cmd := &cobra.Command{
		Use:   "get [KIND [NAME...]]",
		Short: "Print objects of the datastore",
		Long: "Print objects of the datastore: all of a kind, some of it by name, or those that a file names.\n" +
			"KIND is a name, a plural or a short name in any case, or several parted by commas; KIND/NAME\n" +
			"names an object too. A template of go-template works on the list of what was asked for:\n" +
			"each is an object, or a list with its objects in .Items.",
		Example: "  weft get ippools\n" +
			"  weft get ippool default-ipv4-ippool -o yaml\n" +
			"  weft get networkpolicies -A -o wide\n" +
			"  weft get workloadendpoints -n prod --selector \"app == 'web'\"\n" +
			"  weft get tier/default ippool,node -o name\n" +
			"  weft get nodes -o custom-columns=NAME,IPV4\n" +
			"  weft get ippools -o jsonpath='{.items[*].spec.cidr}'\n" +
			"  weft get bgppeers --watch",
		RunE: func(cmd *cobra.Command, args []string) error {
			g.namespaceGiven = cmd.Flags().Changed("namespace")
			return g.run(cmd.Context(), args)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&g.output, "output", "o", "ps", "how to print: ps (a table), wide, yaml, json, name, custom-columns=A,B, go-template=TEXT, jsonpath=TEXT; the last three also as …-file=FILE")
	f.StringVarP(&g.namespace, "namespace", "n", "", "namespace of the objects (default: default)")
	f.BoolVarP(&g.allNamespaces, "all-namespaces", "A", false, "objects of all namespaces")
	f.StringVarP(&g.file, "filename", "f", "", "file or directory that names the objects; - is standard input")
	f.BoolVarP(&g.recursive, "recursive", "R", false, "with a directory: those in it too")
	f.BoolVar(&g.skipNone, "skip-empty", false, "no failure where the files name nothing")
	f.BoolVar(&g.export, "export", false, "leave out what belongs to this cluster: uid, revision, times")
	f.BoolVarP(&g.watch, "watch", "w", false, "go on and print what changes, until Ctrl-C")
	f.StringVar(&g.selector, "selector", "", "only objects whose labels it selects, such as \"app == 'web'\"")
	return cmd
}

// run does what the command line asks for.
func (g *get) run(ctx context.Context, args []string) error {
	wants, err := g.prepare(args)
	if err != nil {
		return err
	}
	if g.store == nil {
		if g.store, err = g.open(ctx); err != nil {
			return err
		}
		defer g.store.Close() //nolint:errcheck // nothing was written
	}
	if g.watch {
		return g.follow(ctx, wants[0])
	}
	if len(wants) == 1 && wants[0].name == "" && !isSorted(wants[0].kind) && g.allowed(wants[0]) == nil {
		return g.stream(ctx, wants[0])
	}
	return g.collect(ctx, wants)
}

// prepare reads the arguments and refuses what makes no sense, before anything is asked of the
// datastore.
func (g *get) prepare(args []string) ([]wanted, error) {
	var err error
	if g.format, err = show.ParseFormat(g.output, show.Options{Calico: g.calico, Width: width(g.Stdout)}); err != nil {
		return nil, &UsageError{err}
	}
	if g.selector != "" {
		if g.matches, err = selector.Parse(g.selector); err != nil {
			return nil, &UsageError{fmt.Errorf("--selector: %w", err)}
		}
	}
	wants, err := g.parse(args)
	if err != nil {
		return nil, err
	}
	for _, w := range wants {
		if err := g.refuse(w, wants); err != nil {
			return nil, &UsageError{err}
		}
		if err := g.format.Check(w.kind); err != nil && g.allowed(w) == nil {
			return nil, &UsageError{err}
		}
	}
	return wants, nil
}

// refuse says why flags do not go with what is wanted.
func (g *get) refuse(w wanted, all []wanted) error {
	switch {
	case g.calico && g.allNamespaces && w.name != "" && g.file == "":
		return errors.New("cannot use --all-namespace flag for getting a single resource")
	case g.calico:
		return nil
	case g.allNamespaces && w.name != "" && g.file == "":
		return fmt.Errorf("-A with a name: %s: which namespace is it in? Say -n NAMESPACE", w.name)
	case g.allNamespaces && g.namespaceGiven:
		return errors.New("-A and -n: only one may be")
	case g.watch && len(all) > 1:
		return errors.New("--watch: can follow one kind, or one object, at a time")
	case g.watch && !g.format.IsTable() && !g.format.IsDocument() && !g.format.IsName():
		return fmt.Errorf("--watch with -o %s: must be a table, name, yaml or json", g.output)
	case g.matches != nil && w.name != "":
		return fmt.Errorf("--selector with a name: %s: only one may be", w.name)
	}
	return g.allowed(w)
}

// allowed refuses a namespace for a kind that has none. calicoctl says that beside the rest.
func (g *get) allowed(w wanted) error {
	switch {
	case w.kind.Namespaced || g.namespace == "" || g.allNamespaces || g.file != "":
		return nil
	case g.calico:
		return fmt.Errorf("%s is not namespaced", w.kind.Name)
	}
	return fmt.Errorf("-n %s: %s is not namespaced: leave -n out", g.namespace, strings.ToLower(w.kind.Name))
}

// parse reads the arguments, or the file that stands for them.
func (g *get) parse(args []string) ([]wanted, error) {
	switch {
	case g.file != "" && len(args) > 0:
		return nil, &UsageError{fmt.Errorf("-f %s and %s: only one may say what to get", g.file, args[0])}
	case g.file != "":
		return g.named()
	case len(args) == 0:
		return nil, &UsageError{fmt.Errorf("get: what? Name a kind, such as ippool, or a file by -f: kinds are %s", kindNames())}
	case g.calico:
		kind, err := g.kindOf(args[0])
		if err != nil {
			return nil, fmt.Errorf("failed to get resources: %w", err)
		}
		return g.wants([]v3.Kind{kind}, args[1:]), nil
	case strings.Contains(args[0], "/"):
		return g.pairs(args)
	}
	kinds, err := g.kinds(args[0])
	if err != nil {
		return nil, err
	}
	for _, name := range args[1:] {
		kind, _, pair := strings.Cut(name, "/") // a CIDR has a slash too
		if _, err := g.kinds(kind); pair && err == nil {
			return nil, &UsageError{fmt.Errorf("%s %s: must be KIND NAME… or KIND/NAME…, not both", args[0], name)}
		}
	}
	return g.wants(kinds, args[1:]), nil
}

// kinds reads kinds parted by commas.
func (g *get) kinds(text string) ([]v3.Kind, error) {
	var kinds []v3.Kind
	var bad []error
	for name := range strings.SplitSeq(text, ",") {
		kind, err := g.kindOf(name)
		kinds, bad = append(kinds, kind), append(bad, err)
	}
	return kinds, errors.Join(bad...)
}

// pairs reads KIND/NAME of each argument; KIND alone means all of it.
func (g *get) pairs(args []string) ([]wanted, error) {
	var wants []wanted
	var bad []error
	for _, arg := range args {
		text, name, named := strings.Cut(arg, "/")
		kinds, err := g.kinds(text)
		switch {
		case err != nil:
		case named && (name == "" || len(kinds) > 1):
			err = &UsageError{fmt.Errorf("%s: must be KIND/NAME", arg)}
		case named:
			wants = append(wants, g.wants(kinds, []string{name})...)
		default:
			wants = append(wants, g.wants(kinds, nil)...)
		}
		bad = append(bad, err)
	}
	return wants, errors.Join(bad...)
}

// wants is all of the kinds or, if there are names, these of each.
func (g *get) wants(kinds []v3.Kind, names []string) []wanted {
	var wants []wanted
	for _, kind := range kinds {
		w := wanted{kind: kind}
		if kind.Namespaced {
			w.namespace = or(g.namespace, v3.DefaultNamespace)
		}
		if len(names) == 0 {
			if g.allNamespaces {
				w.namespace = ""
			}
			wants = append(wants, w)
		}
		for _, name := range names {
			w.name = name
			wants = append(wants, w)
		}
	}
	return wants
}

// stream prints all of a kind as it arrives: nobody holds all of a long list.
func (g *get) stream(ctx context.Context, w wanted) error {
	const tries = 3
	for try := 1; ; try++ {
		count, unread := 0, []error(nil)
		head := g.head(w)
		pages := func(yield func([]v3.Object, error) bool) {
			for page, err := range store.Pages(ctx, g.store, modelKind(w.kind), w.namespace) {
				objects := g.chosen(page.Objects)
				count, head.ResourceVersion = count+len(objects), page.Revision
				unread = append(unread, page.Unread...)
				if !yield(objects, err) {
					return
				}
			}
		}
		err := g.format.Stream(g.Stdout, &head, pages)
		if errors.Is(err, store.ErrConflict) && try < tries {
			continue // nothing was printed yet
		}
		if err == nil && count == 0 && len(unread) == 0 {
			g.nothing([]wanted{w})
		}
		return errors.Join(append(unread, err)...)
	}
}

// collect prints what is wanted of several kinds or by name: first what there is, then what
// went wrong.
func (g *get) collect(ctx context.Context, wants []wanted) error {
	var results []show.List
	var bad []error
	found := false
	for _, w := range wants {
		l, err := g.one(ctx, w)
		bad = append(bad, err)
		if l != nil {
			results, found = append(results, *l), found || len(l.Objects) > 0
		}
	}
	err := errors.Join(bad...)
	if len(results) > 0 || g.calico {
		if failed := g.format.Print(g.Stdout, results...); failed != nil {
			return errors.Join(failed, err)
		}
	}
	if !found && err == nil {
		g.nothing(wants)
	}
	return err
}

// nothing says that there are no objects, as kubectl does. calicoctl's tables say it by
// themselves, and so do documents.
func (g *get) nothing(wants []wanted) {
	if g.calico || g.format.IsDocument() {
		return
	}
	where := ""
	if namespace := wants[0].namespace; namespace != "" && len(wants) == 1 {
		where = " in namespace " + namespace
	}
	_, _ = fmt.Fprintf(g.Stderr, "No resources found%s\n", where)
}

// head is a list without its objects.
func (g *get) head(w wanted) show.List {
	return show.List{
		Kind: w.kind, Single: w.name != "",
		Namespaces: g.allNamespaces || g.calico && g.namespaceGiven,
	}
}

// chosen are the objects that the selector selects, as they are to be printed.
func (g *get) chosen(objects []store.Object) []v3.Object {
	chosen := make([]v3.Object, 0, len(objects))
	for _, o := range objects {
		switch {
		case g.matches != nil && !g.matches.Matches(o.Meta().Labels):
		case g.export && !g.calico: // calicoctl exports only what is named
			chosen = append(chosen, show.Export(o.Object, true))
		default:
			chosen = append(chosen, o.Object)
		}
	}
	return slices.Clip(chosen)
}

// width is that of the terminal that w is, 0 if it is none.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}
