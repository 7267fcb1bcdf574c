package agent

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/route"
)

// metrics makes the page of metrics that the settings ask for. Nothing is counted for it: what
// it tells is what the parts know of themselves at that moment.
func (a *agent) metrics(s route.Pages) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{a, s.WireGuardMetrics})
	if s.GoMetrics {
		registry.MustRegister(collectors.NewGoCollector())
	}
	if s.ProcessMetrics {
		registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// collector tells of an agent; it implements [prometheus.Collector].
type collector struct {
	agent     *agent
	wireguard bool
}

// Describe implements [prometheus.Collector]. Which peers and devices there are changes.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c collector) Collect(out chan<- prometheus.Metric) {
	a := c.agent
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("weft_"+name, help, names, nil), kind, value, values...)
	}
	gauge := func(name, help string, value float64, labels ...string) {
		send(prometheus.GaugeValue, name, help, value, labels...)
	}
	count := func(name, help string, value uint64, labels ...string) {
		send(prometheus.CounterValue, name, help, float64(value), labels...)
	}
	gauge("build_info", "Always 1; the version is a label.", 1, "version", a.Version)
	health := a.health()
	gauge("ready", "1 if the agent is ready, else 0.", truth(health.Ready))
	gauge("objects_noted", "Objects that can't be used as they are, and settings without effect: see weft node status.", float64(len(a.engine.notes.all())))

	k := a.network.fib.State()
	gauge("routes", "Routes that this node is to have.", float64(k.Routes))
	gauge("routes_applied", "Routes of these that are in the kernel.", float64(k.Applied))
	for why, n := range map[string]int{"waiting": k.Waiting, "conflict": k.Conflicts, "refused": k.Refused, "stale": k.Stale} {
		gauge("routes_pending", "Routes that are not as wanted, by why.", float64(n), "why", why)
	}
	gauge("workloads", "Workload interfaces that this node is to have.", float64(k.Links))
	gauge("neighbors", "Neighbour entries that this node is to have.", float64(k.Neighbors))
	count("routes_written_total", "Routes put into the kernel.", k.Stats.Puts)
	count("routes_deleted_total", "Routes taken out of the kernel.", k.Stats.Deletes)
	count("route_comparisons_total", "Full comparisons with the kernel's routes.", k.Stats.Dumps)
	count("route_events_lost_total", "Times that the kernel's events about routes were lost.", k.Stats.Overruns)

	f := a.engine.filter.table.State()
	gauge("policy_sets", "Address sets that policy needs here.", float64(f.Sets))
	gauge("policy_set_members", "Members of these sets.", float64(f.Members))
	gauge("policy_chains", "Chains that policy needs here.", float64(f.Chains))
	gauge("policy_rules", "Rules in these chains.", float64(f.Rules))
	gauge("policy_problems", "Objects of policy that are not in the kernel as wanted.", float64(len(f.Problems)))
	count("policy_transactions_total", "Transactions sent to nftables.", f.Stats.Transactions)
	count("policy_transactions_refused_total", "Transactions that the kernel refused.", f.Stats.Refused)
	count("policy_events_total", "Objects of ours that others changed.", f.Stats.Events)

	for loop, failed := range map[string]bool{"routes": k.Err != "", "policy": f.Err != ""} {
		gauge("loop_failed", "1 if the last pass of a loop failed, else 0.", truth(failed), "loop", loop)
	}
	a.collectPeers(gauge)
	for _, t := range a.network.tunnels() {
		gauge("tunnel_up", "1 if the tunnel's device is as wanted, else 0.", truth(t.Up), "device", t.Device, "kind", t.Kind)
		gauge("tunnel_mtu_bytes", "MTU of the tunnel's device.", float64(t.MTU), "device", t.Device)
		if t.Kind != "wireguard" || c.wireguard {
			gauge("tunnel_ends", "Other nodes that the tunnel leads to.", float64(t.Ends), "device", t.Device)
		}
	}
	gauge("addresses_assigned", "Addresses that workloads of this node have.", float64(a.engine.arrivals.addresses()))
}

// collectPeers tells of the BGP sessions.
func (a *agent) collectPeers(gauge func(name, help string, value float64, labels ...string)) {
	if a.speaker == nil {
		return
	}
	for _, p := range a.speaker.Status() {
		labels := []string{"peer", p.Name, "address", p.Addr.String()}
		gauge("bgp_established", "1 if the BGP session is established, else 0.", truth(p.State == bgp.Established), labels...)
		gauge("bgp_routes_received", "Routes that the peer announces.", float64(p.Received), labels...)
		gauge("bgp_routes_advertised", "Routes that are announced to the peer.", float64(p.Advertised), labels...)
		gauge("bgp_routes_stale", "Routes of the peer that are kept while it restarts.", float64(p.Stale), labels...)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
