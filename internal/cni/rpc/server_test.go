package rpc

import "testing"

func TestOnlyRootAndTheAgentsUserMayAsk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		peer uint32
		own  int
		ok   bool
	}{{0, 0, true}, {0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		if err := allowed(tt.peer, tt.own); (err == nil) != tt.ok {
			t.Errorf("user %d asks an agent of user %d: %v", tt.peer, tt.own, err)
		}
	}
}
