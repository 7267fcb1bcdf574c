package route

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Values of settings that no object sets.
const (
	DefaultInterfacePrefix = "cali"
	DefaultRouteRefresh    = 90 * time.Second
	DefaultGCPercent       = 40
	DefaultHealthPort      = 9099
	DefaultMetricsPort     = 9091
	DefaultWatchdog        = 90 * time.Second
)

// kernelMetric6 is the metric that Linux gives an IPv6 route added with none.
const kernelMetric6 = 1024

// Settings is what holds for one node once all configurations that bear upon
// it are laid over each other, field by field, with the defaults.
type Settings struct {
	Form              Form
	InterfacePrefixes []string      // at least one; links of workloads begin with one of them
	RemoveExternal    bool          // routes of others on workload links are removed
	RouteRefresh      time.Duration // between two full comparisons with the kernel; 0: never
	Process           Process
	Tunnel            Tunnel
	Pages             Pages
	LogSeverity       string   // lowest level to log; empty: not set
	Unbuilt           []string // fields that are set and have no effect in this version; sorted
}

// Process is what the settings say about the agent's own process. It is
// comparable.
type Process struct {
	GCPercent     int // growth of the heap before a collection; negative: never
	MaxProcs      int // processors used at once; negative: all
	MemoryLimitMB int // soft limit; negative: none
}

// Pages is what the settings say about the pages that tell how the agent is. It is comparable.
type Pages struct {
	Health, Metrics           Page
	GoMetrics, ProcessMetrics bool
	WireGuardMetrics          bool
	Watchdog                  time.Duration // how long a loop may be at one thing
}

// Page is where something is served, if Enabled. An empty Host is every address of the node.
type Page struct {
	Enabled bool
	Host    string
	Port    int
}

func (p Pages) under(c model.PageConfig) Pages {
	put(&p.Health.Enabled, c.Health)
	put(&p.Metrics.Enabled, c.Metrics)
	put(&p.Health.Port, c.HealthPort)
	put(&p.Metrics.Port, c.MetricsPort)
	put(&p.GoMetrics, c.GoMetrics)
	put(&p.ProcessMetrics, c.ProcessMetrics)
	put(&p.WireGuardMetrics, c.WireGuardMetrics)
	put(&p.Watchdog, c.Watchdog)
	if c.HealthHost != "" {
		p.Health.Host = c.HealthHost
	}
	if c.MetricsHost != "" {
		p.Metrics.Host = c.MetricsHost
	}
	return p
}

// put gives a field the value that is set, if one is.
func put[T any](field, v *T) {
	if v != nil {
		*field = *v
	}
}

// Form is what the settings say about the look of routes. It is comparable.
type Form struct {
	Proto              uint8      // of routes to workloads
	Src4, Src6         netip.Addr // preferred sources of routes to workloads; zero: none
	Metric4, Metric6   uint32     // of routes to workloads
	Learned4, Learned6 uint32     // metrics of routes to elsewhere
}

// SettingsFor lays configurations over each other for one node; of values it
// reads the FelixConfigs and BGPConfigs, a nil one is empty. The first that
// sets a field wins, in this order: env, the configuration named node.NAME,
// those whose selector matches the node by name, the one named default.
func SettingsFor(node model.Node, values iter.Seq[model.Value], env ...model.FelixConfig) Settings {
	s := Settings{
		InterfacePrefixes: []string{DefaultInterfacePrefix},
		RemoveExternal:    true, RouteRefresh: DefaultRouteRefresh, Form: Form{Proto: plan.ProtoBoot},
		Process: Process{GCPercent: DefaultGCPercent, MaxProcs: -1, MemoryLimitMB: -1},
		Pages: Pages{
			Health: Page{Host: "localhost", Port: DefaultHealthPort}, Metrics: Page{Port: DefaultMetricsPort},
			GoMetrics: true, ProcessMetrics: true, WireGuardMetrics: true, Watchdog: DefaultWatchdog,
		},
		Tunnel: Tunnel{VNI: model.DefaultVNI, VXLANPort: model.DefaultVXLANPort, MTUPattern: model.DefaultMTUPattern},
	}
	configs := append(slices.Clone(env), model.FelixConfigsFor(node, values)...)
	for _, c := range slices.Backward(configs) {
		s = s.under(c)
	}
	s.Form.Learned4, s.Form.Learned6 = s.Form.Metric4, s.Form.Metric6
	for _, c := range slices.Backward(bgpConfigs(node, values)) {
		set(&s.Form.Learned4, c.IPv4Priority)
		set(&s.Form.Learned6, c.IPv6Priority)
	}
	// To the kernel these two are one and the same, so they must be here.
	for _, m := range []*uint32{&s.Form.Metric6, &s.Form.Learned6} {
		if *m == kernelMetric6 {
			*m = 0
		}
	}
	slices.Sort(s.Unbuilt)
	s.Unbuilt = slices.Compact(s.Unbuilt)
	return s
}

// bgpConfigs are the BGPConfigs that bear upon node, the strongest first.
func bgpConfigs(node model.Node, values iter.Seq[model.Value]) []model.BGPConfig {
	if values == nil {
		return nil
	}
	var own, cluster []model.BGPConfig
	for v := range values {
		c, ok := v.(model.BGPConfig)
		switch {
		case ok && c.Name == "node."+node.Name:
			own = append(own, c)
		case ok && c.Name == "default":
			cluster = append(cluster, c)
		}
	}
	return append(own, cluster...)
}

// under returns s with what c sets laid over it.
func (s Settings) under(c model.FelixConfig) Settings {
	if len(c.InterfacePrefixes) > 0 {
		s.InterfacePrefixes = c.InterfacePrefixes
	}
	if c.RemoveExternal != nil {
		s.RemoveExternal = *c.RemoveExternal
	}
	if c.RouteRefresh != nil {
		s.RouteRefresh = *c.RouteRefresh
	}
	s.Pages = s.Pages.under(c.Pages)
	if c.LogSeverity != "" {
		s.LogSeverity = c.LogSeverity
	}
	if c.DeviceRouteSource.IsValid() {
		s.Form.Src4 = c.DeviceRouteSource
	}
	if c.DeviceRouteSourceV6.IsValid() {
		s.Form.Src6 = c.DeviceRouteSourceV6
	}
	set(&s.Process.GCPercent, c.GCThreshold)
	set(&s.Process.MaxProcs, c.MaxProcs)
	set(&s.Process.MemoryLimitMB, c.MemoryLimitMB)
	set(&s.Form.Proto, c.DeviceRouteProtocol)
	set(&s.Form.Metric4, c.IPv4Priority)
	set(&s.Form.Metric6, c.IPv6Priority)
	s.Tunnel = s.Tunnel.under(c)
	s.Unbuilt = append(slices.Clip(s.Unbuilt), c.Unbuilt...)
	return s
}

func set[T int | uint8 | uint32](field *T, v *int) {
	if v != nil {
		*field = T(*v)
	}
}

// workload is the route to an address on a local link (facts S-30).
func (f Form) workload(a netip.Addr, link string) plan.Route {
	r := plan.Route{
		RouteKey:   plan.RouteKey{Dst: host(a), Table: plan.TableMain, Priority: f.Metric4},
		RouteAttrs: plan.RouteAttrs{Proto: f.Proto, Link: link, Src: f.Src4},
	}
	if !a.Is4() {
		r.Priority, r.Src = f.Metric6, f.Src6
	}
	return r
}

// remote is the route to a prefix elsewhere (facts S-32).
func (f Form) remote(p netip.Prefix, via plan.Hops) plan.Route {
	r := plan.Route{
		RouteKey:   plan.RouteKey{Dst: p, Table: plan.TableMain, Priority: f.Learned4},
		RouteAttrs: plan.RouteAttrs{Proto: plan.ProtoBird, Via: via},
	}
	if !p.Addr().Is4() {
		r.Priority = f.Learned6
	}
	return r
}

// blackhole drops what is sent to an address of the node's own block that no
// workload has (facts S-31). It never has a metric.
func blackhole(p netip.Prefix) plan.Route {
	return plan.Route{
		RouteKey:   plan.RouteKey{Dst: p, Table: plan.TableMain},
		RouteAttrs: plan.RouteAttrs{Type: plan.Blackhole, Proto: plan.ProtoBird},
	}
}
