package reference

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// commands makes a page for each command of the first level, with those below it, and the list
// of them.
func commands(root *cobra.Command) map[string]string {
	pages := map[string]string{}
	var index strings.Builder
	index.WriteString("# Commands\n\n`weft`, also as `kubectl weft`; under the name `calicoctl` it prints what calicoctl prints, for scripts. " +
		"It exits with 0 when all went well, with 1 when something failed, and with 2 when the call was wrong.\n\n| command | |\n| --- | --- |\n")
	for _, cmd := range root.Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		file := cmd.Name() + ".md"
		walk(cmd, func(c *cobra.Command) {
			fmt.Fprintf(&index, "| [%s](%s#%s) | %s |\n", c.CommandPath(), file, strings.ReplaceAll(c.CommandPath(), " ", "-"), cell(plain(c.Short)))
		})
		var page strings.Builder
		walk(cmd, func(c *cobra.Command) { describe(&page, c, c == cmd) })
		pages["commands/"+file] = page.String()
	}
	index.WriteString("\n## Other names\n\n`make build` makes `bin/calicoctl` and `bin/kubectl-weft`, links to `bin/weft`; the image has them too. " +
		"kubectl finds `kubectl-weft` on the PATH and runs it as `kubectl weft`. " +
		"To have the shell complete that as well, put an executable file `kubectl_complete-weft` beside it:\n\n" +
		block("sh", "#!/bin/sh\nexec kubectl-weft __complete \"$@\""))
	fmt.Fprintf(&index, "\n## Flags of all commands\n\n%s", block("", root.PersistentFlags().FlagUsages()))
	pages["commands/README.md"] = index.String()
	return pages
}

// walk visits a command and those below it that are for users.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			walk(sub, visit)
		}
	}
}

// describe writes what the help of a command says.
func describe(b *strings.Builder, cmd *cobra.Command, first bool) {
	mark := "\n## "
	if first {
		mark = "# "
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	fmt.Fprintf(b, "%s%s\n\n%s\n", mark, cmd.CommandPath(), paragraphs(about))
	if cmd.Runnable() && !cmd.HasSubCommands() {
		fmt.Fprintf(b, "\n%s", block("", cmd.UseLine()))
	}
	if cmd.HasExample() {
		fmt.Fprintf(b, "\n%s", block("console", cmd.Example))
	}
	cmd.InitDefaultHelpFlag()
	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		if text := flags.FlagUsages(); strings.Count(text, "\n") > 1 { // more than --help
			fmt.Fprintf(b, "\nFlags:\n\n%s", block("", text))
		}
	}
}

// paragraphs keeps indented text as it is, and leaves the rest to the reader's width.
func paragraphs(text string) string {
	var out []string
	inBlock := false
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
		if indented != inBlock && strings.TrimSpace(line) != "" {
			out = append(out, "```")
			inBlock = indented
		}
		if !inBlock {
			line = plain(line)
		}
		out = append(out, line)
	}
	if inBlock {
		out = append(out, "```")
	}
	return strings.Join(out, "\n")
}

// block is text as it is. What is common to the left of all lines is taken off.
func block(language, text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	common := len(lines[0])
	for _, line := range lines {
		if strings.TrimSpace(line) != "" {
			common = min(common, len(line)-len(strings.TrimLeft(line, " ")))
		}
	}
	for i, line := range lines {
		lines[i] = strings.TrimRight(line[min(common, len(line)):], " ")
	}
	return "```" + language + "\n" + strings.Join(lines, "\n") + "\n```\n"
}
