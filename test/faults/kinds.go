package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// kind is one kind of fault.
type kind struct {
	name string
	on   where
	// inject breaks something and mends it again. It returns what it did, for
	// people; errMissed when what it waited for never came about.
	inject func(ctx context.Context, e *env, f *fault) (note string, err error)
}

// where says over which log a kind can be injected.
type where int

const (
	anywhere where = iota
	onFake
	onReal
)

var errMissed = errors.New("missed")

// fitting returns the kinds that a config allows.
func fitting(c Config) []*kind {
	var out []*kind
	for _, k := range kinds() {
		if (k.on == onFake && c.Brokers > 0) || (k.on == onReal && c.Brokers == 0) {
			continue
		}
		for _, prefix := range append(c.Kinds, "") {
			if prefix != "" || len(c.Kinds) == 0 {
				if strings.HasPrefix(k.name, prefix) {
					out = append(out, &k)
					break
				}
			}
		}
	}
	return out
}

// failpoints are the named steps of each service at which it can be killed or
// stopped.
var failpoints = map[string][]string{
	stack.Enricher: {
		"enricher.after-poll", "enricher.after-produce", "enricher.before-offsets", "enricher.before-end",
		"enricher.after-end", "enricher.before-merge", "enricher.after-merge", "enricher.restore",
	},
	stack.Writer: {
		"writer.after-fetch", "writer.before-insert", "writer.after-insert", "writer.before-commit", "writer.after-commit", "writer.before-tick",
	},
}

// kinds returns every kind of fault.
func kinds() []kind {
	var all []kind
	for _, service := range []string{stack.Gateway, stack.Enricher, stack.Writer} {
		all = append(
			all,
			kind{"kill " + service, anywhere, kill(service)},
			kind{"terminate " + service, anywhere, terminate(service)},
			kind{"pause " + service, anywhere, pause(service)},
		)
		for _, name := range failpoints[service] {
			all = append(
				all,
				kind{"kill at " + name, anywhere, atFailpoint(service, name, "kill")},
				kind{"zombie at " + name, anywhere, atFailpoint(service, name, "stop")},
			)
		}
	}
	for _, service := range []string{stack.Enricher, stack.Writer} {
		all = append(all, kind{"rebalance " + service, anywhere, rebalance(service)})
	}
	for _, a := range []proxy.Action{proxy.Cut, proxy.Swallow, proxy.Delay} {
		for _, d := range []proxy.Direction{proxy.ToServer, proxy.ToClient} {
			all = append(
				all,
				kind{fmt.Sprintf("clickhouse %s %s", a, d), anywhere, path(clickhousePath, a, d)},
				kind{fmt.Sprintf("kafka %s %s", a, d), onFake, path(kafkaPath, a, d)},
			)
		}
	}
	for _, f := range faultedRequests {
		all = append(all, kind{"kafka error " + f.key.Name(), onFake, kafkaError(f.key, f.errs)})
	}
	return append(
		all,
		kind{"clickhouse refuses", anywhere, refuse(clickhousePath)},
		kind{"clickhouse silent", anywhere, hold(clickhousePath)},
		kind{"kafka refuses", onFake, refuse(kafkaPath)},
		kind{"kafka silent", onFake, hold(kafkaPath)},
		kind{"clickhouse killed", anywhere, killClickHouse},
		kind{"clickhouse paused", anywhere, pauseClickHouse},
		kind{"view throws", anywhere, viewThrows},
		kind{"poison record", anywhere, poison},
		kind{"oversize record", anywhere, oversize},
		kind{"broker killed", onReal, killBroker},
		kind{"broker paused", onReal, pauseBroker},
		kind{"broker stopped", onReal, stopBroker},
	)
}

// between draws a duration.
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// pickProcess draws a process of a service and locks it for this fault: a fault
// that another one mends half way would be none.
func (e *env) pickProcess(f *fault, service string) (*stack.Process, func()) {
	list := e.service(service)
	p := list[f.rng.IntN(len(list))]
	mu := e.locks[p.Name]
	mu.Lock()
	return p, mu.Unlock
}

func kill(service string) func(context.Context, *env, *fault) (string, error) {
	return func(_ context.Context, e *env, f *fault) (string, error) {
		p, unlock := e.pickProcess(f, service)
		defer unlock()
		p.Kill()
		down := between(f.rng, 0, 500*time.Millisecond)
		time.Sleep(down)
		return fmt.Sprintf("%s, down %s", p.Name, down), p.Start()
	}
}

func terminate(service string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		p, unlock := e.pickProcess(f, service)
		defer unlock()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			return "", err
		}
		return p.Name, p.Start()
	}
}

func pause(service string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		p, unlock := e.pickProcess(f, service)
		defer unlock()
		if err := p.Pause(); err != nil {
			return "", err
		}
		asleep := between(f.rng, 200*time.Millisecond, 5*time.Second)
		wait(ctx, asleep)
		return fmt.Sprintf("%s for %s", p.Name, asleep), p.Resume()
	}
}

// atFailpoint starts a process anew so that it meets its end, or a pause of some
// seconds, at the n-th time it comes to a step.
func atFailpoint(service, name, action string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		p, unlock := e.pickProcess(f, service)
		defer unlock()
		n := 1 + f.rng.IntN(12)
		asleep := between(f.rng, 500*time.Millisecond, 5*time.Second)
		// Few steps are reached often in the seconds that a round has.
		if strings.HasSuffix(name, "restore") {
			n = 1
		}
		p.Kill()
		p.SetEnv(e.plan(service, fmt.Sprintf("%s=%s@%d", name, action, n))...)
		err := p.Start()
		p.SetEnv(e.plan(service)...)
		if err != nil {
			return "", err
		}
		note := fmt.Sprintf("%s at hit %d", p.Name, n)
		deadline := time.After(8 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.Exited():
				return note, p.Start()
			case <-deadline:
				// It would meet it in a later round, and nobody would be there.
				p.Kill()
				return note, errors.Join(errMissed, p.Start())
			case <-ctx.Done():
				return note, errMissed
			case <-tick.C:
				if action == "stop" && stopped(p.Pid()) {
					wait(ctx, asleep)
					return fmt.Sprintf("%s, for %s", note, asleep), p.Resume()
				}
			}
		}
	}
}

// stopped reports whether a process is stopped by a signal (Linux).
func stopped(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(text), ") ")
	return ok && strings.HasPrefix(rest, "T")
}

// rebalance lets one more member join the group and leave it again, in good
// order or not.
func rebalance(service string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		p, err := e.stack.Spawn(service)
		if err != nil {
			return "", err
		}
		stay := between(f.rng, 500*time.Millisecond, 4*time.Second)
		wait(ctx, stay)
		if f.rng.IntN(2) == 0 {
			p.Kill()
			return fmt.Sprintf("%s joined for %s and was killed", p.Name, stay), nil
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return fmt.Sprintf("%s joined for %s and left", p.Name, stay), p.Stop(ctx)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func clickhousePath(e *env) *proxy.Proxy { return e.stack.Proxy }

func kafkaPath(e *env) *proxy.Proxy { return e.kafkaProxy }

// path breaks a connection at a byte, or holds one up there.
func path(of func(*env) *proxy.Proxy, a proxy.Action, d proxy.Direction) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		// Log-uniform: the first bytes, the middle of a block, another block.
		after := int64(1) << f.rng.IntN(18)
		after += f.rng.Int64N(after)
		lasts := between(f.rng, 100*time.Millisecond, 3*time.Second)
		p := of(e)
		armed := p.Arm(proxy.Fault{Direction: d, After: after, Action: a, For: lasts})
		note := fmt.Sprintf("after %d bytes, %s", after, lasts)
		select {
		case <-armed.Fired():
			if a == proxy.Swallow {
				wait(ctx, lasts)
			}
			return note, nil
		case <-time.After(8 * time.Second):
		case <-ctx.Done():
		}
		return note, errMissed
	}
}

func refuse(of func(*env) *proxy.Proxy) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		lasts := between(f.rng, 100*time.Millisecond, 3*time.Second)
		of(e).Refuse(true)
		wait(ctx, lasts)
		of(e).Refuse(false)
		return lasts.String(), nil
	}
}

func hold(of func(*env) *proxy.Proxy) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		lasts := between(f.rng, 100*time.Millisecond, 5*time.Second)
		of(e).Hold(true)
		wait(ctx, lasts)
		of(e).Hold(false)
		return lasts.String(), nil
	}
}

// faultedRequests are requests of the services and what a broker can answer
// them with at any time.
var faultedRequests = []struct {
	key  kmsg.Key
	errs []*kerr.Error
}{
	{kmsg.Produce, []*kerr.Error{kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition}},
	{kmsg.Fetch, []*kerr.Error{kerr.NotLeaderForPartition, kerr.ReplicaNotAvailable, kerr.UnknownLeaderEpoch, kerr.FencedLeaderEpoch}},
	{kmsg.ListOffsets, []*kerr.Error{kerr.NotLeaderForPartition, kerr.LeaderNotAvailable}},
	{kmsg.Metadata, []*kerr.Error{kerr.LeaderNotAvailable}},
	{kmsg.OffsetCommit, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RequestTimedOut, kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration}},
	{kmsg.OffsetFetch, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator}},
	{kmsg.FindCoordinator, []*kerr.Error{kerr.CoordinatorNotAvailable}},
	{kmsg.JoinGroup, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownMemberID}},
	{kmsg.Heartbeat, []*kerr.Error{kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.NotCoordinator}},
	{kmsg.SyncGroup, []*kerr.Error{kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.NotCoordinator}},
	{kmsg.InitProducerID, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions}},
	{kmsg.AddPartitionsToTxn, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions}},
	{kmsg.AddOffsetsToTxn, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions}},
	{kmsg.TxnOffsetCommit, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RequestTimedOut, kerr.UnknownMemberID, kerr.IllegalGeneration}},
	{kmsg.EndTxn, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RequestTimedOut, kerr.ConcurrentTransactions, kerr.InvalidProducerEpoch, kerr.ProducerFenced}},
}

func kafkaError(key kmsg.Key, errs []*kerr.Error) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		err := errs[f.rng.IntN(len(errs))]
		n := 1 + f.rng.IntN(4)
		// A code at the top of a reply, where it has one, or of its parts.
		h := e.fake.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: n, TopLevel: f.rng.IntN(2) == 0 && hasTopLevel(key)})
		defer h.Remove()
		ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
		defer cancel()
		note := fmt.Sprintf("%s, %d times", err.Message, n)
		if h.Wait(ctx, 1) != nil {
			return note, errMissed
		}
		_ = h.Wait(ctx, n) // fewer will do
		return note, nil
	}
}

// hasTopLevel reports whether the reply to a request has one error code for all
// of it.
func hasTopLevel(key kmsg.Key) bool {
	return reflect.ValueOf(key.Request().ResponseKind()).Elem().FieldByName("ErrorCode").IsValid()
}

func killClickHouse(ctx context.Context, e *env, f *fault) (string, error) {
	e.store.Lock()
	defer e.store.Unlock()
	e.stack.ClickHouse.Kill()
	down := between(f.rng, 0, time.Second)
	wait(ctx, down)
	return fmt.Sprintf("down %s", down), e.stack.ClickHouse.Start(context.WithoutCancel(ctx))
}

func pauseClickHouse(ctx context.Context, e *env, f *fault) (string, error) {
	e.store.Lock()
	defer e.store.Unlock()
	if err := e.stack.ClickHouse.Pause(); err != nil {
		return "", err
	}
	asleep := between(f.rng, 200*time.Millisecond, 5*time.Second)
	wait(ctx, asleep)
	return asleep.String(), e.stack.ClickHouse.Resume()
}

// viewThrows hangs a view onto a table of the path that throws on every block:
// what the block had reached by then stays as it is, and the rest is missing,
// until the view is gone and the writer repeats the block.
func viewThrows(ctx context.Context, e *env, f *fault) (string, error) {
	e.store.Lock()
	defer e.store.Unlock()
	sources := []string{"events", "usage_hourly", "rejected_events"}
	source := sources[f.rng.IntN(len(sources))]
	name := fmt.Sprintf("fault_view_%d", f.rng.Uint32())
	lasts := between(f.rng, 200*time.Millisecond, 2*time.Second)
	for _, q := range []string{
		"CREATE TABLE IF NOT EXISTS " + stack.Database + ".fault_sink (n UInt64) ENGINE = Null",
		"CREATE MATERIALIZED VIEW " + stack.Database + "." + name + " TO " + stack.Database + ".fault_sink AS SELECT toUInt64(throwIf(app_id != '', 'injected')) AS n FROM " + stack.Database + "." + source,
	} {
		if err := e.stack.Conn.Exec(ctx, q); err != nil {
			return "", fmt.Errorf("make a view that throws: %w", err)
		}
	}
	wait(ctx, lasts)
	if err := e.stack.Conn.Exec(context.WithoutCancel(ctx), "DROP VIEW "+stack.Database+"."+name+" SYNC"); err != nil {
		return "", fmt.Errorf("drop the view that throws: %w", err)
	}
	return fmt.Sprintf("over %s for %s", source, lasts), nil
}

// poison writes a record to raw that no service of ours writes.
func poison(ctx context.Context, e *env, f *fault) (string, error) {
	value := []byte(fmt.Sprintf("poison %s%d %s", e.prefix, f.rng.Uint64(), strings.Repeat("x", f.rng.IntN(200))))
	return fmt.Sprintf("%d bytes", len(value)), e.produceRaw(ctx, f, value, "undecodable")
}

// oversize writes one that is too large to be decoded.
func oversize(ctx context.Context, e *env, f *fault) (string, error) {
	value := []byte(fmt.Sprintf("oversize %s%d %s", e.prefix, f.rng.Uint64(), strings.Repeat("y", 2<<20)))
	return fmt.Sprintf("%d bytes", len(value)), e.produceRaw(ctx, f, value, "undecodable")
}

func (e *env) produceRaw(ctx context.Context, f *fault, value []byte, code string) error {
	rec := &kgo.Record{Topic: topic.Raw, Partition: int32(f.rng.IntN(int(e.layout.Partitions))), Value: value}
	if err := e.producer.ProduceSync(ctx, rec).FirstErr(); err != nil {
		return fmt.Errorf("produce a poison record: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.poison = append(e.poison, poisoned{code, string(value)})
	return nil
}

func killBroker(ctx context.Context, e *env, f *fault) (string, error) {
	e.brokers.Lock()
	defer e.brokers.Unlock()
	i := f.rng.IntN(e.real.Brokers())
	if err := e.real.KillBroker(ctx, i); err != nil {
		return "", err
	}
	down := between(f.rng, 0, 5*time.Second)
	wait(ctx, down)
	return fmt.Sprintf("broker %d, down %s", i, down), e.backInSync(ctx, i)
}

func stopBroker(ctx context.Context, e *env, f *fault) (string, error) {
	e.brokers.Lock()
	defer e.brokers.Unlock()
	i := f.rng.IntN(e.real.Brokers())
	if err := e.real.StopBroker(ctx, i); err != nil {
		return "", err
	}
	return fmt.Sprintf("broker %d", i), e.backInSync(ctx, i)
}

func (e *env) backInSync(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	return errors.Join(e.real.RestartBroker(ctx, i), e.real.AwaitInSync(ctx))
}

// pauseBroker makes a broker a zombie: for longer than the others wait, its
// partitions get other leaders.
func pauseBroker(ctx context.Context, e *env, f *fault) (string, error) {
	e.brokers.Lock()
	defer e.brokers.Unlock()
	i := f.rng.IntN(e.real.Brokers())
	if err := e.real.PauseBroker(i); err != nil {
		return "", err
	}
	asleep := between(f.rng, time.Second, 15*time.Second)
	wait(ctx, asleep)
	if err := e.real.ResumeBroker(i); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return fmt.Sprintf("broker %d for %s", i, asleep), e.real.AwaitInSync(ctx)
}

// Names returns the names of all kinds.
func Names() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}
