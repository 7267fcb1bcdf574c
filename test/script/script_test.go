// Package script_test runs the scenarios in this directory: objects go in as
// users write them, and out comes what a node would do, as text. No kernel, no
// socket and no datastore is involved, so a scenario takes milliseconds and
// can say anything about a cluster.
//
// A scenario is a txtar file: comments and commands first, then files. Beside
// the commands of testscript (cmp, grep, ! …) there are
//
//	on NODE                      look at the cluster as this node; node-a at first
//	put FILE…                    create or replace the objects of YAML files
//	block CIDR NODE              the same for a block of addresses without use; NODE - means no owner
//	delete KIND [NAMESPACE/]NAME
//	snapshot                     tell all objects again, as after a lost connection
//	secret NAME KEY VALUE        a password that BGPPeers can refer to
//	learn PREFIX via ADDR[,ADDR] a route from BGP, for the current node
//	forget PREFIX                its withdrawal
//	mtu BYTES                    of the underlay, for the current node; 0 at first: not known
//	step                         let every node take in what happened, and write the
//	                             plan.* files of the current one
//
//	explain FROM TO [tcp|udp PORT] [by OBJECT]   which must be allowed; with ! denied
//
// The files are plan.routes (as ip route prints them, without the device of a
// gateway), plan.links, plan.peers, plan.networks, plan.problems, plan.speaker
// plan.tunnels, plan.delta: what the step changed in all of those but the sessions, and
// plan.filter: what it changed in the tables of the packet filter, IPv4 first.
//
// go test ./test/script -update writes what came out into the scenarios.
package script_test

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/peering"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/route"
)

var update = flag.Bool("update", false, "write what came out into the scenarios")

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:           ".",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			c := &cluster{
				world: model.World{}, nodes: map[string]*node{}, invalid: map[model.Key]error{},
				secrets: map[model.SecretRef]string{},
			}
			c.on("node-a")
			e.Values[key{}] = c
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"on": command(1, 1, func(_ *testscript.TestScript, c *cluster, a []string) { c.on(a[0]) }),
			"put": command(1, 99, func(ts *testscript.TestScript, c *cluster, a []string) {
				for _, file := range a {
					objects, err := v3.DecodeAll([]byte(ts.ReadFile(file)))
					ts.Check(err)
					for _, o := range objects {
						ts.Check(c.put(o))
					}
				}
			}),
			"block":  command(2, 2, func(ts *testscript.TestScript, c *cluster, a []string) { ts.Check(c.put(block(ts, a[0], a[1]))) }),
			"delete": command(2, 2, func(ts *testscript.TestScript, c *cluster, a []string) { c.drop(keyOf(ts, a[0], a[1])) }),
			"snapshot": command(0, 0, func(_ *testscript.TestScript, c *cluster, _ []string) {
				c.pending = c.snapshot()
			}),
			"secret": command(3, 3, func(_ *testscript.TestScript, c *cluster, a []string) {
				c.secrets[model.SecretRef{Name: a[0], Key: a[1]}] = a[2]
			}),
			"learn": command(3, 3, func(ts *testscript.TestScript, c *cluster, a []string) {
				l := bgp.Learned{Prefix: prefix(ts, a[0]), Source: bgp.FromIBGP}
				for s := range strings.SplitSeq(a[2], ",") {
					addr, err := netip.ParseAddr(s)
					ts.Check(err)
					l.NextHops = append(l.NextHops, addr)
				}
				c.here.learned.Puts = append(c.here.learned.Puts, l)
			}),
			"forget": command(1, 1, func(ts *testscript.TestScript, c *cluster, a []string) {
				c.here.learned.Deletes = append(c.here.learned.Deletes, prefix(ts, a[0]))
			}),
			"mtu": command(1, 1, func(ts *testscript.TestScript, c *cluster, a []string) {
				mtu, err := strconv.Atoi(a[0])
				ts.Check(err)
				c.here.underlay.MTU = mtu
			}),
			"explain": explain,
			"step": command(0, 0, func(ts *testscript.TestScript, c *cluster, _ []string) {
				ts.Check(c.step())
				for name, text := range c.here.files(c) {
					ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
				}
			}),
		},
	})
}

type key struct{}

// command checks the number of arguments and finds the cluster.
func command(least, most int, f func(*testscript.TestScript, *cluster, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < least || len(args) > most {
			ts.Fatalf("see the head of script_test.go for the use of this command")
		}
		f(ts, ts.Value(key{}).(*cluster), args)
	}
}

func prefix(ts *testscript.TestScript, s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	ts.Check(err)
	return p.Masked()
}

func block(ts *testscript.TestScript, cidr, owner string) v3.Object {
	b := model.Block{CIDR: prefix(ts, cidr)}
	if owner != "-" {
		b.Owner = model.HostAffinity(owner)
	}
	for i := range 1 << (b.CIDR.Addr().BitLen() - b.CIDR.Bits()) {
		b.Allocations, b.Unallocated = append(b.Allocations, -1), append(b.Unallocated, i)
	}
	return b.API()
}

func keyOf(ts *testscript.TestScript, kind, name string) model.Key {
	k, ok := v3.KindByName(kind)
	if !ok {
		ts.Fatalf("%q is no kind", kind)
	}
	if k.Name == string(model.KindIPAMBlock) {
		return model.BlockKey(prefix(ts, name))
	}
	namespace, rest, namespaced := strings.Cut(name, "/")
	if !namespaced {
		return model.Key{Kind: model.Kind(k.Name), Name: name}
	}
	return model.Key{Kind: model.Kind(k.Name), Namespace: namespace, Name: rest}
}

// cluster is the datastore and the agents of a scenario.
type cluster struct {
	world   model.World
	invalid map[model.Key]error
	pending model.Batch
	secrets map[model.SecretRef]string
	nodes   map[string]*node
	here    *node
}

// node is what an agent consists of, but for its doors.
type node struct {
	name     string
	graph    *route.Graph
	view     *peering.View
	learned  bgp.LearnedBatch
	underlay route.Underlay
	told     map[netip.Prefix]bgp.Learned
	fixed    map[netip.Prefix]plan.Hops
	speaker  bgp.Config
	problems []model.Problem
	plan     plan.Node
	delta    string
	policy   *policy.Graph
	filter   plan.Filter
	compiled plan.Filter // the reference of filter
	changed  string      // what the last step changed in it
}

// on turns to a node; one that was not looked at before joins with a snapshot.
func (c *cluster) on(name string) {
	n, ok := c.nodes[name]
	if !ok {
		n = &node{name: name, graph: route.NewGraph(route.Options{Node: name}), view: peering.NewView(name), policy: policy.NewGraph(name), told: map[netip.Prefix]bgp.Learned{}}
		n.plan = n.plan.Apply(n.graph.Step(c.snapshot()))
		n.view.Step(c.snapshot())
		n.filter = n.filter.Apply(n.policy.Step(c.snapshot()))
		c.nodes[name] = n
	}
	c.here = n
}

func (c *cluster) snapshot() model.Batch {
	b := model.Batch{Reset: true, Synced: true, Puts: slices.Collect(maps.Values(c.world))}
	for k, err := range c.invalid {
		b.Invalids = append(b.Invalids, model.Invalid{Key: k, Err: err})
		b.Puts = slices.DeleteFunc(b.Puts, func(v model.Value) bool { return v.Key() == k })
	}
	return b
}

// forgetPending keeps each key once in the batch that is being collected.
func (c *cluster) forgetPending(k model.Key) {
	c.pending.Puts = slices.DeleteFunc(c.pending.Puts, func(v model.Value) bool { return v.Key() == k })
	c.pending.Deletes = slices.DeleteFunc(c.pending.Deletes, func(d model.Key) bool { return d == k })
	c.pending.Invalids = slices.DeleteFunc(c.pending.Invalids, func(i model.Invalid) bool { return i.Key == k })
	delete(c.invalid, k)
}

// put takes an object in as a source would: one that does not parse is invalid.
func (c *cluster) put(o v3.Object) error {
	k, err := model.KeyOf(o)
	if err != nil {
		return err
	}
	c.forgetPending(k)
	v, err := model.Parse(o)
	switch {
	case err != nil:
		c.invalid[k] = err
		c.pending.Invalids = append(c.pending.Invalids, model.Invalid{Key: k, Err: err})
	case v != nil:
		c.world[k] = v
		c.pending.Puts = append(c.pending.Puts, v)
	}
	return nil
}

func (c *cluster) drop(k model.Key) {
	c.forgetPending(k)
	delete(c.world, k)
	c.pending.Deletes = append(c.pending.Deletes, k)
}

func (c *cluster) step() error {
	b := c.pending
	c.pending = model.Batch{}
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		if err := c.nodes[name].step(c, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// step does what an agent does with a batch, and checks the result against the
// slow reference.
func (n *node) step(c *cluster, b model.Batch) error {
	before := n.plan.String()
	n.plan = n.plan.Apply(n.graph.Step(b))
	n.plan = n.plan.Apply(n.graph.SetUnderlay(n.underlay))
	n.view.Step(b)
	n.speaker, n.fixed, n.problems = n.view.Plan(peering.Options{Secrets: c.secrets})
	n.plan = n.plan.Apply(n.graph.Fix(n.fixed))
	n.plan = n.plan.Apply(n.graph.Learn(n.learned))
	for _, l := range n.learned.Puts {
		n.told[l.Prefix] = l
	}
	for _, p := range n.learned.Deletes {
		delete(n.told, p)
	}
	n.learned = bgp.LearnedBatch{}
	n.delta = changes(before, n.plan.String())
	if d := plan.Diff(route.Compile(route.Options{Node: n.name}, n.underlay, c.world, n.told, n.fixed), n.plan); d != "" {
		return fmt.Errorf("the graph differs from the reference (-want +got):\n%s", d)
	}
	n.filter = n.filter.Apply(n.policy.Step(b))
	compiled := policy.Compile(n.name, c.world, nil, n.policy.Settings())
	if d := plan.DiffFilters(compiled, n.filter); d != "" {
		return fmt.Errorf("the graph of policy differs from the reference (-want +got):\n%s", d)
	}
	n.changed = ""
	if d := plan.DiffFilters(n.compiled, compiled); d != "" {
		n.changed = d + "\n"
	}
	n.compiled = compiled
	return n.speaker.Validate()
}

// explain checks what becomes of the first packet of a connection, and who decides.
func explain(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value(key{}).(*cluster)
	q := policy.Query{SrcPort: 32768, Protocol: 1, ICMPType: 8}
	by := ""
	if n := len(args); n > 2 && args[n-2] == "by" {
		args, by = args[:n-2], args[n-1]
	}
	switch len(args) {
	case 2:
	case 4:
		port, err := strconv.ParseUint(args[3], 10, 16)
		ts.Check(err)
		q.Protocol, q.DstPort = map[string]uint8{"tcp": 6, "udp": 17}[args[2]], uint16(port)
	default:
		ts.Fatalf("see the head of script_test.go for the use of this command")
	}
	for i, end := range []*policy.Party{&q.Src, &q.Dst} {
		addr, err := netip.ParseAddr(args[i])
		ts.Check(err)
		end.Addr = addr
	}
	e, err := policy.NewView(c.world).Verdict(q)
	ts.Check(err)
	decider, _ := e.Decider()
	if e.Allowed == neg || by != "" && decider.Object != by {
		ts.Fatalf("it is not so:\n%s", e.String())
	}
}
