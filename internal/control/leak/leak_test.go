package leak_test

import (
	"cmp"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/control/leak"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

// block is a block of a node in which each of holders has the next address: "pod@node"
// for one of namespace d with the handle net.pod, "tunnel@node", "other", "-" for free.
func block(cidr, owner string, holders ...string) model.Block {
	a := model.Affinity{}
	if owner != "" {
		a = model.HostAffinity(owner)
	}
	b := ipam.NewBlock(netip.MustParsePrefix(cidr), a, noon())
	for i, h := range holders {
		if h == "-" {
			continue
		}
		name, node, _ := strings.Cut(h, "@")
		at := ipam.PodHolder("net."+name, node, "d", name, noon())
		switch name {
		case "tunnel":
			at = model.Attribute{Handle: "vxlan-tunnel-addr-" + node, Secondary: map[string]string{"node": node, "type": "vxlanTunnelAddress"}}
		case "other":
			at = model.Attribute{Handle: "docker.x", Secondary: map[string]string{"node": node}}
		case "vm":
			at.Secondary["vmName"] = "v"
		case "windows":
			at = model.Attribute{Handle: "windows-reserved-ipam-handle"}
		}
		var err error
		if b, err = ipam.AllocateAt(b, at, ipam.AddrAt(b.CIDR, i)); err != nil {
			panic(err)
		}
	}
	return b
}

// pods reads "web=10.0.0.0,10.0.0.1 job! new=": addresses, ! for ended.
func pods(text string) map[leak.PodName]leak.Pod {
	out := map[leak.PodName]leak.Pod{}
	for f := range strings.FieldsSeq(text) {
		name, list, _ := strings.Cut(f, "=")
		p := leak.Pod{Ended: strings.HasSuffix(name, "!")}
		for a := range strings.SplitSeq(list, ",") {
			if a != "" && a[0] == '#' {
				p.Container = a[1:]
			} else if a != "" {
				p.Addrs = append(p.Addrs, netip.MustParseAddr(a))
			}
		}
		out[leak.PodName{Namespace: "d", Name: strings.TrimSuffix(name, "!")}] = p
	}
	return out
}

func nodes(text string) map[string]bool {
	out := map[string]bool{}
	for n := range strings.FieldsSeq(text) {
		out[n] = true
	}
	return out
}

// text is a plan: suspects by handle, then blocks to give up.
func text(p leak.Plan) string {
	var out []string
	for _, s := range p.Suspects {
		var addrs []string
		for _, h := range s.Held {
			addrs = append(addrs, h.Addr.String())
		}
		out = append(out, strings.Join(append([]string{s.Handle}, addrs...), " "))
	}
	for _, i := range p.Idle {
		out = append(out, "idle "+i.CIDR.String())
	}
	for _, a := range p.Unclaim {
		out = append(out, "unclaim "+a.CIDR.String())
	}
	for _, h := range p.Orphans {
		out = append(out, "orphan "+h.ID)
	}
	return strings.Join(out, "; ")
}

func TestSuspects(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		blocks []model.Block
		pods   string
		nodes  string
		grace  time.Duration
		want   string // after the grace period
		first  string // at once
	}{
		"alive":                      {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, pods: "web=10.0.0.0", nodes: "a", grace: time.Minute},
		"gone":                       {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, nodes: "a", grace: time.Minute, want: "net.web 10.0.0.0"},
		"no collection":              {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, nodes: "a"},
		"other address":              {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, pods: "web=10.0.0.9", nodes: "a", grace: time.Minute, want: "net.web 10.0.0.0"},
		"same container":             {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, pods: "web=10.0.0.9,#web", nodes: "a", grace: time.Minute},
		"no address yet":             {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, pods: "web=", nodes: "a", grace: time.Minute},
		"ended":                      {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, pods: "web!=10.0.0.0", nodes: "a", grace: time.Minute, want: "net.web 10.0.0.0"},
		"one of two is alive":        {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a", "web@a")}, pods: "web=10.0.0.1", nodes: "a", grace: time.Minute},
		"both of two gone":           {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a"), block("fd00::/126", "a", "web@a")}, nodes: "a", grace: time.Minute, want: "net.web 10.0.0.0 fd00::"},
		"one family is alive":        {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a"), block("fd00::/126", "a", "web@a")}, pods: "web=fd00::", nodes: "a", grace: time.Minute},
		"node gone":                  {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, nodes: "b", grace: time.Minute, first: "net.web 10.0.0.0", want: "net.web 10.0.0.0"},
		"node gone, no collection":   {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, nodes: "b", first: "net.web 10.0.0.0", want: "net.web 10.0.0.0"},
		"node gone, pod there":       {blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, pods: "web=10.0.0.0", nodes: "b", grace: time.Minute},
		"borrowed, borrower gone":    {blocks: []model.Block{block("10.0.0.0/30", "b", "web@a")}, nodes: "b", grace: time.Minute, first: "net.web 10.0.0.0", want: "net.web 10.0.0.0"},
		"tunnel":                     {blocks: []model.Block{block("10.0.0.0/30", "a", "tunnel@a")}, nodes: "a", grace: time.Minute},
		"tunnel of a gone node":      {blocks: []model.Block{block("10.0.0.0/30", "a", "tunnel@a")}, nodes: "b", first: "vxlan-tunnel-addr-a 10.0.0.0", want: "vxlan-tunnel-addr-a 10.0.0.0"},
		"windows, node gone":         {blocks: []model.Block{block("10.0.0.0/30", "a", "windows"), block("10.0.1.0/30", "b", "windows")}, nodes: "b", first: "windows-reserved-ipam-handle 10.0.0.0", want: "windows-reserved-ipam-handle 10.0.0.0"},
		"container of another world": {blocks: []model.Block{block("10.0.0.0/30", "a", "other@a")}, nodes: "b", grace: time.Minute},
		"virtual machine":            {blocks: []model.Block{block("10.0.0.0/30", "a", "vm@a")}, nodes: "b", grace: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := leak.View{Now: noon(), Grace: tt.grace, Settle: time.Hour, Blocks: tt.blocks, Nodes: nodes(tt.nodes), Pods: pods(tt.pods)}
			plan, memory := leak.Step(v, leak.Memory{})
			if got := text(plan); got != tt.first {
				t.Errorf("first look: got %q, want %q", got, tt.first)
			}
			v.Now = v.Now.Add(59 * time.Second)
			plan, memory = leak.Step(v, memory)
			if got := text(plan); got != tt.first {
				t.Errorf("before the grace period ends: got %q, want %q", got, tt.first)
			}
			v.Now = v.Now.Add(time.Second)
			plan, _ = leak.Step(v, memory)
			if got := text(plan); got != tt.want {
				t.Errorf("after it: got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestGraceBeginsAnew: an address that was seen in use meanwhile, or was given out
// again, has its whole grace period before it.
func TestGraceBeginsAnew(t *testing.T) {
	t.Parallel()
	v := leak.View{Now: noon(), Grace: time.Minute, Settle: time.Hour, Nodes: nodes("a"), Pods: pods("")}
	v.Blocks = []model.Block{block("10.0.0.0/30", "a", "web@a")}
	_, memory := leak.Step(v, leak.Memory{})

	v.Now, v.Pods = noon().Add(30*time.Second), pods("web=10.0.0.0")
	_, seen := leak.Step(v, memory)
	v.Now, v.Pods = noon().Add(time.Minute), pods("")
	if plan, _ := leak.Step(v, seen); len(plan.Suspects) > 0 {
		t.Error("an address that was in use 30 s ago is a suspect")
	}
	again, _ := ipam.ReleaseHandle(v.Blocks[0], "net.web", 0, v.Now)
	again, err := ipam.AllocateAt(again, ipam.PodHolder("net.web", "a", "d", "web", v.Now), netip.MustParseAddr("10.0.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	v.Blocks = []model.Block{again}
	if plan, _ := leak.Step(v, memory); len(plan.Suspects) > 0 {
		t.Error("an address that was given out again is a suspect")
	}
}

func TestNoWordOfPods(t *testing.T) {
	t.Parallel()
	v := leak.View{Now: noon(), Blocks: []model.Block{block("10.0.0.0/30", "a", "web@a", "tunnel@a")}, Nodes: nodes("b")}
	plan, _ := leak.Step(v, leak.Memory{})
	if got, want := text(plan), "vxlan-tunnel-addr-a 10.0.0.1"; got != want {
		t.Errorf("without the right to see pods: got %q, want %q", got, want)
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	claims := func(of ...string) (out []model.BlockAffinity) {
		for _, c := range of {
			node, cidr, _ := strings.Cut(c, " ")
			out = append(out, model.BlockAffinity{Owner: model.HostAffinity(node), CIDR: netip.MustParsePrefix(cidr)})
		}
		return out
	}
	for name, tt := range map[string]struct {
		view    leak.View
		then    time.Duration // between two looks; 0: an hour
		twice   string        // what the second look gives up
		waiting bool          // after the first
	}{
		"the last of a node":      {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a")}, Nodes: nodes("a")}},
		"one of two":              {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a"), block("10.0.1.0/30", "a", "web@a")}, Nodes: nodes("a"), Pods: pods("web=")}, twice: "idle 10.0.0.0/30"},
		"two of two":              {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a"), block("10.0.1.0/30", "a")}, Nodes: nodes("a")}, twice: "idle 10.0.0.0/30"},
		"one of each family":      {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a"), block("fd00::/126", "a")}, Nodes: nodes("a")}},
		"too soon":                {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a"), block("10.0.1.0/30", "a")}, Nodes: nodes("a")}, then: time.Minute},
		"node can't claim":        {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a"), block("10.0.1.0/30", "a")}, Nodes: nodes("a"), KeepEmpty: true}},
		"node gone":               {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a")}, Nodes: nodes("b")}, then: time.Second, twice: "idle 10.0.0.0/30", waiting: true},
		"node gone, can't claim":  {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a")}, Nodes: nodes("b"), KeepEmpty: true}, then: time.Second, twice: "idle 10.0.0.0/30", waiting: true},
		"node gone, in use":       {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "a", "other@a")}, Nodes: nodes("b")}},
		"nobody's":                {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "")}, Nodes: nodes("b")}, then: time.Second, twice: "idle 10.0.0.0/30", waiting: true},
		"claim without a block":   {view: leak.View{Affinities: claims("a 10.0.0.0/30", "b 10.0.1.0/30"), Nodes: nodes("b")}, then: time.Second, twice: "unclaim 10.0.0.0/30", waiting: true},
		"claim on another's":      {view: leak.View{Blocks: []model.Block{block("10.0.0.0/30", "b", "web@b")}, Affinities: claims("a 10.0.0.0/30"), Nodes: nodes("b"), Pods: pods("web=")}, then: time.Second, twice: "unclaim 10.0.0.0/30", waiting: true},
		"claim, blocks not known": {view: leak.View{Affinities: claims("a 10.0.0.0/30"), Nodes: nodes("b"), Unreadable: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := tt.view
			v.Now, v.Settle = noon(), 5*time.Minute
			plan, memory := leak.Step(v, leak.Memory{})
			if got := text(plan); got != "" || plan.Waiting != tt.waiting {
				t.Errorf("first look: got %q, waiting %v, want nothing, waiting %v", got, plan.Waiting, tt.waiting)
			}
			v.Now = v.Now.Add(cmp.Or(tt.then, time.Hour))
			if plan, _ = leak.Step(v, memory); text(plan) != tt.twice {
				t.Errorf("second look: got %q, want %q", text(plan), tt.twice)
			}
		})
	}
}

// TestIdleChanged: a block that was used meanwhile was not empty twice.
func TestIdleChanged(t *testing.T) {
	t.Parallel()
	v := leak.View{Now: noon(), Blocks: []model.Block{block("10.0.0.0/30", "a")}, Nodes: nodes("b")}
	_, memory := leak.Step(v, leak.Memory{})
	used, _ := ipam.ReleaseHandle(block("10.0.0.0/30", "a", "web@a"), "net.web", 0, noon())
	v.Blocks = []model.Block{used}
	if plan, _ := leak.Step(v, memory); len(plan.Idle) > 0 {
		t.Errorf("gives up %v, which was in use between the looks", plan.Idle)
	}
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	handle := func(id string, n int) model.Handle {
		return model.Handle{ID: id, Blocks: map[netip.Prefix]int{netip.MustParsePrefix("10.0.0.0/30"): n}}
	}
	v := leak.View{
		Now: noon(), Grace: time.Minute, Nodes: nodes("a"), Pods: pods("web="),
		Blocks:  []model.Block{block("10.0.0.0/30", "a", "web@a")},
		Handles: []model.Handle{handle("net.web", 1), handle("net.lost", 1), handle("net.grows", 1)},
	}
	_, memory := leak.Step(v, leak.Memory{})
	v.Handles = nil
	_, memory = leak.Step(v, memory) // a look without handles forgets nothing
	v.Now = noon().Add(time.Minute)
	v.Handles = []model.Handle{handle("net.web", 1), handle("net.lost", 1), handle("net.grows", 2)}
	plan, _ := leak.Step(v, memory)
	if got, want := text(plan), "orphan net.lost"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	v.Unreadable = true
	if plan, _ = leak.Step(v, memory); text(plan) != "" {
		t.Errorf("with a block that can't be read: got %q, want nothing", text(plan))
	}
}

func TestDead(t *testing.T) {
	t.Parallel()
	v := leak.View{Now: noon(), Blocks: []model.Block{block("10.0.0.0/30", "a", "web@a")}, Nodes: nodes(""), Pods: pods("")}
	plan, _ := leak.Step(v, leak.Memory{})
	for name, tt := range map[string]struct {
		node bool
		pod  string
		want bool
	}{
		"both gone":          {want: true},
		"node is there":      {node: true},
		"pod is there":       {pod: "web=10.0.0.0"},
		"pod with others":    {pod: "web=10.0.0.3"},
		"pod has ended":      {pod: "web!=10.0.0.3", want: true},
		"pod without any":    {pod: "web="},
		"pod of one sandbox": {pod: "web=10.0.0.3,#web"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := leak.Evidence{NodeExists: tt.node}
			if p, ok := pods(tt.pod)[leak.PodName{Namespace: "d", Name: "web"}]; ok {
				e.Pod = &p
			}
			if got := plan.Suspects[0].Dead(e); got != tt.want {
				t.Errorf("dead: got %v, want %v", got, tt.want)
			}
		})
	}
}
