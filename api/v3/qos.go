package v3

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// qosPrefix starts the annotations of a pod that limit its traffic.
const qosPrefix = "qos.projectcalico.org/"

// Limits of what a pod may ask for: bits per second, bits, packets per second, packets,
// connections.
const (
	minBandwidth, maxBandwidth = 1e3, 1e15
	minBurst, maxBurst         = 1e3, 8 * (1<<32 - 1) // the kernel counts 32 bits of bytes
	maxPackets                 = 1e9
	maxConnections             = 1<<32 - 1
)

// QoSControlsFrom reads what a pod's annotations say of its traffic:
// qos.projectcalico.org/{ingress,egress}{Bandwidth,Burst,Peakrate,Minburst,PacketRate,PacketBurst,MaxConnections},
// /dscp, and, where the first is missing, kubernetes.io/{ingress,egress}-bandwidth. It is
// nil when they say nothing. The error names each annotation that is not valid, its
// value, and what is allowed; the others hold.
func QoSControlsFrom(annotations map[string]string) (*QoSControls, error) {
	var q QoSControls
	var errs []error
	for _, d := range []struct {
		name                                   string
		bandwidth, burst, peak, minBurst       *int64
		packetRate, packetBurst, maxConnection *int64
	}{
		{
			"ingress", &q.IngressBandwidth, &q.IngressBurst, &q.IngressPeakrate, &q.IngressMinburst,
			&q.IngressPacketRate, &q.IngressPacketBurst, &q.IngressMaxConnections,
		},
		{
			"egress", &q.EgressBandwidth, &q.EgressBurst, &q.EgressPeakrate, &q.EgressMinburst,
			&q.EgressPacketRate, &q.EgressPacketBurst, &q.EgressMaxConnections,
		},
	} {
		for _, a := range []struct {
			key, unit string
			low, high int64
			to        *int64
		}{
			{"kubernetes.io/" + d.name + "-bandwidth", "bits per second", minBandwidth, maxBandwidth, d.bandwidth},
			{qosPrefix + d.name + "Bandwidth", "bits per second", minBandwidth, maxBandwidth, d.bandwidth},
			{qosPrefix + d.name + "Burst", "bits", minBurst, maxBurst, d.burst},
			{qosPrefix + d.name + "Peakrate", "bits per second", minBandwidth, maxBandwidth, d.peak},
			{qosPrefix + d.name + "Minburst", "bits", minBurst, maxBurst, d.minBurst},
			{qosPrefix + d.name + "PacketRate", "packets per second", 1, maxPackets, d.packetRate},
			{qosPrefix + d.name + "PacketBurst", "packets", 1, maxPackets, d.packetBurst},
			{qosPrefix + d.name + "MaxConnections", "connections", 1, maxConnections, d.maxConnection},
		} {
			text, ok := annotations[a.key]
			if !ok {
				continue
			}
			n, err := wholeQuantity(text)
			if err != nil || n < a.low || n > a.high {
				errs = append(errs, fmt.Errorf("annotation %s: %q: must be %s, %d to %d, as a quantity such as 10M", a.key, text, a.unit, a.low, a.high))
				continue
			}
			*a.to = n
		}
	}
	if text, ok := annotations[qosPrefix+"dscp"]; ok {
		var d DSCP
		if err := d.UnmarshalJSON([]byte(strconv.Quote(text))); err != nil {
			errs = append(errs, fmt.Errorf("annotation %sdscp: %q: must be 0 to 63 or a name such as AF11", qosPrefix, text))
		} else if _, known := d.Codepoint(); !known {
			errs = append(errs, fmt.Errorf("annotation %sdscp: %q: must be 0 to 63 or a name such as AF11", qosPrefix, text))
		} else {
			q.DSCP = &d
		}
	}
	if q == (QoSControls{}) {
		return nil, errors.Join(errs...)
	}
	return &q, errors.Join(errs...)
}

// wholeQuantity reads a quantity of Kubernetes (k8s.io/apimachinery, resource.Quantity):
// a decimal number with a suffix of powers of ten or two, or an exponent. A part of a
// whole is rounded up.
func wholeQuantity(text string) (int64, error) {
	s := strings.TrimSpace(text)
	end := strings.LastIndexAny(s, "0123456789.") + 1
	number, suffix := s[:end], s[end:]
	scale := big.NewRat(1, 1)
	power := func(base, n int64) { scale.SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(n), nil)) }
	if i := strings.IndexAny(number, "eE"); i >= 0 || strings.ContainsAny(number, "/_xX") || number == "" {
		exponent, err := strconv.ParseInt(number[max(i+1, 0):], 10, 8)
		if i < 1 || err != nil || suffix != "" || exponent < 0 || exponent > 18 {
			return 0, fmt.Errorf("quantity: %q: must be a number with a suffix such as k, M or Gi", text)
		}
		number = number[:i]
		power(10, exponent)
	}
	if i := strings.Index("kMGTPE", suffix); len(suffix) == 1 && i >= 0 {
		power(1000, int64(i)+1)
	} else if i := strings.Index("KMGTPE", strings.TrimSuffix(suffix, "i")); len(suffix) == 2 && suffix[1] == 'i' && i >= 0 {
		power(1024, int64(i)+1)
	} else if i := strings.Index("mun", suffix); len(suffix) == 1 && i >= 0 {
		power(1000, int64(i)+1)
		scale.Inv(scale)
	} else if suffix != "" {
		return 0, fmt.Errorf("quantity: %q: must be a number with a suffix such as k, M or Gi", text)
	}
	n, ok := new(big.Rat).SetString(number)
	if !ok || len(number) > 40 {
		return 0, fmt.Errorf("quantity: %q: must be a number with a suffix such as k, M or Gi", text)
	}
	n.Mul(n, scale)
	whole, rest := new(big.Int).QuoRem(n.Num(), n.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	if !whole.IsInt64() {
		return 0, fmt.Errorf("quantity: %q: must be below 2^63", text)
	}
	return whole.Int64(), nil
}

// Codepoint is the number that d stands for, 0 to 63 (RFC 2474); false: its name is not
// known. Names are DF, EF, LE, VA, CS0 to CS7 and AF11 to AF43, in any case.
func (d DSCP) Codepoint() (uint8, bool) {
	if d.Name == "" {
		return d.Number, d.Number <= 63
	}
	name := strings.ToUpper(d.Name)
	switch name {
	case "DF":
		return 0, true
	case "LE": // RFC 8622
		return 1, true
	case "VA": // RFC 5865
		return 44, true
	case "EF": // RFC 3246
		return 46, true
	}
	if len(name) == 3 && name[:2] == "CS" && name[2] >= '0' && name[2] <= '7' {
		return (name[2] - '0') << 3, true
	}
	if len(name) == 4 && name[:2] == "AF" && name[2] >= '1' && name[2] <= '4' && name[3] >= '1' && name[3] <= '3' { // RFC 2597
		return (name[2]-'0')<<3 | (name[3]-'0')<<1, true
	}
	return 0, false
}
