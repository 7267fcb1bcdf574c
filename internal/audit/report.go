package audit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Report is a Result as a file, in the form of calicoctl's, so that each of the two tools
// takes the report of the other.
type Report struct {
	Version         string            `json:"version"`
	ClusterGUID     string            `json:"clusterGUID"`
	DatastoreLocked bool              `json:"datastoreLocked"`
	ClusterRevision string            `json:"clusterInformationRevision"`
	ClusterType     string            `json:"clusterType"`
	Allocations     map[string][]Line `json:"allocations"` // by address
	LeakedHandles   []HandleLine      `json:"leakedHandles,omitempty"`
	// Findings are all of them, for people: a release does not read them. calicoctl has
	// no such field.
	Findings []Finding `json:"findings,omitempty"`
}

// Line is one allocation in a report.
type Line struct {
	Addr     string   `json:"ip"`
	Handle   string   `json:"handle"`
	Sequence *uint64  `json:"sequenceNumber"`
	Pod      string   `json:"pod"`
	NS       string   `json:"namespace"`
	Node     string   `json:"node"`
	Created  string   `json:"creationTimestamp"`
	InUse    bool     `json:"inUse"`
	Borrowed bool     `json:"borrowed,omitempty"`
	Owners   []string `json:"owners"`
}

// HandleLine is one handle that holds nothing in a report.
type HandleLine struct {
	ID       string `json:"id"`
	Revision string `json:"revision"`
	UID      string `json:"uid,omitempty"`
}

// Lines are the allocations of a result as a report has them. What is kept for a reason
// counts as in use.
func Lines(r Result) map[string][]Line {
	out := make(map[string][]Line, len(r.Allocations))
	for _, a := range r.Allocations {
		key := a.Addr.String()
		l := Line{
			Addr: key, Handle: a.By.Handle, Sequence: &a.Sequence, Pod: a.By.Secondary["pod"], NS: a.By.Secondary["namespace"],
			Node: a.By.Secondary["node"], Created: a.By.Secondary["timestamp"], InUse: len(a.Users) > 0 || a.Kept != "", Borrowed: a.Borrowed,
		}
		for _, u := range a.Users {
			l.Owners = append(l.Owners, u.String())
		}
		if a.Kept != "" {
			l.Owners = append(l.Owners, a.Kept)
		}
		out[key] = append(out[key], l)
	}
	return out
}

// Skipped is a line of a report that is not released, and why.
type Skipped struct {
	Addr   netip.Addr `json:"address,omitzero"`
	Handle string     `json:"handle,omitempty"`
	Why    string     `json:"why"`
}

// Releases is what may be released by reports.
type Releases struct {
	Addrs   []Finding // by address, with the handle and sequence that must still hold
	Handles []string
	Skipped []Skipped
	Listed  int // addresses that all reports call unused
}

// Releasable compares reports with the world as it is now: what may be released is what
// all reports call unused with the same handle and sequence, and is a leak now. The error
// says which line of which report makes no sense.
func Releasable(reports []Report, now Result) (Releases, error) {
	var out Releases
	if len(reports) == 0 {
		return out, errors.New("audit: no report")
	}
	leaks := map[assignment]Finding{}
	for _, f := range now.Of(Leaked, Stray) {
		if f.Mends {
			leaks[assignment{f.Addr, f.Handle, f.Sequence}] = f
		}
	}
	live := map[netip.Addr][]Allocation{}
	for _, a := range now.Allocations {
		live[a.Addr] = append(live[a.Addr], a)
	}
	listed, err := agreed(reports)
	if err != nil {
		return out, err
	}
	out.Listed = len(listed)
	for _, l := range listed {
		if f, ok := leaks[l]; ok && len(live[l.addr]) == 1 {
			out.Addrs = append(out.Addrs, f)
			continue
		}
		out.Skipped = append(out.Skipped, Skipped{l.addr, l.handle, whyNot(l, live[l.addr])})
	}
	orphans := map[string]bool{}
	for _, f := range now.Of(OrphanHandle) {
		orphans[strings.ToLower(f.Handle)] = true
	}
	for _, h := range agreedHandles(reports) {
		if orphans[strings.ToLower(h)] {
			out.Handles = append(out.Handles, h)
		} else {
			out.Skipped = append(out.Skipped, Skipped{Handle: h, Why: "the handle is gone, or holds addresses now"})
		}
	}
	return out, nil
}

// assignment identifies the allocation that a line of a report is about.
type assignment struct {
	addr     netip.Addr
	handle   string
	sequence uint64
}

// agreed are the allocations that all reports call unused, by address.
func agreed(reports []Report) ([]assignment, error) {
	times := map[assignment]int{}
	for i, r := range reports {
		seen := map[assignment]bool{}
		for key, lines := range r.Allocations {
			for _, l := range lines {
				a, err := netip.ParseAddr(l.Addr)
				switch {
				case err != nil || key != l.Addr:
					return nil, fmt.Errorf("report %d: allocations[%q]: ip %q: must be the same IP address", i+1, key, l.Addr)
				case l.Sequence == nil:
					return nil, fmt.Errorf("report %d: allocations[%q]: sequenceNumber is missing: make the report anew", i+1, key)
				case !l.InUse:
					seen[assignment{a.Unmap(), l.Handle, *l.Sequence}] = true
				}
			}
		}
		for l := range seen {
			times[l]++
		}
	}
	var out []assignment
	for l, n := range times {
		if n == len(reports) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b assignment) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		return strings.Compare(a.handle, b.handle)
	})
	return out, nil
}

func agreedHandles(reports []Report) []string {
	times := map[string]int{}
	for _, r := range reports {
		seen := map[string]bool{}
		for _, h := range r.LeakedHandles {
			seen[h.ID] = true
		}
		for id := range seen {
			times[id]++
		}
	}
	var out []string
	for id, n := range times {
		if n == len(reports) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// whyNot says why an allocation is not released.
func whyNot(l assignment, live []Allocation) string {
	if len(live) > 1 {
		return "several blocks have it allocated"
	}
	if len(live) == 0 {
		return "it is not allocated any more"
	}
	switch a := live[0]; {
	case a.By.Handle != l.handle || a.Sequence != l.sequence:
		return "it has changed hands since: it is of " + a.Owner.String()
	case len(a.Users) > 0:
		return "it is in use now by " + names(a.Users)
	case a.Kept != "":
		return a.Kept
	}
	return "it is not certain that nobody uses it"
}
