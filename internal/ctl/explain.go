package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/path"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/spelling"
	"github.com/weft-net/weft/internal/store"
)

// explainOptions are the flags of weft explain.
type explainOptions struct {
	protocol             string
	port, sourcePort     uint16
	icmpType, icmpCode   int
	at, link             string
	expect               string
	verbose              bool
	files, also          []string
	output               *string
	portSet, icmpTypeSet bool
}

func explainCommand(c *client) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain SOURCE DESTINATION",
		Short: "Say whether a packet may pass, which policy decides it, and which way it takes",
		Long: `Say what becomes of the first packet of a connection, and why: every tier, policy,
rule and profile that it meets, on the source's node and on the destination's, and the
route, tunnel, translation and MTU on each, from the same code that the node agents
compile for the kernel. It also says what would be
different if a staged policy were enforced. Answers of a connection always pass.

An end is one of
  pod/NAMESPACE/NAME            or pod/NAME in the namespace default
  host/NODE                     the node itself
  hostendpoint/NAME
  workloadendpoint/NAMESPACE/NAME
  networkset/NAMESPACE/NAME     its first address
  globalnetworkset/NAME
  ADDRESS                       whoever has it
and any but the last may say as which address: pod/shop/web@10.0.0.7.

The exit code is 0 for every answer, unless --expect says which it has to be.`,
		Example: "  weft explain pod/shop/web pod/shop/db --port 5432\n" +
			"  weft explain 198.51.100.7 pod/shop/web --protocol udp --port 53 --verbose\n" +
			"  weft explain pod/shop/web pod/shop/db --port 5432 --with new-policy.yaml --expect allow",
		Args: cobra.ExactArgs(2),
	}
	f := cmd.Flags()
	f.StringVar(&o.protocol, "protocol", "", "tcp, udp, sctp, udplite, icmp, icmpv6 or 1 to 255; tcp when --port is given")
	f.Uint16Var(&o.port, "port", 0, "destination port")
	f.Uint16Var(&o.sourcePort, "source-port", 32768, "source port")
	f.IntVar(&o.icmpType, "icmp-type", 8, "type of the ICMP message; of ICMPv6 128 is the default (echo request)")
	f.IntVar(&o.icmpCode, "icmp-code", 0, "code of the ICMP message")
	f.StringVar(&o.at, "at", "", "only what this node judges")
	f.StringVar(&o.link, "interface", "", "the interface that leads from node to node, which finds host endpoints; default: by address")
	f.StringVar(&o.expect, "expect", "", "allow or deny: the exit code is 1 if the answer is another")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "list also the rules that do not match, and why")
	f.StringSliceVarP(&o.files, "filename", "f", nil, "take the cluster from these files instead of the datastore")
	f.StringSliceVar(&o.also, "with", nil, "as if the objects in these files were applied")
	o.output = outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.portSet, o.icmpTypeSet = cmd.Flags().Changed("port"), cmd.Flags().Changed("icmp-type")
		return explain(cmd.Context(), c, o, args[0], args[1])
	}
	return cmd
}

func explain(ctx context.Context, c *client, o explainOptions, src, dst string) error {
	if o.expect != "" && o.expect != "allow" && o.expect != "deny" {
		return &UsageError{fmt.Errorf("--expect %s: must be allow or deny", o.expect)}
	}
	world, notes, err := o.world(ctx, c)
	if err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	v := policy.NewView(world).Translating(func(node string, p plan.Packet) (netip.Addr, string, bool) {
		return edge.Seen(edge.Options{Node: node}, world, p)
	})
	q, err := o.query(v, src, dst)
	if err != nil {
		return err
	}
	e, err := v.Verdict(q)
	if err != nil {
		return fmt.Errorf("explain: %s to %s: %w", src, dst, err)
	}
	e.Notes = append(e.Notes, notes...)
	answer := explanation{e, o.hops(world, q, e)}
	if q.Protocol == 0 {
		e.Notes = append(e.Notes, "no protocol is given: rules that name one do not match; --protocol and --port say more")
	}
	answer.Explanation = e
	print := func(w io.Writer) error { _, err := io.WriteString(w, answer.String()); return err }
	if err := printAs(c.Stdout, *o.output, answer, print); err != nil {
		return err
	}
	if o.expect != "" && e.Allowed != (o.expect == "allow") {
		return fmt.Errorf("explain: %s to %s: expected %s", src, dst, o.expect)
	}
	return nil
}

// explanation is whether a packet may pass, and which way it takes.
type explanation struct {
	policy.Explanation
	Path []path.Hop `json:"path,omitempty"`
}

// String is e for people.
func (e explanation) String() string {
	text := e.Explanation.String()
	if len(e.Path) > 0 {
		text += "\n" + path.Text(e.Path)
	}
	return text
}

// hops is the way of the packet; none where nothing is known of addresses, as with files
// of policies.
func (o *explainOptions) hops(w model.World, q policy.Query, e policy.Explanation) []path.Hop {
	known := false
	for k := range w {
		known = known || k.Kind == model.KindIPAMBlock
	}
	src, err := netip.ParseAddr(e.Source.Addr)
	dst, err2 := netip.ParseAddr(e.Destination.Addr)
	if !known || err != nil || err2 != nil {
		return nil
	}
	packet := plan.Packet{Src: src, Dst: dst, Protocol: q.Protocol, SrcPort: q.SrcPort, DstPort: q.DstPort, ICMPType: q.ICMPType, ICMPCode: q.ICMPCode}
	all := path.Trace(w, path.Query{Packet: packet, From: e.Source.Node, To: e.Destination.Node})
	return slices.DeleteFunc(all, func(h path.Hop) bool { return o.at != "" && h.Node != o.at })
}

// world is the cluster that the question is about, and what is to be known of it.
func (o *explainOptions) world(ctx context.Context, c *client) (w model.World, notes []string, err error) {
	if len(o.files) > 0 {
		w = model.World{}
	} else if w, notes, err = storedWorld(ctx, c); err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Concat(o.files, o.also) {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, err
		}
		objects, err := v3.DecodeAll(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, obj := range objects {
			value, err := model.Parse(obj)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %s: %w", name, v3.Describe(obj), err)
			}
			if value != nil {
				w[value.Key()] = value
			}
		}
	}
	return w, notes, nil
}

// storedWorld reads the datastore as an agent does that starts now: of an object that
// is not valid counts what can be understood of it.
func storedWorld(ctx context.Context, c *client) (model.World, []string, error) {
	st, err := c.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = st.Close() }()
	kinds := append(policy.Kinds(), model.KindIPAMBlock, model.KindIPPool, model.KindBGPConfiguration)
	slices.Sort(kinds)
	w, invalids, err := store.Snapshot(ctx, st, slices.Compact(kinds)...)
	if err != nil {
		return nil, nil, err
	}
	var notes []string
	for _, in := range invalids {
		text := "it is passed over"
		if in.Strict != nil {
			text = "it counts only in so far as it denies"
		}
		notes = append(notes, fmt.Sprintf("%v is not valid: %v: %s, where no agent knows an earlier version", in.Key, in.Err, text))
	}
	return w, notes, nil
}

// query makes a question of the arguments. An error is one of usage, or names what is
// not there.
func (o *explainOptions) query(v *policy.View, src, dst string) (policy.Query, error) {
	q := policy.Query{SrcPort: o.sourcePort, DstPort: o.port, Uplink: o.link, At: o.at, Verbose: o.verbose}
	var err error
	if q.Src, err = endOf(v, src); err != nil {
		return q, err
	}
	if q.Dst, err = endOf(v, dst); err != nil {
		return q, err
	}
	if o.at != "" && v.World()[model.Node{Name: o.at}.Key()] == nil {
		return q, fmt.Errorf("explain: --at %s: there is no such node: %s", o.at, near(v, model.KindNode, "", o.at))
	}
	if q.Protocol, err = protocolNumber(o.protocol); err != nil {
		return q, err
	}
	if q.Protocol == 0 && o.portSet {
		q.Protocol, _ = protocolNumber("tcp")
	}
	if o.portSet && !policy.HasPorts(q.Protocol) {
		return q, &UsageError{fmt.Errorf("--port %d: %s has no ports", o.port, policy.ProtocolName(q.Protocol))}
	}
	if o.icmpType < 0 || o.icmpType > 255 || o.icmpCode < 0 || o.icmpCode > 255 {
		return q, &UsageError{fmt.Errorf("--icmp-type %d --icmp-code %d: must be 0 to 255", o.icmpType, o.icmpCode)}
	}
	switch name := policy.ProtocolName(q.Protocol); {
	case name == "ICMPv6" && !o.icmpTypeSet:
		q.ICMPType, q.ICMPCode = 128, uint8(o.icmpCode)
	case name == "ICMP" || name == "ICMPv6":
		q.ICMPType, q.ICMPCode = uint8(o.icmpType), uint8(o.icmpCode)
	}
	return q, nil
}

// protocolNumber reads a protocol in any case; empty is 0.
func protocolNumber(text string) (uint8, error) {
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(text, 10, 8); err == nil && n > 0 {
		return uint8(n), nil
	}
	for _, n := range []uint8{1, 6, 17, 58, 132, 136} {
		if strings.EqualFold(policy.ProtocolName(n), text) {
			return n, nil
		}
	}
	return 0, &UsageError{fmt.Errorf("--protocol %s: must be tcp, udp, sctp, udplite, icmp, icmpv6 or 1 to 255", text)}
}

// endOf reads an end of a packet.
func endOf(v *policy.View, text string) (policy.Party, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return policy.Party{Addr: a}, nil
	}
	name, as, asked := strings.Cut(text, "@")
	var p policy.Party
	if asked {
		a, err := netip.ParseAddr(as)
		if err != nil {
			return p, &UsageError{fmt.Errorf("%s: %q must be an address", text, as)}
		}
		p.Addr = a
	}
	kind, rest, _ := strings.Cut(name, "/")
	namespace, object, namespaced := strings.Cut(rest, "/")
	if !namespaced {
		namespace, object = "", rest
	}
	switch strings.ToLower(kind) {
	case "pod", "workloadendpoint", "wep", "networkset", "netset":
		if !namespaced {
			namespace = "default"
		}
	case "host", "node", "hostendpoint", "hep", "globalnetworkset", "gns":
		namespaced = namespaced || object == ""
		if namespaced {
			return p, &UsageError{fmt.Errorf("%s: want %s/NAME", text, kind)}
		}
	default:
		return p, &UsageError{fmt.Errorf("%s: must be pod/NAMESPACE/NAME, host/NODE, networkset/NAMESPACE/NAME, globalnetworkset/NAME or an address: see 'weft explain --help'", text)}
	}
	var err error
	p.Key, err = keyOfEnd(v, strings.ToLower(kind), namespace, object)
	return p, err
}

// keyOfEnd finds the object, or says what else there is.
func keyOfEnd(v *policy.View, kind, namespace, name string) (model.Key, error) {
	k := model.Key{Namespace: namespace, Name: name}
	switch kind {
	case "pod":
		for _, s := range v.Subjects() {
			if ep, ok := v.World()[s.Key].(model.Endpoint); ok && ep.Namespace == namespace && ep.Pod == name {
				return s.Key, nil
			}
		}
		return k, fmt.Errorf("explain: pod/%s/%s: there is no endpoint of such a pod: %s", namespace, name, near(v, model.KindWorkloadEndpoint, namespace, name))
	case "workloadendpoint", "wep":
		k.Kind = model.KindWorkloadEndpoint
	case "networkset", "netset":
		k.Kind = model.KindNetworkSet
	case "globalnetworkset", "gns":
		k.Kind = model.KindGlobalNetworkSet
	case "hostendpoint", "hep":
		k.Kind = model.KindHostEndpoint
	case "host", "node":
		k.Kind = model.KindNode
	}
	if v.World()[k] == nil {
		return k, fmt.Errorf("explain: %v: %w: %s", k, errNoObject, near(v, k.Kind, namespace, name))
	}
	return k, nil
}

var errNoObject = errors.New("there is no such object")

// near names objects that could have been meant: of like names, else of the
// namespace, else any.
func near(v *policy.View, kind model.Kind, namespace, name string) string {
	type candidate struct {
		text     string
		distance int
	}
	var all []candidate
	for k, value := range v.World() {
		if k.Kind != kind {
			continue
		}
		text, its := k.Name, k.Name
		if ep, ok := value.(model.Endpoint); ok && ep.Pod != "" {
			text, its = "pod/"+k.Namespace+"/"+ep.Pod, ep.Pod
		} else if k.Namespace != "" {
			text = k.Namespace + "/" + k.Name
		}
		c := candidate{text, spelling.Edits(name, its)}
		if k.Namespace != namespace {
			c.distance += 2
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return fmt.Sprintf("the datastore has no %s at all", kind)
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.text, b.text)
	})
	var names []string
	for _, c := range all[:min(len(all), 3)] {
		names = append(names, c.text)
	}
	return fmt.Sprintf("of %d the nearest are %s", len(all), strings.Join(names, ", "))
}
