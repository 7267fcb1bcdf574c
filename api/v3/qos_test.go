package v3

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestQoSControlsFrom(t *testing.T) {
	t.Parallel()
	const p = qosPrefix
	for name, tt := range map[string]struct {
		in   map[string]string
		want string // as JSON; or the error, after "!"
	}{
		"nothing":           {map[string]string{"a": "b"}, `null`},
		"of Kubernetes":     {map[string]string{"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1Gi"}, `{"ingressBandwidth":10000000,"egressBandwidth":1073741824}`},
		"ours wins":         {map[string]string{"kubernetes.io/ingress-bandwidth": "10M", p + "ingressBandwidth": "5M"}, `{"ingressBandwidth":5000000}`},
		"all of a way":      {map[string]string{p + "egressBandwidth": "1M", p + "egressBurst": "2M", p + "egressPeakrate": "3M", p + "egressMinburst": "4k", p + "egressPacketRate": "5k", p + "egressPacketBurst": "6", p + "egressMaxConnections": "7"}, `{"egressBandwidth":1000000,"egressBurst":2000000,"egressPeakrate":3000000,"egressMinburst":4000,"egressPacketRate":5000,"egressPacketBurst":6,"egressMaxConnections":7}`},
		"exponent":          {map[string]string{p + "ingressBandwidth": "1.5e6"}, `{"ingressBandwidth":1500000}`},
		"rounded up":        {map[string]string{p + "ingressPacketRate": "1500m"}, `{"ingressPacketRate":2}`},
		"name of DSCP":      {map[string]string{p + "dscp": "EF"}, `{"dscp":"EF"}`},
		"number of DSCP":    {map[string]string{p + "dscp": "10"}, `{"dscp":10}`},
		"no DSCP":           {map[string]string{p + "dscp": "AF44"}, `!"AF44": must be 0 to 63 or a name`},
		"DSCP out of range": {map[string]string{p + "dscp": "64"}, `!"64": must be 0 to 63`},
		"too small":         {map[string]string{p + "ingressBandwidth": "999"}, `!ingressBandwidth: "999": must be bits per second, 1000 to`},
		"too large":         {map[string]string{p + "ingressBandwidth": "2P"}, `!"2P"`},
		"negative":          {map[string]string{p + "ingressPacketRate": "-1"}, `!"-1"`},
		"no number":         {map[string]string{p + "ingressBandwidth": "fast"}, `!"fast"`},
		"unknown suffix":    {map[string]string{p + "ingressBandwidth": "10Mbit"}, `!"10Mbit"`},
		"empty":             {map[string]string{p + "ingressBandwidth": ""}, `!""`},
		"huge":              {map[string]string{p + "ingressBandwidth": strings.Repeat("9", 100)}, `!ingressBandwidth`},
		"two mistakes":      {map[string]string{p + "ingressBandwidth": "x", p + "egressBurst": "y"}, `!egressBurst`},
	} {
		got, err := QoSControlsFrom(tt.in)
		if text, bad := strings.CutPrefix(tt.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), text) || got != nil {
				t.Errorf("%s: got %+v, %v; want the error %q", name, got, err, text)
			}
			continue
		}
		text, _ := json.Marshal(got)
		if err != nil || string(text) != tt.want {
			t.Errorf("%s: got %s, %v; want %s", name, text, err, tt.want)
		}
	}
	if q, err := QoSControlsFrom(map[string]string{p + "ingressBandwidth": "x", p + "egressBandwidth": "1M"}); err == nil || q == nil || q.EgressBandwidth != 1e6 {
		t.Errorf("what is valid does not hold beside a mistake: %+v, %v", q, err)
	}
}

func TestCodepoint(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"EF": 46, "ef": 46, "DF": 0, "CS0": 0, "CS7": 56, "AF11": 10, "AF43": 38, "VA": 44, "LE": 1, "CS8": -1, "AF14": -1, "AF01": -1, "X": -1} {
		if n, ok := (DSCP{Name: name}).Codepoint(); ok != (want >= 0) || ok && int(n) != want {
			t.Errorf("%s: got %d, %v; want %d", name, n, ok, want)
		}
	}
}

func FuzzWholeQuantity(f *testing.F) {
	for _, s := range []string{"1", "1k", "1Ki", "1.5e3", "1m", "", "1e", "1e99", "0x10", "1_0", "-5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := wholeQuantity(s)
		if err == nil && !strings.ContainsAny(s, "0123456789") {
			t.Errorf("%q is %d", s, n)
		}
	})
}
