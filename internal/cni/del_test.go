package cni_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/testenv"
)

func TestDel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.pod("web-0")
	n.mustRun("calico", "DEL", plainConf, p) // unknown
	n.mustRun("calico", "ADD", plainConf, p)
	n.mustRun("calico", "DEL", plainConf, p)
	if n.agent.count() != 0 {
		t.Error("the agent was not told")
	}
	if got := links(t, p.ns); slices.Contains(got, "eth0") {
		t.Errorf("eth0 is still there: %v", got)
	}
	last := n.agent.dels[len(n.agent.dels)-1]
	if last.HostLink != "cali0d7763386da" || last.HostIndex == 0 || last.Pod != "web-0" {
		t.Errorf("the agent was asked %+v", last)
	}
	n.mustRun("calico", "DEL", plainConf, p) // again
	// The names are free at once, although nobody has deleted the old pair.
	n.mustRun("calico", "ADD", plainConf, p)
	gone := p
	gone.path = "/proc/nonexistent/ns"
	n.mustRun("calico", "DEL", plainConf, gone)
	gone.path = ""
	n.mustRun("calico", "DEL", plainConf, gone)
	gone.path = filepath.Join(t.TempDir(), "unmounted")
	if err := os.WriteFile(gone.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.mustRun("calico", "DEL", plainConf, gone)
	if n.agent.count() != 0 {
		t.Error("the agent was not told of a container whose namespace is gone")
	}
}

func TestDelWithDeadAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p, other := n.pod("web-0"), n.pod("web-1")
	n.mustRun("calico", "ADD", plainConf, p)
	n.mustRun("calico", "ADD", plainConf, other)
	n.stop()
	n.mustRun("calico", "DEL", plainConf, p)
	n.mustRun("calico", "DEL", plainConf, other)
	if got := append(links(t, n.ns), links(t, p.ns)...); len(got) > 0 {
		t.Errorf("links are left: %v", got)
	}
	if info, err := os.Stat(n.queue); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("queue: %v, %v; want a directory of mode 0700", info, err)
	}
	// The agent is back, and a container is added before the queue was worked off.
	n.agent.serve(t, n.socket)
	n.mustRun("calico", "ADD", plainConf, p)
	if err := (rpc.Queue{Dir: n.queue}).Each(t.Context(), n.agent.Del); err != nil {
		t.Fatal(err)
	}
	if n.agent.asked(p.container).Pod != "web-0" {
		t.Error("the queued DEL hit the ADD that came after it")
	}
	if n.agent.asked(other.container).Pod != "" {
		t.Error("the other queued DEL was not carried out")
	}
}

func TestHostLocalGetsItsAddressBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	conf := with(plainConf, `ipam={"type":"host-local","dataDir":"`+t.TempDir()+`","ranges":[[{"subnet":"10.77.0.0/30"}]],"routes":[{"dst":"10.0.0.0/8"}]}`)
	p := n.pod("web-0")
	for range 4 { // there is one address
		out := n.mustRun("calico", "ADD", conf, p)
		if !contains(out, "10.77.0.2/32") {
			t.Fatalf("got %s, want 10.77.0.2/32", out)
		}
		if got := ip(t, p.ns, "route"); sortLines(got) != "10.0.0.0/8 via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link" {
			t.Errorf("routes of the IPAM section are not taken:\n%s", got)
		}
		if got := n.agent.asked(p.container); len(got.Endpoint.Given) != 1 || got.Address.IPv4 {
			t.Errorf("the agent was asked %+v", got)
		}
		n.mustRun("calico", "DEL", conf, p)
	}
}

func TestGCTakesBackWhatIsNotValid(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	conf := with(plainConf, `cniVersion="1.1.0"`)
	p, stale := n.pod("web-0"), n.pod("web-1")
	n.mustRun("calico", "ADD", conf, p)
	n.mustRun("calico", "ADD", conf, stale)
	n.mustRun("calico", "GC", with(conf, `cni.dev/valid-attachments=[{"containerID":"`+p.container+`","ifname":"eth0"}]`), pod{})
	if got := links(t, n.ns); len(got) != 1 || got[0] != "cali0d7763386da" {
		t.Errorf("host links %v, want cali0d7763386da only", got)
	}
	if n.agent.count() != 1 {
		t.Errorf("the agent has %d attachments, want 1", n.agent.count())
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	conf := with(plainConf, `cniVersion="1.1.0"`)
	n.mustRun("calico", "STATUS", conf, pod{})
	n.mustRun("calico-ipam", "STATUS", conf, pod{})
	n.stop()
	n.refused("calico", "STATUS", conf, pod{}, 50, "no node agent")
}

func replace(s, old, with string) string { return strings.ReplaceAll(s, old, with) }
func contains(s, part string) bool       { return strings.Contains(s, part) }
func sorted(s []string) []string         { return slices.Sorted(slices.Values(s)) }

func readSysctl(t testing.TB, ns *testenv.Namespace, key string) (value string) {
	t.Helper()
	ns.MustDo(func() error {
		b, err := os.ReadFile("/proc/sys/" + key)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value
}
