package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/weft-net/weft/internal/store/kv"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// db implements kv.DB by a client connection.
type db struct {
	client *clientv3.Client
	config Config
	tls    *tls.Config
}

// bounded gives ctx a deadline, if it has none.
func (d *db) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d.config.Timeout)
}

// Range implements kv.DB.
func (d *db) Range(ctx context.Context, from, to string, limit int, rev int64) (kv.Page, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	resp, err := d.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithLimit(int64(limit)), clientv3.WithRev(rev))
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return kv.Page{}, kv.ErrCompacted
	case err != nil:
		return kv.Page{}, d.explain(ctx, err)
	}
	page := kv.Page{Rev: rev, More: resp.More, Entries: make([]kv.Entry, len(resp.Kvs))}
	if rev == 0 {
		page.Rev = resp.Header.Revision
	}
	for i, e := range resp.Kvs {
		page.Entries[i] = kv.Entry{Key: string(e.Key), Value: notNil(e.Value), Rev: e.ModRevision}
	}
	return page, nil
}

// Txn implements kv.DB. Where a condition fails the same transaction reads what
// is there, so that the answer needs no second request and can't be outdated.
func (d *db) Txn(ctx context.Context, writes []kv.Write) (kv.Outcome, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	conditions := make([]clientv3.Cmp, len(writes))
	then, otherwise := make([]clientv3.Op, len(writes)), make([]clientv3.Op, len(writes))
	for i, w := range writes {
		switch w.Expect {
		case kv.Absent:
			conditions[i] = clientv3.Compare(clientv3.CreateRevision(w.Key), "=", 0)
		case kv.Present:
			conditions[i] = clientv3.Compare(clientv3.CreateRevision(w.Key), ">", 0)
		default:
			conditions[i] = clientv3.Compare(clientv3.ModRevision(w.Key), "=", w.Expect)
		}
		then[i] = clientv3.OpPut(w.Key, string(w.Value))
		if w.Value == nil {
			then[i] = clientv3.OpDelete(w.Key)
		}
		otherwise[i] = clientv3.OpGet(w.Key)
	}
	resp, err := d.client.Txn(ctx).If(conditions...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return kv.Outcome{}, d.explain(ctx, err)
	}
	out := kv.Outcome{Rev: resp.Header.Revision}
	if resp.Succeeded {
		return out, nil
	}
	out.Refused = make([]kv.Entry, len(writes))
	for i, w := range writes {
		out.Refused[i].Key = w.Key
		for _, e := range resp.Responses[i].GetResponseRange().Kvs {
			out.Refused[i].Value, out.Refused[i].Rev = e.Value, e.ModRevision
		}
	}
	return out, nil
}

// Watch implements kv.DB by one stream of its own.
func (d *db) Watch(ctx context.Context, from, to string, after int64) iter.Seq2[[]kv.Change, error] {
	return func(yield func([]kv.Change, error) bool) {
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer cancel()
		stream, err := d.startWatch(ctx, from, to, after)
		for err == nil {
			var resp *pb.WatchResponse
			if resp, err = stream.Recv(); err != nil {
				break
			}
			if err = ended(resp); err != nil {
				break
			}
			if changes := changesIn(resp); len(changes) > 0 && !yield(changes, nil) {
				return
			}
		}
		yield(nil, d.explain(ctx, err))
	}
}

func (d *db) startWatch(ctx context.Context, from, to string, after int64) (pb.Watch_WatchClient, error) {
	conn := d.client.ActiveConnection()
	stream, err := pb.NewWatchClient(conn).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	return stream, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(from), RangeEnd: []byte(to), StartRevision: after + 1, ProgressNotify: true,
		},
	}})
}

// ended says why the server ended a watch; nil if it did not.
func ended(resp *pb.WatchResponse) error {
	switch {
	case resp.CompactRevision != 0:
		return fmt.Errorf("watch: %w up to %d", kv.ErrCompacted, resp.CompactRevision)
	case resp.Canceled && resp.CancelReason != "":
		return fmt.Errorf("watch: ended by the server: %s", resp.CancelReason)
	case resp.Canceled:
		return errors.New("watch: ended by the server")
	}
	return nil
}

func changesIn(resp *pb.WatchResponse) []kv.Change {
	changes := make([]kv.Change, len(resp.Events))
	for i, e := range resp.Events {
		changes[i] = kv.Change{Key: string(e.Kv.Key), Rev: e.Kv.ModRevision}
		if e.Type == mvccpb.Event_PUT {
			changes[i].Value = notNil(e.Kv.Value)
		}
	}
	return changes
}

// notNil keeps an empty value apart from none.
func notNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// Close implements kv.DB.
func (d *db) Close() error { return d.client.Close() }
