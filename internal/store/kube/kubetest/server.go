package kubetest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kube"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// Server is an API server in memory. Its fields may be set before it is used.
type Server struct {
	URL string
	// NoStreamedLists makes it one that can't stream lists.
	NoStreamedLists bool

	mu        sync.Mutex
	resources []Resource
	rev       uint64
	oldest    uint64            // revisions before it are forgotten
	objects   map[string]object // by collection, namespace and name, joined by '/'
	log       []change
	changed   chan struct{} // closed by the next change
	breaks    int
	fail      func(*http.Request) int // a status other than 0 is the answer
	denied    func(verb, group, resource string) bool
	requests  map[string]int // by verb
}

// object is what is stored: JSON as maps.
type object = map[string]any

// change is what became of an object. gone: it is as it last was.
type change struct {
	rev        uint64
	collection string
	value      object
	kind       string // ADDED, MODIFIED or DELETED
}

// New starts a server with the kinds of Kubernetes that weft uses and those given. It ends
// with the test.
func New(t testing.TB, resources ...Resource) *Server {
	s := &Server{rev: 1, oldest: 1, objects: map[string]object{}, changed: make(chan struct{}), requests: map[string]int{}}
	s.resources = append([]Resource{
		{"", "v1", "pods", "Pod", true},
		{"", "v1", "nodes", "Node", false},
		{"", "v1", "namespaces", "Namespace", false},
		{"", "v1", "serviceaccounts", "ServiceAccount", true},
		{"networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true},
		{"discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true},
	}, resources...)
	h := httptest.NewServer(s)
	s.URL = h.URL
	t.Cleanup(func() {
		s.Break()
		h.CloseClientConnections()
		h.Close()
	})
	return s
}

// Config is how to reach it.
func (s *Server) Config() kube.Config { return kube.Config{Server: s.URL} }

// Install adds resources, as applying CRDs does.
func (s *Server) Install(resources ...Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resources = append(s.resources, resources...)
}

// Compact forgets all revisions but the present one, and breaks watches that are behind.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest, s.log = s.rev, nil
	s.wake()
}

// Break ends every watch, as a restart does.
func (s *Server) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks++
	s.wake()
}

// Fail makes requests fail: with the status that f returns, or, if that is 0, not. nil ends
// that. Watches under way go on.
func (s *Server) Fail(f func(*http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Deny refuses requests, and makes access reviews say so.
func (s *Server) Deny(f func(verb, group, resource string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = f
}

// Requests are the numbers of requests so far, by verb: get, list, watch, create, update,
// patch, delete.
func (s *Server) Requests() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.requests)
}

func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// target is what a request is about.
type target struct {
	Resource
	namespace, name, sub string
	collection           string // path and plural
}

func (t target) key() string { return t.collection + "/" + t.namespace + "/" + t.name }

// find takes a path apart. ok is false where there is no such resource.
func (s *Server) find(path string) (target, bool) {
	for _, r := range s.resources {
		rest, ok := strings.CutPrefix(path, r.Path()+"/")
		if !ok {
			continue
		}
		t := target{Resource: r, collection: r.Path() + "/" + r.Plural}
		parts := strings.Split(rest, "/")
		if r.Namespaced && len(parts) > 2 && parts[0] == "namespaces" {
			t.namespace, parts = parts[1], parts[2:]
		}
		if parts[0] != r.Plural || len(parts) > 3 {
			continue
		}
		parts = append(parts, "", "")
		t.name, t.sub = parts[1], parts[2]
		return t, true
	}
	return target{}, false
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if code := fail(r); code != 0 {
			reason := map[int]string{
				http.StatusForbidden: "Forbidden", http.StatusUnprocessableEntity: "Invalid", http.StatusTooManyRequests: "TooManyRequests",
				http.StatusInternalServerError: "InternalError", http.StatusServiceUnavailable: "ServiceUnavailable",
			}[code]
			refuse(w, code, reason, "told to fail", target{})
			return
		}
	}
	if strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
		s.access(w, r)
		return
	}
	t, ok := s.find(r.URL.Path)
	if !ok {
		s.discover(w, r.URL.Path)
		return
	}
	verb := verbOf(r, t)
	if !s.count(verb, t) {
		refuse(w, http.StatusForbidden, "Forbidden", t.Plural+" is forbidden: may not "+verb, t)
		return
	}
	switch verb {
	case "watch":
		s.watch(w, r, t)
	case "list":
		s.list(w, t)
	case "get":
		s.get(w, t)
	default:
		s.write(w, r, t)
	}
}

// verbOf is what a request asks for, as roles name it.
func verbOf(r *http.Request, t target) string {
	switch {
	case r.Method != http.MethodGet:
		return map[string]string{"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[r.Method]
	case t.name != "":
		return "get"
	case r.URL.Query().Get("watch") != "":
		return "watch"
	}
	return "list"
}

// count counts a request and reports whether it is allowed.
func (s *Server) count(verb string, t target) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[verb]++
	return s.denied == nil || !s.denied(verb, t.Group, t.Plural)
}

// reply answers with JSON.
func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// refuse answers with a Status.
func refuse(w http.ResponseWriter, code int, reason, message string, t target) {
	reply(w, code, status(code, reason, message, t))
}

func status(code int, reason, message string, t target) object {
	o := object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}
	if t.name != "" {
		o["details"] = object{"name": t.name, "group": t.Group, "kind": t.Plural}
	}
	return o
}

// discover answers what a group version serves.
func (s *Server) discover(w http.ResponseWriter, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []any
	for _, r := range s.resources {
		if r.Path() == path {
			names = append(names, object{"name": r.Plural, "kind": r.Kind, "namespaced": r.Namespaced, "verbs": []string{"get", "list", "watch"}})
		}
	}
	if names == nil {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	reply(w, http.StatusOK, object{"kind": "APIResourceList", "apiVersion": "v1", "resources": names})
}

// access answers an access review.
func (s *Server) access(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var review authorizationv1.SelfSubjectAccessReview
	_, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &review) // JSON or protobuf
	if err != nil || review.Spec.ResourceAttributes == nil {
		refuse(w, http.StatusBadRequest, "BadRequest", "not a review of access to a resource", target{})
		return
	}
	s.mu.Lock()
	a := review.Spec.ResourceAttributes
	ok := s.denied == nil || !s.denied(a.Verb, a.Group, a.Resource)
	s.mu.Unlock()
	reply(w, http.StatusCreated, object{"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": review.Spec, "status": object{"allowed": ok}})
}

func (s *Server) get(w http.ResponseWriter, t target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[t.key()]; ok {
		reply(w, http.StatusOK, o)
		return
	}
	refuse(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", t.Plural, t.name), t)
}

// all are the objects of a collection, in order; s.mu is held.
func (s *Server) all(t target) []object {
	var keys []string
	prefix := t.collection + "/"
	if t.namespace != "" {
		prefix += t.namespace + "/"
	}
	for k := range s.objects {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []object
	for _, k := range keys {
		out = append(out, s.objects[k])
	}
	return out
}

func (s *Server) list(w http.ResponseWriter, t target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := s.all(t)
	if items == nil {
		items = []object{}
	}
	reply(w, http.StatusOK, object{
		"kind": t.Kind + "List", "apiVersion": strings.TrimPrefix(t.Group+"/"+t.Version, "/"),
		"metadata": object{"resourceVersion": strconv.FormatUint(s.rev, 10)}, "items": items,
	})
}

// watch streams what changes, after what is there if that is asked for.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, t target) {
	q := r.URL.Query()
	after, _ := strconv.ParseUint(q.Get("resourceVersion"), 10, 64)
	stream := q.Get("sendInitialEvents") == "true"
	s.mu.Lock()
	if stream && s.NoStreamedLists {
		s.mu.Unlock()
		refuse(w, http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents is forbidden for watch", t)
		return
	}
	breaks := s.breaks
	var first []any
	if stream {
		after = s.rev
		for _, o := range s.all(t) {
			first = append(first, object{"type": "ADDED", "object": o})
		}
		first = append(first, object{"type": "BOOKMARK", "object": object{
			"kind": t.Kind, "apiVersion": strings.TrimPrefix(t.Group+"/"+t.Version, "/"),
			"metadata": object{"resourceVersion": strconv.FormatUint(s.rev, 10), "annotations": object{"k8s.io/initial-events-end": "true"}},
		}})
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	send := json.NewEncoder(w)
	flush := w.(http.Flusher).Flush
	for _, e := range first {
		_ = send.Encode(e) // the client may be gone; then the request ends
	}
	flush()
	for {
		changes, changed, gone, broken := s.since(t, after, breaks)
		if gone {
			_ = send.Encode(object{"type": "ERROR", "object": status(http.StatusGone, "Expired", "too old resource version", target{})})
			return
		}
		for _, c := range changes {
			after = c.rev
			_ = send.Encode(object{"type": c.kind, "object": c.value})
		}
		flush()
		if broken {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

// since are the changes of a collection after a revision.
func (s *Server) since(t target, after uint64, breaks int) (out []change, changed chan struct{}, gone, broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.breaks != breaks {
		return nil, nil, false, true
	}
	if after < s.oldest-1 {
		return nil, nil, true, false
	}
	for _, c := range s.log {
		if c.rev > after && c.collection == t.collection {
			out = append(out, c)
		}
	}
	return out, s.changed, false, false
}

// write carries out a change.
func (s *Server) write(w http.ResponseWriter, r *http.Request, t target) {
	var body object
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil && r.Method != http.MethodDelete {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error(), t)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPost {
		t.name, _ = meta(body)["name"].(string)
	}
	old, exists := s.objects[t.key()]
	switch {
	case r.Method == http.MethodPost && exists:
		refuse(w, http.StatusConflict, "AlreadyExists", fmt.Sprintf("%s %q already exists", t.Plural, t.name), t)
		return
	case r.Method != http.MethodPost && !exists:
		refuse(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", t.Plural, t.name), t)
		return
	case r.Method != http.MethodPost && stale(r.Method, body, old):
		refuse(w, http.StatusConflict, "Conflict", fmt.Sprintf("Operation cannot be fulfilled on %s %q: the object has been modified", t.Plural, t.name), t)
		return
	case r.Method == http.MethodPut && meta(body)["resourceVersion"] == nil:
		refuse(w, http.StatusUnprocessableEntity, "Invalid", "metadata.resourceVersion: must be specified for an update", t)
		return
	}
	switch r.Method {
	case http.MethodPost:
		s.store(t, born(body, t), "ADDED")
		reply(w, http.StatusCreated, s.objects[t.key()])
	case http.MethodPut:
		for _, k := range []string{"uid", "creationTimestamp"} {
			meta(body)[k] = meta(old)[k]
		}
		s.replace(w, t, old, body)
	case http.MethodPatch:
		next := merged(old, body)
		s.replace(w, t, old, next)
	case http.MethodDelete:
		s.store(t, old, "DELETED")
		reply(w, http.StatusOK, object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	}
}

// replace stores the next version, unless it is the same.
func (s *Server) replace(w http.ResponseWriter, t target, old, next object) {
	meta(next)["resourceVersion"] = meta(old)["resourceVersion"]
	a, _ := json.Marshal(old)
	b, _ := json.Marshal(next)
	if string(a) != string(b) {
		s.store(t, next, "MODIFIED")
	}
	reply(w, http.StatusOK, s.objects[t.key()])
}

// store records a new version, or the last one of what is deleted.
func (s *Server) store(t target, o object, kind string) {
	s.rev++
	o = maps.Clone(o)
	m := maps.Clone(meta(o))
	m["resourceVersion"] = strconv.FormatUint(s.rev, 10)
	o["metadata"] = m
	if s.objects[t.key()] = o; kind == "DELETED" {
		delete(s.objects, t.key())
	}
	s.log = append(s.log, change{s.rev, t.collection, o, kind})
	s.wake()
}

// born gives an object its uid and time.
func born(o object, t target) object {
	m := meta(o)
	m["uid"], m["creationTimestamp"] = uid(), time.Now().UTC().Format(time.RFC3339)
	m["name"] = t.name
	if t.namespace != "" {
		m["namespace"] = t.namespace
	}
	return o
}

func uid() string {
	text := strings.ToLower(rand.Text() + rand.Text())
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:32]
}

// stale reports whether the caller's word about what it changes is not true.
func stale(method string, body, old object) bool {
	said := meta(body)
	if method == http.MethodDelete {
		said, _ = body["preconditions"].(object)
	}
	for _, k := range []string{"resourceVersion", "uid"} {
		if v, ok := said[k].(string); ok && v != "" && v != meta(old)[k] {
			return true
		}
	}
	return false
}

// merged is a JSON merge patch (RFC 7386) of an object.
func merged(old, patch object) object {
	out := maps.Clone(old)
	if out == nil {
		out = object{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case object:
			below, _ := out[k].(object)
			out[k] = merged(below, v)
		default:
			out[k] = v
		}
	}
	return out
}

// meta is the metadata of an object, which it has then.
func meta(o object) object {
	m, ok := o["metadata"].(object)
	if !ok && o != nil {
		m = object{}
		o["metadata"] = m
	}
	return m
}
