package diags

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/nft"
)

// link is an interface, as it gets into a bundle.
type link struct {
	Index     int      `json:"index"`
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	State     string   `json:"state"`
	Flags     string   `json:"flags"`
	MTU       int      `json:"mtu"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Received  traffic  `json:"received"`
	Sent      traffic  `json:"sent"`
}

// traffic is what went one way.
type traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Errors  uint64 `json:"errors"`
	Dropped uint64 `json:"dropped"`
}

// route is a route of any table.
type route struct {
	Family   string   `json:"family"`
	Dst      string   `json:"dst"`
	Type     string   `json:"type,omitempty"` // empty: unicast
	Via      []string `json:"via,omitempty"`  // next hops, each with its link
	Link     string   `json:"link,omitempty"`
	Table    int      `json:"table"`
	Protocol int      `json:"protocol"`
	Scope    string   `json:"scope"`
	Metric   int      `json:"metric,omitempty"`
	Src      string   `json:"src,omitempty"`
}

// neighbor is an entry of the tables of neighbours, or of where a bridge or tunnel sends to.
type neighbor struct {
	Addr  string `json:"address"`
	Link  string `json:"link"`
	MAC   string `json:"mac,omitempty"`
	State string `json:"state"`
}

// Network adds what the kernel says of the network namespace of the calling thread.
func (b *Bundle) Network() {
	links, err := netlink.LinkList()
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	linksOut := linkRows(links)
	both(b, "network/links", linksOut, err, func(w io.Writer) {
		_, _ = fmt.Fprintln(w, "INDEX\tNAME\tTYPE\tSTATE\tMTU\tMAC\tRX\tTX\tADDRESSES")
		for _, l := range linksOut {
			_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\n", l.Index, l.Name, l.Type, l.State, l.MTU, l.MAC, l.Received.Packets, l.Sent.Packets, strings.Join(l.Addresses, " "))
		}
	})
	routes, err := routeRows(names)
	both(b, "network/routes", routes, err, func(w io.Writer) {
		for _, r := range routes {
			_, _ = fmt.Fprintln(w, r)
		}
	})
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	ruleText := make([]string, 0, len(rules))
	for i := range rules {
		ruleText = append(ruleText, rules[i].String())
	}
	both(b, "network/rules", ruleText, err, func(w io.Writer) { _, _ = fmt.Fprintln(w, strings.Join(ruleText, "\n")) })
	neighbors, err := neighborRows(names)
	both(b, "network/neighbors", neighbors, err, func(w io.Writer) {
		_, _ = fmt.Fprintln(w, "ADDRESS\tLINK\tMAC\tSTATE")
		for _, n := range neighbors {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Addr, n.Link, n.MAC, n.State)
		}
	})
	b.Text("network/nft.txt", nft.List)
	b.settings()
}

// both adds rows as JSON and as a text.
func both[T any](b *Bundle, name string, rows []T, err error, text func(w io.Writer)) {
	if err != nil {
		err = fmt.Errorf("read from the kernel: %w", err)
	}
	b.Text(name+".json", func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		if werr := e.Encode(rows); werr != nil {
			return werr
		}
		return err
	})
	b.Text(name+".txt", func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		text(t)
		return t.Flush()
	})
}

func linkRows(links []netlink.Link) []link {
	out := make([]link, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		row := link{Index: a.Index, Name: a.Name, Type: l.Type(), State: a.OperState.String(), Flags: a.Flags.String(), MTU: a.MTU, MAC: a.HardwareAddr.String()}
		if s := a.Statistics; s != nil {
			row.Received = traffic{s.RxPackets, s.RxBytes, s.RxErrors, s.RxDropped}
			row.Sent = traffic{s.TxPackets, s.TxBytes, s.TxErrors, s.TxDropped}
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil { // the link is gone
			continue
		}
		for _, addr := range addrs {
			row.Addresses = append(row.Addresses, addr.IPNet.String())
		}
		out = append(out, row)
	}
	return out
}

func routeRows(names map[int]string) ([]route, error) {
	var out []route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return out, err
		}
		for i := range all {
			out = append(out, routeRow(&all[i], names))
		}
	}
	slices.SortStableFunc(out, func(a, b route) int { return cmp.Or(strings.Compare(a.Family, b.Family), a.Table-b.Table) })
	return out, nil
}

func routeRow(r *netlink.Route, names map[int]string) route {
	out := route{Family: "ipv4", Dst: "default", Link: names[r.LinkIndex], Table: r.Table, Protocol: int(r.Protocol), Scope: r.Scope.String(), Metric: r.Priority}
	if r.Family == netlink.FAMILY_V6 {
		out.Family = "ipv6"
	}
	if r.Dst != nil {
		out.Dst = r.Dst.String()
	}
	if r.Src != nil {
		out.Src = r.Src.String()
	}
	if r.Gw != nil {
		out.Via = []string{r.Gw.String()}
	}
	for _, hop := range r.MultiPath {
		out.Via = append(out.Via, fmt.Sprintf("%v dev %s", hop.Gw, names[hop.LinkIndex]))
	}
	kinds := map[int]string{unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw"}
	out.Type = kinds[r.Type]
	return out
}

// String is the route as ip(8) writes it, with the number of its table and protocol.
func (r route) String() string {
	text := strings.TrimSpace(r.Type + " " + r.Dst)
	for _, hop := range r.Via {
		text += " via " + hop
	}
	if r.Link != "" {
		text += " dev " + r.Link
	}
	text += fmt.Sprintf(" table %d proto %d scope %s", r.Table, r.Protocol, r.Scope)
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	if r.Src != "" {
		text += " src " + r.Src
	}
	return text
}

func neighborRows(names map[int]string) ([]neighbor, error) {
	var out []neighbor
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		all, err := netlink.NeighList(0, family)
		if err != nil {
			return out, err
		}
		for _, n := range all {
			out = append(out, neighbor{Addr: n.IP.String(), Link: names[n.LinkIndex], MAC: n.HardwareAddr.String(), State: stateText(n.State)})
		}
	}
	return out, nil
}

// stateText names the state of a neighbour, NUD_*.
func stateText(state int) string {
	var out []string
	for i, name := range []string{"incomplete", "reachable", "stale", "delay", "probe", "failed", "noarp", "permanent"} {
		if state&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

// settings adds those of the kernel that decide whether packets of pods get on.
func (b *Bundle) settings() {
	b.Text("network/sysctls.txt", func(w io.Writer) error {
		for _, path := range []string{
			"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter", "net/ipv4/conf/all/proxy_arp",
			"net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/accept_ra",
			"net/ipv4/fib_multipath_hash_policy", "net/ipv6/fib_multipath_hash_policy", "net/ipv4/ip_local_port_range",
			"net/ipv4/neigh/default/gc_thresh1", "net/ipv4/neigh/default/gc_thresh2", "net/ipv4/neigh/default/gc_thresh3",
			"net/ipv6/neigh/default/gc_thresh3", "net/ipv6/route/max_size", "net/core/rmem_max", "net/core/wmem_max",
			"net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_buckets", "kernel/osrelease",
		} {
			text, err := os.ReadFile("/proc/sys/" + path)
			if err != nil {
				text = []byte("(" + err.Error() + ")") // which itself says something
			}
			_, _ = fmt.Fprintf(w, "%s = %s\n", strings.ReplaceAll(path, "/", "."), strings.TrimSpace(string(text)))
		}
		return nil
	})
	for _, f := range []struct{ name, path string }{
		{"network/conntrack.txt", "/proc/net/stat/nf_conntrack"},
		{"network/sockets.txt", "/proc/net/sockstat"},
		{"system/memory.txt", "/proc/meminfo"},
		{"system/version.txt", "/proc/version"},
		{"system/uptime.txt", "/proc/uptime"},
	} {
		b.File(f.name, f.path, fileLimit)
	}
}
