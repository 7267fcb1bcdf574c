package fib

import "slices"

// Configure changes, while FIB runs, which workload links are ours (Prefixes,
// DeviceProtocol), whether the routes of others on them go, Resync, and which Tables
// are looked into, of which none is given up; the other fields of o do not matter. A full comparison follows, unless nothing
// changed.
func (f *FIB) Configure(o Options) {
	o = o.withDefaults()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := &f.opts
	more := false
	for _, t := range o.Tables {
		more = more || !f.tables[t]
		f.tables[t] = true
	}
	if !more && slices.Equal(now.Prefixes, o.Prefixes) && now.DeviceProtocol == o.DeviceProtocol &&
		now.RemoveExternalRoutes == o.RemoveExternalRoutes && now.Resync == o.Resync {
		return
	}
	now.Prefixes, now.DeviceProtocol = o.Prefixes, o.DeviceProtocol
	now.RemoveExternalRoutes, now.Resync = o.RemoveExternalRoutes, o.Resync
	f.loop.Every(max(o.Resync, 0))
	f.loop.Resync()
}
