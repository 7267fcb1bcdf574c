package model_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

func limited(q *v3.QoSControls, nats ...v3.IPNAT) *v3.WorkloadEndpoint {
	o := &v3.WorkloadEndpoint{Spec: v3.WorkloadEndpointSpec{
		Orchestrator: "k8s", Node: "a", Pod: "p", Endpoint: "eth0", InterfaceName: "cali1", IPNetworks: []string{"10.0.0.1/32", "fd00::1/128"},
		QoSControls: q, IPNATs: nats,
	}}
	v3.Default(o)
	return o
}

func TestLimitsOfAnEndpoint(t *testing.T) {
	t.Parallel()
	v, err := model.Parse(limited(&v3.QoSControls{
		IngressBandwidth: 1, IngressBurst: 2, IngressPeakrate: 3, IngressMinburst: 4, IngressPacketRate: 5, IngressPacketBurst: 6, IngressMaxConnections: 7,
		EgressBandwidth: 11, EgressBurst: 12, EgressPeakrate: 13, EgressMinburst: 14, EgressPacketRate: 15, EgressPacketBurst: 16, EgressMaxConnections: 17,
		DSCP: &v3.DSCP{Name: "EF"},
	}, v3.IPNAT{InternalIP: "10.0.0.1", ExternalIP: "192.0.2.1"}, v3.IPNAT{InternalIP: "fd00::1", ExternalIP: "2001:db8::1"}))
	if err != nil {
		t.Fatal(err)
	}
	ep := v.(model.Endpoint)
	want := model.QoS{
		Ingress: model.Limits{Bandwidth: model.Bandwidth{Rate: 1, Burst: 2, Peak: 3, MinBurst: 4}, Packets: 5, PacketBurst: 6, Connections: 7},
		Egress:  model.Limits{Bandwidth: model.Bandwidth{Rate: 11, Burst: 12, Peak: 13, MinBurst: 14}, Packets: 15, PacketBurst: 16, Connections: 17},
		DSCP:    46, Marked: true,
	}
	if ep.QoS != want {
		t.Errorf("got %+v\nwant %+v", ep.QoS, want)
	}
	floating := []model.FloatingIP{
		{External: netip.MustParseAddr("192.0.2.1"), Internal: netip.MustParseAddr("10.0.0.1")},
		{External: netip.MustParseAddr("2001:db8::1"), Internal: netip.MustParseAddr("fd00::1")},
	}
	if !reflect.DeepEqual(ep.FloatingIPs, floating) {
		t.Errorf("got %v, want %v", ep.FloatingIPs, floating)
	}
	for name, o := range map[string]*v3.WorkloadEndpoint{
		"ingressBandwidth":             limited(&v3.QoSControls{IngressBandwidth: -1}),
		"egressPacketRate":             limited(&v3.QoSControls{EgressPacketRate: 1 << 40}),
		"dscp":                         limited(&v3.QoSControls{DSCP: &v3.DSCP{Name: "XX"}}),
		"spec.ipNATs[0]":               limited(nil, v3.IPNAT{InternalIP: "10.0.0.1", ExternalIP: "here"}),
		"must be IPv4 like internalIP": limited(nil, v3.IPNAT{InternalIP: "10.0.0.1", ExternalIP: "2001:db8::1"}),
	} {
		if _, err := model.Parse(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}
