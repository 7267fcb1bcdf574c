package kv

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const blockText = `{"cidr":"10.0.0.0/30","affinity":"host:node-a","affinity_claim_time":"2026-11-20T06:08:51Z","allocations":[0,null,1,null],` +
	`"unallocated":[3,1],"attributes":[{"handle_id":"net.c1","secondary":{"namespace":"shop","node":"node-a","pod":"web-1",` +
	`"timestamp":"2026-11-20 06:08:51.718970091 +0000 UTC"}},{"handle_id":"net.c2","secondary":{"namespace":"shop","node":"node-a","pod":"web-2"},` +
	`"alternateOwnerAttrs":{},"releasedAt":"2026-11-20T06:08:51Z"}],"sequenceNumber":12,"sequenceNumberForAllocation":{"0":9,"2":10},"deleted":false}`

// sameBlock compares readBlock with the decoder, and reports whether it was quick.
func sameBlock(t *testing.T, value []byte) bool {
	t.Helper()
	got, quick := readBlock(value)
	if !quick {
		return false
	}
	var want flatBlock[flatAttribute]
	if err := json.Unmarshal(value, &want); err != nil {
		t.Errorf("%s: read, but the decoder says %v", value, err)
	} else if !reflect.DeepEqual(want, got) {
		t.Errorf("%s: (-decoded +read):\n%s", value, cmp.Diff(want, got))
	}
	return true
}

func TestReadBlock(t *testing.T) {
	t.Parallel()
	for edit, quick := range map[string]bool{
		"→":                                     true,
		`"host:node-a"→null`:                    true,
		`"2026-11-20T06:08:51Z"→null`:           true,
		`"shop"→""`:                             true,
		`{"0":9,"2":10}→{}`:                     true,
		`[0,null,1,null]→[ ]`:                   true,
		`,"deleted":false→`:                     true,
		`:→ : `:                                 false, // within times, too
		`"deleted":false→"deleted":true `:       true,
		`"deleted":false→"deleted":falsey`:      false,
		`"deleted":false→"deleted":null`:        false,
		`12→012`:                                false,
		`12→1.2`:                                false,
		`12→-1`:                                 false,
		`12→1e3`:                                false,
		`12→18446744073709551615`:               false,
		`[3,1]→[3,1,]`:                          false,
		`[3,1]→[3 1]`:                           false,
		`[3,1]→null`:                            false,
		`web-1→web\u002d1`:                      false,
		`"cidr"→"CIDR"`:                         false,
		`"cidr"→"more":1,"cidr"`:                false,
		`"pod":"web-1"→"pod":"x","pod":"web-1"`: true, // of a map the last one counts
		`"cidr"→"deleted":true,"cidr"`:          false,
		`"releasedAt"→"more"`:                   false,
		`06:08:51Z→06:08:99Z`:                   false,
		`"net.c1"→7`:                            false,
		`"net.c1"→null`:                         true,
		`false}→false}}`:                        false,
		`false}→false`:                          false,
	} {
		from, to, _ := strings.Cut(edit, "→")
		value := blockText
		if from != "" {
			value = strings.ReplaceAll(value, from, to)
		}
		if got := sameBlock(t, []byte(value)); got != quick {
			t.Errorf("%s: quick is %t, want %t", edit, got, quick)
		}
	}
}

// TestReadBlockOfCalico: what Calico writes needs no decoder.
func TestReadBlockOfCalico(t *testing.T) {
	t.Parallel()
	lines, err := os.ReadFile("../../../test/fixtures/etcd/keys.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for line := range strings.Lines(string(lines)) {
		var entry struct {
			Key   string
			Value json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(entry.Key, blockRoot) {
			continue
		}
		blocks++
		if !sameBlock(t, entry.Value) {
			t.Errorf("%s: not read", entry.Value)
		}
	}
	if blocks == 0 {
		t.Error("the fixture has no blocks")
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte(blockText))
	f.Add([]byte(`{"allocations":[null, 3],"attributes":[{}]}`))
	f.Add([]byte(`{"attributes":[{"secondary":{"a":"\\","a":"b"}}],"sequenceNumberForAllocation":{"x":00}}`))
	f.Fuzz(func(t *testing.T, value []byte) { sameBlock(t, value) })
}
