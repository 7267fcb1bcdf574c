package ctl

import (
	"strings"

	"github.com/google/go-cmp/cmp"
)

// exception is a line of the goldens that weft answers otherwise.
type exception struct {
	why string
	// stdout and stderr are what weft says, exit is how it ends.
	stdout, stderr string
	exit           int
	begins         bool     // stdout and stderr are only how they begin
	undo           []string // a command that takes back what Calico's tool did not do
}

// differs is how the answer is not that of x; empty: it is.
func (x exception) differs(stdout, stderr string, exit int) string {
	if x.begins && strings.HasPrefix(stdout, x.stdout) && strings.HasPrefix(stderr, x.stderr) && exit == x.exit {
		return ""
	}
	return cmp.Diff([]any{x.stdout, x.stderr, x.exit}, []any{stdout, stderr, exit})
}

// exceptions are the lines where Calico's tool crashes, claims what is not so or prints what
// helps nobody, and its help texts, which are its own. docs/conformance.md has the same list.
func exceptions() map[string]exception {
	const (
		crash   = "Calico's tool crashes"
		claim   = "it claims that the object was replaced"
		ignored = "it ignores the type of the patch"
		help    = "help texts are each program's own"
	)
	filters := "NAME       NUMEXPORTV4   NUMIMPORTV4   NUMEXPORTV6   NUMIMPORTV6   \nfilter-a   2             0             0             1             \n\n"
	return map[string]exception{
		"ctl-011": {why: crash, stdout: filters},
		"ctl-012": {why: crash, stdout: filters},
		"ctl-104": {why: crash, stdout: filters},
		"ctl-105": {why: crash, stdout: filters},
		"ctl-048": {why: crash, stdout: "NAME      PODSELECTOR   \ntry-k8s   app=web       \n\n"},
		"ctl-050": {why: crash, stdout: "NAMESPACE   NAME      PODSELECTOR   \ndefault     try-k8s   app=web       \n\n"},
		"ctl-060": {why: crash, stdout: "NAME       NODE     CLASSES     \nstatus-a   node-a   Agent,BGP   \n\n"},
		"ctl-064": {
			why: crash,
			stdout: "NAMESPACE   NAME                         WORKLOAD   NODE     NETWORKS                        INTERFACE         PROFILES                          NATS                      \n" +
				"default     node--a-k8s-web--0-eth0      web-0      node-a   10.10.0.162/32,fd00:10::5/128   cali0d7763386da   kns.default,ksa.default.default                             \n" +
				"prod        node--b-openstack-vm1-tap0   vm1        node-b   10.10.0.9/32                    tap0                                                198.51.100.9->10.10.0.9   \n\n",
		},
		"ctl-182": {why: crash, stderr: "get: what?", exit: 1, begins: true},
		"ctl-208": {why: crash, stderr: "-f is missing: give a file, a directory or - for the standard input: see 'calicoctl apply --help'\n", exit: 1},
		"ctl-209": {why: crash, stderr: "-f resources.yaml and ippool: only one may say what to get\n", exit: 1},
		"ctl-187": {why: claim, stderr: "hit error: resource does not exist: GlobalNetworkSet(nosuch) with error: <nil>\n", exit: 1},
		"ctl-189": {why: claim, stderr: "hit error: update conflict: GlobalNetworkSet(world)\n", exit: 1},
		"ctl-192": {why: claim, stderr: "hit error: update conflict: GlobalNetworkSet(world)\n", exit: 1},
		"ctl-234": {
			why: ignored, stdout: "Successfully patched 1 'IPPool' resource\n",
			undo: []string{"patch", "ippool", "pool-a", "-t", "json", "-p", `[{"op":"remove","path":"/spec/disableBGPExport"}]`},
		},
		"ctl-238": {why: ignored, stderr: "--type \"x\": must be strategic, merge or json\n", exit: 1},
		"ctl-244": {
			why:    "it says one thing seven times, five of them in the words of the libraries within",
			stderr: "failed to validate 'IPPool' resource: [error with field spec.cidr = '10.0.0.0/40' (must be a prefix such as \"10.0.0.0/8\" or \"fd00::/8\")]\n", exit: 1,
		},
		"ctl-248": {why: help, stdout: "weft gives", begins: true},
		"ctl-249": {why: help, begins: true},
		"ctl-264": {
			why: "it prints where the value is in memory",
			stdout: "+------------------------------+---------+\n| PROPERTY                     | VALUE   |\n+------------------------------+---------+\n" +
				"| StrictAffinity               | false   |\n| AutoAllocateBlocks           | true    |\n| MaxBlocksPerHost             | 0       |\n" +
				"| KubeVirtVMAddressPersistence | Enabled |\n| IPCooldownSeconds            | 0       |\n+------------------------------+---------+\n",
		},
	}
}
