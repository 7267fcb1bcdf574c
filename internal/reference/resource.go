package reference

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/crd"
)

// resources makes a page for each kind, and the list of them.
func resources(kinds []crd.Described) map[string]string {
	pages := map[string]string{}
	var index strings.Builder
	index.WriteString("# Resources\n\nThe objects of `projectcalico.org/v3`, as `weft apply` takes them and `weft get -o yaml` prints them. " +
		"Names of fields are read in any case; a field that a kind does not have is refused. " +
		"In tables, `[]` is each element of a list and `{}` each value of a map.\n\n" +
		"| kind | other names | scope | |\n| --- | --- | --- | --- |\n")
	for _, k := range kinds {
		file := strings.ToLower(k.Kind.Name) + ".md"
		fmt.Fprintf(&index, "| [%s](%s) | %s | %s | %s |\n", k.Kind.Name, file, code(names(k.Kind)...), scope(k.Kind), cell(sentence(k.About)))
		pages["resources/"+file] = resource(k)
	}
	index.WriteString("\n`weft get` shows some kinds of Kubernetes too: " + code(foreign()...) + ". Kubernetes' own reference tells what they hold.\n")
	pages["resources/README.md"] = index.String()
	return pages
}

// foreign are the kinds whose documents Kubernetes defines.
func foreign() []string {
	var all []string
	for _, k := range v3.Kinds() {
		if t := k.TypeMeta(); t.APIVersion != v3.APIVersion {
			all = append(all, strings.ToLower(k.Name))
		}
	}
	return all
}

func names(k v3.Kind) []string { return append([]string{k.Plural}, k.ShortNames...) }

func scope(k v3.Kind) string {
	if k.Namespaced {
		return "a namespace"
	}
	return "the cluster"
}

// resource is the page of one kind.
func resource(k crd.Described) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\nOther names on the command line: %s. It belongs to %s.\n\n", k.Kind.Name, plain(k.About), code(names(k.Kind)...), scope(k.Kind))
	fmt.Fprintf(&b, "```yaml\napiVersion: %s\nkind: %s\nmetadata:\n  name: …\n", v3.APIVersion, k.Kind.Name)
	if k.Kind.Namespaced {
		b.WriteString("  namespace: default\n")
	}
	b.WriteString("spec: …\n```\n")
	if p := k.Schema.Properties["metadata"]; p != nil && p.Properties["name"] != nil {
		if text := allowed(p.Properties["name"]); text != "" {
			fmt.Fprintf(&b, "\n`metadata.name`: %s.\n", text)
		}
	}
	if text := messages(&k.Schema); text != "" {
		fmt.Fprintf(&b, "\nRules of the whole: %s.\n", text)
	}
	for _, part := range []string{"spec", "status"} {
		s := k.Schema.Properties[part]
		if s == nil || len(s.Properties) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", part)
		if text := messages(s); text != "" {
			fmt.Fprintf(&b, "Rules: %s.\n\n", text)
		}
		b.WriteString("| field | type | default | allowed | meaning |\n| --- | --- | --- | --- | --- |\n")
		fields(&b, "", s)
	}
	return b.String()
}

// fields writes a row for each field, those within after the one that holds them.
func fields(b *strings.Builder, path string, s *crd.Schema) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		where := path + name
		fallback := ""
		if p.Default != nil {
			if text, err := json.Marshal(p.Default); err == nil && string(text) != "{}" {
				fallback = code(string(text))
			}
		}
		limits := allowed(p)
		if slices.Contains(s.Required, name) {
			limits = strings.TrimSuffix("required; "+limits, "; ")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", where, typeOf(p), fallback, cell(limits), cell(plain(p.Description)))
		within(b, where, p)
	}
}

// within writes the fields of what a field holds.
func within(b *strings.Builder, where string, p *crd.Schema) {
	switch {
	case p.Items != nil:
		within(b, where+"[]", p.Items)
	case p.AdditionalProperties != nil:
		within(b, where+"{}", p.AdditionalProperties)
	case len(p.Properties) > 0:
		fields(b, where+".", p)
	}
}

// typeOf is how a value is written.
func typeOf(s *crd.Schema) string {
	switch {
	case s.IntOrString:
		return "number or text"
	case s.Items != nil:
		return "list of " + typeOf(s.Items)
	case s.AdditionalProperties != nil:
		return "map to " + typeOf(s.AdditionalProperties)
	case s.Format == "date-time":
		return "time"
	}
	switch s.Type {
	case "string":
		return "text"
	case "integer":
		return "integer"
	case "boolean":
		return "true or false"
	case "":
		return "any"
	}
	return s.Type
}

// allowed says which values a field takes; empty when its type says all.
func allowed(s *crd.Schema) string {
	var parts []string
	if len(s.Enum) > 0 {
		words := make([]string, 0, len(s.Enum))
		for _, w := range s.Enum {
			if text := fmt.Sprint(w); text != "" {
				words = append(words, text)
			}
		}
		parts = append(parts, code(words...))
	}
	switch low, high := s.Minimum, s.Maximum; {
	case low != nil && high != nil:
		parts = append(parts, fmt.Sprintf("%d to %d", *low, *high))
	case low != nil:
		parts = append(parts, fmt.Sprintf("at least %d", *low))
	case high != nil:
		parts = append(parts, fmt.Sprintf("at most %d", *high))
	}
	if s.MaxLength != nil {
		parts = append(parts, fmt.Sprintf("at most %d characters", *s.MaxLength))
	}
	if s.MaxItems > 0 {
		parts = append(parts, fmt.Sprintf("at most %d elements", s.MaxItems))
	}
	if s.Pattern != "" && len(s.Pattern) <= 60 {
		parts = append(parts, "pattern "+code(s.Pattern))
	}
	if text := messages(s); text != "" {
		parts = append(parts, text)
	}
	if s.Items != nil {
		if text := allowed(s.Items); text != "" {
			parts = append(parts, "each: "+text)
		}
	}
	return strings.Join(parts, "; ")
}

// messages are what the rules of a value say.
func messages(s *crd.Schema) string {
	var all []string
	for _, r := range s.Rules {
		text := r.Message
		if r.FieldPath != "" {
			text = "`" + strings.TrimPrefix(r.FieldPath, ".") + "` " + text
		}
		if text != "" && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, "; ")
}

// code sets words in the type of code.
func code(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "`" + w + "`"
	}
	return strings.Join(quoted, ", ")
}

// cell is text within a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// plain is text that Markdown leaves as it is.
func plain(text string) string {
	return strings.NewReplacer("<", "&lt;", "*", "\\*", "_", "\\_").Replace(text)
}

// sentence is the first of a text.
func sentence(text string) string {
	first, _, cut := strings.Cut(text, ". ")
	if cut {
		return plain(first) + "."
	}
	return plain(first)
}
