package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/weft-net/weft/internal/cni/rpc"
)

const (
	// gateTimeout bounds how long an ADD waits for its readiness gates.
	gateTimeout = 30 * time.Second
	// gateInterval is the time between two tries, and the most that one takes.
	gateInterval = time.Second
)

// gate returns when every URL has answered with a status of 200 to 299. Such a gate says
// "no pod starts before that service is there" (readiness_gates in the CNI
// configuration). The error names the first that did not, and what it said last.
func (a *attachments) gate(ctx context.Context, urls []string) error {
	if len(urls) == 0 {
		return nil
	}
	for _, u := range urls {
		if p, err := url.Parse(u); err != nil || p.Scheme != "http" && p.Scheme != "https" || p.Host == "" {
			return &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: fmt.Sprintf("agent: readiness_gates: %q: must be an http or https URL", u)}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, gateTimeout)
	defer cancel()
	// Whether something answers is asked, and nothing is told or believed; in a cluster
	// the certificate is one that nobody outside knows.
	client := &http.Client{
		Timeout:   gateInterval,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	for _, u := range urls {
		for {
			err := knock(ctx, client, u)
			if err == nil {
				break
			}
			select {
			case <-time.After(gateInterval):
			case <-ctx.Done():
				return &rpc.Error{Code: rpc.CodeTryLater, Msg: fmt.Sprintf("agent: readiness gate %s: not within %v: %v", u, gateTimeout, err)}
			}
		}
	}
	return nil
}

func knock(ctx context.Context, client *http.Client, u string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	if err := answer.Body.Close(); err != nil {
		return err
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}
