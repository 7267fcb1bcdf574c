package want

import (
	"fmt"
	"time"
)

// Budget bounds what may be removed of one kind of thing within a window of time, so
// that a list that lies does not empty the cluster.
type Budget struct {
	// Share of what there is that may go, 0 to 1; 1: all of it.
	Share float64
	// Min may go whatever the share says, so that small clusters work.
	Min int
	// Window is the time over which removals are added up; 0: each plan counts alone.
	Window time.Duration
}

// Ledger is what was removed of late. The zero Ledger is empty.
type Ledger []Removal

// Removal is what was removed at one time.
type Removal struct {
	At time.Time
	N  int
}

// Spent is the number removed within the window before now.
func (l Ledger) Spent(window time.Duration, now time.Time) int {
	n := 0
	for _, r := range l {
		if now.Sub(r.At) < window {
			n += r.N
		}
	}
	return n
}

// With is l with n more removed at now, without what is older than the window. l is
// not changed.
func (l Ledger) With(n int, window time.Duration, now time.Time) Ledger {
	var out Ledger
	for _, r := range l {
		if now.Sub(r.At) < window {
			out = append(out, r)
		}
	}
	if n > 0 {
		out = append(out, Removal{now, n})
	}
	return out
}

// MassError says that a plan would remove too much at once. Nothing of it is carried
// out until a person confirms it or the plan is smaller.
type MassError struct {
	What  string // "policies": the plural of what would go
	N     int    // how many would go, those of the window included
	Total int    // how many there were when the window began
	Limit int    // how many may
	Empty bool   // the list that says so has nothing in it at all
}

// Error implements error. It ends with what to do about it, but for the name of the
// controller.
func (e *MassError) Error() string {
	if e.Empty {
		return fmt.Sprintf("the API server's list of %s is empty, and %d are stored: nothing is removed", e.What, e.Total)
	}
	return fmt.Sprintf("%d of %d %s would be removed at once, and %d may be: nothing is removed", e.N, e.Total, e.What, e.Limit)
}

// Limit is how many of total may go.
func (b Budget) Limit(total int) int { return max(b.Min, int(b.Share*float64(total))) }

// Check is nil if n more of what, of which there are total now, may go. confirmed is a
// number that a person has allowed; 0: none. listed is the number of things on the
// list that says they are gone, and unseen how many of the n nobody saw go: an empty
// list is no evidence for those.
func (b Budget) Check(what string, n, total, listed, unseen, confirmed int, l Ledger, now time.Time) error {
	if n == 0 || confirmed >= n {
		return nil
	}
	if listed == 0 && unseen > 0 && b.Share < 1 {
		return &MassError{What: what, N: n, Total: total, Empty: true}
	}
	spent := l.Spent(b.Window, now)
	if limit := b.Limit(total + spent); n+spent > limit {
		return &MassError{What: what, N: n + spent, Total: total + spent, Limit: limit}
	}
	return nil
}
