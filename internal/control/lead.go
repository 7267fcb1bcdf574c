package control

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// Lease is how leading is settled. A leader that could not renew for Renew has ended
// its work; another takes over after Duration. So Duration is the longer one, by what
// clocks may differ in speed.
type Lease struct {
	Name                   string
	Duration, Renew, Retry time.Duration
}

// LeaseName is the Lease's name unless Config says otherwise.
const LeaseName = "weft-controllers"

func (l Lease) filled() Lease {
	if l.Name == "" {
		l.Name = LeaseName
	}
	if l.Duration == 0 {
		l.Duration, l.Renew, l.Retry = 15*time.Second, 10*time.Second, 2*time.Second
	}
	return l
}

// lead runs work whenever this process leads, until ctx ends. work ends at once when
// the lease is lost, and has ended before the lease is given up.
func lead(ctx context.Context, c *Config, b *board, work func(context.Context)) error {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: c.Lease.Name, Namespace: c.Namespace},
		Client:     c.Clientset.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.Identity},
	}
	// What client-go would log we say ourselves.
	quiet := klog.NewContext(context.WithoutCancel(ctx), klog.Logger{})
	told := false
	for ctx.Err() == nil {
		if err := mayLead(ctx, c, lock); err != nil {
			if !told && ctx.Err() == nil {
				told = true
				c.Log.Warn("can't lead", "err", oneLine(err))
			}
			sleep(ctx, c.Lease.Retry)
			continue
		}
		told = false
		if err := campaign(ctx, quiet, c, b, lock, work); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// mayLead tells whether the lease can be read; client-go keeps to itself why it can't.
func mayLead(ctx context.Context, c *Config, lock resourcelock.Interface) error {
	_, err := c.Clientset.CoordinationV1().Leases(c.Namespace).Get(ctx, c.Lease.Name, metav1.GetOptions{})
	if isGone, err := gone(err); err != nil && !isGone {
		return fmt.Errorf("lease %s: %w", lock.Describe(), err)
	}
	return nil
}

// campaign waits for the lease, works while it holds, and returns when it is lost or
// ctx has ended, and the work with it.
func campaign(ctx, quiet context.Context, c *Config, b *board, lock resourcelock.Interface, work func(context.Context)) error {
	// Told to end, the lease is kept until the work has ended, and given up then.
	leaseCtx, release := context.WithCancel(quiet)
	defer release()
	workCtx, endWork := context.WithCancel(ctx)
	defer endWork()
	var leading atomic.Bool
	defer context.AfterFunc(ctx, func() {
		if !leading.Load() {
			release()
		}
	})()
	done := make(chan struct{})
	start := func(held context.Context) {
		defer close(done)
		leading.Store(true)
		defer context.AfterFunc(held, endWork)()
		c.Log.Info("leads", "lease", lock.Describe(), "identity", c.Identity)
		b.lead(true)
		work(workCtx)
		b.lead(false)
		release()
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: c.Lease.Name, ReleaseOnCancel: true,
		LeaseDuration: c.Lease.Duration, RenewDeadline: c.Lease.Renew, RetryPeriod: c.Lease.Retry,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: start, OnStoppedLeading: func() {}},
	})
	if err != nil {
		return fmt.Errorf("controllers: lease: %w", err)
	}
	elector.Run(leaseCtx)
	if leaseCtx.Err() == nil { // lost, not given up; so start was called
		c.Log.Warn("lease lost: the controllers end", "lease", lock.Describe())
		<-done
	}
	return nil
}
