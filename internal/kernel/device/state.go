package device

import (
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/plan"
)

// State is how a wanted device is.
type State struct {
	plan.Device
	Up        bool // it exists, is as wanted, and is up
	UserSpace bool // of IPIP: the agent does the kernel's work
	Ends      int  // of VXLAN: other nodes' ends that are wanted
}

// State tells how the wanted devices are, by name.
func (d *Devices) State() []State {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []State
	for name, want := range d.want {
		l := d.links[name]
		s := State{Device: want, Up: l.index != 0 && l.up && len(l.errs) == 0, UserSpace: l.index != 0 && l.index == l.tun}
		if e := d.ends[name]; e != nil {
			s.Ends = len(e.neighbors)
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return out
}
