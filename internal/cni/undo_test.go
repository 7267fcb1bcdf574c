package cni_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/cni/rpc"
)

func TestFailedAddLeavesNothing(t *testing.T) {
	t.Parallel()
	exhausted := &rpc.Error{Code: rpc.CodeNoAddress, Msg: "ipam: pool default is full"}
	hostLocal := with(plainConf, `ipam={"type":"host-local","dataDir":"DIR","ranges":[[{"subnet":"10.77.0.0/24"}]]}`)
	for name, tt := range map[string]struct {
		conf string
		fail error
		hurt func(t *testing.T, n *node, p *pod)
		code uint
		text string
	}{
		"agent refuses":             {fail: exhausted, code: 100, text: "ipam: pool default is full"},
		"agent refuses, host-local": {conf: hostLocal, fail: exhausted, code: 100, text: "pool default is full"},
		"no agent":                  {hurt: func(_ *testing.T, n *node, _ *pod) { n.stop() }, code: 11, text: "no node agent"},
		"agent of another node":     {conf: with(plainConf, `nodename="node-b"`), code: 7, text: `nodename "node-b"`},
		"namespace missing": {
			hurt: func(_ *testing.T, _ *node, p *pod) { p.path = "/proc/nonexistent/ns" },
			code: 8, text: "netns /proc/nonexistent/ns: no network namespace there: no such file or directory",
		},
		"not a namespace":          {hurt: func(_ *testing.T, _ *node, p *pod) { p.path = "/dev/null" }, code: 8, text: "not a network namespace"},
		"other kind of namespace":  {hurt: func(_ *testing.T, _ *node, p *pod) { p.path = "/proc/self/ns/uts" }, code: 8, text: "not a network namespace"},
		"own namespace":            {hurt: func(_ *testing.T, n *node, p *pod) { p.path = n.ns.Path() }, code: 8, text: "the node's own"},
		"no IPv6 in the container": {conf: with(plainConf, `ipam={"type":"calico-ipam","ipv4_pools":[],"assign_ipv4":"false"}`), code: 100, text: "no address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			p := n.pod("web-0")
			n.agent.set(tt.fail, nil)
			given := p
			if tt.hurt != nil {
				tt.hurt(t, n, &given)
			}
			conf, dir := tt.conf, t.TempDir()
			if conf == "" {
				conf = plainConf
			}
			n.refused("calico", "ADD", replace(conf, "DIR", dir), given, tt.code, tt.text)
			n.untouched(p)
			if left, _ := filepath.Glob(filepath.Join(dir, "*", "10.77*")); len(left) > 0 {
				t.Errorf("host-local has kept %v", left)
			}
			if _, err := os.Stat(n.queue); err == nil {
				t.Error("a DEL was queued")
			}
		})
	}
}

func TestForeignInterfaceStays(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	p.ns.MustDo(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "other"})
	})
	n.refused("calico", "ADD", plainConf, p, 999, "link eth0: already in")
	n.mustRun("calico", "DEL", plainConf, p)
	if got := links(t, p.ns); len(got) != 2 {
		t.Errorf("links are %v, want eth0 and other", got)
	}
	if n.agent.count() != 0 || len(links(t, n.ns)) != 0 {
		t.Errorf("left: %d attachments, links %v", n.agent.count(), links(t, n.ns))
	}
}

// What a killed ADD left, and the interface of the pod's former container, make
// room.
func TestLeftoversAreRebuilt(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p, former := n.pod("web-0"), n.pod("web-0")
	former.container = "former"
	index := func() (n int) {
		l, err := netlink.LinkByName("cali0d7763386da")
		if err != nil {
			t.Error(err)
			return 0
		}
		return l.Attrs().Index
	}
	n.mustRun("calico", "ADD", plainConf, former)
	if got := n.agent.asked(former.container).HostIndex; got != 0 {
		t.Errorf("the agent was told of link %d before it was there", got)
	}
	n.mustRun("calico", "ADD", plainConf, p) // takes the name of the host link
	n.ns.MustDo(func() error {
		// The routes of the former link must not do.
		if got, want := n.agent.asked(p.container).HostIndex, index(); got != want {
			t.Errorf("the agent was told of link %d, want %d, the new one", got, want)
		}
		return nil
	})
	if got := links(t, former.ns); len(got) != 0 {
		t.Errorf("the former container still has %v", got)
	}
	n.ns.MustDo(func() error { // as if killed before the host's end was complete
		l, err := netlink.LinkByName("cali0d7763386da")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
	n.mustRun("calico", "ADD", plainConf, p)
	if got := ip(t, n.ns, "-br", "link", "show", "cali0d7763386da"); !contains(got, "LOWER_UP") {
		t.Errorf("the host's end is not up: %s", got)
	}
	n.mustRun("calico", "DEL", plainConf, former) // the runtime's late DEL
	if got := links(t, n.ns); len(got) != 1 {
		t.Errorf("the DEL of the former container took the link of the new one: %v", got)
	}
}

// A failing second ADD must not hurt the first, which may carry traffic.
func TestFailedRepetitionKeepsTheInterface(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	n.mustRun("calico", "ADD", plainConf, p)
	n.agent.set(&rpc.Error{Code: 11, Msg: "store is away"}, nil)
	n.refused("calico", "ADD", plainConf, p, 11, "store is away")
	if got := ip(t, p.ns, "-br", "addr", "show", "eth0"); !contains(got, "10.65.0.1/32") {
		t.Errorf("the interface lost its address: %s", got)
	}
	if n.agent.count() != 1 {
		t.Error("the endpoint was withdrawn")
	}
}

// An agent that dies in mid-ADD may have assigned: the DEL waits for it.
func TestAgentDiesDuringAdd(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	assigned := make(chan struct{})
	n.agent.set(nil, assigned)
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		<-assigned
		n.stop()
	}()
	if out, err := n.run("calico", "ADD", plainConf, p); err == nil {
		t.Fatalf("ADD succeeded: %s", out)
	}
	<-killed
	if got := append(links(t, n.ns), links(t, p.ns)...); len(got) > 0 {
		t.Errorf("links are left: %v", got)
	}
	if n.agent.count() == 0 {
		t.Fatal("the fake did not assign: the test tests nothing")
	}
	if err := (rpc.Queue{Dir: n.queue}).Each(t.Context(), n.agent.Del); err != nil {
		t.Fatal(err)
	}
	if n.agent.count() != 0 {
		t.Error("the address is leaked: nothing was queued")
	}
}

func TestFailureIsLogged(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.stop()
	file := filepath.Join(t.TempDir(), "cni.log")
	conf := with(plainConf, `log_file_path="`+file+`"`, `log_level="error"`, `dataplane_options={"type":"grpc"}`)
	n.refused("calico", "ADD", conf, n.pod("web-0"), 11, "no node agent")
	log, err := os.ReadFile(file)
	if err != nil || !contains(string(log), "workload=default/web-0") || !contains(string(log), "no node agent") {
		t.Errorf("the log has %q, %v", log, err)
	}
	if contains(string(log), "dataplane_options") {
		t.Errorf("a warning was logged at level error: %s", log)
	}
	n.refused("calico", "ADD", with(conf, `log_level="info"`), n.pod("web-1"), 11, "no node agent")
	if log, _ = os.ReadFile(file); !contains(string(log), "key=dataplane_options") {
		t.Errorf("a setting without effect was dropped in silence: %s", log)
	}
}
