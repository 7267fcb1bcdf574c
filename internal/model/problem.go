package model

// Problem is something about an object that keeps a node from acting on it, or
// on a part of it, although the object by itself is valid: it contradicts
// another one, or asks for what cannot be done here. It is comparable, so that
// a log says it once.
type Problem struct {
	Key  Key
	Text string // one line: what, where, why, what is allowed
}

// String prints p on one line.
func (p Problem) String() string {
	if p.Key == (Key{}) {
		return p.Text
	}
	return p.Key.String() + ": " + p.Text
}
