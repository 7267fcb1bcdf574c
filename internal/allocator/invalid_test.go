package allocator_test

import (
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store/kv"
	"github.com/weft-net/weft/internal/store/mem"
)

// overwrite puts a value beside what a writer of ours would refuse.
func overwrite(t *testing.T, s mem.Store, key, value string) {
	t.Helper()
	out, err := s.DB.Txn(t.Context(), []kv.Write{{Key: key, Value: []byte(value), Expect: kv.Present}})
	if err == nil && out.Refused != nil {
		out, err = s.DB.Txn(t.Context(), []kv.Write{{Key: key, Value: []byte(value)}})
	}
	if err != nil || out.Refused != nil {
		t.Fatal(out, err)
	}
}

const (
	resourceRoot = "/calico/resources/v3/projectcalico.org/"
	poolAt       = resourceRoot + "ippools/pool-a"
	nodeAt       = resourceRoot + "nodes/node-a"
	reservedAt   = resourceRoot + "ipreservations/r"
	configAt     = "/calico/ipam/v2/config"

	// Of pool-a one block of 16 is left, and of that one quarter.
	reservedWell = `{"kind":"IPReservation","apiVersion":"projectcalico.org/v3","metadata":{"name":"r"},"spec":{"reservedCIDRs":["10.10.0.0/25","10.10.0.128/26","10.10.0.192/27","10.10.0.224/28","10.10.0.240/29","10.10.0.248/30"]}}`
)

// told gives an allocator all that the store has, once per revision of it.
func told(t *testing.T, s mem.Store, a *allocator.Allocator) {
	t.Helper()
	for b, err := range s.Watch(t.Context(), model.KindIPPool, model.KindIPReservation, model.KindIPAMConfig, model.KindNode) {
		if err != nil {
			t.Fatal(err)
		}
		a.Step(b)
		if b.Synced {
			return
		}
	}
}

// TestInvalidSettings: what is spoilt never frees what it protected, and never
// takes away what it gave.
func TestInvalidSettings(t *testing.T) {
	t.Parallel()
	spoil := func(kind, name string) string {
		return `{"kind":"` + kind + `","apiVersion":"projectcalico.org/v3","metadata":{"name":"` + name + `"},"spec":17}`
	}
	for name, tt := range map[string]struct {
		before, after map[string]string // stored values by key; known is what was there before the spoiling
		want          string            // of five addresses: "all", or how many
	}{
		"a good reservation":                {after: map[string]string{reservedAt: reservedWell}, want: "4"},
		"a reservation becomes unreadable":  {before: map[string]string{reservedAt: reservedWell}, after: map[string]string{reservedAt: spoil("IPReservation", "r")}, want: "4"},
		"a reservation becomes invalid":     {before: map[string]string{reservedAt: reservedWell}, after: map[string]string{reservedAt: strings.Replace(reservedWell, "10.10.0.0/25", "10.10.0.0/99", 1)}, want: "4"},
		"a reservation that never was good": {after: map[string]string{reservedAt: strings.Replace(reservedWell, "[", `["10.10.0.252","10.10.0.1/99",`, 1)}, want: "3"},
		"the pool becomes unreadable":       {after: map[string]string{poolAt: spoil("IPPool", "pool-a")}, want: "5"},
		"the node becomes unreadable":       {after: map[string]string{nodeAt: spoil("Node", "node-a")}, want: "5"},
		"the configuration is unreadable":   {after: map[string]string{configAt: `17`}, want: "5"},
		// 2 blocks may be had and no address of another node's: not 5, were affinity not strict.
		"a configuration that was strict is spoilt": {
			before: map[string]string{configAt: `{"strict_affinity":true,"auto_allocate_blocks":false}`},
			after:  map[string]string{configAt: `17`}, want: "0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			for key, value := range tt.before {
				overwrite(t, s, key, value)
			}
			a := start(t, s, "node-a", noon)
			told(t, s, a)
			for key, value := range tt.after {
				overwrite(t, s, key, value)
			}
			// Told or not, fresh reading or not, the answer is the same.
			told(t, s, a)
			got := 0
			for _, h := range []string{"h1", "h2", "h3", "h4", "h5"} {
				if _, err := a.Assign(t.Context(), want(h, "4")); err == nil {
					got++
				}
			}
			if text := string(rune('0' + got)); text != tt.want {
				t.Errorf("got %s of 5 addresses, want %s", text, tt.want)
			}
		})
	}
}

// TestStrictWithoutConfiguration: a configuration that never could be read does
// not open the blocks of other nodes.
func TestStrictWithoutConfiguration(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	overwrite(t, s, poolAt, `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool-a"},"spec":{"cidr":"10.10.0.0/28","blockSize":28}}`)
	b := start(t, s, "node-b", noon)
	if _, err := b.Assign(t.Context(), want("h", "4")); err != nil {
		t.Fatal(err)
	}
	a := start(t, s, "node-a", noon)
	if _, err := a.Assign(t.Context(), want("h2", "4")); err != nil {
		t.Fatal("without a configuration addresses are borrowed:", err)
	}
	overwrite(t, s, configAt, `"nonsense"`)
	if _, err := a.Assign(t.Context(), want("h3", "4")); err == nil || !strings.Contains(err.Error(), "strictAffinity") {
		t.Errorf("read: got %v, want a refusal for strict affinity", err)
	}
	told(t, s, a)
	if _, err := a.Assign(t.Context(), want("h4", "4")); err == nil || !strings.Contains(err.Error(), "strictAffinity") {
		t.Errorf("told: got %v, want a refusal for strict affinity", err)
	}
}
