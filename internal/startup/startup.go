// Package startup prepares a node before its agent runs: it settles the node's
// name, finds its addresses, makes sure that no other node holds them, writes
// the Node record and creates the default pools. It is the job of Calico's
// node start-up and address monitor.
//
//	environment ── SettingsFrom ──► Settings
//	links       ── Rank ──► candidates ──► address ──► Node record
//
// All decisions are functions of settings, links and records; [Prepare] is the
// shell that reads and writes the store around them. Only [Links] and
// [SourceTo] look at the machine.
//
// Deliberately not here: routes, BGP and pods. They are the agent's, which
// reads the record that this package writes as any other node does.
//
// Invariant: a node whose address another node holds does not start, and a
// pool that exists is never changed.
package startup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// ConflictAnnotation is set on a Node that refused to start because another
// node holds its address; the value says which address and which node. It is
// removed when the node starts.
const ConflictAnnotation = "weft.net/address-conflict"

// Host is what start-up asks the machine.
type Host struct {
	// Links lists the interfaces in the kernel's order.
	Links func() ([]Link, error)
	// SourceTo is the source address the kernel would use towards a name or
	// an address, in that family.
	SourceTo func(ctx context.Context, dst string, v6 bool) (netip.Addr, error)
}

// Prepare makes the node known: it writes the Node record with the addresses
// that s asks for, and creates the default pools where there are none. It
// returns the record. Nothing is written when an address or the range of a pool
// can't be found.
func Prepare(ctx context.Context, st store.Store, s Settings, host Host, log *slog.Logger) (model.Node, error) {
	links, err := host.Links()
	if err != nil {
		return model.Node{}, fmt.Errorf("startup: list interfaces: %w", err)
	}
	pools, err := missingPools(ctx, st, s, links)
	if err != nil {
		return model.Node{}, err
	}
	node, err := record(ctx, st, s, host, links, log, true)
	if err != nil {
		return model.Node{}, err
	}
	return node, createPools(ctx, st, pools, node, log)
}

// Refresh finds the addresses of a running node again and makes its record say
// so; a record that is right is not written. An address that the node already
// has stays its own, also when another node has taken it since.
func Refresh(ctx context.Context, st store.Store, s Settings, host Host, log *slog.Logger) error {
	links, err := host.Links()
	if err != nil {
		return fmt.Errorf("startup: list interfaces: %w", err)
	}
	_, err = record(ctx, st, s, host, links, log, false)
	return err
}

// errBeaten says that another node wrote the same address at the same time, and
// was first.
var errBeaten = errors.New("another node was first")

// record writes the node's record. Another writer (the CLI, a second start) may
// change it meanwhile: then it is read again.
func record(ctx context.Context, st store.Store, s Settings, host Host, links []Link, log *slog.Logger, starting bool) (model.Node, error) {
	for {
		node, err := writeRecord(ctx, st, s, host, links, log, starting)
		switch {
		case errors.Is(err, errBeaten):
			starting = true // look at the other node again, and give way
		case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists):
			return node, err
		}
	}
}

func writeRecord(ctx context.Context, st store.Store, s Settings, host Host, links []Link, log *slog.Logger, starting bool) (model.Node, error) {
	key := model.Key{Kind: model.KindNode, Name: s.Node}
	verb := store.Update
	old, err := st.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		fresh, _ := v3.New(string(model.KindNode))
		fresh.Meta().Name = s.Node
		old, verb = store.New(fresh), store.Create
	} else if err != nil {
		return model.Node{}, fmt.Errorf("startup: read node %s: %w", s.Node, err)
	}
	stored, ok := old.Object.(*v3.Node)
	if !ok {
		return model.Node{}, fmt.Errorf("startup: read node %s: got a %T", s.Node, old.Object)
	}
	want, err := desired(ctx, *stored, s, host, links)
	if err != nil {
		return model.Node{}, err
	}
	var owner string
	var taken netip.Addr
	if starting || !reflect.DeepEqual(stored.Spec.BGP, want.Spec.BGP) {
		if owner, taken, err = conflict(ctx, st, s, want, ""); err != nil {
			return model.Node{}, err
		}
	}
	if owner != "" {
		want.Spec.BGP = withoutAddresses(want.Spec.BGP)
		want.Spec.Addresses = withoutType(want.Spec.Addresses, v3.AddressCalicoNodeIP)
		metav1.SetMetaDataAnnotation(&want.ObjectMeta, ConflictAnnotation, fmt.Sprintf("%v is the address of node %s", taken, owner))
	}
	if verb == store.Create || !equal(*stored, want) {
		written, err := st.Commit(ctx, store.Op{Verb: verb, Object: old.With(&want)})
		if err != nil {
			return model.Node{}, fmt.Errorf("startup: write node %s: %w", s.Node, err)
		}
		log.Info("wrote node record", "node", s.Node)
		// Of two that start together each may have looked before the other wrote.
		if first, _, err := conflict(ctx, st, s, want, written[0].Object.Meta().ResourceVersion); err != nil {
			return model.Node{}, err
		} else if owner == "" && first != "" {
			return model.Node{}, errBeaten
		}
	}
	if owner != "" {
		return model.Node{}, &ConflictError{Node: s.Node, Addr: taken, Owner: owner}
	}
	v, err := model.Parse(&want)
	if err != nil {
		return model.Node{}, fmt.Errorf("startup: node %s: %w", s.Node, err)
	}
	return v.(model.Node), nil
}

// ConflictError says that another node holds the address of this one.
type ConflictError struct {
	Node, Owner string
	Addr        netip.Addr
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("startup: node %s: address %v is that of node %s: give this node another (IP, IP_AUTODETECTION_METHOD), delete the other node, or set DISABLE_NODE_IP_CHECK=true", e.Node, e.Addr, e.Owner)
}

// conflict finds another node with an address of want; where rev is not empty,
// only one that was written before that revision.
func conflict(ctx context.Context, st store.Store, s Settings, want v3.Node, rev string) (owner string, taken netip.Addr, err error) {
	if s.SkipAddressCheck || want.Spec.BGP == nil {
		return "", netip.Addr{}, nil
	}
	mine := map[netip.Addr]bool{}
	for _, text := range []string{want.Spec.BGP.IPv4Address, want.Spec.BGP.IPv6Address} {
		if p, err := netip.ParsePrefix(text); err == nil {
			mine[p.Addr()] = true
		}
	}
	// A node that can't be parsed can't be compared with; it does not take
	// part in routing either.
	others, listErr := st.List(ctx, model.KindNode, "")
	if listErr != nil && len(others) == 0 {
		return "", netip.Addr{}, fmt.Errorf("startup: list nodes: %w", listErr)
	}
	for _, o := range others {
		v, err := model.Parse(o.Object)
		other, ok := v.(model.Node)
		if err != nil || !ok || other.Name == s.Node || !before(o.Object.Meta().ResourceVersion, rev) {
			continue
		}
		for _, p := range []netip.Prefix{other.IPv4, other.IPv6} {
			if mine[p.Addr()] {
				return other.Name, p.Addr(), nil
			}
		}
	}
	return "", netip.Addr{}, nil
}

// before reports whether revision a is older than b, or b is empty. Revisions are
// numbers without leading zeros.
func before(a, b string) bool {
	if b == "" || len(a) != len(b) {
		return b == "" || len(a) < len(b)
	}
	return a < b
}
