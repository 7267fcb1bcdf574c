package v3

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func (c *checker) ippool(s *IPPoolSpec) {
	c.oneOf("spec.vxlanMode", string(s.VXLANMode), "Never", "Always", "CrossSubnet")
	c.oneOf("spec.ipipMode", string(s.IPIPMode), "Never", "Always", "CrossSubnet")
	c.oneOf("spec.assignmentMode", string(s.AssignmentMode), "Automatic", "Manual")
	c.atMost("spec.allowedUses", len(s.AllowedUses), MaxAllowedUses)
	for i, use := range s.AllowedUses {
		c.oneOf(index("spec.allowedUses", i), string(use), "Workload", "Tunnel", "LoadBalancer")
	}
	c.selector("spec.nodeSelector", s.NodeSelector)
	c.selector("spec.namespaceSelector", s.NamespaceSelector)
	if s.IPIPMode.on() && s.VXLANMode.on() {
		c.fail("spec.vxlanMode", string(s.VXLANMode), "must be Never: ipipMode is "+string(s.IPIPMode))
	}
	if slices.Contains(s.AllowedUses, UseLoadBalancer) {
		c.loadBalancerPool(s)
	}
	if cidr, ok := c.masked("spec.cidr", s.CIDR); ok {
		c.poolCIDR(s, cidr)
	}
}

// on reports whether packets are wrapped at all.
func (m EncapMode) on() bool { return m != "" && m != EncapNever }

// poolCIDR checks what depends on the pool's family and length.
func (c *checker) poolCIDR(s *IPPoolSpec, cidr netip.Prefix) {
	linkLocal, shortest, longest := netip.MustParsePrefix("169.254.0.0/16"), 20, 32
	if cidr.Addr().Is6() {
		linkLocal, shortest, longest = netip.MustParsePrefix("fe80::/10"), 116, 128
		if s.IPIPMode.on() {
			c.fail("spec.ipipMode", string(s.IPIPMode), "must be Never: IP in IP carries no IPv6, use vxlanMode")
		}
	}
	if cidr.Overlaps(linkLocal) {
		c.fail("spec.cidr", s.CIDR, fmt.Sprintf("must not overlap the link-local range %v", linkLocal))
	}
	switch {
	case s.BlockSize < shortest || s.BlockSize > longest:
		c.fail("spec.blockSize", s.BlockSize, fmt.Sprintf("must be %d to %d for %v", shortest, longest, familyOf(cidr.Addr())))
	case cidr.Bits() > s.BlockSize && !s.Disabled:
		c.fail("spec.cidr", s.CIDR, fmt.Sprintf("must hold at least one block: blockSize is %d", s.BlockSize))
	}
}

// loadBalancerPool checks a pool for addresses that no node routes.
func (c *checker) loadBalancerPool(s *IPPoolSpec) {
	if slices.Contains(s.AllowedUses, UseWorkload) || slices.Contains(s.AllowedUses, UseTunnel) {
		c.fail("spec.allowedUses", nil, "LoadBalancer must stand alone")
	}
	if s.IPIPMode.on() || s.VXLANMode.on() {
		c.fail("spec.allowedUses", nil, "LoadBalancer needs ipipMode and vxlanMode Never")
	}
	if s.DisableBGPExport {
		c.fail("spec.disableBGPExport", s.DisableBGPExport, "must be false with the use LoadBalancer")
	}
	if strings.TrimSpace(s.NodeSelector) != "all()" {
		c.fail("spec.nodeSelector", s.NodeSelector, "must be all() with the use LoadBalancer")
	}
}

func (c *checker) ipamConfiguration(s *IPAMConfigurationSpec) {
	if !s.StrictAffinity && !s.AutoAllocateBlocks {
		c.fail("spec.autoAllocateBlocks", s.AutoAllocateBlocks, "must be true unless strictAffinity is true")
	}
	// With or without strictAffinity: Calico takes both, see ctl-007 of test/fixtures/ctl.
	if s.MaxBlocksPerHost < 0 || s.MaxBlocksPerHost > 1000000 {
		c.fail("spec.maxBlocksPerHost", s.MaxBlocksPerHost, "must be 0 to 1000000")
	}
	if s.IPCooldownSeconds < 0 || s.IPCooldownSeconds > 1200 {
		c.fail("spec.ipCooldownSeconds", s.IPCooldownSeconds, "must be 0 to 1200")
	}
	c.oneOf("spec.kubeVirtVMAddressPersistence", optional(s.KubeVirtVMAddressPersistence), "Enabled", "Disabled")
}
