package rollup

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

const (
	partitions = 2
	// settle bounds every wait of a test: it is there for a test that fails.
	settle = 90 * time.Second
)

// bench is a log, a ClickHouse and a producer, without a writer.
type bench struct {
	t      testing.TB
	kafka  *locallog.Log
	client *kgo.Client
	admin  *kadm.Client
	codec  *event.Codec
	cfg    Config
	sql    driver.Conn
	log    *slog.Logger
	lines  *lines

	sent []*event.EnrichedEvent
}

// lines keeps what was logged, for tests that fail and for those that read it.
type lines struct {
	mu sync.Mutex // covers b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newBench(t testing.TB, change ...func(*Config)) *bench {
	t.Helper()
	addr, db := embedded.Database(t)
	return newBenchAt(t, addr, db, change...)
}

// newBenchAt is for a ClickHouse of the test's own.
func newBenchAt(t testing.TB, addr, db string, change ...func(*Config)) *bench {
	t.Helper()
	ctx := context.Background()
	b := &bench{t: t, codec: event.NewCodec(), cfg: DefaultConfig(), lines: &lines{}}
	b.log = slog.New(slog.NewTextHandler(b.lines, &slog.HandlerOptions{Level: slog.LevelInfo}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.lines.String())
		}
	})
	var err error
	if b.kafka, err = locallog.Start(locallog.Config{Addr: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kafka.Close)
	b.client, err = kgo.NewClient(kgo.SeedBrokers(b.kafka.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	b.admin = kadm.NewClient(b.client)
	layout := topic.SingleLayout()
	layout.Partitions, layout.RejectedPartitions = partitions, 1
	if err := topic.Ensure(ctx, b.admin, layout); err != nil {
		t.Fatal(err)
	}

	b.cfg.Kafka.Brokers = setting.Strings(b.kafka.ListenAddrs())
	b.cfg.ClickHouse.Addr, b.cfg.ClickHouse.Database = addr, db
	b.cfg.BlockInterval = 50 * time.Millisecond
	b.cfg.SessionTimeout = 6 * time.Second
	b.cfg.RetryMax = 200 * time.Millisecond
	b.cfg.HaltRetry = 200 * time.Millisecond
	for _, c := range change {
		c(&b.cfg)
	}
	if err := Migrate(ctx, b.cfg, b.log); err != nil {
		t.Fatal(err)
	}
	if b.sql, err = clickhouse.OpenSQL(&b.cfg.ClickHouse); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.sql.Close() })
	return b
}

func (b *bench) init() {
	b.t.Helper()
	if err := Init(context.Background(), b.cfg, b.log); err != nil {
		b.t.Fatal(err)
	}
}

// writer is a running writer.
type writer struct {
	t       testing.TB
	service *Service
	reg     *prometheus.Registry
	health  *ops.Health
	stop    context.CancelFunc
	kill    context.CancelFunc
	done    chan struct{}
	err     error // after done
}

// start runs a writer until the test ends, if it is not stopped before.
func (b *bench) start(change ...func(*Config)) *writer {
	b.t.Helper()
	cfg := b.cfg
	for _, c := range change {
		c(&cfg)
	}
	w := &writer{t: b.t, reg: prometheus.NewRegistry(), health: &ops.Health{}, done: make(chan struct{})}
	var err error
	w.service, err = New(cfg, Dependencies{Logger: b.log, Metrics: w.reg, Health: w.health})
	if err != nil {
		b.t.Fatal(err)
	}
	var sig process.Signals
	sig.Kill, w.kill = context.WithCancel(context.Background())
	sig.Stop, w.stop = context.WithCancel(sig.Kill)
	go func() {
		defer close(w.done)
		w.err = w.service.Run(sig)
	}()
	b.t.Cleanup(func() { w.kill(); <-w.done })
	return w
}

// end stops the writer in order.
func (w *writer) end() {
	w.t.Helper()
	w.stop()
	<-w.done
	if w.err != nil {
		w.t.Errorf("writer: %v", w.err)
	}
}

// metric sums a metric's values over its labels that have the given ones.
func (w *writer) metric(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasLabels(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func hasLabels(m *dto.Metric, values []string) bool {
	for _, v := range values {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == v }) {
			return false
		}
	}
	return true
}

// await waits until cond is true.
func (b *bench) await(what string, cond func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(settle)
	for !cond() {
		if time.Now().After(deadline) {
			b.t.Fatalf("gave up waiting: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// number runs a query that gives one number.
func (b *bench) number(query string, args ...any) int64 {
	b.t.Helper()
	var n int64
	if err := b.sql.QueryRow(context.Background(), "SELECT toInt64(("+query+"))", args...).Scan(&n); err != nil {
		b.t.Fatalf("%v in %s", err, query)
	}
	return n
}

// produce writes values to a partition and waits for the ack.
func (b *bench) produce(name string, partition int32, values ...[]byte) {
	b.t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: name, Partition: partition, Value: v})
	}
	if err := b.client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// firstReceipt is the day from which on events are received: the account of them
// covers the last 90 days.
var firstReceipt = time.Now().UTC().Truncate(24 * time.Hour).Add(-48 * time.Hour)

// events makes n events of a few actors, accounts and features; all of a seed
// are the same. The partition follows the actor, as in raw.
func events(seed uint64, n int) []*event.EnrichedEvent {
	r := rand.New(rand.NewPCG(seed, 7))
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	out := make([]*event.EnrichedEvent, n)
	for i := range out {
		u, f := r.IntN(12), r.IntN(6)
		kind := event.KindTrack
		if r.IntN(10) == 0 {
			kind = event.KindIdentify
		}
		after := time.Duration(r.IntN(50*3600)) * time.Second
		out[i] = &event.EnrichedEvent{
			AppID: "dev", Kind: kind, Event: fmt.Sprintf("Event %d", f), MessageID: fmt.Sprintf("m-%d-%d", seed, i),
			UserID: fmt.Sprintf("u-%d", u), ActorID: fmt.Sprintf("u-%d", u), ActorKind: event.ActorUser,
			AccountID: fmt.Sprintf("acct-%d", u%3), AccountSource: event.AccountFromEvent, Role: "cashier",
			FeatureID: fmt.Sprintf("f-%d", f), ModuleID: fmt.Sprintf("m-%d", f/2), ProductID: fmt.Sprintf("p-%d", f/4),
			EventTime: event.FromTime(day.Add(after)), ReceivedAt: event.FromTime(firstReceipt.Add(after)),
			Quantity: int64(1 + r.IntN(3)), Properties: []byte(`{"sku":"x"}`),
		}
		if u == 0 {
			out[i].UserID, out[i].AnonymousID, out[i].ActorKind, out[i].AccountID = "", out[i].ActorID, event.ActorAnonymous, ""
		}
	}
	return out
}

func partitionOf(e *event.EnrichedEvent) int32 {
	return topic.Partition([]byte(e.ActorID), partitions)
}

// send produces events and remembers them for check.
func (b *bench) send(list []*event.EnrichedEvent) {
	b.t.Helper()
	values := map[int32][][]byte{}
	for _, e := range list {
		values[partitionOf(e)] = append(values[partitionOf(e)], b.codec.AppendEnriched(nil, e))
	}
	for p, v := range values {
		b.produce(topic.Enriched, p, v...)
	}
	b.sent = append(b.sent, list...)
}

// cells are sums by key.
type cells map[string][2]int64

func (c cells) add(events, quantity int64, key ...string) {
	k := strings.Join(key, "|")
	v := c[k]
	c[k] = [2]int64{v[0] + events, v[1] + quantity}
}

// keys of each rollup, and what an event contributes to.
var rollups = map[string]struct {
	columns string
	key     func(*event.EnrichedEvent) []string
}{
	"usage_hourly": {
		"app_id, account_id, actor_id, actor_kind, feature_id, module_id, product_id, role, event, toString(hour), toString(source_partition)",
		func(e *event.EnrichedEvent) []string {
			return []string{
				e.AppID, e.AccountID, e.ActorID, e.ActorKind, e.FeatureID, e.ModuleID, e.ProductID, e.Role, e.Event,
				event.ToTime(e.EventTime).Truncate(time.Hour).Format("2006-01-02 15:04:05"), fmt.Sprint(partitionOf(e)),
			}
		},
	},
	"account_feature_daily": {
		"app_id, account_id, feature_id, module_id, product_id, toString(day)",
		func(e *event.EnrichedEvent) []string {
			return []string{e.AppID, e.AccountID, e.FeatureID, e.ModuleID, e.ProductID, dayOf(e)}
		},
	},
	"account_module_daily": {
		"app_id, account_id, module_id, product_id, toString(day)",
		func(e *event.EnrichedEvent) []string {
			return []string{e.AppID, e.AccountID, e.ModuleID, e.ProductID, dayOf(e)}
		},
	},
	"account_product_daily": {
		"app_id, account_id, product_id, toString(day)",
		func(e *event.EnrichedEvent) []string { return []string{e.AppID, e.AccountID, e.ProductID, dayOf(e)} },
	},
	"user_feature_daily": {
		"app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, toString(day)",
		func(e *event.EnrichedEvent) []string {
			return []string{e.AppID, e.AccountID, e.ActorID, e.ActorKind, e.Role, e.FeatureID, e.ModuleID, e.ProductID, dayOf(e)}
		},
	},
	"user_module_daily": {
		"app_id, account_id, actor_id, actor_kind, role, module_id, product_id, toString(day)",
		func(e *event.EnrichedEvent) []string {
			return []string{e.AppID, e.AccountID, e.ActorID, e.ActorKind, e.Role, e.ModuleID, e.ProductID, dayOf(e)}
		},
	},
	"user_product_daily": {
		"app_id, account_id, actor_id, actor_kind, role, product_id, toString(day)",
		func(e *event.EnrichedEvent) []string {
			return []string{e.AppID, e.AccountID, e.ActorID, e.ActorKind, e.Role, e.ProductID, dayOf(e)}
		},
	},
}

func dayOf(e *event.EnrichedEvent) string { return event.ToTime(e.EventTime).Format("2006-01-02") }

// check compares events and every cell of every rollup with what was sent, moved
// by correct.
func (b *bench) check(correct ...func(*event.EnrichedEvent)) {
	b.t.Helper()
	b.awaitSettled()
	ids := map[string]int{}
	for _, e := range b.sent {
		ids[e.MessageID]++
	}
	rows, err := b.sql.Query(context.Background(), "SELECT message_id, count() FROM events GROUP BY message_id")
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	wrong := 0
	for rows.Next() {
		var id string
		var n uint64
		if err := rows.Scan(&id, &n); err != nil {
			b.t.Fatal(err)
		}
		if int(n) != ids[id] {
			wrong++
			b.t.Errorf("events has message %s %d times, want %d", id, n, ids[id])
		}
		delete(ids, id)
		if wrong > 5 {
			b.t.FailNow()
		}
	}
	if len(ids) > 0 {
		b.t.Errorf("events lacks %d messages", len(ids))
	}
	for table := range rollups {
		b.checkRollup(table, correct...)
	}
}

func (b *bench) checkRollup(table string, correct ...func(*event.EnrichedEvent)) {
	b.t.Helper()
	want := cells{}
	for _, sent := range b.sent {
		if event.IsUsage(sent.Kind) {
			e := *sent
			p := partitionOf(sent)
			for _, c := range correct {
				c(&e)
			}
			key := rollups[table].key(&e)
			if table == "usage_hourly" {
				key[len(key)-1] = fmt.Sprint(p) // a correction stays in its partition
			}
			want.add(1, e.Quantity, key...)
		}
	}
	rows, err := b.sql.Query(context.Background(), "SELECT concatWithSeparator('|', "+rollups[table].columns+") AS k, sum(events), sum(quantity) FROM "+table+
		" GROUP BY k HAVING sum(events) != 0 OR sum(quantity) != 0")
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	got := cells{}
	for rows.Next() {
		var k string
		var n, q int64
		if err := rows.Scan(&k, &n, &q); err != nil {
			b.t.Fatal(err)
		}
		got.add(n, q, k)
	}
	if diff := got.diff(want); len(diff) > 0 {
		b.t.Errorf("%s: %d cells differ:\n%s", table, len(diff), strings.Join(diff[:min(8, len(diff))], "\n"))
	}
}

func (c cells) diff(want cells) []string {
	var out []string
	for k, v := range want {
		if c[k] != v {
			out = append(out, fmt.Sprintf("%s: got %v, want %v", k, c[k], v))
		}
	}
	for k, v := range c {
		if _, ok := want[k]; !ok {
			out = append(out, fmt.Sprintf("%s: got %v, want none", k, v))
		}
	}
	sort.Strings(out)
	return out
}

// awaitSettled waits until the group has committed all that the log holds.
func (b *bench) awaitSettled() {
	b.t.Helper()
	last := ""
	b.await("the group to commit the end of the log", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		st, err := readLog(ctx, b.admin, consumed)
		if err != nil {
			return false
		}
		last = ""
		st.end.Each(func(o kadm.ListedOffset) {
			if c, ok := st.commits.Lookup(o.Topic, o.Partition); !ok || c.At != o.Offset {
				last += fmt.Sprintf("%s/%d: %d of %d; ", o.Topic, o.Partition, c.At, o.Offset)
			}
		})
		return last == ""
	})
}
