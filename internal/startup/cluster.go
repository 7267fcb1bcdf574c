package startup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Describe merges what s says of the cluster (CLUSTER_TYPE, and "kubeadm" where that made it)
// into the type of its ClusterInformation, as Calico does: a word that is there stays, one that
// is not is added. The object exists, see [store.Initialise]. calicoVersion is not touched:
// Calico's own tools refuse a version there that is not theirs, and take none.
func Describe(ctx context.Context, st store.Store, s Settings) error {
	words := s.ClusterType
	if s.Cluster.Kubeadm {
		words += ",kubeadm"
	}
	if len(split(words)) == 0 {
		return nil
	}
	key := model.Key{Kind: model.KindClusterInformation, Name: "default"}
	for {
		old, err := st.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("startup: read %v: %w", key, err)
		}
		stored, ok := old.Object.(*v3.ClusterInformation)
		if !ok {
			return fmt.Errorf("startup: read %v: got a %T", key, old.Object)
		}
		want := *stored
		if want.Spec.ClusterType = mergeType(stored.Spec.ClusterType, words); want.Spec.ClusterType == stored.Spec.ClusterType {
			return nil
		}
		if _, err = st.Commit(ctx, store.Op{Verb: store.Update, Object: old.With(&want)}); !errors.Is(err, store.ErrConflict) {
			if err != nil {
				err = fmt.Errorf("startup: write %v: %w", key, err)
			}
			return err
		}
	}
}

// mergeType adds the words of more that have lacks, both lists with commas.
func mergeType(have, more string) string {
	words := split(have)
	for _, w := range split(more) {
		if !slices.Contains(words, w) {
			words = append(words, w)
			have = strings.Join(words, ",")
		}
	}
	return have
}

func split(list string) []string {
	var out []string
	for w := range strings.SplitSeq(list, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}
