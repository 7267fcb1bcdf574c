package cni

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// envArgs are the arguments in CNI_ARGS that mean something to us.
type envArgs struct {
	ip        string // IP
	namespace string // K8S_POD_NAMESPACE
	pod       string // K8S_POD_NAME
	podUID    string // K8S_POD_UID
	infra     string // K8S_POD_INFRA_CONTAINER_ID: the same as the container ID
	mac       string // MAC
}

// parseEnvArgs reads CNI_ARGS: KEY=VALUE;KEY=VALUE. An unknown key is an error
// unless IgnoreUnknown is true.
func parseEnvArgs(s string) (envArgs, error) {
	var a envArgs
	var unknown []string
	ignore := false
	for pair := range strings.SplitSeq(s, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return a, envError("CNI_ARGS: %q: want KEY=VALUE", pair)
		}
		switch key {
		case "IgnoreUnknown":
			var err error
			if ignore, err = strconv.ParseBool(value); err != nil {
				return a, envError("CNI_ARGS: IgnoreUnknown: %q: 1, 0, true and false are allowed", value)
			}
		case "IP":
			a.ip = value
		case "MAC":
			a.mac = value
		case "K8S_POD_NAMESPACE":
			a.namespace = value
		case "K8S_POD_NAME":
			a.pod = value
		case "K8S_POD_UID":
			a.podUID = value
		case "K8S_POD_INFRA_CONTAINER_ID":
			a.infra = value
		default:
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 && !ignore {
		return a, envError("CNI_ARGS: unknown %s; set IgnoreUnknown=1 to pass over them", strings.Join(unknown, ", "))
	}
	return a, nil
}

// workload says whose the container is: a pod's if both names are given.
func (a envArgs) workload(node string) rpc.Workload {
	if a.namespace != "" && a.pod != "" {
		return rpc.Workload{Orchestrator: rpc.Kubernetes, Namespace: a.namespace, Pod: a.pod, PodUID: a.podUID, Node: node}
	}
	return rpc.Workload{Orchestrator: rpc.PlainCNI, Namespace: "default", Node: node}
}

// exactAddrs are the addresses asked for by value, from the nearest place that
// names any: CNI_ARGS, the runtime, the conventions' arguments.
func exactAddrs(c *config, env envArgs) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, source := range []struct {
		name   string
		values []string
	}{
		{"CNI_ARGS: IP", splitList(env.ip)},
		{"conf: runtimeConfig.ips", c.Runtime.IPs},
		{"conf: args.cni.ips", c.Args.CNI.IPs},
	} {
		for _, v := range source.values {
			addr, err := parseAddrOrPrefix(v)
			if err != nil {
				return nil, &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: fmt.Sprintf("%s: %q: not an IP address", source.name, v)}
			}
			out = append(out, addr)
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// parseAddrOrPrefix reads an address; a prefix length after it does not matter.
func parseAddrOrPrefix(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr(), nil
	}
	addr, err := netip.ParseAddr(s)
	if err == nil && (addr.Is4In6() || addr.Zone() != "") {
		err = fmt.Errorf("%v is not a plain address", addr)
	}
	return addr, err
}

// job is one call of the runtime, parsed and valid.
type job struct {
	conf *config
	cmd  *skel.CmdArgs
	env  envArgs
	req  rpc.AddRequest // what an ADD asks of the agent; identity for all verbs
}

// attachment is the identity that the job is about.
func (j *job) attachment() rpc.Attachment { return j.req.Attachment }

// parseJob reads what the runtime passed. In the role of an IPAM plugin there
// is no endpoint.
func parseJob(cmd *skel.CmdArgs, o Options, ipamOnly bool) (*job, error) {
	conf, err := parseConfig(cmd.StdinData)
	if err != nil {
		return nil, err
	}
	env, err := parseEnvArgs(cmd.Args)
	if err != nil {
		return nil, err
	}
	node, err := conf.nodeName()
	if err != nil {
		return nil, err
	}
	j := &job{conf: conf, cmd: cmd, env: env}
	j.req = rpc.AddRequest{
		Attachment: rpc.Attachment{Network: conf.Name, ContainerID: cmd.ContainerID, IfName: cmd.IfName},
		Workload:   env.workload(node),
		Netns:      cmd.Netns,
		Address:    conf.wish(),

		PolicyTimeout: time.Duration(conf.PolicyTimeout) * time.Second,
		PolicyProceed: conf.PolicyFailure == "proceed",

		Features:       rpc.Features{AddrsNoIPAM: conf.Features.AddrsNoIPAM, FloatingIPs: conf.Features.FloatingIPs},
		ReadinessGates: conf.ReadinessGates,
	}
	if !ipamOnly {
		if j.req.Endpoint, err = j.endpoint(linkPrefix(o.LinkPrefixes)); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// endpoint is the workload endpoint as configuration and arguments describe it.
func (j *job) endpoint(prefix string) (*rpc.Endpoint, error) {
	e := &rpc.Endpoint{
		HostLink: hostLink(prefix, j.req.Workload, j.cmd.ContainerID),
		MAC:      macFor(j.attachment()),
	}
	if len(e.HostLink) > 15 {
		return nil, envError("FELIX_INTERFACEPREFIX: %q is too long: 4 characters are allowed", prefix)
	}
	if j.req.Orchestrator == rpc.PlainCNI {
		e.Profiles = []string{j.conf.Name}
	}
	for _, l := range j.conf.Args.CNI.Labels {
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		e.Labels[l.Key] = l.Value
	}
	var err error
	if e.Ports, err = j.conf.Runtime.ports(); err != nil {
		return nil, err
	}
	for _, mac := range []string{j.conf.Runtime.MAC, j.env.mac} {
		if mac != "" {
			if e.MAC, err = rpc.ParseMAC(mac); err != nil {
				return nil, confError("requested MAC %q: %v", mac, err)
			}
		}
	}
	e.Annotations = j.conf.Runtime.PodAnnotations
	e.Bandwidth = j.conf.Runtime.Bandwidth
	return e, nil
}

// resolve works out the addresses that an ADD asks for: what annotations of the pod say
// that the runtime passes on, and above all what is asked for by value.
func (j *job) resolve() error {
	if err := j.req.Annotate(j.conf.Runtime.PodAnnotations, j.req.Features); err != nil {
		return err
	}
	exact, err := exactAddrs(j.conf, j.env)
	if err != nil {
		return err
	}
	noIPAM := j.req.Endpoint != nil && len(j.req.Endpoint.Given) > 0
	if len(exact) > 0 && !noIPAM {
		j.req.Address.Exact, j.req.Fixed = exact, true
	}
	return nil
}

func envError(format string, args ...any) error {
	return &rpc.Error{Code: rpc.CodeEnvironment, Msg: fmt.Sprintf(format, args...)}
}
