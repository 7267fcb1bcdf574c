package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// delegateAdd gets addresses from the IPAM plugin that the configuration names.
// What a complete interface of an earlier ADD has is kept: IPAM plugins refuse
// to serve a container twice.
func (c *call) delegateAdd(ctx context.Context, nl *netlink.Handle, v veth, ranges []netip.Prefix) ([]netip.Prefix, error) {
	inPod, ours, err := v.find(nl)
	if err != nil {
		return nil, err
	}
	if inPod != nil && ours {
		if addrs, err := v.addrs(); err != nil || (len(addrs) > 0 && v.whole(nl, inPod)) {
			return addrs, err
		}
		if err := c.delegateDel(ctx); err != nil { // of an ADD that did not finish
			return nil, err
		}
	}
	conf, err := c.delegateConf(ranges)
	if err != nil {
		return nil, err
	}
	out, err := c.runIPAM(ctx, "ADD", conf)
	if err != nil {
		return nil, fmt.Errorf("ipam %s: %w", c.conf.IPAM.Type, err)
	}
	addrs, err := c.delegatedAddrs(out)
	if err != nil {
		_ = c.delegateDel(ctx) // the reason for failing is the one to report
		return nil, fmt.Errorf("ipam %s: %w", c.conf.IPAM.Type, err)
	}
	return addrs, nil
}

// delegatedAddrs are the addresses in another plugin's result: at most one of
// each family, IPv4 first.
func (c *call) delegatedAddrs(out []byte) ([]netip.Prefix, error) {
	raw, err := version.NewResult(c.conf.CNIVersion, out)
	if err != nil {
		return nil, err
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Prefix
	for _, ip := range result.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("%q in the result is not an IP address", ip.Address.IP)
		}
		bits, _ := ip.Address.Mask.Size()
		if len(ip.Address.Mask) == 16 && addr.Is4In6() {
			bits -= 96
		}
		addrs = append(addrs, netip.PrefixFrom(addr.Unmap(), bits))
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("the result has no address")
	}
	slices.SortStableFunc(addrs, func(a, b netip.Prefix) int { return a.Addr().BitLen() - b.Addr().BitLen() })
	return addrs, nil
}

// delegateConf is the configuration for the IPAM plugin: ours, with the ranges of the
// node's pods where it says usePodCidr, and with addresses that only an annotation asks
// for in the place where plugins look.
func (c *call) delegateConf(ranges []netip.Prefix) ([]byte, error) {
	if len(c.req.Address.Exact) == 0 && !c.conf.usesPodCIDR() {
		return c.cmd.StdinData, nil
	}
	var conf map[string]any
	if err := json.Unmarshal(c.cmd.StdinData, &conf); err != nil {
		return nil, confError("%v", err)
	}
	if c.conf.usesPodCIDR() {
		ipam, _ := conf["ipam"].(map[string]any)
		if err := setPodCIDRs(ipam, ranges); err != nil {
			return nil, err
		}
	}
	if len(c.req.Address.Exact) > 0 {
		object(object(conf, "args"), "cni")["ips"] = c.req.Address.Exact
	}
	return json.Marshal(conf)
}

// object is the object at a key of m, made if there is none.
func object(m map[string]any, key string) map[string]any {
	o, _ := m[key].(map[string]any)
	if o == nil {
		o = map[string]any{}
		m[key] = o
	}
	return o
}

func (c *call) delegateDel(ctx context.Context) error    { return c.delegate(ctx, "DEL") }
func (c *call) delegateCheck(ctx context.Context) error  { return c.delegate(ctx, "CHECK") }
func (c *call) delegateStatus(ctx context.Context) error { return c.delegate(ctx, "STATUS") }
func (c *call) delegateGC(ctx context.Context) error     { return c.delegate(ctx, "GC") }

// delegateDelOf has the IPAM plugin take back what it gave another container.
func (c *call) delegateDelOf(ctx context.Context, a rpc.Attachment) error {
	conf, err := c.delegateConf(nil)
	if err != nil {
		return err
	}
	_, err = c.runIPAM(ctx, "DEL", conf, "CNI_CONTAINERID="+a.ContainerID, "CNI_IFNAME="+a.IfName)
	if err != nil {
		return fmt.Errorf("ipam %s: %w", c.conf.IPAM.Type, err)
	}
	return nil
}

// delegate passes a verb without a result on to the IPAM plugin.
func (c *call) delegate(ctx context.Context, verb string) error {
	conf, err := c.delegateConf(nil)
	if err != nil {
		return err
	}
	if _, err := c.runIPAM(ctx, verb, conf); err != nil {
		return fmt.Errorf("ipam %s: %w", c.conf.IPAM.Type, err)
	}
	return nil
}

// runIPAM runs the IPAM plugin, found in the directories of CNI_PATH, and
// returns what it printed. It inherits our environment but for the command and
// what over says.
// (The CNI library's own package for this brings a tracing library with an HTTP
// stack: 1.2 MB in a program that is started for each container.)
func (c *call) runIPAM(ctx context.Context, verb string, conf []byte, over ...string) ([]byte, error) {
	program, err := findPlugin(c.cmd.Path, c.conf.IPAM.Type)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = slices.Concat(c.environ, []string{"CNI_COMMAND=" + verb}, over)
	cmd.Stdin = bytes.NewReader(conf)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		told := &types.Error{}
		if json.Unmarshal(stdout.Bytes(), told) == nil && told.Msg != "" {
			return nil, told
		}
		if text := strings.TrimSpace(stderr.String()); text != "" {
			return nil, fmt.Errorf("%w: %s", err, text)
		}
		return nil, err
	}
	return stdout.Bytes(), nil
}

// findPlugin looks for an executable file. The name comes from the configuration
// and must not lead out of the directories.
func findPlugin(path, name string) (string, error) {
	if strings.ContainsRune(name, os.PathSeparator) {
		return "", confError("ipam.type: %q: not the name of a plugin", name)
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", confError("ipam.type: no plugin %q in CNI_PATH %q", name, path)
}

// addrs are the global addresses of the container's end.
func (v veth) addrs() (out []netip.Prefix, err error) {
	err = v.ns.doNL(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(v.name)
		if err != nil {
			return fmt.Errorf("link %s: %w", v.name, err)
		}
		list, err := nl.AddrList(link, netlink.FAMILY_ALL)
		for _, a := range list {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && !addr.Unmap().IsLinkLocalUnicast() {
				out = append(out, single(addr.Unmap()))
			}
		}
		return err
	})
	return out, err
}
