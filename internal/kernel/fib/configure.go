package fib

import "slices"

// Configure changes, while FIB runs, which workload links are ours (Prefixes,
// DeviceProtocol), whether the routes of others on them go, and Resync; the
// other fields of o do not matter. A full comparison follows, unless nothing
// changed.
func (f *FIB) Configure(o Options) {
	o = o.withDefaults()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := &f.opts
	if slices.Equal(now.Prefixes, o.Prefixes) && now.DeviceProtocol == o.DeviceProtocol &&
		now.RemoveExternalRoutes == o.RemoveExternalRoutes && now.Resync == o.Resync {
		return
	}
	now.Prefixes, now.DeviceProtocol = o.Prefixes, o.DeviceProtocol
	now.RemoveExternalRoutes, now.Resync = o.RemoveExternalRoutes, o.Resync
	f.loop.Every(max(o.Resync, 0))
	f.loop.Resync()
}
