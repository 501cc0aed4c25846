package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// kind is one kind of fault.
type kind struct {
	name    string
	on      form
	classic bool // only with the old protocol of transactions
	// inject breaks something and repairs it again. It returns what it did, for
	// people; errMissed when what it waited for never came about.
	inject func(ctx context.Context, e *env, f *fault) (note string, err error)
}

// form is a set of the forms that a run can have.
type form uint8

const (
	processesOnFake form = 1 << iota
	processesOnKafka
	inside

	onFake    = processesOnFake | inside
	processed = processesOnFake | processesOnKafka
	anywhere  = processed | inside
)

func (c Config) form() form {
	switch {
	case c.Inside:
		return inside
	case c.Brokers > 0:
		return processesOnKafka
	}
	return processesOnFake
}

var errMissed = errors.New("missed")

// fitting returns the kinds that a config allows.
func fitting(c Config) []*kind {
	var out []*kind
	for _, k := range kinds() {
		if k.on&c.form() == 0 || (k.classic && !c.Classic) {
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
	stack.Gateway: {
		"gateway.decoded", "gateway.produced", "gateway.acked", "gateway.before-answer",
	},
	stack.Enricher: {
		"enricher.after-poll", "enricher.before-produce", "enricher.after-produce", "enricher.before-offsets", "enricher.before-end",
		"enricher.after-end", "enricher.before-merge", "enricher.after-merge", "enricher.restore",
	},
	stack.Writer: {
		"writer.after-fetch", "writer.before-insert", "writer.after-insert", "writer.before-commit", "writer.after-commit", "writer.before-tick",
		"writer.correction-read", "writer.correction-planned", "writer.correction-applied",
	},
}

// step is a request at which an instance of a service can be killed.
type step struct {
	key     kmsg.Key
	starts  bool // it comes when an instance starts; else while it works
	classic bool
}

// steps are what each service asks of the brokers.
var steps = map[string][]step{
	stack.Gateway: {{key: kmsg.Produce}, {key: kmsg.InitProducerID, starts: true}},
	stack.Enricher: {
		{key: kmsg.Produce},
		{key: kmsg.EndTxn},
		{key: kmsg.TxnOffsetCommit},
		{key: kmsg.Fetch},
		{key: kmsg.Heartbeat},
		{key: kmsg.AddPartitionsToTxn, classic: true},
		{key: kmsg.AddOffsetsToTxn, classic: true},
		{key: kmsg.InitProducerID, starts: true},
		{key: kmsg.JoinGroup, starts: true},
		{key: kmsg.SyncGroup, starts: true},
		{key: kmsg.OffsetFetch, starts: true},
		{key: kmsg.ListOffsets, starts: true},
	},
	stack.Writer: {
		{key: kmsg.OffsetCommit},
		{key: kmsg.Fetch},
		{key: kmsg.Produce},
		{key: kmsg.Heartbeat},
		{key: kmsg.JoinGroup, starts: true},
		{key: kmsg.SyncGroup, starts: true},
		{key: kmsg.OffsetFetch, starts: true},
		{key: kmsg.ListOffsets, starts: true},
	},
}

// kinds returns every kind of fault.
func kinds() []kind {
	var all []kind
	add := func(name string, on form, inject func(context.Context, *env, *fault) (string, error)) {
		all = append(all, kind{name: name, on: on, inject: inject})
	}
	for _, service := range []string{stack.Gateway, stack.Enricher, stack.Writer} {
		add("kill "+service, anywhere, kill(service))
		add("terminate "+service, anywhere, terminate(service))
		add("pause "+service, processed, pause(service))
		add("isolate "+service, inside, pause(service))
		add("clock of "+service, anywhere, clockOf(service))
		for _, name := range failpoints[service] {
			add("kill at "+name, processed, atFailpoint(service, name, "kill"))
			add("zombie at "+name, processed, atFailpoint(service, name, "stop"))
		}
		for _, s := range steps[service] {
			for _, after := range []bool{false, true} {
				at := "before"
				if after {
					at = "after"
				}
				all = append(all, kind{name: fmt.Sprintf("kill %s %s %s", service, at, s.key.Name()), on: inside, classic: s.classic, inject: atRequest(service, s, after)})
			}
		}
	}
	for _, d := range []proxy.Direction{proxy.ToServer, proxy.ToClient} {
		add("kill rollup-writer in a block "+d.String(), inside, inBlock(d))
	}
	for _, service := range []string{stack.Enricher, stack.Writer} {
		add("rebalance "+service, anywhere, rebalance(service))
	}
	for _, a := range []proxy.Action{proxy.Cut, proxy.Swallow, proxy.Delay} {
		for _, d := range []proxy.Direction{proxy.ToServer, proxy.ToClient} {
			add(fmt.Sprintf("clickhouse %s %s", a, d), anywhere, path(clickhousePath, a, d))
			add(fmt.Sprintf("kafka %s %s", a, d), onFake, path(kafkaPath, a, d))
		}
	}
	for _, f := range faultedRequests {
		all = append(all, kind{name: "kafka error " + f.key.Name(), on: onFake, classic: f.classic, inject: kafkaError(f.key, f.errs)})
	}
	add("clickhouse refuses", anywhere, refuse(clickhousePath))
	add("clickhouse silent", anywhere, hold(clickhousePath))
	add("kafka refuses", onFake, refuse(kafkaPath))
	add("kafka silent", onFake, hold(kafkaPath))
	add("clickhouse killed", anywhere, killClickHouse)
	add("clickhouse paused", anywhere, pauseClickHouse)
	add("view throws", anywhere, viewThrows)
	add("writers killed while a view throws", anywhere, killWhileViewThrows)
	add("rebalances in a row", anywhere, rebalancesInARow)
	add("rebalances around a held poll", processed, rebalancesAroundPoll)
	add("poison record", anywhere, poison)
	add("oversize record", anywhere, oversize)
	add("hostile: colliding ids", anywhere, hostile(collidingIDs))
	add("hostile: idle sockets", anywhere, hostile(idleSockets))
	add("hostile: metadata keys", anywhere, hostile(metadataKeys))
	add("hostile: odd ids", anywhere, hostile(oddIDs))
	add("hostile: poison in enriched", anywhere, hostile(poisonIn(topic.Unprefixed.Enriched)))
	add("hostile: poison in rejected", anywhere, hostile(poisonIn(topic.Unprefixed.Rejected)))
	add("disk full clickhouse", anywhere, fillDisk("clickhouse"))
	// The store of an enricher whose disk is full may end the process.
	add("disk full enricher", processed, fillDisk("enricher-0", "enricher-1"))
	add("clock of producers", anywhere, clockOfProducers)
	add("broker killed", processesOnKafka, killBroker)
	add("broker paused", processesOnKafka, pauseBroker)
	add("broker stopped", processesOnKafka, stopBroker)
	return all
}

// between draws a duration.
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// pick draws a member of a service and locks it for this fault: a fault that
// another one repairs half way would be none.
func (e *env) pick(f *fault, service string) (member, func()) {
	list := e.members[service]
	m := list[f.rng.IntN(len(list))]
	mu := e.locks[m.Label()]
	mu.Lock()
	return m, mu.Unlock
}

// pickAll locks all members of a service for one fault.
func (e *env) pickAll(service string) (unlock func()) {
	for _, m := range e.members[service] {
		e.locks[m.Label()].Lock()
	}
	return func() {
		for _, m := range e.members[service] {
			e.locks[m.Label()].Unlock()
		}
	}
}

func kill(service string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		m, unlock := e.pick(f, service)
		defer unlock()
		m.Kill()
		down := between(f.rng, 0, 500*time.Millisecond)
		wait(ctx, down)
		return fmt.Sprintf("%s, down %s", m.Label(), down), m.Start()
	}
}

func terminate(service string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		m, unlock := e.pick(f, service)
		defer unlock()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := e.terminate(ctx, m); err != nil {
			return "", err
		}
		return m.Label(), m.Start()
	}
}

// terminate ends a member in good order. A process that was started just now has
// no handler for the signal yet. One with a known mistake may never end.
func (e *env) terminate(ctx context.Context, m member) error {
	err := m.Stop(ctx)
	if signaled(err) {
		return nil
	}
	if err != nil && e.control.mistake != "" {
		m.Kill()
		return nil
	}
	return err
}

// asleep draws how long a zombie sleeps: a second to a minute, or to what the
// config allows, as often 1 to 2 as 30 to 60.
func (e *env) asleep(f *fault) time.Duration {
	least, most := time.Second.Seconds(), e.cfg.MaxPause.Seconds()
	return time.Duration(least * math.Pow(most/least, f.rng.Float64()) * float64(time.Second))
}

// signaled reports whether err says that SIGTERM itself has ended a process.
func signaled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	ws, ok := exit.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGTERM
}

func pause(service string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		m, unlock := e.pick(f, service)
		defer unlock()
		if err := m.Pause(); err != nil {
			return "", err
		}
		asleep := e.asleep(f)
		wait(ctx, asleep)
		return fmt.Sprintf("%s for %s", m.Label(), asleep), m.Resume()
	}
}

// clockOf lets a member live for a while with a clock that is off by minutes.
func clockOf(service string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		m, unlock := e.pick(f, service)
		defer unlock()
		off := offBy(f)
		m.Kill()
		e.setClock(m, service, off)
		err := m.Start()
		wait(ctx, between(f.rng, time.Second, 4*time.Second))
		e.setClock(m, service, 0)
		m.Kill()
		return fmt.Sprintf("%s off by %s", m.Label(), off), errors.Join(err, m.Start())
	}
}

func (e *env) setClock(m member, service string, off time.Duration) {
	switch m := m.(type) {
	case *instance:
		m.SetClock(off)
	case outside:
		m.SetEnv(e.plan(service, fmt.Sprintf("clock=offset(%s)", off))...)
	}
}

// offBy draws one to fifteen minutes, ahead or behind.
func offBy(f *fault) time.Duration {
	off := between(f.rng, time.Minute, 15*time.Minute)
	if f.rng.IntN(2) == 0 {
		return -off
	}
	return off
}

func clockOfProducers(ctx context.Context, e *env, f *fault) (string, error) {
	off := offBy(f)
	e.traffic.clock.Store(int64(off))
	wait(ctx, between(f.rng, time.Second, 4*time.Second))
	e.traffic.clock.Store(0)
	return "off by " + off.String(), nil
}

// missedAfter is how long a fault waits for what it wants to meet.
const missedAfter = 6 * time.Second

// atRequest kills an instance at the n-th request of a kind: before it goes out,
// or when the broker has answered and nobody has read it.
func atRequest(service string, s step, after bool) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		m, unlock := e.pick(f, service)
		defer unlock()
		i := m.(*instance)
		n := 1 + f.rng.IntN(5)
		if s.starts {
			n = 1
			i.Kill()
			if err := i.Start(); err != nil {
				return "", err
			}
		}
		c := i.crashAt(s.key, n, after)
		return fmt.Sprintf("%s at request %d", i.name, n), e.revive(ctx, i, c.fired)
	}
}

// inBlock kills a writer when some bytes have gone to or come from ClickHouse.
func inBlock(d proxy.Direction) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		m, unlock := e.pick(f, stack.Writer)
		defer unlock()
		i := m.(*instance)
		after := int64(1) << f.rng.IntN(16)
		after += f.rng.Int64N(after)
		note := fmt.Sprintf("%s after %d bytes", i.name, after)
		return note, e.revive(ctx, i, i.cutAt(d, after))
	}
}

// revive waits until something has killed an instance and starts it again.
func (e *env) revive(ctx context.Context, i *instance, killed <-chan struct{}) error {
	t := time.NewTimer(missedAfter)
	defer t.Stop()
	var missed error
	select {
	case <-killed:
	case <-t.C:
		missed = errMissed
	case <-ctx.Done():
		missed = errMissed
	}
	i.Kill() // also where it was missed: it would meet it when nobody is there
	return errors.Join(missed, i.Start())
}

// atFailpoint starts a process anew so that it meets its end, or a pause of some
// seconds, at the n-th time it comes to a step.
func atFailpoint(service, name, action string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		m, unlock := e.pick(f, service)
		defer unlock()
		p := m.(outside)
		n := 1 + f.rng.IntN(8)
		asleep := e.asleep(f)
		// Few steps are reached often in the seconds that a round has.
		if rare[name] {
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
		deadline := time.After(missedAfter)
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

// rare are steps that are met at their first time or hardly.
var rare = map[string]bool{
	"enricher.restore": true, "writer.before-tick": true,
	"writer.correction-read": true, "writer.correction-planned": true, "writer.correction-applied": true,
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
		m, err := e.spawn(service)
		if err != nil {
			return "", err
		}
		stay := between(f.rng, 500*time.Millisecond, 4*time.Second)
		wait(ctx, stay)
		if f.rng.IntN(2) == 0 {
			m.Kill()
			return fmt.Sprintf("%s joined for %s and was killed", m.Label(), stay), nil
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return fmt.Sprintf("%s joined for %s and left", m.Label(), stay), e.terminate(ctx, m)
	}
}

func wait(ctx context.Context, d time.Duration) {
	_ = backoff.Sleep(ctx, d) // whoever waits looks at ctx
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
		case <-time.After(missedAfter):
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
	key     kmsg.Key
	errs    []*kerr.Error
	classic bool // a client sends it to brokers of the old protocol only
}{
	{key: kmsg.Produce, errs: []*kerr.Error{kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition, kerr.KafkaStorageError, kerr.InvalidProducerEpoch}},
	{key: kmsg.Fetch, errs: []*kerr.Error{kerr.NotLeaderForPartition, kerr.ReplicaNotAvailable, kerr.UnknownLeaderEpoch, kerr.FencedLeaderEpoch, kerr.KafkaStorageError, kerr.OffsetNotAvailable, kerr.UnknownTopicOrPartition}},
	{key: kmsg.ListOffsets, errs: []*kerr.Error{kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.OffsetNotAvailable, kerr.KafkaStorageError, kerr.UnknownTopicOrPartition}},
	{key: kmsg.Metadata, errs: []*kerr.Error{kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition}},
	{key: kmsg.OffsetCommit, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RequestTimedOut, kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.CoordinatorNotAvailable}},
	{key: kmsg.OffsetFetch, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable}},
	{key: kmsg.FindCoordinator, errs: []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress}},
	{key: kmsg.JoinGroup, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownMemberID, kerr.CoordinatorNotAvailable}},
	{key: kmsg.Heartbeat, errs: []*kerr.Error{kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.NotCoordinator, kerr.CoordinatorNotAvailable}},
	{key: kmsg.SyncGroup, errs: []*kerr.Error{kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.IllegalGeneration}},
	{key: kmsg.InitProducerID, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable}},
	{key: kmsg.AddPartitionsToTxn, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable}, classic: true},
	{key: kmsg.AddOffsetsToTxn, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable}, classic: true},
	{key: kmsg.TxnOffsetCommit, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RequestTimedOut, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.CoordinatorNotAvailable}},
	{key: kmsg.EndTxn, errs: []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RequestTimedOut, kerr.ConcurrentTransactions, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.CoordinatorNotAvailable, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping}},
}

func kafkaError(key kmsg.Key, errs []*kerr.Error) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		err := errs[f.rng.IntN(len(errs))]
		n := 1 + f.rng.IntN(4)
		// A code at the top of a reply, where it has one, or of its parts.
		h := e.fake.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: n, TopLevel: f.rng.IntN(2) == 0 && hasTopLevel(key)})
		defer h.Remove()
		ctx, cancel := context.WithTimeout(ctx, missedAfter)
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
// of it. That of metadata tells clients to begin anew, and nothing else.
func hasTopLevel(key kmsg.Key) bool {
	return key != kmsg.Metadata && reflect.ValueOf(key.Request().ResponseKind()).Elem().FieldByName("ErrorCode").IsValid()
}

func killClickHouse(ctx context.Context, e *env, f *fault) (string, error) {
	e.store.Lock()
	defer e.store.Unlock()
	e.stack.ClickHouse.Kill()
	down := between(f.rng, 0, time.Second)
	wait(ctx, down)
	ctx = context.WithoutCancel(ctx)
	err := e.stack.ClickHouse.Start(ctx)
	// The writers knock already, and it can end of that while it starts.
	for again := 0; err != nil && again < 3; again++ {
		fmt.Fprintf(e.cfg.Out, "clickhouse ended while it started; started again: %v\n", err)
		err = e.stack.ClickHouse.Start(ctx)
	}
	return fmt.Sprintf("down %s", down), err
}

func pauseClickHouse(ctx context.Context, e *env, f *fault) (string, error) {
	e.store.Lock()
	defer e.store.Unlock()
	err := e.stack.ClickHouse.Pause()
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, os.ErrProcessDone) {
		return "it has just ended by itself", errMissed
	}
	if err != nil {
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
	sources := []string{stack.Database + ".events", stack.Internal + ".usage_hourly", stack.Database + ".rejected_events"}
	source := sources[f.rng.IntN(len(sources))]
	view := fmt.Sprintf("%s.fault_view_%d", stack.Internal, f.rng.Uint32())
	lasts := between(f.rng, 200*time.Millisecond, 2*time.Second)
	makeErr := e.throwingView(ctx, view, source)
	if makeErr == nil {
		wait(ctx, lasts)
	}
	err := e.dropView(ctx, view)
	note := fmt.Sprintf("over %s for %s", source, lasts)
	switch {
	case err != nil:
		return note, err
	case makeErr != nil:
		return note + ": " + makeErr.Error(), errMissed
	}
	return note, nil
}

// dropView ends a view. The server may have gone away before it answered, and the
// view be there.
func (e *env) dropView(ctx context.Context, view string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return stack.Await(ctx, "the end of a view that throws", func() error {
		return e.stack.Conn.Exec(ctx, "DROP VIEW IF EXISTS "+view+" SYNC")
	})
}

// throwingView makes one, while nobody ends the server.
func (e *env) throwingView(ctx context.Context, view, source string) error {
	e.store.Lock()
	defer e.store.Unlock()
	for _, q := range []string{
		"CREATE TABLE IF NOT EXISTS " + stack.Internal + ".fault_sink (n UInt64) ENGINE = Null",
		"CREATE MATERIALIZED VIEW " + view + " TO " + stack.Internal + ".fault_sink AS SELECT toUInt64(throwIf(app_id != '', 'injected')) AS n FROM " + source,
	} {
		if err := e.stack.Conn.Exec(ctx, q); err != nil {
			return fmt.Errorf("make a view that throws: %w", err)
		}
	}
	return nil
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
	rec := &kgo.Record{Topic: topic.Unprefixed.Raw, Partition: int32(f.rng.IntN(int(e.layout.Partitions))), Value: value}
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
