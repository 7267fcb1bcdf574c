package kube

import (
	"fmt"
	"net/http"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Client speaks to one API server. It is safe for concurrent use, and needs no
// closing.
type Client struct {
	// Clientset has the kinds of Kubernetes itself. A test puts a fake here.
	Clientset kubernetes.Interface
	// REST is what Clientset was made from, for kinds that it has not; nil with a
	// fake. Copy it before you change it.
	REST *rest.Config
	// HTTP carries the requests of Clientset: others that use it share its
	// connection. nil with a fake.
	HTTP *http.Client
}

// Connect makes a client. It sends nothing yet: a server that can't be reached shows in
// the first request. The error is about the settings or their files.
func Connect(c Config) (*Client, error) {
	r, err := c.REST()
	if err != nil {
		return nil, err
	}
	h, err := rest.HTTPClientFor(r)
	if err != nil {
		return nil, fmt.Errorf("kube: %s", oneLine(err))
	}
	set, err := kubernetes.NewForConfigAndClient(r, h)
	if err != nil {
		return nil, fmt.Errorf("kube: %s", oneLine(err))
	}
	return &Client{Clientset: set, REST: r, HTTP: h}, nil
}
