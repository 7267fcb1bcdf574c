package kv

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// Every entry of Calico's dump is the one of the object that it holds.
func TestEntry(t *testing.T) {
	t.Parallel()
	file, err := os.Open("../../../test/fixtures/etcd/keys.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	seen := 0
	scan := bufio.NewScanner(file)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var e struct {
			Key   string
			Value json.RawMessage
		}
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		o, err := ParseEntry(e.Key, e.Value)
		if err != nil {
			t.Errorf("%s: %v", e.Key, err)
			continue
		}
		var want bytes.Buffer
		json.HTMLEscape(&want, e.Value) // as etcd has it; the file is made for people
		key, value, err := EntryOf(o)
		if err != nil || key != e.Key || string(value) != want.String() {
			t.Errorf("%s: got %s %s, %v\nwant %s", e.Key, key, value, err, &want)
		}
		seen++
	}
	if scan.Err() != nil || seen < 30 {
		t.Errorf("%d entries, %v", seen, scan.Err())
	}
	for _, key := range []string{"", "/calico", "/calico/resources/v3/projectcalico.org/nosuch/a", "/calico/ipam/v2/assignment/ipv4/block/x"} {
		if _, err := ParseEntry(key, []byte("{}")); err == nil {
			t.Errorf("%q is taken for a key", key)
		}
	}
}
