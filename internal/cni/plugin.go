package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// Options is what the environment of the executable decides; every zero value
// means the usual. CNI's own variables are read by the CNI library.
type Options struct {
	Socket       string    // of the agent; stronger than agent_socket in the configuration
	QueueDir     string    // where DELs wait for a dead agent
	LinkPrefixes string    // comma-separated; the first starts the host's link names
	MTUFile      string    // empty: /var/lib/calico/mtu
	Environ      []string  // for the IPAM plugins of others
	Stderr       io.Writer // of the log
}

// Run does what the runtime's environment and standard input ask for and prints
// the result on standard output. name is the program's: calico-ipam and
// weft-ipam are the IPAM plugin, all others the network plugin. An error has been
// logged, but is for the caller to print.
func Run(name string, o Options) *types.Error {
	about := "weft's CNI plugin; as calico or weft-cni the network plugin, as calico-ipam or weft-ipam the IPAM plugin"
	versions := version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")
	var funcs skel.CNIFuncs
	switch filepath.Base(name) {
	case "calico-ipam", "weft-ipam":
		funcs = ipamFuncs(o)
	default:
		funcs = networkFuncs(o)
	}
	return skel.PluginMainFuncsWithError(funcs, versions, about)
}

func networkFuncs(o Options) skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    o.verb("ADD", false, (*call).add),
		Del:    o.verb("DEL", false, (*call).del),
		Check:  o.verb("CHECK", false, (*call).check),
		Status: o.verb("STATUS", false, (*call).status),
		GC:     o.verb("GC", false, (*call).gc),
	}
}

func ipamFuncs(o Options) skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    o.verb("ADD", true, (*call).assign),
		Del:    o.verb("DEL", true, (*call).release),
		Check:  o.verb("CHECK", true, (*call).checkAssigned),
		Status: o.verb("STATUS", true, (*call).status),
		GC:     o.verb("GC", true, (*call).gc),
	}
}

// call is one run of the plugin.
type call struct {
	*job
	agent    rpc.Agent
	queue    rpc.Queue
	log      *slog.Logger
	mtuFile  string
	environ  []string
	ipamOnly bool // in the role of an IPAM plugin
}

// verb wraps one verb's body: input, logging, time limit, and the error's form.
func (o Options) verb(name string, ipamOnly bool, body func(*call, context.Context) error) func(*skel.CmdArgs) error {
	return func(cmd *skel.CmdArgs) error {
		j, err := parseJob(cmd, o, ipamOnly)
		if err != nil {
			return cniError(err)
		}
		log, closeLog := j.conf.openLog(o.Stderr)
		defer closeLog()
		c := &call{
			job:      j,
			agent:    rpc.Client{Socket: firstOf(o.Socket, j.conf.AgentSocket)},
			queue:    rpc.Queue{Dir: o.QueueDir},
			log:      log.With("verb", name, "container", cmd.ContainerID, "workload", workloadName(j.req.Workload)),
			mtuFile:  firstOf(o.MTUFile, mtuFile),
			environ:  o.Environ,
			ipamOnly: ipamOnly,
		}
		for _, key := range j.conf.unbuilt() {
			c.log.Warn("cni: this setting has no effect in this version", "key", key)
		}
		ctx, cancel := context.WithTimeout(context.Background(), rpc.Budget)
		defer cancel()
		if err := body(c, ctx); err != nil {
			c.log.Error("cni: failed", "err", err)
			return cniError(err)
		}
		c.log.Debug("cni: done")
		return nil
	}
}

func workloadName(w rpc.Workload) string { return w.Namespace + "/" + w.Pod }

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// cniError is err as the CNI library prints it.
func cniError(err error) error {
	if err == nil {
		return nil
	}
	out := types.NewError(codeOf(err), oneLine(err.Error()), "")
	if e := (*rpc.Error)(nil); errors.As(err, &e) && err.Error() == e.Error() {
		out.Msg, out.Details = oneLine(e.Msg), oneLine(e.Details)
	}
	return out
}

func codeOf(err error) uint {
	if e := (*rpc.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	if e := (*types.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	switch {
	case errors.Is(err, rpc.ErrNoAgent), errors.Is(err, rpc.ErrLost), errors.Is(err, context.DeadlineExceeded):
		return rpc.CodeTryLater
	}
	return rpc.CodeInternal
}

// oneLine keeps a joined error on one line.
func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// unreachable reports whether err means that no agent carried out the request.
func unreachable(err error) bool {
	return errors.Is(err, rpc.ErrNoAgent) || errors.Is(err, rpc.ErrLost)
}

// status reports whether an ADD would be served.
func (c *call) status(ctx context.Context) error {
	err := c.agent.Status(ctx, rpc.StatusRequest{Node: c.req.Node})
	if unreachable(err) {
		return &rpc.Error{Code: rpc.CodeNotAvailable, Msg: err.Error()}
	}
	if err != nil || c.ipamOnly || !c.conf.delegates() {
		return err
	}
	return c.delegateStatus(ctx)
}

// gc takes back what belongs to no valid attachment.
func (c *call) gc(ctx context.Context) error {
	r := rpc.GCRequest{Network: c.conf.Name, Node: c.req.Node, AddressesOnly: c.ipamOnly}
	for _, v := range c.conf.ValidAttachments {
		r.Valid = append(r.Valid, rpc.Attachment{Network: c.conf.Name, ContainerID: v.ContainerID, IfName: v.IfName})
	}
	removed, err := c.agent.GC(ctx, r)
	errs := []error{err}
	if nl, err := hostHandle(); err != nil {
		errs = append(errs, err)
	} else {
		defer nl.Close()
		for _, name := range removed.HostLinks {
			errs = append(errs, veth{host: name}.removeHost(nl))
		}
	}
	if !c.ipamOnly && c.conf.delegates() {
		errs = append(errs, c.delegateGC(ctx))
		// Some know no GC, host-local among them. Giving back twice does no harm.
		for _, a := range removed.Removed {
			errs = append(errs, c.delegateDelOf(ctx, a))
		}
	}
	return errors.Join(errs...)
}

// printResult prints r in the version of the configuration.
func (c *call) printResult(r *types100.Result) error {
	if err := types.PrintResult(r, c.conf.CNIVersion); err != nil {
		return fmt.Errorf("cni: print result: %w", err)
	}
	return nil
}
