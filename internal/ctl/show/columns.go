package show

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cell is what stands in a column: a text, or the items of a list.
type cell []string

// column is one of a kind's.
type column struct {
	heading string
	wide    bool // stands in wide tables only
	limit   int  // in Calico's voice longer text is cut to so many bytes; 0: not
	of      func(v3.Object) cell
}

// key is whether the column tells objects apart: it is cut last.
func (c column) key() bool { return c.heading == "NAME" || c.heading == "NAMESPACE" }

// HeadingError says that a kind has no such column.
type HeadingError struct {
	Heading string
	Valid   []string
}

// Error implements error.
func (e *HeadingError) Error() string {
	return fmt.Sprintf("unknown heading %s, valid values are: %s", e.Heading, strings.Join(e.Valid, ", "))
}

// col is a column of every table.
func col[T v3.Object](heading string, of func(T) cell) column {
	return column{heading: heading, of: func(o v3.Object) cell { return of(o.(T)) }}
}

// extra is a column of wide tables.
func extra[T v3.Object](heading string, of func(T) cell) column {
	c := col(heading, of)
	c.wide = true
	return c
}

func one(text string) cell { return cell{text} }

// names are the columns that are the same for all kinds.
func nameColumn() column {
	return column{heading: "NAME", of: func(o v3.Object) cell { return one(o.Meta().Name) }}
}

func namespaceColumn() column {
	return column{heading: "NAMESPACE", of: func(o v3.Object) cell { return one(o.Meta().Namespace) }}
}

// voice is how values are written: what is not set, and numbers.
type voice struct {
	calico bool
	as     v3.ASNumber // of the cluster
}

// order is the text of a place in an order: nil is last. Calico prints large ones
// with an exponent.
func (v voice) order(n *float64) cell {
	switch {
	case n == nil && v.calico:
		return one("<nil>")
	case n == nil:
		return one("-")
	case v.calico:
		return one(fmt.Sprint(*n))
	}
	return one(strconv.FormatFloat(*n, 'f', -1, 64))
}

func isSet[T any](p *T, nothing string) cell {
	if p == nil {
		return one(nothing)
	}
	return one(fmt.Sprint(*p))
}

func number[T ~int | ~int32 | ~uint32](n T) cell { return one(fmt.Sprint(n)) }

// columns of the tables of l, or those that were asked for.
func (f Format) columns(l List) ([]column, error) {
	all := allColumns(l.Kind.Name, voice{f.Calico, l.ASNumber})
	var chosen []column
	switch f.form {
	case formColumns:
		for _, heading := range f.headings {
			c, err := f.column(l.Kind, all, heading)
			if err != nil {
				return nil, err
			}
			chosen = append(chosen, c)
		}
		if !f.Calico {
			return chosen, nil
		}
	case formWide:
		chosen = all
	default:
		chosen = slices.DeleteFunc(all, func(c column) bool { return c.wide })
	}
	if l.Namespaces && l.Kind.Namespaced {
		chosen = slices.Insert(chosen, 0, namespaceColumn())
	}
	return chosen, nil
}

// column finds one by its heading, in any case but in Calico's voice.
func (f Format) column(kind v3.Kind, all []column, heading string) (column, error) {
	if kind.Namespaced && !f.Calico {
		all = append([]column{namespaceColumn()}, all...)
	}
	var valid []string
	for _, c := range all {
		if c.heading == heading || !f.Calico && strings.EqualFold(c.heading, heading) {
			return c, nil
		}
		valid = append(valid, c.heading)
	}
	return column{}, &HeadingError{heading, valid}
}

// allColumns are those of the wide table of a kind.
func allColumns(kind string, v voice) []column {
	switch kind {
	case "IPPool", "IPReservation", "IPAMConfiguration", "IPAMBlock", "BlockAffinity", "IPAMHandle":
		return addressColumns(kind, v)
	case "BGPConfiguration", "BGPPeer", "BGPFilter", "Node", "CalicoNodeStatus":
		return nodeColumns(kind, v)
	case "NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy":
		return policyColumns(v)
	case "WorkloadEndpoint", "HostEndpoint":
		return endpointColumns(kind)
	}
	return otherColumns(kind, v)
}

func addressColumns(kind string, v voice) []column {
	switch kind {
	case "IPPool":
		return []column{
			nameColumn(),
			col("CIDR", func(o *v3.IPPool) cell { return one(o.Spec.CIDR) }),
			extra("NAT", func(o *v3.IPPool) cell { return one(strconv.FormatBool(o.Spec.NATOutgoing)) }),
			extra("IPIPMODE", func(o *v3.IPPool) cell { return one(string(o.Spec.IPIPMode)) }),
			extra("VXLANMODE", func(o *v3.IPPool) cell { return one(string(o.Spec.VXLANMode)) }),
			extra("DISABLED", func(o *v3.IPPool) cell { return one(strconv.FormatBool(o.Spec.Disabled)) }),
			extra("DISABLEBGPEXPORT", func(o *v3.IPPool) cell { return one(strconv.FormatBool(o.Spec.DisableBGPExport)) }),
			col("SELECTOR", func(o *v3.IPPool) cell { return one(o.Spec.NodeSelector) }),
			extra("ASSIGNMENTMODE", func(o *v3.IPPool) cell { return one(string(o.Spec.AssignmentMode)) }),
		}
	case "IPReservation":
		return []column{nameColumn(), extra("CIDRS", func(o *v3.IPReservation) cell { return o.Spec.ReservedCIDRs })}
	case "IPAMConfiguration":
		return []column{
			nameColumn(),
			col("STRICTAFFINITY", func(o *v3.IPAMConfiguration) cell { return one(strconv.FormatBool(o.Spec.StrictAffinity)) }),
			col("AUTOALLOCATEBLOCKS", func(o *v3.IPAMConfiguration) cell { return one(strconv.FormatBool(o.Spec.AutoAllocateBlocks)) }),
			extra("MAXBLOCKSPERHOST", func(o *v3.IPAMConfiguration) cell { return number(o.Spec.MaxBlocksPerHost) }),
		}
	case "IPAMBlock":
		return []column{
			nameColumn(),
			col("CIDR", func(o *v3.IPAMBlock) cell { return one(o.Spec.CIDR) }),
			col("AFFINITY", func(o *v3.IPAMBlock) cell { return isSet(o.Spec.Affinity, "-") }),
			col("IN USE", func(o *v3.IPAMBlock) cell { return one(inUse(o.Spec.Allocations)) }),
		}
	case "BlockAffinity":
		return []column{
			nameColumn(),
			col("CIDR", func(o *v3.BlockAffinity) cell { return one(o.Spec.CIDR) }),
			col("NODE", func(o *v3.BlockAffinity) cell { return one(o.Spec.Node) }),
			col("STATE", func(o *v3.BlockAffinity) cell { return one(string(o.Spec.State)) }),
			extra("TYPE", func(o *v3.BlockAffinity) cell { return one(o.Spec.Type) }),
		}
	default:
		return []column{
			nameColumn(),
			col("ADDRESSES", func(o *v3.IPAMHandle) cell { return number(total(o.Spec.Block)) }),
			extra("BLOCKS", func(o *v3.IPAMHandle) cell { return slices.Sorted(maps.Keys(o.Spec.Block)) }),
		}
	}
}

// inUse is how many of a block's addresses are given out, such as 3/64.
func inUse(allocations []*int) string {
	n := 0
	for _, a := range allocations {
		if a != nil {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(allocations))
}

func total(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

func nodeColumns(kind string, v voice) []column {
	switch kind {
	case "BGPConfiguration":
		return []column{
			nameColumn(),
			col("LOGSEVERITY", func(o *v3.BGPConfiguration) cell { return one(o.Spec.LogSeverityScreen) }),
			col("MESHENABLED", func(o *v3.BGPConfiguration) cell { return isSet(o.Spec.NodeToNodeMeshEnabled, "-") }),
			col("ASNUMBER", func(o *v3.BGPConfiguration) cell { return isSet(o.Spec.ASNumber, "-") }),
		}
	case "BGPPeer":
		return []column{
			nameColumn(),
			col("PEERIP", func(o *v3.BGPPeer) cell { return one(o.Spec.PeerIP) }),
			col("NODE", func(o *v3.BGPPeer) cell { return one(peering(o.Spec)) }),
			col("ASN", func(o *v3.BGPPeer) cell { return number(o.Spec.ASNumber) }),
		}
	case "BGPFilter":
		return []column{
			nameColumn(),
			col("NUMEXPORTV4", func(o *v3.BGPFilter) cell { return number(len(o.Spec.ExportV4)) }),
			col("NUMIMPORTV4", func(o *v3.BGPFilter) cell { return number(len(o.Spec.ImportV4)) }),
			col("NUMEXPORTV6", func(o *v3.BGPFilter) cell { return number(len(o.Spec.ExportV6)) }),
			col("NUMIMPORTV6", func(o *v3.BGPFilter) cell { return number(len(o.Spec.ImportV6)) }),
		}
	case "CalicoNodeStatus":
		return []column{
			nameColumn(),
			col("NODE", func(o *v3.CalicoNodeStatus) cell { return one(o.Spec.Node) }),
			extra("CLASSES", func(o *v3.CalicoNodeStatus) cell { return texts(o.Spec.Classes) }),
		}
	default:
		return []column{
			nameColumn(),
			extra("ASN", func(o *v3.Node) cell { return one(v.asNumber(o.Spec.BGP)) }),
			extra("IPV4", func(o *v3.Node) cell { return one(bgp(o).IPv4Address) }),
			extra("IPV6", func(o *v3.Node) cell { return one(bgp(o).IPv6Address) }),
		}
	}
}

// peering is which nodes keep a session.
func peering(s v3.BGPPeerSpec) string {
	switch {
	case s.Node != "":
		return s.Node
	case s.NodeSelector != "":
		return s.NodeSelector
	}
	return "(global)"
}

// bgp is a node's part in BGP, the zero one if it has none.
func bgp(o *v3.Node) v3.NodeBGPSpec {
	if o.Spec.BGP == nil {
		return v3.NodeBGPSpec{}
	}
	return *o.Spec.BGP
}

// asNumber is that of a node; in parentheses if it is the cluster's.
func (v voice) asNumber(s *v3.NodeBGPSpec) string {
	switch {
	case s == nil:
		return ""
	case s.ASNumber != nil:
		return fmt.Sprint(*s.ASNumber)
	case v.as != 0:
		return fmt.Sprintf("(%d)", v.as)
	}
	return "(64512)"
}

// policyColumns are those of what has a tier.
func policyColumns(v voice) []column {
	return []column{
		nameColumn(),
		{heading: "TIER", of: func(o v3.Object) cell { return one(policyOf(o).tier) }},
		{heading: "ORDER", wide: true, of: func(o v3.Object) cell { return v.order(policyOf(o).order) }},
		{heading: "SELECTOR", wide: true, of: func(o v3.Object) cell { return one(policyOf(o).selector) }},
	}
}

// policy is what the tables of policies show.
type policy struct {
	tier, selector string
	order          *float64
}

func policyOf(o v3.Object) policy {
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		return policy{o.Spec.Tier, o.Spec.Selector, o.Spec.Order}
	case *v3.GlobalNetworkPolicy:
		return policy{o.Spec.Tier, o.Spec.Selector, o.Spec.Order}
	case *v3.StagedNetworkPolicy:
		return policy{o.Spec.Tier, o.Spec.Selector, o.Spec.Order}
	case *v3.StagedGlobalNetworkPolicy:
		return policy{o.Spec.Tier, o.Spec.Selector, o.Spec.Order}
	}
	return policy{}
}

func endpointColumns(kind string) []column {
	if kind == "HostEndpoint" {
		return []column{
			nameColumn(),
			col("NODE", func(o *v3.HostEndpoint) cell { return one(o.Spec.Node) }),
			extra("INTERFACE", func(o *v3.HostEndpoint) cell { return one(o.Spec.InterfaceName) }),
			extra("IPS", func(o *v3.HostEndpoint) cell { return o.Spec.ExpectedIPs }),
			extra("PROFILES", func(o *v3.HostEndpoint) cell { return o.Spec.Profiles }),
		}
	}
	name := nameColumn()
	name.wide = true
	return []column{
		name,
		col("WORKLOAD", func(o *v3.WorkloadEndpoint) cell { return one(workload(o.Spec)) }),
		col("NODE", func(o *v3.WorkloadEndpoint) cell { return one(o.Spec.Node) }),
		col("NETWORKS", func(o *v3.WorkloadEndpoint) cell { return o.Spec.IPNetworks }),
		col("INTERFACE", func(o *v3.WorkloadEndpoint) cell { return one(o.Spec.InterfaceName) }),
		extra("PROFILES", func(o *v3.WorkloadEndpoint) cell { return o.Spec.Profiles }),
		extra("NATS", func(o *v3.WorkloadEndpoint) cell {
			var nats cell
			for _, n := range o.Spec.IPNATs {
				nats = append(nats, n.ExternalIP+"->"+n.InternalIP)
			}
			return nats
		}),
	}
}

// workload is what the endpoint belongs to.
func workload(s v3.WorkloadEndpointSpec) string {
	if s.Orchestrator == v3.OrchestratorKubernetes {
		return s.Pod
	}
	return s.Workload
}

func otherColumns(kind string, v voice) []column {
	const netsLimit = 80 // bytes of a list of networks in Calico's tables
	switch kind {
	case "NetworkSet":
		nets := extra("NETS", func(o *v3.NetworkSet) cell { return o.Spec.Nets })
		nets.limit = netsLimit
		return []column{nameColumn(), nets}
	case "GlobalNetworkSet":
		nets := extra("NETS", func(o *v3.GlobalNetworkSet) cell { return o.Spec.Nets })
		nets.limit = netsLimit
		return []column{nameColumn(), nets}
	case "Tier":
		return []column{nameColumn(), col("ORDER", func(o *v3.Tier) cell { return v.order(o.Spec.Order) })}
	case "Profile":
		return []column{nameColumn(), extra("LABELS", func(o *v3.Profile) cell { return labels(o.Spec.LabelsToApply) })}
	case "StagedKubernetesNetworkPolicy":
		return []column{nameColumn(), extra("PODSELECTOR", func(o *v3.StagedKubernetesNetworkPolicy) cell {
			return one(metav1.FormatLabelSelector(&o.Spec.PodSelector))
		})}
	case "KubernetesNetworkPolicy":
		return []column{nameColumn(), col("PODSELECTOR", func(o *v3.KubernetesNetworkPolicy) cell { return one(metav1.FormatLabelSelector(&o.Spec.PodSelector)) })}
	case "KubernetesClusterNetworkPolicy":
		return []column{
			nameColumn(),
			col("TIER", func(o *v3.KubernetesClusterNetworkPolicy) cell { return one(string(o.Spec.Tier)) }),
			col("PRIORITY", func(o *v3.KubernetesClusterNetworkPolicy) cell { return number(o.Spec.Priority) }),
		}
	case "ClusterInformation":
		nothing := "-"
		if v.calico {
			nothing = "<nil>"
		}
		return []column{
			nameColumn(),
			col("CLUSTERGUID", func(o *v3.ClusterInformation) cell { return one(o.Spec.ClusterGUID) }),
			col("CLUSTERTYPE", func(o *v3.ClusterInformation) cell { return one(o.Spec.ClusterType) }),
			col("CALICOVERSION", func(o *v3.ClusterInformation) cell { return one(o.Spec.CalicoVersion) }),
			col("DATASTOREREADY", func(o *v3.ClusterInformation) cell { return isSet(o.Spec.DatastoreReady, nothing) }),
		}
	}
	return []column{nameColumn()}
}

// labels are name=value, by name.
func labels(m map[string]string) cell {
	var c cell
	for _, name := range slices.Sorted(maps.Keys(m)) {
		c = append(c, name+"="+m[name])
	}
	return c
}

func texts[T ~string](items []T) cell {
	c := make(cell, len(items))
	for i, item := range items {
		c[i] = string(item)
	}
	return c
}
