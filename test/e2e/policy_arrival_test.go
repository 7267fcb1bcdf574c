package e2e_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// newcomer is an order to attach one container, to be watched from before its
// interface is there.
type newcomer struct {
	cniCall
	Sends stream // what the container sends all the time, to where policy denies it
	Peer  string // ADDRESS:PORT that answers it, and that policy allows
}

// arrival is what came of it.
type arrival struct {
	cniAnswer
	Came       map[int]int // datagrams that came into the container, by UDP port
	CameBefore map[int]int // those of them that came before the ADD returned
	Sent       int         // datagrams that left the container
	Talk       string      // what the first exchange with the peer, right after the ADD, said; "ok"
}

// newcomers attaches containers, a line of input each, and answers with an arrival
// each. watched names the ports of which datagrams are counted.
func newcomers(watched string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var n newcomer
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			return err
		}
		a, err := n.arrive(watched)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// inside runs f on a thread that is in the namespace, and stays there.
func inside(ns netns.NsHandle, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is in another namespace
		err := netns.Set(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (n newcomer) arrive(watched string) (arrival, error) {
	ns, err := newNetns()
	if err != nil {
		return arrival{}, err
	}
	var mu sync.Mutex
	count := map[int]int{}
	var sniffer int
	if err := inside(ns, func() (err error) {
		const all = 0x0300 // ETH_P_ALL in the network's order
		sniffer, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
		return err
	}); err != nil {
		return arrival{}, fmt.Errorf("packet socket: %w", err)
	}
	go func() {
		b := make([]byte, 256)
		for {
			size, from, err := unix.Recvfrom(sniffer, b, 0)
			if err != nil {
				return
			}
			port := udpPort(b[:size])
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok || link.Pkttype == unix.PACKET_OUTGOING || !slices.Contains(strings.Fields(watched), strconv.Itoa(port)) {
				continue
			}
			mu.Lock()
			count[port]++
			mu.Unlock()
		}
	}()
	var over atomic.Bool
	sent := make(chan int)
	var sender *flooder
	if err := inside(ns, func() (err error) { sender, err = newFlooder(n.Sends); return err }); err != nil {
		return arrival{}, err
	}
	go func() {
		for tick := time.NewTicker(200 * time.Microsecond); !over.Load(); <-tick.C {
			if sender.send(sender.sent) == nil { // no route at first
				sender.sent++
			}
		}
		sent <- sender.sent
	}()
	counted := func() map[int]int {
		mu.Lock()
		defer mu.Unlock()
		out := map[int]int{}
		for port, n := range count {
			out[port] = n
		}
		return out
	}
	a := arrival{cniAnswer: n.run(n.Containers[0], ns, 0)}
	a.CameBefore = counted()
	a.Talk = "not tried"
	if a.Code == 0 {
		a.Talk = "ok"
		if err := inside(ns, func() error {
			_, conn, err := beginTalk(talkUDP, n.Peer, testenv.Patience)
			if err == nil {
				err = conn.Close()
			}
			return err
		}); err != nil {
			a.Talk = err.Error()
		}
	}
	// What is allowed shows that the streams reach it; what is denied has had as long.
	for end := time.Now().Add(testenv.Patience); a.Code == 0 && time.Now().Before(end) && len(counted()) == 0; {
		runtime.Gosched()
	}
	over.Store(true)
	a.Sent = <-sent
	a.Came = counted()
	return a, nil
}

// udpPort is the destination port of a datagram in an IP packet; 0: it is none.
func udpPort(b []byte) int {
	switch {
	case len(b) >= 28 && b[0]>>4 == 4 && b[9] == unix.IPPROTO_UDP && int(b[0]&15)*4+4 <= len(b):
		return int(binary.BigEndian.Uint16(b[int(b[0]&15)*4+2:]))
	case len(b) >= 48 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP:
		return int(binary.BigEndian.Uint16(b[42:]))
	}
	return 0
}

// guarded lets containers, which have no label app, get port 7001 and send to port
// 7001, and no other.
const guarded = `{"order": 1, "selector": "!has(app) && projectcalico.org/orchestrator == 'k8s'", "types": ["Ingress", "Egress"],
	"ingress": [{"action": "Allow", "protocol": "UDP", "destination": {"ports": [7001]}}],
	"egress": [{"action": "Allow", "protocol": "UDP", "destination": {"ports": [7001]}}]}`

// attach has a newcomer attached and gives what came of it.
func (h *host) attach(p *process, n newcomer, conf map[string]any) arrival {
	h.c.t.Helper()
	h.send(p, n, conf)
	return p.arrival()
}

// send has a newcomer attached, and does not wait.
func (h *host) send(p *process, n newcomer, conf map[string]any) {
	h.c.t.Helper()
	text, err := json.Marshal(conf)
	if err != nil {
		h.c.t.Fatal(err)
	}
	n.Command, n.Conf, n.Program = "ADD", text, filepath.Join(h.c.now.Dir, "cni", "calico")
	n.Env = []string{"WEFT_CNI_QUEUE=" + filepath.Join(filepath.Dir(h.c.node(h.node).Socket), "queue")}
	line, err := json.Marshal(n)
	if err != nil {
		h.c.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(p.stdin, "%s\n", line); err != nil {
		h.c.t.Fatal(err)
	}
}

// arrival waits for what came of a newcomer.
func (p *process) arrival() (a arrival) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.read()), &a); err != nil {
		p.t.Fatal(err)
	}
	return a
}

// TestPolicyBeforePod attaches containers at addresses at which two pods, one beside
// them and one of another node, send all the time, in both families, what policy
// denies and what it allows. From the first instant of its interface, a container
// gets nothing that is denied and nothing that it is denied to send leaves the node;
// and when the ADD has returned, what is allowed passes at the first try.
func TestPolicyBeforePod(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/policy.yaml")
	st := c.store()
	putPolicy(t, func(text string) { put(t, st, text) }, "GlobalNetworkPolicy", "guarded", guarded)
	h := c.runtime("node-a")
	h.conf["ipam"] = map[string]any{"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}
	first := h.must("ADD", "first")[0]
	c.serve("b2", "7001")
	for _, addr := range c.pod("b2").Addresses {
		c.reach("pod/default/a1", addr.String())
	}
	denies := c.startSink("a3", 7002)

	// Addresses that come next in the node's blocks are asked for by name.
	next := addressesOf(t, first)
	const containers = 12
	p := c.help("node-a", "newcomer", "7001 7002")
	var allowed, before, sent int
	for i := range containers {
		var streams []stream
		for f, addr := range next {
			for addr = addr.Next(); taken(c, addr); addr = addr.Next() {
			}
			next[f] = addr
			streams = append(streams, stream{ID: 1, To: netip.AddrPortFrom(addr, 7001)}, stream{ID: 2, To: netip.AddrPortFrom(addr, 7002)})
		}
		ends := []func() map[int]flooded{c.startFlood("a1", 2000, streams...), c.startFlood("b1", 2000, streams...)}
		name, family := fmt.Sprintf("new-%d", i), i%2
		a := h.attach(p, newcomer{
			cniCall: cniCall{Containers: []string{name}},
			Sends:   stream{ID: 3, To: netip.AddrPortFrom(c.pod("a3").Addresses[family], 7002)},
			Peer:    netip.AddrPortFrom(c.pod("b2").Addresses[family], 7001).String(),
		}, h.with(map[string]any{"args": map[string]any{"cni": map[string]any{"ips": next}}}))
		for _, end := range ends {
			end()
		}
		if a.Code != 0 {
			t.Fatalf("ADD of %s: %s%s", name, a.Stdout, a.Stderr)
		}
		if a.Came[7002] > 0 {
			t.Errorf("%s got %d datagrams that policy denies, %d of them before the ADD returned", name, a.Came[7002], a.CameBefore[7002])
		}
		if a.Talk != "ok" {
			t.Errorf("%s: right after the ADD an allowed datagram was not answered: %s", name, a.Talk)
		}
		allowed += a.Came[7001]
		before += a.CameBefore[7001]
		sent += a.Sent
	}
	if allowed == 0 || sent == 0 {
		t.Errorf("%d allowed datagrams came and %d left: this test shows nothing", allowed, sent)
	}
	if got := arrived(denies, map[int]int{3: 0})[3].Count; got > 0 {
		t.Errorf("%d of %d datagrams came that a container may not send", got, sent)
	}
	t.Logf("%d containers: %d allowed datagrams came in, %d of them before the ADD returned; %d denied ones were sent", containers, allowed, before, sent)
}

// addressesOf are the addresses that an ADD printed.
func addressesOf(t testing.TB, a cniAnswer) (out []netip.Addr) {
	t.Helper()
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal([]byte(a.Stdout), &result); err != nil {
		t.Fatalf("result of %s: %v: %s", a.Container, err, a.Stdout)
	}
	for _, ip := range result.IPs {
		out = append(out, ip.Address.Addr())
	}
	return out
}

// hostLinkOf is the host's end of the link that an ADD made.
func hostLinkOf(t testing.TB, a cniAnswer) string {
	t.Helper()
	var result struct {
		Interfaces []struct{ Name, Sandbox string }
	}
	if err := json.Unmarshal([]byte(a.Stdout), &result); err != nil || len(result.Interfaces) == 0 || result.Interfaces[0].Sandbox != "" {
		t.Fatalf("result of %s: %v: %s", a.Container, err, a.Stdout)
	}
	return result.Interfaces[0].Name
}

// taken reports whether a pod of the lab has the address.
func taken(c *cluster, addr netip.Addr) bool {
	for _, p := range c.now.Pods {
		for _, a := range p.Addresses {
			if a == addr {
				return true
			}
		}
	}
	return false
}

// TestPolicyCannotBeSet: when the rules of a new pod do not get into the kernel, its
// ADD ends as the network configuration says, after the time that it says, and the
// rules are there as soon as they can be. Another program owns our table meanwhile.
func TestPolicyCannotBeSet(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "nft")
	c := up(t, "topologies/policy.yaml")
	h := c.runtime("node-a")
	h.must("ADD", "first")
	owner := c.begin("node-a", "nft", "-i")
	if _, err := io.WriteString(owner.stdin, "delete table ip weft; add table ip weft { flags owner; }\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another owner of our table", func() error {
		if out, code := c.sh("node-a").try("nft list table ip weft"); code != 0 || !strings.Contains(out, "owner") {
			return errors.New(out)
		}
		return nil
	})
	start := time.Now()
	h.refused("ADD", h.with(map[string]any{"policy_setup_timeout_seconds": 1}), "policy", "not within 1s")
	fails := time.Since(start)
	start = time.Now()
	a := h.cni("ADD", h.with(map[string]any{"policy_setup_timeout_seconds": 1, "policy_setup_failure": "proceed"}), "proceeds")[0]
	if a.Code != 0 {
		t.Fatalf("an ADD that is to go on: %s%s", a.Stdout, a.Stderr)
	}
	goesOn := time.Since(start)
	for what, took := range map[string]time.Duration{"fails": fails, "goes on": goesOn} {
		t.Logf("it %s after %v", what, took)
		if took < time.Second || took > 25*time.Second {
			t.Errorf("it %s after %v, want 1 s, and not the default of 30 s", what, took)
		}
	}
	owner.stdin.Close() // takes the table along
	link := hostLinkOf(t, a)
	// The kernel does not tell that an owner is gone: the agent's next try finds out.
	took := eventually(t, "rules of the pod", func() error {
		if out, code := c.sh("node-a").try("nft list table ip weft"); code != 0 || strings.Contains(out, "owner") || !strings.Contains(out, link) {
			return fmt.Errorf("%s is not in\n%s", link, out)
		}
		return nil
	})
	t.Logf("rules in force %v after the owner went", took)
}

// TestPodOfStoppedAgent: an agent that hangs in the middle of an ADD leaves the pod
// without any traffic, though its route be there; when it goes on, the ADD succeeds.
func TestPodOfStoppedAgent(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/policy.yaml")
	st := c.store()
	putPolicy(t, func(text string) { put(t, st, text) }, "GlobalNetworkPolicy", "guarded", guarded)
	h := c.runtime("node-a")
	first := h.must("ADD", "first")[0]
	c.serve("b2", "7001")
	c.reach("pod/default/a1", c.addr("b2"))
	addr := addressOf(t, first).Next()
	for ; taken(c, addr); addr = addr.Next() {
	}
	before := c.links("node-a")
	agent := strconv.Itoa(c.node("node-a").PID)
	p := c.help("node-a", "newcomer", "7001 7002")
	denies := c.startSink("a3", 7002)
	end := c.startFlood("a1", 1000, stream{ID: 1, To: netip.AddrPortFrom(addr, 7001)}, stream{ID: 2, To: netip.AddrPortFrom(addr, 7002)})
	c.sh("node-a").run("kill -STOP " + agent)
	h.send(p, newcomer{
		cniCall: cniCall{Containers: []string{"new"}},
		Sends:   stream{ID: 3, To: netip.AddrPortFrom(c.pod("a3").Addresses[0], 7002)},
		Peer:    c.addr("b2") + ":7001",
	}, h.with(map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []netip.Addr{addr}}}}))
	var link string
	eventually(t, "the pod's link, up", func() error {
		for _, l := range c.links("node-a") {
			if l, _, _ = strings.Cut(l, "@"); !slices.ContainsFunc(before, func(b string) bool { return strings.HasPrefix(b, l) }) {
				link = strings.TrimSuffix(l, ":")
			}
		}
		if link == "" || !strings.Contains(c.sh("node-a").run("ip link show "+link), "LOWER_UP") {
			return fmt.Errorf("links %v, %q is new", c.links("node-a"), link)
		}
		return nil
	})
	// All that the agent would do, but for the rules.
	c.sh("node-a").run(fmt.Sprintf("ip route replace %v dev %s && ip neigh replace %v lladdr ff:ff:ff:ff:ff:ff dev %s nud permanent", addr, link, addr, link))
	dropped := func() int {
		out := c.sh("node-a").run("nft list chain ip weft to-workload")
		m := regexp.MustCompile(`packets (\d+) bytes \d+ drop comment "interface is not known"`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no rule for unknown interfaces in\n%s", out)
		}
		n, _ := strconv.Atoi(m[1])
		return n
	}
	eventually(t, "packets to the pod to be dropped", func() error {
		if n := dropped(); n < 100 {
			return fmt.Errorf("%d were", n)
		}
		return nil
	})
	c.sh("node-a").run("kill -CONT " + agent)
	a := p.arrival()
	end()
	if a.Code != 0 || a.Talk != "ok" {
		t.Errorf("the ADD: exit code %d, first exchange %s: %s%s", a.Code, a.Talk, a.Stdout, a.Stderr)
	}
	if a.Came[7002] > 0 {
		t.Errorf("%d datagrams came that policy denies", a.Came[7002])
	}
	if got := arrived(denies, map[int]int{3: 0})[3].Count; got > 0 {
		t.Errorf("%d of %d datagrams came that the pod may not send", got, a.Sent)
	}
	t.Logf("%d of those allowed came, %d of them before the ADD returned", a.Came[7001], a.CameBefore[7001])
}
