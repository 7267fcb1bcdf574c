package e2e_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Ports of the pods that are sent to: one that policy allows, one that the sender's
// policy denies and one that the receiver's does.
const (
	portAllowed     = 7001
	portDeniedLeave = 7002
	portDeniedEnter = 7003
	portTalk        = 7005 // allowed, too

	probesPerSecond = 10_000
	restarts        = 50
	changesOfPolicy = 200
	changeEvery     = 40 * time.Millisecond
)

// fixed is the policy that denies the sender one port, and allows everything else.
const fixed = `{"order": 10, "selector": "app == 'client'", "types": ["Egress"], "egress": [
	{"action": "Deny", "protocol": "UDP", "destination": {"selector": "app == 'server'", "ports": [7002]}}, {"action": "Allow"}]}`

// sameVerdicts are versions of the policy of the receiver that do the same to the
// probes in different ways: other chains, other sets, other types of sets.
var sameVerdicts = []string{
	`{"order": 10, "selector": "app == 'server'", "ingress": [
		{"action": "Allow", "protocol": "UDP", "source": {"selector": "app == 'client'"}, "destination": {"ports": [7001, 7002]}},
		{"action": "Allow", "protocol": "TCP"}]}`,
	`{"order": 10, "selector": "app in {'server', 'none'}", "ingress": [
		{"action": "Deny", "protocol": "UDP", "destination": {"ports": [7003]}},
		{"action": "Allow", "source": {"nets": ["192.168.0.0/16"]}}, {"action": "Allow", "source": {"nets": ["fd00:168::/48"]}}]}`,
	`{"order": 20, "selector": "has(app)", "ingress": [
		{"action": "Deny", "protocol": "UDP", "destination": {"selector": "app == 'server'", "ports": ["7003:7009"]}},
		{"action": "Allow", "source": {"selector": "app in {'client', 'other'}"}}]}`,
	`{"order": 5, "selector": "app == 'server'", "ingress": [
		{"action": "Allow", "protocol": "TCP", "destination": {"ports": ["7000:7100"]}},
		{"action": "Allow", "protocol": "UDP", "source": {"selector": "all()"}, "destination": {"ports": [1, 7001, 7002]}},
		{"action": "Pass", "protocol": "UDP", "destination": {"ports": [9]}},
		{"action": "Deny", "source": {"notNets": ["203.0.113.0/24"]}}, {"action": "Deny", "source": {"notNets": ["2001:db8::/32"]}}]}`,
	`{"order": 10, "selector": "app == 'server'", "ingress": [
		{"action": "Deny", "protocol": "UDP", "destination": {"ports": [3, 7003, 7009]}}, {"action": "Allow"}]}`,
}

// change is number n of the changes that leave the verdicts of all probes as they are.
func (c *cluster) change(st store.Store, n int) {
	c.t.Helper()
	object := func(text string) { c.t.Helper(); put(c.t, st, text) }
	switch kind, round := n%6, n/6; kind {
	case 0: // a policy of other pods comes, another goes
		putPolicy(c.t, object, "NetworkPolicy", fmt.Sprintf("unrelated-%d", round), `{"order": 1, "selector": "app == 'other'", "ingress": [{"action": "Deny", "source": {"selector": "app == 'client'"}}]}`)
		if round > 0 {
			take(c.t, st, model.Key{Kind: model.KindNetworkPolicy, Namespace: "default", Name: fmt.Sprintf("unrelated-%d", round-1)})
		}
	case 1: // labels of other pods, some of which the probes' policies select
		c.label(st, []string{"a3", "b2"}[round%2], map[string]string{"app": []string{"other", "server", "client"}[round%3]})
	case 2: // labels of the probed pods that other policies select
		c.label(st, []string{"a1", "b1"}[round%2], map[string]string{"app": []string{"client", "server"}[round%2], "tick": fmt.Sprint(round % 3)})
	case 3: // a tier before all others, of pods that come and go from its selection
		const name = "first.ticking"
		putPolicy(c.t, object, "GlobalNetworkPolicy", name, fmt.Sprintf(`{"tier": "first", "order": 1, "selector": "tick == '%d'", "types": ["Ingress", "Egress"],
			"ingress": [{"action": "Pass"}], "egress": [{"action": "Pass"}]}`, round%3))
		if round%4 == 3 {
			take(c.t, st, model.Key{Kind: model.KindGlobalNetworkPolicy, Name: name})
		}
	default:
		putPolicy(c.t, object, "NetworkPolicy", "server", sameVerdicts[(2*round+kind)%len(sameVerdicts)])
	}
}

// label replaces the labels of a pod's endpoint, but for those of Kubernetes.
func (c *cluster) label(st store.Store, pod string, labels map[string]string) {
	c.t.Helper()
	eventually(c.t, "label "+pod, func() error {
		all, err := st.List(c.t.Context(), model.KindWorkloadEndpoint, "default")
		if err != nil {
			return err
		}
		for _, o := range all {
			ep, ok := o.Object.(*v3.WorkloadEndpoint)
			if !ok || ep.Spec.Pod != pod {
				continue
			}
			changed := *ep
			changed.Labels = maps.Clone(ep.Labels)
			maps.Copy(changed.Labels, labels)
			_, err := st.Commit(c.t.Context(), store.Op{Verb: store.Update, Object: o.With(&changed)})
			return err
		}
		return errors.New("no endpoint")
	})
}

// TestPolicyContinuity sends 10,000 packets a second, or as many as the machine can take,
// from a pod to one of another node, of both kinds and families, new flows and old ones, while the agents of both
// nodes are ended and killed 50 times and policy changes 200 times. No packet that is
// denied comes, none that is allowed is lost, and no connection is cut.
func TestPolicyContinuity(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/policy.yaml")
	st := c.store()
	object := func(text string) { t.Helper(); put(t, st, text) }
	putPolicy(t, object, "Tier", "first", `{"order": 1}`)
	putPolicy(t, object, "NetworkPolicy", "client", fixed)
	putPolicy(t, object, "NetworkPolicy", "server", sameVerdicts[0])
	for _, n := range []string{"node-a", "node-b"} {
		c.established(n, 2)
		// Flows of one packet leave soon: what is looked at here is not how the kernel
		// keeps a hundred thousand of them.
		c.sh(n).try("echo 2 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout")
	}
	c.serve("b1", fmt.Sprint(portTalk))
	receiver := c.startSink("b1", portAllowed, portDeniedLeave, portDeniedEnter)
	client := c.talker("a1")
	var streams []stream
	for family, addr := range c.pod("b1").Addresses {
		at := func(port int) string { return netip.AddrPortFrom(addr, uint16(port)).String() }
		client.begin(fmt.Sprintf("tcp-%d", family), talkTCP, at(portTalk))
		client.begin(fmt.Sprintf("stream-%d", family), talkStream, at(portTalk))
		for _, port := range []int{portDeniedLeave, portDeniedEnter} {
			eventually(t, "policy in force", func() error {
				return client.denied(talkUDP, at(port))
			})
		}
		for i, port := range []uint16{portAllowed, portAllowed, portDeniedLeave, portDeniedEnter, portDeniedLeave, portDeniedEnter} {
			streams = append(streams, stream{ID: 10*family + i, Kept: i%3 == 1, To: netip.AddrPortFrom(addr, port)})
		}
	}
	end := c.startFlood("a1", probesPerSecond, streams...)
	began := time.Now()
	c.disturb(st)
	t.Logf("%d restarts and %d changes of policy in %v", restarts, changesOfPolicy, time.Since(began))
	client.goOn(t)
	sent, asked := end(), map[int]int{}
	for _, s := range streams {
		asked[s.ID] = 0
		if s.To.Port() == portAllowed {
			asked[s.ID] = sent[s.ID].Sent
		}
	}
	total, wrong := 0, 0
	for id, got := range arrived(receiver, asked) {
		i := slices.IndexFunc(streams, func(s stream) bool { return s.ID == id })
		what := fmt.Sprintf("to %v, kept %v", streams[i].To, streams[i].Kept)
		lost := asked[id] - got.Count
		if asked[id] > 0 && lost > 0 {
			t.Errorf("%s: %d of %d allowed packets were lost, among them numbers %v", what, lost, asked[id], got.Missing)
		}
		if asked[id] > 0 && streams[i].Kept && sent[id].Answered != sent[id].Sent {
			t.Errorf("%s: %d answers to %d packets", what, sent[id].Answered, sent[id].Sent)
		}
		if asked[id] == 0 && got.Count > 0 {
			t.Errorf("%s: %d of %d denied packets came", what, got.Count, sent[id].Sent)
		}
		total += sent[id].Sent
		wrong += max(lost, -lost)
	}
	t.Logf("%d packets sent, %.0f a second, %d wrong", total, float64(total)/time.Since(began).Seconds(), wrong)
	if total < probesPerSecond {
		t.Errorf("%d packets: too few to see anything", total)
	}
}

// disturb restarts the agents of both nodes, half of the times by SIGKILL, while
// policy changes.
func (c *cluster) disturb(st store.Store) {
	c.t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(changeEvery)
		defer tick.Stop()
		for n := range changesOfPolicy {
			c.change(st, n)
			<-tick.C
		}
	})
	for n, node := range []string{"node-a", "node-b"} {
		all.Go(func() {
			for i := range restarts / 2 {
				c.stop(node, i%2 == n)
				c.start(node)
			}
		})
	}
	all.Wait()
}
