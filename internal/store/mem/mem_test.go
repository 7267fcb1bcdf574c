package mem_test

import (
	"testing"

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
