package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
)

// startStore starts etcd. It listens on a unix socket, which is reached from
// every namespace, and needs no port.
func (h *holder) startStore() (*process, error) {
	argv := []string{h.Executable, "store", "--data-dir", filepath.Join(h.Dir.store(), "data"), "--listen", h.Dir.Endpoint()}
	p, err := h.startLogged(&namespace{}, h.Dir.storeLog(), argv, h.Environ)
	if err != nil {
		return nil, fmt.Errorf("lab: store: %w", err)
	}
	return p, nil
}

// openStore connects to etcd as soon as it serves.
func (h *holder) openStore(ctx context.Context, server *process) (store.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, h.patient(readyWithin))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		var err error
		if _, err = os.Stat(h.Dir.etcd()); err == nil {
			var s *etcd.Store
			if s, err = etcd.Open(ctx, etcd.Config{Endpoints: []string{h.Dir.Endpoint()}}); err == nil {
				return s, nil
			}
		}
		select {
		case <-server.done:
			return nil, fmt.Errorf("lab: store: it ended (%s): %s", server.how(), lastLineOf(h.Dir.storeLog()))
		case <-ctx.Done():
			return nil, fmt.Errorf("lab: store: not ready: %w: %w", err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// writeSecrets puts the passwords where every node agent finds them.
func (h *holder) writeSecrets() error {
	for name, keys := range h.topo.Secrets {
		dir := filepath.Join(h.Dir.secrets(), name)
		err := os.MkdirAll(dir, 0o700)
		for key, value := range keys {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, key), []byte(value), 0o600))
		}
		if err != nil {
			return fmt.Errorf("lab: secret %s: %w", name, err)
		}
	}
	return nil
}

// applyResources stores what the topology gives: its resources, the profiles of its
// namespaces, and a Node for each node with labels.
func (h *holder) applyResources(ctx context.Context) error {
	if err := h.putProfiles(ctx); err != nil {
		return err
	}
	var pools []*v3.IPPool
	for i, r := range h.topo.Resources {
		o, err := resource(r)
		if err == nil {
			err = apart(o, pools)
		}
		if err == nil {
			err = h.put(ctx, o)
		}
		if pool, ok := o.(*v3.IPPool); ok {
			pools = append(pools, pool)
		}
		if err != nil {
			return fmt.Errorf("lab: %s: resources[%d]: %s", h.File, i, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	for _, n := range h.topo.Nodes {
		if len(n.Labels) == 0 {
			continue
		}
		if slices.ContainsFunc(h.topo.Resources, func(r map[string]any) bool { return isResource(r, "Node", n.Name) }) {
			return fmt.Errorf("lab: %s: node %s: has labels here and a Node among the resources: only one of the two is allowed", h.File, n.Name)
		}
		o, _ := v3.New("Node")
		o.Meta().Name, o.Meta().Labels = n.Name, n.Labels
		if err := h.put(ctx, o); err != nil {
			return fmt.Errorf("lab: %s: node %s: %w", h.File, n.Name, err)
		}
	}
	return nil
}

// putProfiles stores what the controllers of a Kubernetes cluster make of each
// namespace and of its default service account, but for those that the file has
// among its resources.
func (h *holder) putProfiles(ctx context.Context) error {
	for _, n := range h.topo.Namespaces {
		open := []v3.Rule{{Action: v3.ActionAllow}}
		space := &v3.Profile{Spec: v3.ProfileSpec{Ingress: open, Egress: open, LabelsToApply: map[string]string{"pcns.projectcalico.org/name": n.Name}}}
		for k, v := range n.Labels {
			space.Spec.LabelsToApply["pcns."+k] = v
		}
		account := &v3.Profile{Spec: v3.ProfileSpec{LabelsToApply: map[string]string{"pcsa.projectcalico.org/name": "default"}}}
		space.Name, account.Name = "kns."+n.Name, "ksa."+n.Name+".default"
		for _, p := range []*v3.Profile{space, account} {
			if slices.ContainsFunc(h.topo.Resources, func(r map[string]any) bool { return isResource(r, "Profile", p.Name) }) {
				continue
			}
			p.TypeMeta = metav1.TypeMeta{Kind: "Profile", APIVersion: v3.APIVersion}
			if err := h.put(ctx, p); err != nil {
				return fmt.Errorf("lab: %s: namespace %s: %w", h.File, n.Name, err)
			}
		}
	}
	return nil
}

// apart refuses a pool that has addresses of an earlier one. The datastore does not
// see it, and addresses would be given out twice.
func apart(o v3.Object, earlier []*v3.IPPool) error {
	pool, ok := o.(*v3.IPPool)
	if !ok {
		return nil
	}
	cidr, err := netip.ParsePrefix(pool.Spec.CIDR)
	if err != nil {
		return err
	}
	for _, other := range earlier {
		if taken, err := netip.ParsePrefix(other.Spec.CIDR); err == nil && taken.Overlaps(cidr) {
			return &v3.FieldError{
				Object: v3.Describe(o), Field: "spec.cidr", Value: fmt.Sprintf("%q", pool.Spec.CIDR),
				Reason: fmt.Sprintf("overlaps ippool %s %s: pools must not share addresses", other.Name, other.Spec.CIDR),
			}
		}
	}
	return nil
}

func isResource(r map[string]any, kind, name string) bool {
	meta, _ := r["metadata"].(map[string]any)
	return r["kind"] == kind && meta["name"] == name
}

// resource decodes, completes and checks one object of the file.
func resource(r map[string]any) (v3.Object, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	o, err := v3.Decode(raw)
	if err != nil {
		return nil, err
	}
	v3.ClearSystemFields(o)
	v3.Default(o)
	return o, errors.Join(v3.CheckWritable(o), v3.Validate(o))
}

func (h *holder) put(ctx context.Context, o v3.Object) error {
	ctx, cancel := context.WithTimeout(ctx, h.patient(10*time.Second))
	defer cancel()
	_, err := h.store.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(o)})
	return err
}
