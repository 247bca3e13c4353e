// A user of Go's etcd client: everything that programs do with one member, each answer checked.
//
//	go run . http://127.0.0.1:2379
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/namespace"
)

func check(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func must[T any](value T, err error) T {
	check(err == nil, "%v", err)
	return value
}

func main() {
	endpoint := os.Args[1]
	cli := must(clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second}))
	defer cli.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	steps := []struct {
		name string
		run  func(context.Context, *clientv3.Client)
	}{
		{"keys", keys},
		{"txn", txn},
		{"watch", watch},
		{"lease", lease},
		{"compaction", compaction},
		{"errors", refusals},
		{"mutex", mutex},
		{"election", election},
		{"stm", stm},
		{"namespace", namespaced},
	}
	for _, step := range steps {
		step.run(ctx, cli)
		fmt.Println(step.name, "ok")
	}
	maintenance(ctx, cli, endpoint)
	fmt.Println("maintenance ok")
}

func keys(ctx context.Context, cli *clientv3.Client) {
	first := must(cli.Put(ctx, "k/1", "one"))
	second := must(cli.Put(ctx, "k/1", "uno", clientv3.WithPrevKV()))
	check(second.Header.Revision == first.Header.Revision+1, "revision %v", second.Header)
	check(string(second.PrevKv.Value) == "one", "previous %v", second.PrevKv)
	for _, name := range []string{"k/2", "k/3", "k/4"} {
		must(cli.Put(ctx, name, strings.ToUpper(name)))
	}
	got := must(cli.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(2)))
	check(len(got.Kvs) == 2 && string(got.Kvs[0].Key) == "k/4" && got.Count == 4 && got.More, "range %v", got)
	old := must(cli.Get(ctx, "k/1", clientv3.WithRev(first.Header.Revision)))
	check(string(old.Kvs[0].Value) == "one" && old.Kvs[0].Version == 1, "old %v", old)
	one := must(cli.Get(ctx, "k/1", clientv3.WithSerializable()))
	kv := one.Kvs[0]
	check(string(kv.Value) == "uno" && kv.Version == 2 && kv.CreateRevision == first.Header.Revision && kv.ModRevision == second.Header.Revision, "kv %v", kv)
	count := must(cli.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	check(count.Count == 4 && len(count.Kvs) == 0, "count %v", count)
	deleted := must(cli.Delete(ctx, "k/2", clientv3.WithRange("k/4"), clientv3.WithPrevKV()))
	check(deleted.Deleted == 2 && string(deleted.PrevKvs[1].Value) == "K/3", "deleted %v", deleted)
	big := bytes.Repeat([]byte("b"), 1<<20)
	must(cli.Put(ctx, "big", string(big)))
	check(bytes.Equal(must(cli.Get(ctx, "big")).Kvs[0].Value, big), "a large value")
}

func txn(ctx context.Context, cli *clientv3.Client) {
	must(cli.Put(ctx, "t/a", "1"))
	done := must(cli.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("t/a"), "=", "1"), clientv3.Compare(clientv3.Version("t/b"), "=", 0)).
		Then(clientv3.OpPut("t/b", "2"), clientv3.OpGet("t/", clientv3.WithPrefix()), clientv3.OpDelete("t/a")).
		Else(clientv3.OpGet("t/a")).Commit())
	check(done.Succeeded && len(done.Responses[1].GetResponseRange().Kvs) == 2, "txn %v", done)
	again := must(cli.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision("t/a"), ">", 0)).
		Then(clientv3.OpPut("t/c", "no")).
		Else(clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version("t/b"), "=", 1)}, []clientv3.Op{clientv3.OpPut("t/d", "nested")}, nil)).Commit())
	check(!again.Succeeded && again.Responses[0].GetResponseTxn().Succeeded, "txn %v", again)
	check(must(cli.Get(ctx, "t/c")).Count == 0 && must(cli.Get(ctx, "t/d")).Count == 1, "branches")
}

func watch(ctx context.Context, cli *clientv3.Client) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	start := must(cli.Put(ctx, "w/0", "before")).Header.Revision
	must(cli.Put(ctx, "w/0", "after"))
	past := cli.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(start+1), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	deletes := cli.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	check((<-past).Created && (<-deletes).Created, "created")
	event := (<-past).Events[0]
	check(event.IsModify() && string(event.Kv.Value) == "after" && string(event.PrevKv.Value) == "before", "event %v", event)
	for i := range 50 {
		must(cli.Put(ctx, fmt.Sprintf("w/%02d", i), "x"))
	}
	must(cli.Delete(ctx, "w/07"))
	seen := 0
	for seen < 51 {
		answer := <-past
		check(answer.Err() == nil, "watch: %v", answer.Err())
		for _, event := range answer.Events {
			if seen < 50 {
				check(event.IsCreate() && string(event.Kv.Key) == fmt.Sprintf("w/%02d", seen), "event %d is %v", seen, event)
			}
			seen++
		}
	}
	gone := (<-deletes).Events[0]
	check(gone.Type == clientv3.EventTypeDelete && string(gone.Kv.Key) == "w/07", "filtered %v", gone)
	check(cli.RequestProgress(ctx) == nil, "progress")
	progress := <-past
	check(progress.IsProgressNotify() && progress.Header.Revision == gone.Kv.ModRevision, "progress %v", progress)
}

func lease(ctx context.Context, cli *clientv3.Client) {
	granted := must(cli.Grant(ctx, 3))
	must(cli.Put(ctx, "l/kept", "x", clientv3.WithLease(granted.ID)))
	short := must(cli.Grant(ctx, 2))
	must(cli.Put(ctx, "l/lost", "x", clientv3.WithLease(short.ID)))
	stop, cancel := context.WithCancel(ctx)
	alive := must(cli.KeepAlive(stop, granted.ID))
	for range 3 {
		answer := <-alive
		check(answer != nil && answer.ID == granted.ID && answer.TTL == 3, "keepalive %v", answer)
	}
	cancel()
	for must(cli.Get(ctx, "l/lost")).Count > 0 {
		time.Sleep(100 * time.Millisecond)
	}
	check(must(cli.Get(ctx, "l/kept")).Count == 1, "the kept key is there")
	left := must(cli.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys()))
	check(left.TTL > 0 && left.GrantedTTL == 3 && string(left.Keys[0]) == "l/kept", "time to live %v", left)
	check(must(cli.KeepAliveOnce(ctx, granted.ID)).TTL == 3, "once")
	check(len(must(cli.Leases(ctx)).Leases) == 1, "leases")
	must(cli.Revoke(ctx, granted.ID))
	check(must(cli.Get(ctx, "l/kept")).Count == 0, "the key goes with its lease")
	_, err := cli.KeepAliveOnce(ctx, granted.ID)
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "keepalive of a revoked lease: %v", err)
}

func compaction(ctx context.Context, cli *clientv3.Client) {
	first := must(cli.Put(ctx, "c", "1")).Header.Revision
	second := must(cli.Put(ctx, "c", "2")).Header.Revision
	must(cli.Compact(ctx, second, clientv3.WithCompactPhysical()))
	_, err := cli.Get(ctx, "c", clientv3.WithRev(first))
	check(errors.Is(err, rpctypes.ErrCompacted), "compacted: %v", err)
	_, err = cli.Get(ctx, "c", clientv3.WithRev(second+100))
	check(errors.Is(err, rpctypes.ErrFutureRev), "future: %v", err)
	canceled := <-cli.Watch(ctx, "c", clientv3.WithRev(1))
	check(canceled.Canceled && canceled.CompactRevision == second, "watch of a compacted revision: %v", canceled)
	_, err = cli.Compact(ctx, first)
	check(errors.Is(err, rpctypes.ErrCompacted), "again: %v", err)
}

func refusals(ctx context.Context, cli *clientv3.Client) {
	_, err := cli.Put(ctx, "", "x")
	check(errors.Is(err, rpctypes.ErrEmptyKey), "empty key: %v", err)
	_, err = cli.Put(ctx, "x", "x", clientv3.WithLease(12345))
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "no such lease: %v", err)
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("x", "1"), clientv3.OpPut("x", "2")).Commit()
	check(errors.Is(err, rpctypes.ErrDuplicateKey), "twice: %v", err)
	_, err = cli.Put(ctx, "x", string(make([]byte, 1600<<10)))
	check(errors.Is(err, rpctypes.ErrRequestTooLarge), "too large: %v", err)
	ops := make([]clientv3.Op, 129)
	for i := range ops {
		ops[i] = clientv3.OpPut(fmt.Sprint("x", i), "")
	}
	_, err = cli.Txn(ctx).Then(ops...).Commit()
	check(errors.Is(err, rpctypes.ErrTooManyOps), "too many: %v", err)
}

func mutex(ctx context.Context, cli *clientv3.Client) {
	one := must(concurrency.NewSession(cli, concurrency.WithTTL(10)))
	two := must(concurrency.NewSession(cli, concurrency.WithTTL(10)))
	defer one.Close()
	defer two.Close()
	first, second := concurrency.NewMutex(one, "/lock"), concurrency.NewMutex(two, "/lock")
	check(first.Lock(ctx) == nil, "lock")
	check(errors.Is(second.TryLock(ctx), concurrency.ErrLocked), "try")
	got := make(chan error)
	go func() { got <- second.Lock(ctx) }()
	select {
	case <-got:
		check(false, "two holders")
	case <-time.After(200 * time.Millisecond):
	}
	check(first.Unlock(ctx) == nil, "unlock")
	check(<-got == nil && second.Unlock(ctx) == nil, "the second one's turn")
}

func election(ctx context.Context, cli *clientv3.Client) {
	one := must(concurrency.NewSession(cli, concurrency.WithTTL(10)))
	two := must(concurrency.NewSession(cli, concurrency.WithTTL(10)))
	defer two.Close()
	first, second := concurrency.NewElection(one, "/vote"), concurrency.NewElection(two, "/vote")
	check(first.Campaign(ctx, "first") == nil, "campaign")
	got := make(chan error)
	go func() { got <- second.Campaign(ctx, "second") }()
	observed := second.Observe(ctx)
	check(string((<-observed).Kvs[0].Value) == "first", "leader")
	check(first.Proclaim(ctx, "still first") == nil, "proclaim")
	check(string((<-observed).Kvs[0].Value) == "still first", "leader")
	// The end of a session is the end of its lease, and of its candidacy.
	check(one.Close() == nil && <-got == nil, "the second one's turn")
	check(string(must(second.Leader(ctx)).Kvs[0].Value) == "second", "leader")
	check(second.Resign(ctx) == nil, "resign")
	_, err := second.Leader(ctx)
	check(errors.Is(err, concurrency.ErrElectionNoLeader), "no leader: %v", err)
}

func stm(ctx context.Context, cli *clientv3.Client) {
	must(cli.Put(ctx, "s/count", ""))
	done := make(chan error)
	for range 8 {
		go func() {
			_, err := concurrency.NewSTM(cli, func(stm concurrency.STM) error {
				stm.Put("s/count", stm.Get("s/count")+"i")
				return nil
			})
			done <- err
		}()
	}
	for range 8 {
		check(<-done == nil, "stm")
	}
	check(string(must(cli.Get(ctx, "s/count")).Kvs[0].Value) == "iiiiiiii", "count")
}

func namespaced(ctx context.Context, cli *clientv3.Client) {
	kv := namespace.NewKV(cli.KV, "ns/")
	must(kv.Put(ctx, "a", "inside"))
	check(string(must(cli.Get(ctx, "ns/a")).Kvs[0].Value) == "inside", "namespace")
}

func maintenance(ctx context.Context, cli *clientv3.Client, endpoint string) {
	status := must(cli.Status(ctx, endpoint))
	check(status.Leader == status.Header.MemberId && status.DbSize >= status.DbSizeInUse && status.RaftTerm > 1, "status %v", status)
	check(strings.HasPrefix(status.Version, "3.7."), "version %v", status.Version)
	check(len(must(cli.MemberList(ctx)).Members) == 1, "members")
	check(len(must(cli.AlarmList(ctx)).Alarms) == 0, "alarms")
	must(cli.Defragment(ctx, endpoint))
	one, two := must(cli.HashKV(ctx, endpoint, 0)), must(cli.HashKV(ctx, endpoint, 0))
	check(one.Hash == two.Hash, "hash")
	snapshot := must(cli.SnapshotWithVersion(ctx))
	read := must(io.ReadAll(snapshot.Snapshot))
	check(len(read) > 512 && len(read)%512 == 32, "a snapshot has a file and its hash: %d", len(read))
}
