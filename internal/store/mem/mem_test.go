package mem_test

import (
	"errors"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store/kv"
	"github.com/weft-net/weft/internal/store/mem"
	"github.com/weft-net/weft/internal/store/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Target {
		s := mem.New()
		t.Cleanup(func() { s.Close() })
		read := func(key string) kv.Entry {
			page, err := s.DB.Range(t.Context(), key, key+"\x00", 0, 0)
			if err != nil {
				t.Error(err)
			}
			if len(page.Entries) == 0 {
				return kv.Entry{}
			}
			return page.Entries[0]
		}
		return storetest.Target{
			Store: s,
			Put: func(key, value string) {
				_, err := s.DB.Txn(t.Context(), []kv.Write{{Key: key, Value: []byte(value), Expect: read(key).Rev}})
				if err != nil {
					t.Error(err)
				}
			},
			Value:   func(key string) string { return string(read(key).Value) },
			Compact: s.DB.Compact,
			Restart: s.DB.Break,
		}
	})
}

// TestPiecewise: without transactions the rest of the contract holds.
func TestPiecewise(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Target {
		s := mem.Piecewise{Store: mem.New()}
		t.Cleanup(func() { s.Close() })
		return storetest.Target{Store: s, Compact: s.DB.Compact, Restart: s.DB.Break, Piecewise: true}
	})
}

// TestHistoryIsBounded writes one key often: old revisions go, the value stays.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	db := mem.NewDB()
	expect := kv.Absent
	for range 25_000 {
		out, err := db.Txn(t.Context(), []kv.Write{{Key: "k", Value: []byte("v"), Expect: expect}})
		if err != nil || out.Refused != nil {
			t.Fatal(out, err)
		}
		expect = out.Rev
	}
	if _, err := db.Range(t.Context(), "k", "l", 0, 2); !errors.Is(err, kv.ErrCompacted) {
		t.Errorf("the first revision: %v, want %v", err, kv.ErrCompacted)
	}
	for _, rev := range []int64{0, expect - 5_000} {
		if page, err := db.Range(t.Context(), "k", "l", 0, rev); err != nil || len(page.Entries) != 1 {
			t.Errorf("revision %d: %v, %v; want one entry", rev, page, err)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := mem.New()
	s.Close()
	if _, err := s.Get(t.Context(), model.HandleKey("h")); err == nil {
		t.Error("a closed store answers")
	}
}
