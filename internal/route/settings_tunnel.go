package route

import "github.com/weft-net/weft/internal/model"

// Switch is a setting that may be left to what else is known.
type Switch uint8

// The states of a Switch.
const (
	Auto Switch = iota // as pools ask
	On
	Off
)

// Tunnel is what the settings say about tunnels. It is comparable.
type Tunnel struct {
	IPIP, VXLAN                 Switch // of IPv4; VXLAN over IPv6 is always as pools ask
	IPIPMTU                     int    // bytes, of the device; 0: from the underlay
	VXLANMTU, VXLANMTU6         int    // likewise
	VNI                         uint32
	VXLANPort                   uint16
	ChecksumBroken              bool   // checksum offload is known not to work; false: the door finds out
	MTUPattern                  string // regular expression: names of egress interfaces
	RequireMTUFile              bool   // the node is of no use before the pods' MTU is in its file
	WireGuard, WireGuard6       bool
	WireGuardMTU, WireGuardMTU6 int // bytes; 0: from the underlay
}

// under returns t with what c sets laid over it.
func (t Tunnel) under(c model.FelixConfig) Tunnel {
	in := c.Tunnel
	turn(&t.IPIP, in.IPIP)
	turn(&t.VXLAN, in.VXLAN)
	set(&t.IPIPMTU, in.IPIPMTU)
	set(&t.VXLANMTU, in.VXLANMTU)
	set(&t.VXLANMTU6, in.VXLANMTUV6)
	set(&t.WireGuardMTU, in.WireGuardMTU)
	set(&t.WireGuardMTU6, in.WireGuardMTUV6)
	take(&t.VNI, in.VNI)
	take(&t.VXLANPort, c.Filter.VXLANPort)
	take(&t.ChecksumBroken, in.ChecksumBroken)
	take(&t.RequireMTUFile, in.RequireMTUFile)
	take(&t.WireGuard, in.WireGuard)
	take(&t.WireGuard6, in.WireGuardV6)
	if in.MTUPattern != "" {
		t.MTUPattern = in.MTUPattern
	}
	return t
}

func turn(field *Switch, v *bool) {
	switch {
	case v == nil:
	case *v:
		*field = On
	default:
		*field = Off
	}
}

func take[T any](field, v *T) {
	if v != nil {
		*field = *v
	}
}
