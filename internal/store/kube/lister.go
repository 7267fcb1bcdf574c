package kube

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// lister reads and watches one resource.
type lister interface {
	List(ctx context.Context, options metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// typedLister is the lister of a kind that client-go has a type for.
type typedLister[L runtime.Object] struct {
	api interface {
		List(ctx context.Context, options metav1.ListOptions) (L, error)
		Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
	}
}

// List implements lister.
func (l typedLister[L]) List(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	list, err := l.api.List(ctx, options)
	if err != nil {
		return nil, err // not list: a nil pointer is no nil Object
	}
	return list, nil
}

// Watch implements lister.
func (l typedLister[L]) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return l.api.Watch(ctx, options)
}

// item is an object as text, with its metadata.
type item struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	raw []byte
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *item) UnmarshalJSON(text []byte) error {
	i.raw = append([]byte(nil), text...)
	var o struct {
		Metadata struct {
			Name            string            `json:"name"`
			Namespace       string            `json:"namespace"`
			ResourceVersion string            `json:"resourceVersion"`
			Annotations     map[string]string `json:"annotations"` // a bookmark says so by one
		} `json:"metadata"`
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	i.Name, i.Namespace, i.ResourceVersion, i.Annotations = o.Metadata.Name, o.Metadata.Namespace, o.Metadata.ResourceVersion, o.Metadata.Annotations
	return nil
}

// DeepCopyObject implements runtime.Object. Nobody changes an item.
func (i *item) DeepCopyObject() runtime.Object { c := *i; return &c }

// itemList is the answer to a list.
type itemList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []item `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *itemList) DeepCopyObject() runtime.Object { c := *l; return &c }

// rawLister is the lister of a resource whose objects stay text.
type rawLister struct {
	rest     rest.Interface
	resource resource
}

// List implements lister.
func (l rawLister) List(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	raw, err := text(l.rest.Get().AbsPath(l.resource.in("")).SpecificallyVersionedParams(&options, scheme.ParameterCodec, schema.GroupVersion{Version: "v1"}).Do(ctx))
	if err != nil {
		return nil, err
	}
	list := &itemList{}
	return list, json.Unmarshal(raw, list)
}

// Watch implements lister.
func (l rawLister) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	body, err := l.rest.Get().AbsPath(l.resource.in("")).SpecificallyVersionedParams(&options, scheme.ParameterCodec, schema.GroupVersion{Version: "v1"}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	return watch.NewStreamWatcher(&frames{body, json.NewDecoder(body)}, apierrors.NewClientErrorReporter(http.StatusInternalServerError, "GET", "ClientWatchDecoding")), nil
}

// frames reads the events of a watch; it implements watch.Decoder.
type frames struct {
	body io.ReadCloser
	text *json.Decoder
}

// Decode implements watch.Decoder.
func (f *frames) Decode() (watch.EventType, runtime.Object, error) {
	var event struct {
		Type   watch.EventType `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := f.text.Decode(&event); err != nil {
		return "", nil, err
	}
	if event.Type == watch.Error {
		status := &metav1.Status{}
		return event.Type, status, json.Unmarshal(event.Object, status)
	}
	o := &item{}
	return event.Type, o, json.Unmarshal(event.Object, o)
}

// Close implements watch.Decoder.
func (f *frames) Close() { f.body.Close() }

// jsonREST makes a client for objects as text, on the connection of others.
func jsonREST(c *rest.Config, h *http.Client) (rest.Interface, error) {
	own := rest.CopyConfig(c)
	own.ContentType, own.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	own.APIPath, own.GroupVersion = "/apis", &schema.GroupVersion{}
	own.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	return rest.RESTClientForConfigAndClient(own, h)
}

// text is the answer to a request. The error is what the server says, if it says anything.
func text(r rest.Result) ([]byte, error) {
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}
