package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// ConfirmAnnotation on the KubeControllersConfiguration lets a controller remove more
// at once than its budget allows, this time: a list of CONTROLLER=NUMBER, parted by
// commas. It is taken off when it has been used.
const ConfirmAnnotation = "weft.net/confirm-removal"

// howToConfirm says how a person lets the controller go on.
func howToConfirm(name string, e *want.MassError) string {
	return fmt.Sprintf("if that is right, annotate KubeControllersConfiguration default with %s: %s=%d, or set WEFT_MAX_RELEASE_SHARE=1 for a while", ConfirmAnnotation, name, e.N)
}

// guard holds removals of one controller against a budget. Its methods are for one
// goroutine at a time.
type guard struct {
	*term
	name   string // of the controller
	budget want.Budget
	ledger want.Ledger
}

// removal is what a pass would remove.
type removal struct {
	what   string // plural
	n      int    // of them
	total  int    // that there are
	listed int    // entries of the list that lacks them
	unseen int    // of n, those that nobody saw go
}

// check is nil if so much may be removed now. The error is a *want.MassError. What is
// removed then is entered with spent.
func (g *guard) check(ctx context.Context, r removal) error {
	now := g.now()
	err := g.budget.Check(r.what, r.n, r.total, r.listed, r.unseen, 0, g.ledger, now)
	var mass *want.MassError
	if errors.As(err, &mass) {
		n, readErr := g.confirmed(ctx, mass.N)
		if readErr != nil {
			return errors.Join(err, readErr)
		}
		if n < mass.N {
			return err
		}
		g.log.Info("removal confirmed", "controller", g.name, "what", r.what, "number", r.n)
	}
	return nil
}

// spent enters that n were removed.
func (g *guard) spent(n int) {
	g.ledger = g.ledger.With(n, g.budget.Window, g.now())
}

// confirmed is the number that a person has confirmed for the controller; if it is at
// least n, it is used up.
func (g *guard) confirmed(ctx context.Context, n int) (int, error) {
	key := model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"}
	o, err := g.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c, ok := o.Object.(*v3.KubeControllersConfiguration)
	if !ok {
		return 0, nil
	}
	number := 0
	var rest []string
	for entry := range strings.SplitSeq(c.Annotations[ConfirmAnnotation], ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(entry), "=")
		if got, err := strconv.Atoi(value); err == nil && name == g.name {
			number = got
		} else if entry != "" {
			rest = append(rest, entry)
		}
	}
	if number < n || number == 0 {
		return number, nil
	}
	used := *c
	used.Annotations = maps.Clone(c.Annotations)
	delete(used.Annotations, ConfirmAnnotation)
	if len(rest) > 0 {
		used.Annotations[ConfirmAnnotation] = strings.Join(rest, ",")
	}
	// Taken off first: a confirmation counts once, also if the work breaks off.
	_, err = g.store.Commit(ctx, store.Op{Verb: store.Update, Object: o.With(&used)})
	return number, err
}
