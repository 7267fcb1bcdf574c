package lab

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
)

// Status is what is in a lab and how it does; its JSON form is that of
// `lab status -o json`.
type Status struct {
	Name     string         `json:"name"`
	Dir      string         `json:"dir"`      // logs: store.log, nodes/N/log, routers/N/log
	Endpoint string         `json:"endpoint"` // of the store, for etcd clients
	Nodes    []NodeStatus   `json:"nodes"`
	Routers  []RouterStatus `json:"routers,omitempty"`
	Pods     []PodStatus    `json:"pods"`
	Outside  []HostStatus   `json:"outside,omitempty"`
}

// The states of nodes and routers.
const (
	StateReady    = "ready"    // it serves
	StateStarting = "starting" // it runs
	StateStopped  = "stopped"  // it does not run: never started, or asked to end
	StateFailed   = "failed"   // it ended by itself
)

// NodeStatus is a node and its agent.
type NodeStatus struct {
	Name      string       `json:"name"`
	Rack      string       `json:"rack"`
	Addresses []netip.Addr `json:"addresses"`
	Links     []LinkStatus `json:"links,omitempty"` // beside the one in Rack
	State     string       `json:"state"`
	PID       int          `json:"pid,omitempty"` // as seen by `lab exec`; 0: it does not run
	Socket    string       `json:"socket"`        // of the node agent
	Log       string       `json:"log"`
}

// LinkStatus is a further interface of a node.
type LinkStatus struct {
	Name      string       `json:"name"` // eth1 …
	Rack      string       `json:"rack"`
	Addresses []netip.Addr `json:"addresses"`
}

// HostStatus is a host outside.
type HostStatus struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

// RouterStatus is a router.
type RouterStatus struct {
	Name      string       `json:"name"`
	Rack      string       `json:"rack"`
	Addresses []netip.Addr `json:"addresses"`
	ASN       uint32       `json:"asn"`
	State     string       `json:"state"`
	PID       int          `json:"pid,omitempty"`
	Socket    string       `json:"socket"` // for birdc -s
	Log       string       `json:"log"`
}

// PodStatus is a pod.
type PodStatus struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses"` // none: not attached
	HostLink  string       `json:"hostLink,omitempty"`
	Netns     string       `json:"netns"` // inside of the lab
}

// WriteTo prints s as tables.
func (s Status) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tRACK\tADDRESSES\tSTATE\tPID")
	for _, n := range s.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Rack, list(n.Addresses), n.State, pidText(n.PID))
		for _, l := range n.Links {
			fmt.Fprintf(t, "  %s\t%s\t%s\t\t\n", l.Name, l.Rack, list(l.Addresses))
		}
	}
	_ = t.Flush()
	if len(s.Routers) > 0 {
		fmt.Fprintln(t, "\nROUTER\tRACK\tADDRESSES\tSTATE\tPID\tAS")
		for _, r := range s.Routers {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\n", r.Name, r.Rack, list(r.Addresses), r.State, pidText(r.PID), r.ASN)
		}
		_ = t.Flush()
	}
	if len(s.Pods) > 0 {
		fmt.Fprintln(t, "\nPOD\tNODE\tADDRESSES\tINTERFACE")
		for _, p := range s.Pods {
			fmt.Fprintf(t, "pod/%s/%s\t%s\t%s\t%s\n", p.Namespace, p.Name, p.Node, list(p.Addresses), orDash(p.HostLink))
		}
		_ = t.Flush()
	}
	if len(s.Outside) > 0 {
		fmt.Fprintln(t, "\nOUTSIDE\tADDRESSES")
		for _, o := range s.Outside {
			fmt.Fprintf(t, "%s\t%s\n", o.Name, list(o.Addresses))
		}
		_ = t.Flush()
	}
	fmt.Fprintf(&b, "\nStore %s, logs in %s\n", s.Endpoint, s.Dir)
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func list(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return orDash(strings.Join(out, ","))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func pidText(pid int) string {
	if pid == 0 {
		return "-"
	}
	return fmt.Sprint(pid)
}
