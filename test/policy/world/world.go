// Package world makes clusters and packets at random, for tests that compare what
// decides about packets: the explanation, the rules, the kernel.
//
// A cluster is a list of documents as users write them, so that a found difference can
// be printed and kept as a scenario. Names, labels, addresses and ports come from small
// vocabularies, so that policies do select endpoints and rules do match packets.
//
//	Random ── Docs ─► Parse ─► World ── Queries ─► packets
//
// The ground is always the same: six workloads with the interfaces cali0 to cali5 on
// node-a, three on node-b, and the interface eth0 that leads from node-a to all the rest.
//
// Invariant: equal seeds give equal worlds and packets.
package world

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
)

// The ground.
const (
	Node    = "node-a" // whose packet filter it is about
	Other   = "node-b"
	Uplink  = "eth0"
	Locals  = 6 // workloads of Node
	Remotes = 3 // workloads of Other
)

// World is a cluster, and the node that is looked at.
type World struct {
	Docs     []string // YAML (in fact JSON), one object each
	Values   model.World
	Links    []policy.Link // of Node
	Settings policy.Settings
}

// Addr is the address of a workload, of Node those below Locals.
func Addr(i int, v6 bool) netip.Addr {
	node, n := 0, i+1
	if i >= Locals {
		node, n = 1, i-Locals+1
	}
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd65:%d::%d", node, n))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.65.%d.%d", node, n))
}

// NodeAddr is the address of Node or Other.
func NodeAddr(other, v6 bool) netip.Addr {
	n := 1
	if other {
		n = 2
	}
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00::%d", n))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", n))
}

// Link is the host side interface of workload i.
func Link(i int) string { return fmt.Sprintf("cali%d", i) }

// Parse makes a world of documents.
func Parse(docs []string) (World, error) {
	w := World{
		Docs: docs, Values: model.World{},
		Links: []policy.Link{
			{Name: Uplink, Addrs: []netip.Addr{NodeAddr(false, false), NodeAddr(false, true)}},
			{Name: "lo", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}},
		},
	}
	for _, doc := range docs {
		o, err := v3.Decode([]byte(doc))
		if err != nil {
			return w, fmt.Errorf("world: %s: %w", doc, err)
		}
		v, err := model.Parse(o)
		if err != nil || v == nil {
			return w, fmt.Errorf("world: %s: %v: %w", doc, v, err)
		}
		w.Values[v.Key()] = v
	}
	node, ok := w.Values[model.Node{Name: Node}.Key()].(model.Node)
	if !ok {
		return w, fmt.Errorf("world: there is no node %s", Node)
	}
	w.Settings = policy.SettingsFor(node, maps.Values(w.Values))
	return w, nil
}

// Without is w without its i-th document, if what is left is a world.
func (w World) Without(i int) (World, bool) {
	docs := append(append([]string{}, w.Docs[:i]...), w.Docs[i+1:]...)
	out, err := Parse(docs)
	return out, err == nil
}

// View is w as policy sees it, with the settings of every node those of Node.
func (w World) View() *policy.View {
	return policy.NewView(w.Values).With(func(string) policy.Settings { return w.Settings })
}

// String is all documents.
func (w World) String() string { return strings.Join(w.Docs, "\n---\n") }

// object is a document in the making.
type object = map[string]any

// dice draws from vocabularies.
type dice struct{ *rand.Rand }

// one draws one of several.
func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// in reports true n times of 100.
func (d dice) in(n int) bool { return d.IntN(100) < n }

// times calls f up to n times, and returns what it gave.
func times[T any](d dice, n int, f func() T) []T {
	var out []T
	for range d.IntN(n + 1) {
		out = append(out, f())
	}
	return out
}

// Random makes a world. The error is a defect of this package: a document that is not
// valid.
func Random(r *rand.Rand) (World, error) {
	d := dice{r}
	docs := []object{d.felix()}
	for i, name := range []string{Node, Other} {
		docs = append(docs, object{"kind": "Node", "metadata": object{"name": name, "labels": object{"zone": one(d, "east", "west")}}, "spec": object{"bgp": object{
			"ipv4Address": NodeAddr(i == 1, false).String() + "/24", "ipv6Address": NodeAddr(i == 1, true).String() + "/64",
		}}})
	}
	docs = append(docs, d.profiles()...)
	for i := range Locals + Remotes {
		if i == 0 || d.in(85) {
			docs = append(docs, d.endpoint(i))
		}
	}
	docs = append(docs, times(d, 3, d.networkSet)...)
	docs = append(docs, times(d, 2, d.endpointSlice)...)
	host := d.in(40)
	if host {
		docs = append(docs, d.hostEndpoint(0))
		if d.in(25) {
			docs = append(docs, d.hostEndpoint(1))
		}
	}
	docs = append(docs, d.tiers()...)
	for i := range 1 + d.IntN(9) {
		docs = append(docs, d.policy(i, host))
	}
	if d.in(30) {
		docs = append(docs, d.run()...)
	}
	var text []string
	for _, o := range docs {
		if o["apiVersion"] == nil {
			o["apiVersion"] = "projectcalico.org/v3"
		}
		data, err := json.Marshal(o)
		if err != nil {
			return World{}, err
		}
		text = append(text, string(data))
	}
	return Parse(text)
}
