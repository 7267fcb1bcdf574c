package crd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/testenv"
)

// server is an API server, and who may do everything there.
type server struct {
	url    string
	client *http.Client
}

// start starts one that has the definitions of the directories, which are below the
// top of the module.
func start(t *testing.T, dirs ...string) server {
	t.Helper()
	api := testenv.APIServer(t)
	s := server{api.URL, &http.Client{
		Timeout:   testenv.Patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 8},
	}}
	for _, dir := range dirs {
		s.install(t, dir)
	}
	return s
}

// install installs the definitions of a directory, and waits until they are served.
func (s server) install(t *testing.T, dir string) {
	t.Helper()
	var all []document
	files, err := filepath.Glob(filepath.Join("../..", dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.apply(t.Context(), d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, d)
	}
	for _, d := range all {
		s.established(t, d)
	}
}

// established waits until a definition is in force.
func (s server) established(t *testing.T, d document) {
	t.Helper()
	for t.Context().Err() == nil {
		var o struct {
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
		text, err := s.do(t.Context(), http.MethodGet, d.path(), nil)
		if err != nil || json.Unmarshal(text, &o) != nil {
			t.Fatalf("%s: %v", d.path(), err)
		}
		for _, c := range o.Status.Conditions {
			if c.Type == "Established" && c.Status == "True" {
				return
			}
			if c.Type == "NamesAccepted" && c.Status == "False" {
				t.Fatalf("%s: names are not accepted: %s", d.path(), text)
			}
		}
		time.Sleep(20 * time.Millisecond) // between questions to a real process
	}
}

// document is one YAML document, as kubectl reads it.
type document struct {
	tree                  map[string]any
	version, kind, plural string
	namespace, name       string
	namespaced            bool
}

// errUnknown is what kubectl says of a kind that no server has.
var errUnknown = errors.New("no matches for kind")

// parse reads a document as far as kubectl does before it asks the server.
func parse(text string) (document, error) {
	var tree map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &tree); err != nil {
		return document{}, err
	}
	meta, _ := tree["metadata"].(map[string]any)
	d := document{tree: tree}
	d.version, _ = tree["apiVersion"].(string)
	d.kind, _ = tree["kind"].(string)
	d.name, _ = meta["name"].(string)
	d.namespace, _ = meta["namespace"].(string)
	switch {
	case d.kind == "CustomResourceDefinition":
		d.plural = "customresourcedefinitions"
	case d.kind == "Namespace":
		d.plural = "namespaces"
	default:
		k, ok := v3.KindByName(d.kind)
		if !ok || k.Name != d.kind || d.version != v3.APIVersion {
			return document{}, errUnknown
		}
		d.plural, d.namespaced = k.Plural, k.Namespaced
	}
	if d.name == "" {
		return document{}, errors.New("resource name may not be empty")
	}
	if d.namespaced && d.namespace == "" {
		d.namespace = "default"
	}
	return d, nil
}

func (d document) path() string { return d.list() + "/" + d.name }

// list is the path of all objects of the kind and namespace.
func (d document) list() string {
	root := "/apis/" + d.version
	if !strings.Contains(d.version, "/") {
		root = "/api/" + d.version
	}
	if d.namespaced {
		root += "/namespaces/" + d.namespace
	}
	return root + "/" + d.plural
}

// apply does what kubectl apply does: it makes an object, or changes the one there is.
func (s server) apply(ctx context.Context, d document) error {
	const strict = "?fieldValidation=Strict"
	_, err := s.do(ctx, http.MethodPost, d.list()+strict, d.tree)
	if err == nil || !strings.Contains(err.Error(), "409 Conflict") {
		return err
	}
	text, err := s.do(ctx, http.MethodGet, d.path(), nil)
	if err != nil {
		return err
	}
	var old struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(text, &old); err != nil {
		return fatal{err}
	}
	d.tree["metadata"].(map[string]any)["resourceVersion"] = old.Metadata.ResourceVersion
	_, err = s.do(ctx, http.MethodPut, d.path()+strict, d.tree)
	return err
}

// do returns the body of the answer, or the message of the server's refusal.
func (s server) do(ctx context.Context, method, path string, tree map[string]any) ([]byte, error) {
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fatal{err}
	}
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, fatal{err}
	}
	r.Header.Set("Authorization", "Bearer admin")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, fatal{err}
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return nil, fatal{err}
	case answer.StatusCode < 300:
		return text, nil
	case answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusUnauthorized:
		return nil, fatal{fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)}
	}
	var status struct{ Message string }
	_ = json.Unmarshal(text, &status) // a refusal that is no status has an empty message
	return nil, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, status.Message)
}

// fatal is an error that is no verdict.
type fatal struct{ error }
