package crd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
)

// validationCase is a line of test/fixtures/validation; see its README.
type validationCase struct {
	ID, Kind, About string
	Before          []string
	Input, Verdict  string
}

func readCases(t *testing.T) []validationCase {
	t.Helper()
	f, err := os.Open("../../test/fixtures/validation/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []validationCase
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c validationCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(customKinds(), func(k v3.Kind) bool { return k.Name == c.Kind }) {
			all = append(all, c)
		}
	}
	if lines.Err() != nil || len(all) < 250 {
		t.Fatalf("%d cases, %v", len(all), lines.Err())
	}
	return all
}

// applyAll applies documents in order, in namespaces that it makes, up to the first
// refusal. They are deleted when the test ends.
func (s server) applyAll(t *testing.T, files ...string) error {
	t.Helper()
	for _, file := range files {
		for text := range strings.SplitSeq(file, "\n---\n") {
			d, err := parse(text)
			if err != nil {
				return err
			}
			if d.namespaced {
				s.namespace(t, d.namespace)
			}
			err = s.apply(t.Context(), d)
			if broken := (fatal{}); errors.As(err, &broken) {
				t.Fatal(err)
			}
			if err != nil {
				return err
			}
			t.Cleanup(func() {
				if _, err := s.do(context.WithoutCancel(t.Context()), http.MethodDelete, d.path(), nil); err != nil {
					t.Log(err) // applied twice, deleted once
				}
			})
		}
	}
	return nil
}

// namespace makes a namespace, unless it has no name that can be one: then who is in
// it is refused for that.
func (s server) namespace(t *testing.T, name string) {
	t.Helper()
	d := document{version: "v1", kind: "Namespace", plural: "namespaces", name: name}
	d.tree = map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}
	if err := s.apply(t.Context(), d); err != nil {
		t.Logf("namespace: %v", err)
	}
}

// agreesOnFixtures: the server's verdict on every document that Calico's own tool judged
// is Calico's, and so weft's, but for the differences, each of which must be one.
func agreesOnFixtures(t *testing.T, s server) {
	different := differences()
	for _, c := range readCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			if err := s.applyAll(t, c.Before...); err != nil {
				t.Fatalf("before: %v", err)
			}
			err := s.applyAll(t, c.Input)
			agree := (err == nil) == (c.Verdict == "accept")
			why, known := different[c.ID]
			delete(different, c.ID)
			switch {
			case !agree && !known:
				t.Errorf("%s: the server says %v, want %s\n%s", c.About, err, c.Verdict, c.Input)
			case agree && known:
				t.Errorf("%s: the server agrees now (%v): take it out of the differences (%s)", c.About, err, why)
			}
		})
	}
	if len(different) > 0 {
		t.Errorf("differences that no case shows: %v", slices.Sorted(maps.Keys(different)))
	}
}
