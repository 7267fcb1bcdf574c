package ctl

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/weft-net/weft/api/v3"
)

// completionTimeout is how long somebody who pressed the tabulator may wait for the names of
// objects.
const completionTimeout = 2 * time.Second

// completion adds the command that prints scripts for shells, and says what may follow the
// commands that take a kind and names.
func (c *client) completion(root *cobra.Command) {
	// The command that cobra makes has the script of each shell in it. It is made here already
	// so that its arguments are judged as those of all others are.
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			cmd.Short = "Print a script by which a shell completes commands, kinds and names"
			c.shells(cmd)
		case "get", "delete":
			cmd.ValidArgsFunction = c.completeObjects(manyNames)
		case "patch", "label":
			cmd.ValidArgsFunction = c.completeObjects(1)
		default:
			continue
		}
		if f := cmd.Flags().Lookup("namespace"); f != nil {
			_ = cmd.RegisterFlagCompletionFunc("namespace", c.completeNamespaces) // the flag is there
		}
	}
}

// shells gives the commands of the shells their examples.
func (c *client) shells(completion *cobra.Command) {
	name := c.name()
	completion.Example = "  source <(" + name + " completion bash)"
	for shell, example := range map[string]string{
		"bash":       "  source <(" + name + " completion bash)",
		"zsh":        "  " + name + " completion zsh > \"${fpath[1]}/_" + name + "\"",
		"fish":       "  " + name + " completion fish | source",
		"powershell": "  " + name + " completion powershell | Out-String | Invoke-Expression",
	} {
		if cmd, _, err := completion.Find([]string{shell}); err == nil && cmd != completion {
			cmd.Short, cmd.Example = "Print the script for "+shell, example
		}
	}
}

// manyNames is for commands that take any number of names.
const manyNames = 1 << 10

// completeObjects completes a kind, then up to most names of its objects.
func (c *client) completeObjects(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		const nothing = cobra.ShellCompDirectiveNoFileComp
		switch {
		case len(args) == 0:
			return c.kindWords(begun), nothing
		case len(args) > most:
			return nil, nothing
		}
		kind, err := c.kindOf(args[0])
		if err != nil {
			return nil, nothing
		}
		namespace, _ := cmd.Flags().GetString("namespace")
		if namespace == "" {
			namespace = "default"
		}
		if all, err := cmd.Flags().GetBool("all-namespaces"); err == nil && all || !kind.Namespaced {
			namespace = ""
		}
		var names []string
		for _, o := range c.known(cmd.Context(), kind, namespace) {
			if name := o.Meta().Name; strings.HasPrefix(name, begun) {
				names = append(names, name)
			}
		}
		return names, nothing
	}
}

// kindWords are the plurals and short names that begin like that. The plural is told with the
// kind beside it, which shells show.
func (c *client) kindWords(begun string) []string {
	var words []string
	for _, k := range v3.Kinds() {
		for _, word := range append([]string{k.Plural, strings.ToLower(k.Name)}, k.ShortNames...) {
			if strings.HasPrefix(word, strings.ToLower(begun)) && (!c.calico || offered(k, word)) {
				words = append(words, word+"\t"+k.Name)
			}
		}
	}
	return words
}

// completeNamespaces completes those that policies, sets and workloads are in.
func (c *client) completeNamespaces(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	seen := map[string]bool{}
	var names []string
	for _, kind := range []string{"NetworkPolicy", "NetworkSet", "WorkloadEndpoint"} {
		k, _ := v3.KindByName(kind)
		for _, o := range c.known(cmd.Context(), k, "") {
			if name := o.Meta().Namespace; strings.HasPrefix(name, begun) && !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// known lists objects of the datastore, those that can be read in time. There is nobody to tell
// of what fails: the shell shows words only.
func (c *client) known(ctx context.Context, kind v3.Kind, namespace string) []v3.Object {
	if ctx == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	quiet := *c
	quiet.Stderr = io.Discard
	st, err := quiet.open(ctx)
	if err != nil {
		return nil
	}
	defer func() { _ = st.Close() }()
	stored, err := st.List(ctx, modelKind(kind), namespace)
	if err != nil && len(stored) == 0 {
		return nil
	}
	objects := make([]v3.Object, 0, len(stored))
	for _, one := range stored {
		objects = append(objects, one.Object)
	}
	return objects
}
