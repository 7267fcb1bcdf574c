package audit_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/model"
)

// worldOf reads a world, one thing a line:
//
//	pool NAME CIDR                  reserve CIDR                 node NAME
//	block CIDR OWNER ADDRESS...     each - (free), ~ (cooling), . (neither), or HANDLE=WHO
//	handle ID CIDR=COUNT...         claim OWNER CIDR STATE       broken KIND NAME
//	use SORT NAME NODE ADDRESS      SORT: workload, pod, node, service, aside
//	starting NAMESPACE/POD          services [NAMESPACE/NAME...]
//
// WHO is pod:NAMESPACE/NAME@NODE, vm:…, svc:…, ipip@NODE, windows@NODE or other.
func worldOf(t *testing.T, text string) audit.World {
	t.Helper()
	w := audit.World{Nodes: map[string]bool{}, Starting: map[audit.Object]bool{}}
	for _, line := range strings.Split(strings.ReplaceAll(text, ";", "\n"), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "pool":
			w.Pools = append(w.Pools, model.Pool{Name: f[1], CIDR: netip.MustParsePrefix(f[2]), Uses: model.UseWorkload | model.UseTunnel | model.UseLoadBalancer})
		case "badpools":
			w.BadPools = true
		case "reserve":
			w.Reserved = append(w.Reserved, netip.MustParsePrefix(f[1]))
		case "node":
			w.Nodes[f[1]] = true
		case "block":
			w.Blocks = append(w.Blocks, blockOf(f))
		case "handle":
			h := model.Handle{ID: f[1], Blocks: map[netip.Prefix]int{}}
			for _, part := range f[2:] {
				var n int
				cidr, count, _ := strings.Cut(part, "=")
				_, _ = fmt.Sscan(count, &n)
				h.Blocks[netip.MustParsePrefix(cidr)] = n
			}
			w.Handles = append(w.Handles, h)
		case "claim":
			w.Affinities = append(w.Affinities, model.BlockAffinity{Owner: ownerOf(f[1]), CIDR: netip.MustParsePrefix(f[2]), State: model.AffinityState(f[3])})
		case "broken":
			w.Broken = append(w.Broken, audit.Broken{Key: model.Key{Kind: model.Kind(f[1]), Name: f[2]}, Err: errors.New("bad")})
		case "use":
			w.Users = append(w.Users, userOf(f))
		case "starting":
			w.Starting[objectOf(f[1])] = true
		case "services":
			w.Services = map[audit.Object]bool{}
			for _, s := range f[1:] {
				w.Services[objectOf(s)] = true
			}
		default:
			t.Fatalf("world: %q", line)
		}
	}
	return w
}

func objectOf(text string) audit.Object {
	ns, name, _ := strings.Cut(text, "/")
	return audit.Object{Namespace: ns, Name: name}
}

func ownerOf(text string) model.Affinity {
	switch {
	case text == "-":
		return model.Affinity{}
	case strings.HasPrefix(text, "virtual:"):
		return model.Affinity{Type: model.AffinityVirtual, Node: strings.TrimPrefix(text, "virtual:")}
	}
	return model.HostAffinity(text)
}

func blockOf(f []string) model.Block {
	b := model.Block{CIDR: netip.MustParsePrefix(f[1]), Owner: ownerOf(f[2]), SequenceOf: map[int]uint64{}}
	for ord, text := range f[3:] {
		b.Allocations = append(b.Allocations, -1)
		switch text {
		case "-":
			b.Unallocated = append(b.Unallocated, ord)
			continue
		case ".":
			continue
		case "~":
			b.Attributes = append(b.Attributes, model.Attribute{ReleasedAt: time.Unix(1, 0)})
		default:
			b.Attributes = append(b.Attributes, attributeOf(text))
		}
		b.Allocations[ord] = len(b.Attributes) - 1
		b.SequenceOf[ord] = uint64(100 + ord)
	}
	return b
}

func attributeOf(text string) model.Attribute {
	handle, who, _ := strings.Cut(text, "=")
	who, node, _ := strings.Cut(who, "@")
	kind, name, _ := strings.Cut(who, ":")
	of := objectOf(name)
	a := model.Attribute{Handle: handle, Secondary: map[string]string{"node": node}}
	switch kind {
	case "pod", "vm":
		a.Secondary["namespace"], a.Secondary["pod"] = of.Namespace, of.Name
		if kind == "vm" {
			a.AlternateOwner = map[string]string{"pod": "other"}
		}
	case "svc":
		a.Secondary["namespace"], a.Secondary["service"], a.Secondary["type"] = of.Namespace, of.Name, "loadBalancer"
	case "ipip":
		a.Secondary["type"] = "ipipTunnelAddress"
	}
	return a
}

func userOf(f []string) audit.User {
	u := audit.User{Name: f[2], Node: f[3], Addr: netip.MustParseAddr(f[4])}
	of := objectOf(f[2])
	switch f[1] {
	case "workload":
		u.Sort, u.Namespace, u.Pod = audit.Workload, of.Namespace, of.Name
	case "pod", "aside":
		u.Sort, u.Namespace, u.Pod, u.Aside = audit.Pod, of.Namespace, of.Name, f[1] == "aside"
	case "node":
		u.Sort = audit.Node
	case "service":
		u.Sort = audit.Service
	}
	return u
}

// healthy is a world with one of everything, of both families.
const healthy = `
	pool p4 10.0.0.0/24; pool p6 fd00::/120; pool lb 10.9.0.0/24; node a; node b
	block 10.0.0.0/30 a c1=pod:default/p1@a t=ipip@a - ~
	block 10.0.0.4/30 b c2=pod:default/p2@a - - other=other
	block fd00::/126 a c1=pod:default/p1@a - - -
	block 10.9.0.0/30 virtual:load-balancer lb-x=svc:default/web - - -
	claim a 10.0.0.0/30 confirmed; claim b 10.0.0.4/30 confirmed; claim a fd00::/126 confirmed
	claim virtual:load-balancer 10.9.0.0/30 confirmed; claim b 10.0.0.8/30 pending
	handle c1 10.0.0.0/30=1 fd00::/126=1; handle t 10.0.0.0/30=1; handle c2 10.0.0.4/30=1 10.0.0.0/30=0
	handle other 10.0.0.4/30=1; handle lb-x 10.9.0.0/30=1
	use workload default/p1 a 10.0.0.0; use pod default/p1 a 10.0.0.0; use workload default/p1 a fd00::
	use workload default/p2 a 10.0.0.4; use workload openstack/vm b 10.0.0.7; use node a a 10.0.0.1
	use service default/web - 10.9.0.0; use service metal/s1 - 192.0.2.1; use service metal/s2 - 192.0.2.1
	use aside default/p1 a 172.16.0.1
	services default/web metal/s1 metal/s2`

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ old, new, want string }{
		"healthy":                      {},
		"pod is gone":                  {"use workload default/p2 a 10.0.0.4", "", "leaked 10.0.0.4 mends"},
		"only one family is used":      {"use workload default/p1 a fd00::", "", "leaked fd00:: mends"},
		"further interface keeps it":   {"use workload default/p2 a 10.0.0.4", "use aside default/p2 a 10.0.0.4", ""},
		"pod is starting":              {"use workload default/p2 a 10.0.0.4", "starting default/p2", ""},
		"machine is off":               {"c2=pod:default/p2@a", "c2=vm:default/p9@a", ""},
		"unknown holder":               {"use workload openstack/vm b 10.0.0.7", "", "leaked 10.0.0.7 mends"},
		"an endpoint can't be read":    {"use workload openstack/vm b 10.0.0.7", "broken WorkloadEndpoint x", "leaked 10.0.0.7; unreadable-ipam-record -"},
		"tunnel has another address":   {"use node a a 10.0.0.1", "", "stray-tunnel 10.0.0.1 mends"},
		"tunnel of another node":       {"use node a a 10.0.0.1", "use node b b 10.0.0.1", "doubly-owned 10.0.0.1"},
		"service is gone":              {"use service default/web - 10.9.0.0; use service metal/s1 - 192.0.2.1; use service metal/s2 - 192.0.2.1\n\tuse aside default/p1 a 172.16.0.1\n\tservices default/web", "services", "leaked 10.9.0.0 mends"},
		"service has not published":    {"use service default/web - 10.9.0.0", "", ""},
		"nobody asked for services":    {"services default/web metal/s1 metal/s2", "", ""},
		"two endpoints have it":        {"use workload openstack/vm b 10.0.0.7", "use workload o/x b 10.0.0.7; use workload o/y b 10.0.0.7", "doubly-owned 10.0.0.7"},
		"a pod has another's":          {"use workload default/p2 a 10.0.0.4", "use workload default/p3 a 10.0.0.4", "doubly-owned 10.0.0.4"},
		"an endpoint has a tunnel's":   {"use node a a 10.0.0.1", "use node a a 10.0.0.1; use workload default/p3 a 10.0.0.1", "doubly-owned 10.0.0.1; doubly-owned 10.0.0.1"},
		"in use and free":              {"use aside default/p1 a 172.16.0.1", "use workload default/p3 a 10.0.0.2", "unallocated-in-use 10.0.0.2"},
		"in use and cooling":           {"use aside default/p1 a 172.16.0.1", "use workload default/p3 a 10.0.0.3", "unallocated-in-use 10.0.0.3"},
		"in use, no block":             {"use aside default/p1 a 172.16.0.1", "use workload default/p3 a fd00::ff", "unallocated-in-use fd00::ff"},
		"in use, no pool":              {"use aside default/p1 a 172.16.0.1", "use workload default/p3 a 10.8.0.1", "in-use-outside-pools 10.8.0.1"},
		"a pool can't be read":         {"use aside default/p1 a 172.16.0.1", "use workload default/p3 a 10.8.0.1; badpools", ""},
		"handle is gone":               {"handle t 10.0.0.0/30=1;", "", "missing-handle 10.0.0.1"},
		"handle holds nothing":         {"handle t 10.0.0.0/30=1", "handle t 10.0.0.0/30=1; handle z 10.0.0.0/30=1", "orphaned-handle - mends"},
		"handle in small letters":      {"handle other 10.0.0.4/30=1", "handle OTHER 10.0.0.4/30=1", ""},
		"handle counts wrong":          {"handle c1 10.0.0.0/30=1 fd00::/126=1", "handle c1 10.0.0.0/30=2", "wrong-handle -"},
		"block can't be read":          {"handle t 10.0.0.0/30=1", "handle t 10.0.0.0/30=1; handle z 10.0.0.12/30=1; broken IPAMBlock 10.0.0.12-30; use workload default/p3 a 10.0.0.13", "invalid-block 10.0.0.12/30"},
		"handle can't be read":         {"handle t 10.0.0.0/30=1", "broken IPAMHandle t", "unreadable-ipam-record -"},
		"ordinal is lost":              {"t=ipip@a - ~", "t=ipip@a . ~", "invalid-block 10.0.0.0/30"},
		"block in no pool":             {"pool p6 fd00::/120", "", "invalid-block fd00::/126"},
		"blocks overlap":               {"claim b 10.0.0.8/30 pending", "block 10.0.0.4/31 b c2=pod:default/p2@a -; claim b 10.0.0.4/31 confirmed", "doubly-owned 10.0.0.4; wrong-handle -; invalid-block 10.0.0.4/31"},
		"claim without block":          {"claim b 10.0.0.8/30 pending", "claim b 10.0.0.8/30 confirmed", "orphaned-affinity 10.0.0.8/30"},
		"claim on another's block":     {"claim b 10.0.0.8/30 pending", "claim b 10.0.0.0/30 confirmed", "orphaned-affinity 10.0.0.0/30"},
		"claim is gone":                {"claim b 10.0.0.4/30 confirmed;", "", "missing-affinity 10.0.0.4/30"},
		"node is gone":                 {"node b", "", "affinity-of-no-node 10.0.0.4/30; affinity-of-no-node 10.0.0.8/30"},
		"block of a node that is gone": {"node b", "block 10.0.0.12/30 c - - - -; node b", "affinity-of-no-node 10.0.0.12/30"},
		"block given up":               {"block 10.0.0.4/30 b", "block 10.0.0.4/30 -", "orphaned-affinity 10.0.0.4/30"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := healthy
			if tt.old != "" || tt.new != "" {
				if text = strings.Replace(healthy, tt.old, tt.new, 1); text == healthy {
					t.Fatalf("%q is not in the healthy world", tt.old)
				}
			}
			w := worldOf(t, text)
			got := findings(audit.Check(w))
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			slices.Reverse(w.Blocks)
			slices.Reverse(w.Handles)
			slices.Reverse(w.Affinities)
			slices.Reverse(w.Users)
			if again := findings(audit.Check(w)); again != got {
				t.Errorf("in another order: got %s\nwant %s", again, got)
			}
		})
	}
}

// findings prints what was found, such as "leaked 10.0.0.1 mends; orphaned-handle -".
func findings(r audit.Result) string {
	var out []string
	for _, f := range r.Findings {
		text := "-"
		if f.Addr.IsValid() {
			text = f.Addr.String()
		} else if f.Block.IsValid() {
			text = f.Block.String()
		}
		text = string(f.Kind) + " " + text
		if f.Mends {
			text += " mends"
		}
		if f.Why == "" {
			text += " without a reason"
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// TestMachine: a virtual machine that is off keeps its address.
func TestMachine(t *testing.T) {
	t.Parallel()
	text := strings.Replace(healthy, "c2=pod:default/p2@a", "c2=vm:default/p2@a", 1)
	text = strings.Replace(text, "use workload default/p2 a 10.0.0.4", "", 1)
	r := audit.Check(worldOf(t, text))
	if got := findings(r); got != "" {
		t.Errorf("got %s, want nothing", got)
	}
	for _, a := range r.Allocations {
		if a.Addr == netip.MustParseAddr("10.0.0.4") && a.Kept == "" {
			t.Error("no reason why the machine keeps its address")
		}
	}
	moving := strings.Replace(healthy, "c2=pod:default/p2@a", "c2=vm:default/p2@a", 1)
	moving = strings.Replace(moving, "use workload default/p2 a 10.0.0.4", "use workload default/p2 a 10.0.0.4; use workload default/p2-new b 10.0.0.4", 1)
	if got := findings(audit.Check(worldOf(t, moving))); got != "" {
		t.Errorf("moving: got %s, want nothing", got)
	}
}

// TestConfirm: what only one of two looks shows is not told.
func TestConfirm(t *testing.T) {
	t.Parallel()
	before := worldOf(t, healthy+"; use workload default/new b 10.0.0.5; handle new 10.0.0.4/30=1")
	after := worldOf(t, strings.Replace(healthy, "c2=pod:default/p2@a - -", "c2=pod:default/p2@a new=pod:default/new@b -", 1)+
		"; use workload default/new b 10.0.0.5; handle new 10.0.0.4/30=1; handle gone 10.0.0.4/30=1")
	first, second := audit.Check(before), audit.Check(after)
	if got := findings(first); got != "unallocated-in-use 10.0.0.5; orphaned-handle - mends" {
		t.Fatalf("first look: %s", got)
	}
	if got := findings(audit.Confirm(first, second)); got != "" {
		t.Errorf("got %s, want nothing: a pod came between the reads", got)
	}
	if got := findings(audit.Confirm(second, second)); got != "orphaned-handle - mends" {
		t.Errorf("got %s, want what both have", got)
	}
}

func TestReleasable(t *testing.T) {
	t.Parallel()
	leaking := strings.Replace(strings.Replace(healthy, "use workload default/p2 a 10.0.0.4", "", 1), "use workload openstack/vm b 10.0.0.7", "", 1) +
		"; handle z 10.0.0.0/30=1"
	reportOf := func(text string) audit.Report {
		r := audit.Check(worldOf(t, text))
		out := audit.Report{Allocations: audit.Lines(r)}
		for _, f := range r.Of(audit.OrphanHandle) {
			out.LeakedHandles = append(out.LeakedHandles, audit.HandleLine{ID: f.Handle})
		}
		return out
	}
	later := func(b model.Block) model.Block { // the address is of the same handle, and was given out anew
		b = b.Clone()
		b.SequenceOf[0]++
		return b
	}
	for name, tt := range map[string]struct {
		reports []string
		now     string
		change  func(*audit.World)
		want    string // addresses and handles, then what is left alone
	}{
		"as reported":         {reports: []string{leaking}, now: leaking, want: "10.0.0.4 10.0.0.7 z |"},
		"nothing leaks":       {reports: []string{healthy}, now: leaking, want: "|"},
		"all are used now":    {reports: []string{leaking}, now: healthy, want: "| 10.0.0.4 10.0.0.7 z"},
		"in one report only":  {reports: []string{leaking, healthy}, now: leaking, want: "|"},
		"one in both reports": {reports: []string{leaking, strings.Replace(healthy, "use workload default/p2 a 10.0.0.4", "", 1)}, now: leaking, want: "10.0.0.4 |"},
		"given out anew": {reports: []string{leaking}, now: leaking, want: "10.0.0.7 z | 10.0.0.4", change: func(w *audit.World) {
			w.Blocks[1] = later(w.Blocks[1])
		}},
		"of another handle": {reports: []string{leaking}, now: strings.NewReplacer("c2=", "c3=", "handle c2", "handle c3").Replace(leaking), want: "10.0.0.7 z | 10.0.0.4"},
		"released already":  {reports: []string{leaking}, now: strings.NewReplacer("other=other", "-", "handle other 10.0.0.4/30=1", "").Replace(leaking), want: "10.0.0.4 z | 10.0.0.7"},
		"in two blocks now": {reports: []string{leaking}, now: leaking + "; block 10.0.0.4/31 b c2=pod:default/p2@a -", want: "10.0.0.7 z | 10.0.0.4"},
		"unsure now":        {reports: []string{leaking}, now: leaking + "; broken WorkloadEndpoint x", want: "z | 10.0.0.4 10.0.0.7"},
		"pod starts now":    {reports: []string{leaking}, now: leaking + "; starting default/p2", want: "10.0.0.7 z | 10.0.0.4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reports []audit.Report
			for _, text := range tt.reports {
				reports = append(reports, reportOf(text))
			}
			w := worldOf(t, tt.now)
			if tt.change != nil {
				tt.change(&w)
			}
			got, err := audit.Releasable(reports, audit.Check(w))
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, f := range got.Addrs {
				out = append(out, f.Addr.String())
			}
			out = append(append(out, got.Handles...), "|")
			for _, s := range got.Skipped {
				if out = append(out, s.Addr.String()); !s.Addr.IsValid() {
					out[len(out)-1] = s.Handle
				}
				if s.Why == "" {
					t.Errorf("%v is left alone without a reason", s)
				}
			}
			if d := cmp.Diff(tt.want, strings.Join(out, " ")); d != "" {
				t.Error(d)
			}
		})
	}
	one := uint64(1)
	for name, tt := range map[string]struct {
		report audit.Report
		want   string
	}{
		"no address":  {audit.Report{Allocations: map[string][]audit.Line{"10.0.0.1": {{Addr: "10.0.0.2", Sequence: &one}}}}, `allocations["10.0.0.1"]: ip "10.0.0.2": must be the same IP address`},
		"no sequence": {audit.Report{Allocations: map[string][]audit.Line{"10.0.0.1": {{Addr: "10.0.0.1"}}}}, "sequenceNumber is missing"},
	} {
		if _, err := audit.Releasable([]audit.Report{tt.report}, audit.Result{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}
