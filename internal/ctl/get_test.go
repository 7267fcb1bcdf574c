package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/etcd/server"
)

// recorded is a run of calicoctl: see test/fixtures/ctl/README.md.
type recorded struct {
	ID             string
	Args           []string
	Env            map[string]string
	Stdin          string
	Exit           int
	Stdout, Stderr string
	Crash          bool
	OrderVaries    bool `json:"order_varies"`
}

const ctlFixtures = "../../test/fixtures/ctl/"

// recordings reads the recorded runs.
func recordings(t *testing.T) []recorded {
	t.Helper()
	f, err := os.Open(ctlFixtures + "golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []recorded
	for d := json.NewDecoder(bufio.NewReader(f)); d.More(); {
		var g recorded
		if err := d.Decode(&g); err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	return all
}

// etcdFor starts an etcd for one test and returns the environment that names it, and a
// store on it.
func etcdFor(t *testing.T) ([]string, store.Store) {
	t.Helper()
	dir := t.TempDir()
	url := "unix://" + filepath.Join(dir, "s")
	srv, err := server.Start(t.Context(), server.Config{Dir: filepath.Join(dir, "data"), ClientURLs: []string{url}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + url}, s
}

// load puts the documents of a file into a store, as apply would.
func load(t *testing.T, s store.Store, file string) {
	t.Helper()
	if err := store.Initialise(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := v3.DecodeAll(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		v3.Default(o)
		_, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(o)})
		if errors.Is(err, store.ErrExists) {
			_, err = s.Commit(t.Context(), store.Op{Verb: store.Update, Object: store.New(o)})
		}
		if err != nil {
			t.Fatal(v3.Describe(o), err)
		}
	}
}

// command runs a command line by the name of a program.
func command(ctx context.Context, program string, environ []string, stdin string, args ...string) (stdout, stderr string, code int) {
	var out, log bytes.Buffer
	err := Execute(ctx, Process{
		Program: program, Args: args, Environ: environ, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &log, Version: "v0",
	})
	if err != nil && !errors.As(err, new(*ExitError)) {
		log.WriteString("weft: " + err.Error() + "\n")
	}
	return out.String(), log.String(), ExitCode(err)
}

// volatile finds what differs from run to run, by what it is.
var volatile = map[string]*regexp.Regexp{ //nolint:gochecknoglobals // never written
	"<uid>":             regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`),
	"<time>":            regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`),
	"<guid>":            regexp.MustCompile(`\b[0-9a-f]{32}\b`),
	"<resourceVersion>": regexp.MustCompile(`("?resourceVersion"?: )"\d+"`),
}

// plain replaces what differs from run to run.
func plain(text string) string {
	for name, re := range volatile {
		if name == "<resourceVersion>" {
			name = `$1"` + name + `"`
		}
		text = re.ReplaceAllString(text, name)
	}
	return text
}

// TestGetGoldens runs each get that was recorded of Calico's tool between the second apply and
// the first other change, and wants its very text and exit code.
func TestGetGoldens(t *testing.T) {
	t.Parallel()
	environ, s := etcdFor(t)
	all := recordings(t)
	for _, g := range all[:4] { // on an empty datastore
		replay(t, environ, g)
	}
	load(t, s, ctlFixtures+"resources.yaml")
	replayed := 0
	for _, g := range all[8:182] {
		if g.Crash {
			continue
		}
		replay(t, environ, g)
		replayed++
	}
	if replayed < 150 {
		t.Errorf("only %d recorded runs were found", replayed)
	}
}

func replay(t *testing.T, environ []string, g recorded) {
	t.Helper()
	stdout, stderr, code := command(t.Context(), calicoctl, environ, g.Stdin, g.Args...)
	if g.OrderVaries {
		stderr, g.Stderr = wordsOf(stderr), wordsOf(g.Stderr)
	}
	if got := plain(stdout); got != g.Stdout {
		t.Errorf("%s %q: stdout\n%s\nwant\n%s", g.ID, g.Args, got, g.Stdout)
	}
	if stderr != g.Stderr || code != g.Exit {
		t.Errorf("%s %q: exit %d, stderr\n%s\nwant %d\n%s", g.ID, g.Args, code, stderr, g.Exit, g.Stderr)
	}
}

// wordsOf is text with its words in order, for what Calico prints in any.
func wordsOf(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,\n", r) })
	slices.Sort(words)
	return strings.Join(words, " ")
}

// TestGetWhereCalicoCrashes wants the columns that Calico means to print.
func TestGetWhereCalicoCrashes(t *testing.T) {
	t.Parallel()
	environ, s := etcdFor(t)
	load(t, s, ctlFixtures+"resources.yaml")
	for line, want := range map[string]string{
		"bgpfilter":                "NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6 filter-a 2 0 0 1",
		"sknp -o wide":             "NAME PODSELECTOR try-k8s app=web",
		"caliconodestatus -o wide": "NAME NODE CLASSES status-a node-a Agent,BGP",
		"wep -n prod -o wide":      "NAMESPACE NAME WORKLOAD NODE NETWORKS INTERFACE PROFILES NATS prod node--b-openstack-vm1-tap0 vm1 node-b 10.10.0.9/32 tap0",
	} {
		stdout, stderr, code := command(t.Context(), calicoctl, environ, "", append([]string{"get"}, strings.Fields(line)...)...)
		got := strings.Join(strings.Fields(stdout), " ")
		if !strings.HasPrefix(got, want) || code != 0 || stderr != "" {
			t.Errorf("get %s: exit %d, %q %q; want %q", line, code, got, stderr, want)
		}
	}
	for line, want := range map[string]string{"": "Name a kind", "ippool -f x.yaml": "only one may say what to get"} {
		_, stderr, code := command(t.Context(), calicoctl, environ, "", append([]string{"get"}, strings.Fields(line)...)...)
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("get %s: exit %d, %q; want 1 and %q", line, code, stderr, want)
		}
	}
}

// TestGet is weft's own voice.
func TestGet(t *testing.T) {
	t.Parallel()
	environ, s := etcdFor(t)
	load(t, s, ctlFixtures+"resources.yaml")
	load(t, s, "testdata/get/more.yaml")
	for line, want := range map[string]struct {
		stdout, stderr string // \n and all; of stderr a part
		code           int
	}{
		"tier":                 {"NAME            ORDER\nsecurity        50\nplatform        200.5\nkube-admin      1000\ndefault         1000000\nkube-baseline   10000000\n", "", 0},
		"ippool pool-a pool-b": {"NAME     CIDR           SELECTOR\npool-a   10.10.0.0/24   all()\npool-b   10.20.0.0/16   rack == 'b'\n", "", 0},
		"ippool/pool-a tier/default bgpfilter": {"NAME     CIDR           SELECTOR\npool-a   10.10.0.0/24   all()\n\nNAME      ORDER\ndefault   1000000\n\n" +
			"NAME       NUMEXPORTV4   NUMIMPORTV4   NUMEXPORTV6   NUMIMPORTV6\nfilter-a   2             0             0             1\n", "", 0},
		"ippool,hep -o name":        {"ippool.projectcalico.org/pool-a\nippool.projectcalico.org/pool-b\nippool.projectcalico.org/pool-six\nhostendpoint.projectcalico.org/hep-a\nhostendpoint.projectcalico.org/hep-b\n", "", 0},
		"knp -o name -A":            {"networkpolicy.networking.k8s.io/from-web\n", "", 0},
		"knp":                       {"NAME       PODSELECTOR\nfrom-web   app=db\n", "", 0},
		"bgpconfig":                 {"NAME          LOGSEVERITY   MESHENABLED   ASNUMBER\ndefault       Warning       false         64512\nnode.node-a   Debug         -             -\n", "", 0},
		"node -o wide":              {"NAME     ASN       IPV4            IPV6\nnode-a   64601     192.0.2.10/24   2001:db8::10/64\nnode-b   (64512)   192.0.2.11/24\nnode-c\n", "", 0},
		"node node-c node-b":        {"NAME\nnode-c\nnode-b\n", "", 0},
		"node --selector rack=='a'": {"NAME\nnode-a\n", "", 0},
		"np -A -o custom-columns=namespace,Name,order": {"NAMESPACE   NAME            ORDER\ndefault     allow-web       10\ndefault     security.lock   -\nprod        no-order        -\n", "", 0},
		"np -n prod": {"NAME       TIER\nno-order   default\n", "", 0},
		"ippool -o jsonpath={.items[*].spec.cidr}":                             {"10.10.0.0/24 10.20.0.0/16 fd00:10::/112", "", 0},
		"tier default -o jsonpath={.spec.order}":                               {"1000000", "", 0},
		"ippool/pool-a tier/default -o jsonpath={[*].metadata.name}":           {"pool-a default", "", 0},
		"gnp -o go-template={{range_(index_._0).Items}}{{.Spec.Tier}},{{end}}": {"default,platform,", "", 0},
		"tier -o json --selector a=='b'":                                       {"{\n  \"kind\": \"TierList\",\n  \"apiVersion\": \"projectcalico.org/v3\",\n  \"metadata\": {\n    \"resourceVersion\": \"<resourceVersion>\"\n  },\n  \"items\": []\n}\n", "", 0},
		"netset -n empty":                                                      {"", "weft: unknown kind \"netset\": is networkset meant?", 2},
		"netsets -n empty":                                                     {"", "No resources found in namespace empty\n", 0},
		"netsets -n prod -o name --selector a=='b'":                            {"", "No resources found in namespace prod\n", 0},
		"ippool nosuch":                                                        {"", "weft: get ippool nosuch: not found\n", 1},
		"ippool pool-a nosuch -o name":                                         {"ippool.projectcalico.org/pool-a\n", "weft: get ippool nosuch: not found\n", 1},
		"np allow-web nosuch other":                                            {"NAME        TIER\nallow-web   default\n", "weft: get networkpolicy default/nosuch: not found\nget networkpolicy default/other: not found\n", 1},
		"ippool nosuch -o yaml":                                                {"", "weft: get ippool nosuch: not found\n", 1},
		"ippool -n prod":                                                       {"", "-n prod: ippool is not namespaced: leave -n out", 2},
		"np allow-web -A":                                                      {"", "-A with a name: allow-web", 2},
		"np -A -n prod":                                                        {"", "only one may be", 2},
		"ipool":                                                                {"", `unknown kind "ipool": is ippool meant?`, 2},
		"frobs":                                                                {"", `unknown kind "frobs": must be one of bgpconfiguration,`, 2},
		"ippool,frobs,tiger":                                                   {"", `is tier meant?`, 2},
		"":                                                                     {"", "Name a kind, such as ippool", 2},
		"ippool -o xml":                                                        {"", "-o xml: must be table, wide,", 2},
		"ippool -o custom-columns=":                                            {"", "names no column", 2},
		"ippool -o custom-columns=NAME,FOO":                                    {"", "unknown heading FOO, valid values are: NAME, CIDR,", 2},
		"ippool -o go-template={{":                                             {"", "template: get:1", 2},
		"ippool -o jsonpath={.items[":                                          {"", "-o jsonpath:", 2},
		"ippool -o go-template-file=nosuch.tpl":                                {"", "nosuch.tpl: no such file", 2},
		"ippool --selector a==":                                                {"", "--selector: ", 2},
		"ippool a --selector a=='b'":                                           {"", "--selector with a name", 2},
		"ippool/":                                                              {"", "must be KIND/NAME", 2},
		"ippool tier/default":                                                  {"", "not both", 2},
		"-f - ippool":                                                          {"", "only one may say what to get", 2},
		"ippool tier --watch":                                                  {"", "weft: get ippool tier: not found", 1},
		"ippool,tier --watch":                                                  {"", "--watch: can follow one kind", 2},
		"ipamblock":                                                            {"NAME             CIDR             AFFINITY      IN USE\n10-10-0-160-28   10.10.0.160/28   host:node-a   2/16\n", "", 0},
		"ipamblock 10.10.0.160/28 -o name":                                     {"ipamblock.projectcalico.org/10-10-0-160-28\n", "", 0},
		"affinity":                                                             {"NAME                    CIDR             NODE     STATE\nnode-a-10-10-0-160-28   10.10.0.160/28   node-a   confirmed\n", "", 0},
		"ipamhandle -o wide":                                                   {"NAME   ADDRESSES   BLOCKS\nh      2           10.10.0.160/28\n", "", 0},
	} {
		args := []string{"get"}
		for _, word := range strings.Fields(line) {
			if strings.Contains(word, "{{") {
				word = strings.ReplaceAll(word, "_", " ")
			}
			args = append(args, word)
		}
		stdout, stderr, code := command(t.Context(), "weft", environ, "", args...)
		if plain(stdout) != want.stdout || !strings.Contains(stderr, want.stderr) || want.stderr == "" && stderr != "" || code != want.code {
			t.Errorf("get %s: exit %d\n%s%s\nwant %d\n%s%s", line, code, stdout, stderr, want.code, want.stdout, want.stderr)
		}
	}
}

// TestGetTakesBackWhatItPrints reads every object of the datastore as YAML, JSON and in lists,
// and wants the decoder to make the same of it.
func TestGetTakesBackWhatItPrints(t *testing.T) {
	t.Parallel()
	environ, s := etcdFor(t)
	load(t, s, ctlFixtures+"resources.yaml")
	for _, output := range []string{"yaml", "json"} {
		stdout, stderr, code := command(t.Context(), "weft", environ, "", "get", "ippool/pool-a", "gnp/platform.dns", "node/node-a", "-o", output)
		if code != 0 {
			t.Fatal(stderr)
		}
		objects, err := v3.DecodeAll([]byte(stdout))
		if err != nil || len(objects) != 3 {
			t.Errorf("-o %s: %d objects, %v; want 3 in\n%s", output, len(objects), err, stdout)
		}
	}
}

// rows is a writer that tells of each write.
type rows chan string

func (r rows) Write(text []byte) (int, error) {
	r <- string(text)
	return len(text), nil
}

// TestGetWatch changes objects while they are watched.
func TestGetWatch(t *testing.T) {
	t.Parallel()
	environ, s := etcdFor(t)
	load(t, s, ctlFixtures+"resources.yaml")
	for _, tt := range []struct {
		args  string
		write func(cidr string) v3.Object
		want  []string
	}{
		{
			"ippool --watch --selector watched=='yes'",
			func(selector string) v3.Object {
				o := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.99.0.0/16", NodeSelector: selector}}
				o.Name, o.Labels = "w", map[string]string{"watched": "yes"}
				return o
			},
			[]string{"EVENT NAME CIDR SELECTOR ADDED w 10.99.0.0/16 all()", "MODIFIED w 10.99.0.0/16 has(x)", "DELETED w 10.99.0.0/16 has(x)"},
		},
		{ // of these no source tells
			"bgpfilter --watch -o name",
			func(string) v3.Object {
				o := &v3.BGPFilter{}
				o.Name = "w"
				return o
			},
			[]string{"bgpfilter.projectcalico.org/filter-a", "bgpfilter.projectcalico.org/w", "bgpfilter.projectcalico.org/w deleted"},
		},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			watchOne(t, environ, s, strings.Fields(tt.args), tt.write, tt.want)
		})
	}
}

// watchOne creates, changes and deletes an object, each after the one before was seen.
func watchOne(t *testing.T, environ []string, s store.Store, args []string, write func(string) v3.Object, want []string) {
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := make(rows), make(chan error, 1)
	go func() {
		ended <- Execute(ctx, Process{Program: "weft", Args: append([]string{"get"}, args...), Environ: environ, Stdout: out, Stderr: os.Stderr})
		close(out)
	}()
	steps := []store.Op{
		{Verb: store.Create, Object: store.New(write("all()"))},
		{Verb: store.Update, Object: store.New(write("has(x)"))},
		{Verb: store.Delete, Object: store.New(write(""))},
	}
	if strings.HasSuffix(want[1], "/w") { // its name is all that is seen: the change of it is not waited for
		if got := strings.TrimSpace(<-out); got != want[0] {
			t.Errorf("got %q, want %q", got, want[0])
		}
		steps, want = []store.Op{steps[0], steps[2]}, want[1:]
	}
	for i, op := range steps {
		if _, err := s.Commit(ctx, op); err != nil {
			t.Error(err)
			break
		}
		got := ""
		for text := range out {
			if got = strings.Join(append(strings.Fields(got), strings.Fields(text)...), " "); got != "" {
				break
			}
		}
		if got != want[i] {
			t.Errorf("step %d: got %q, want %q", i+1, got, want[i])
		}
	}
	cancel()
	for range out { // nothing more is of interest
	}
	if err := <-ended; err != nil {
		t.Errorf("ended by a signal: %v; want no failure", err)
	}
}

// TestGetLong reads more objects than the datastore gives at once.
func TestGetLong(t *testing.T) {
	t.Parallel()
	environ, s := etcdFor(t)
	const count = 1200
	for i := 0; i < count; i += 100 {
		var ops []store.Op
		for n := i; n < i+100; n++ {
			o := &v3.GlobalNetworkSet{}
			o.Name = "s" + strconv.Itoa(n)
			ops = append(ops, store.Op{Verb: store.Create, Object: store.New(o)})
		}
		if _, err := s.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	for output, lines := range map[string]int{"ps": count + 1, "name": count, "json": count} {
		stdout, stderr, _ := command(t.Context(), "weft", environ, "", "get", "globalnetworksets", "-o", output)
		got := strings.Count(stdout, "\n")
		if output == "json" {
			got = strings.Count(stdout, `"kind": "GlobalNetworkSet",`)
		}
		if got != lines || stderr != "" {
			t.Errorf("-o %s: %d, %q; want %d", output, got, stderr, lines)
		}
	}
}
