package kube

import "time"

// SetAbsent makes the store look for missing CRDs that often.
func (s *Store) SetAbsent(d time.Duration) { s.absent = d }
