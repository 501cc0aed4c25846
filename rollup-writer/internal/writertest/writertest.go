// Package writertest is a log, a ClickHouse and a producer for tests of the
// rollup-writer, with comparisons of what was sent with what the tables hold. The
// service under test is the caller's: this package does not know package rollup,
// so that its own tests can use it.
package writertest

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

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
)

const (
	Partitions = 2
	// settle bounds every wait of a test: it is there for a test that fails.
	settle = 90 * time.Second
)

// Bench is a log, a ClickHouse and a producer, without a writer.
type Bench struct {
	T      testing.TB
	Kafka  *locallog.Log
	Client *kgo.Client
	Admin  *kadm.Client
	Codec  *event.Codec
	SQL    driver.Conn
	Schema tables.Schema
	Log    *slog.Logger
	Lines  *Lines

	Sent []*event.EnrichedEvent // for Check
}

// New starts a log with the topics of a small installation, until the test ends.
func New(t testing.TB) *Bench {
	t.Helper()
	ctx := context.Background()
	b := &Bench{T: t, Codec: event.NewCodec(), Lines: &Lines{}}
	b.Log = slog.New(slog.NewTextHandler(b.Lines, &slog.HandlerOptions{Level: slog.LevelInfo}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.Lines.String())
		}
	})
	var err error
	if b.Kafka, err = locallog.Start(locallog.Config{Addr: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kafka.Close)
	b.Client, err = kgo.NewClient(kgo.SeedBrokers(b.Kafka.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Client.Close)
	b.Admin = kadm.NewClient(b.Client)
	layout := topic.SingleLayout()
	layout.Partitions, layout.RejectedPartitions = Partitions, 1
	if err := topic.Unprefixed.Ensure(ctx, b.Admin, layout); err != nil {
		t.Fatal(err)
	}
	b.MarkState()
	return b
}

// MarkState leaves in identity state what enrichers leave there when they start: nobody was
// erased.
func (b *Bench) MarkState() {
	b.T.Helper()
	// A client of its own: that of b may know the topic by a former id.
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Kafka.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		b.T.Fatal(err)
	}
	defer client.Close()
	for p := range int32(Partitions) {
		r := &kgo.Record{Topic: topic.Unprefixed.EnricherState, Partition: p, Value: []byte("a record about the installation")}
		if err := client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			b.T.Fatal(err)
		}
	}
}

// Config is of a writer from b's log into a database.
func (b *Bench) Config(addr, db string) boundary.Config {
	cfg := boundary.DefaultConfig()
	cfg.Kafka.Brokers = setting.Strings(b.Kafka.ListenAddrs())
	cfg.ClickHouse.Addr, cfg.ClickHouse.Database = addr, db
	cfg.BlockInterval = 50 * time.Millisecond
	return cfg
}

// Migrate makes cfg's tables and connects to them.
func (b *Bench) Migrate(cfg boundary.Config) {
	b.T.Helper()
	err := repair.Migrate(context.Background(), cfg, b.Log)
	if err != nil {
		b.T.Fatal(err)
	}
	b.Schema = cfg.ClickHouse.Schema()
	b.SQL = sqltest.Open(b.T, &cfg.ClickHouse)
}

// Writer is a running writer.
type Writer struct {
	T      testing.TB
	Reg    *prometheus.Registry
	Health *ops.Health
	Stop   context.CancelFunc
	Kill   context.CancelFunc
	Done   chan struct{}
	Err    error // after Done
}

// Run runs the service that create returns until the test ends, if it is not
// stopped before.
func Run[S interface {
	Run(sig process.Signals) error
}](b *Bench, create func(prometheus.Registerer, *ops.Health) (S, error)) (*Writer, S) {
	b.T.Helper()
	w := &Writer{T: b.T, Done: make(chan struct{}), Health: &ops.Health{}, Reg: prometheus.NewRegistry()}
	service, err := create(w.Reg, w.Health)
	if err != nil {
		b.T.Fatal(err)
	}
	var sig process.Signals
	sig.Kill, w.Kill = context.WithCancel(context.Background())
	sig.Stop, w.Stop = context.WithCancel(sig.Kill)
	go func() {
		defer close(w.Done)
		w.Err = service.Run(sig)
	}()
	b.T.Cleanup(func() { w.Kill(); <-w.Done })
	return w, service
}

// End stops the writer in order.
func (w *Writer) End() {
	w.T.Helper()
	w.Stop()
	<-w.Done
	if w.Err != nil {
		w.T.Errorf("writer: %v", w.Err)
	}
}

// Lines keeps what was logged, for tests that fail and for those that read it.
type Lines struct {
	mu sync.Mutex // covers b
	b  bytes.Buffer
}

func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Metric sums a metric's values over its labels that have the given ones.
func (w *Writer) Metric(name string, labels ...string) float64 {
	w.T.Helper()
	families, err := w.Reg.Gather()
	if err != nil {
		w.T.Fatal(err)
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

// Await waits until cond is true.
func (b *Bench) Await(what string, cond func() bool) {
	b.T.Helper()
	deadline := time.Now().Add(settle)
	for !cond() {
		if time.Now().After(deadline) {
			b.T.Fatalf("gave up waiting: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Number runs a query that gives one number.
func (b *Bench) Number(query string, args ...any) int64 {
	b.T.Helper()
	var n int64
	if err := b.SQL.QueryRow(context.Background(), "SELECT toInt64(("+query+"))", args...).Scan(&n); err != nil {
		b.T.Fatalf("%v in %s", err, query)
	}
	return n
}

// Text reads one text.
func (b *Bench) Text(query string) (text string) {
	b.T.Helper()
	if err := b.SQL.QueryRow(context.Background(), query).Scan(&text); err != nil {
		b.T.Fatalf("%v in %s", err, query)
	}
	return text
}

// Produce writes values to a partition and waits for the ack.
func (b *Bench) Produce(name string, partition int32, values ...[]byte) {
	b.T.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: name, Partition: partition, Value: v})
	}
	if err := b.Client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		b.T.Fatal(err)
	}
}

// FirstReceipt is the day from which on events are received: the account of them
// covers the last 90 days.
var FirstReceipt = time.Now().UTC().Truncate(24 * time.Hour).Add(-48 * time.Hour)

// Events makes n events of a few actors, accounts and features; all of a seed
// are the same. The partition follows the actor, as in raw.
func Events(seed uint64, n int) []*event.EnrichedEvent {
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
			EventTime: event.FromTime(day.Add(after)), ReceivedAt: event.FromTime(FirstReceipt.Add(after)),
			Quantity: int64(1 + r.IntN(3)), Properties: []byte(`{"sku":"x"}`),
		}
		if u == 0 {
			out[i].UserID, out[i].AnonymousID, out[i].ActorKind, out[i].AccountID = "", out[i].ActorID, event.ActorAnonymous, ""
		}
	}
	return out
}

// PartitionOf is the partition that an event is sent into.
func PartitionOf(e *event.EnrichedEvent) int32 {
	return topic.Partition([]byte(e.ActorID), Partitions)
}

// Send produces events and remembers them for check.
func (b *Bench) Send(list []*event.EnrichedEvent) {
	b.T.Helper()
	values := map[int32][][]byte{}
	for _, e := range list {
		values[PartitionOf(e)] = append(values[PartitionOf(e)], b.Codec.AppendEnriched(nil, e))
	}
	for p, v := range values {
		b.Produce(topic.Unprefixed.Enriched, p, v...)
	}
	b.Sent = append(b.Sent, list...)
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
				event.ToTime(e.EventTime).Truncate(time.Hour).Format("2006-01-02 15:04:05"), fmt.Sprint(PartitionOf(e)),
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

// Check compares events and every cell of every rollup with what was sent, moved
// by correct.
func (b *Bench) Check(correct ...func(*event.EnrichedEvent)) {
	b.T.Helper()
	b.AwaitSettled()
	ids := map[string]int{}
	for _, e := range b.Sent {
		ids[e.MessageID]++
	}
	stored, err := tables.CollectMap[string, uint64](context.Background(), b.SQL, "SELECT message_id, count() FROM events GROUP BY message_id")
	if err != nil {
		b.T.Fatal(err)
	}
	wrong := 0
	for id, n := range stored {
		if int(n) != ids[id] {
			wrong++
			b.T.Errorf("events has message %s %d times, want %d", id, n, ids[id])
		}
		delete(ids, id)
		if wrong > 5 {
			b.T.FailNow()
		}
	}
	if len(ids) > 0 {
		b.T.Errorf("events lacks %d messages", len(ids))
	}
	for table := range rollups {
		b.CheckRollup(table, correct...)
	}
}

func (b *Bench) CheckRollup(table string, correct ...func(*event.EnrichedEvent)) {
	b.T.Helper()
	want := cells{}
	for _, sent := range b.Sent {
		if event.IsUsage(sent.Kind) {
			e := *sent
			p := PartitionOf(sent)
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
	type row struct {
		key              string
		events, quantity int64
	}
	got := cells{}
	err := tables.Each(context.Background(), b.SQL, func(r *row) []any { return []any{&r.key, &r.events, &r.quantity} }, func(r *row) { got.add(r.events, r.quantity, r.key) },
		"SELECT concatWithSeparator('|', "+rollups[table].columns+") AS k, sum(events), sum(quantity) FROM "+table+" GROUP BY k HAVING sum(events) != 0 OR sum(quantity) != 0")
	if err != nil {
		b.T.Fatal(err)
	}
	if diff := got.diff(want); len(diff) > 0 {
		b.T.Errorf("%s: %d cells differ:\n%s", table, len(diff), strings.Join(diff[:min(8, len(diff))], "\n"))
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

// AwaitSettled waits until the group has committed all that the log holds.
func (b *Bench) AwaitSettled() {
	b.T.Helper()
	last := ""
	b.Await("the group to commit the end of the log", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), boundary.AskTimeout)
		defer cancel()
		st, err := boundary.Read(ctx, b.Admin, topic.Unprefixed, boundary.Topics(topic.Unprefixed))
		if err != nil {
			return false
		}
		last = ""
		st.End.Each(func(o kadm.ListedOffset) {
			if c, ok := st.Commits.Lookup(o.Topic, o.Partition); !ok || c.At != o.Offset {
				last += fmt.Sprintf("%s/%d: %d of %d; ", o.Topic, o.Partition, c.At, o.Offset)
			}
		})
		return last == ""
	})
}

// Rewind sets the group back to the beginning of the log.
func (b *Bench) Rewind() {
	b.T.Helper()
	st, err := boundary.Read(context.Background(), b.Admin, topic.Unprefixed, boundary.Topics(topic.Unprefixed))
	if err != nil {
		b.T.Fatal(err)
	}
	var offsets kadm.Offsets
	st.Commits.Each(func(o kadm.OffsetResponse) {
		c, err := block.ParseCommit(o.Metadata)
		if err != nil {
			b.T.Fatal(err)
		}
		c.Clean = false // all of it was sent
		offsets.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: 0, LeaderEpoch: -1, Metadata: c.Metadata()})
	})
	if _, err := b.Admin.CommitOffsets(context.Background(), topic.Unprefixed.GroupRollupWriter, offsets); err != nil {
		b.T.Fatal(err)
	}
}

// Ptr is a pointer to a string, as moves have.
func Ptr(s string) *string { return &s }

// Move orders moves in the partition of an actor.
func (b *Bench) Move(actor string, moves ...event.Move) {
	b.T.Helper()
	payload, err := event.Moves{Moves: moves}.Payload()
	if err != nil {
		b.T.Fatal(err)
	}
	c := &event.Control{Kind: event.ControlMove, AppID: "dev", ControlID: "move-" + actor, CreatedAt: 1, Payload: payload}
	b.Produce(topic.Unprefixed.Enriched, PartitionOf(&event.EnrichedEvent{ActorID: actor}), b.Codec.AppendControl(nil, c))
}

// Corrections sends a log with corrections that depend on each other.
func (b *Bench) Corrections() (correct func(*event.EnrichedEvent)) {
	b.Send(Events(1, 150))
	// An anonymous visitor turns out to be u-5.
	b.Move("u-0",
		event.Move{Match: event.Attribution{ActorID: Ptr("u-0"), ActorKind: Ptr(event.ActorAnonymous)}, Set: event.Attribution{ActorID: Ptr("u-5"), ActorKind: Ptr(event.ActorUser), AccountID: Ptr("acct-9")}})
	// A feature changes its module, and the rows that were moved go with it; one
	// account's rows go elsewhere, as the first match says.
	for _, actor := range []string{"u-0", "u-1", "u-2", "u-3"} { // both partitions are among these
		if actor == "u-0" || PartitionOf(&event.EnrichedEvent{ActorID: actor}) != PartitionOf(&event.EnrichedEvent{ActorID: "u-0"}) {
			b.Move(actor,
				event.Move{Match: event.Attribution{FeatureID: Ptr("f-1"), AccountID: Ptr("acct-1")}, Set: event.Attribution{ModuleID: Ptr("m-first")}},
				event.Move{Match: event.Attribution{FeatureID: Ptr("f-1")}, Set: event.Attribution{ModuleID: Ptr("m-new"), ProductID: Ptr("p-new")}})
			if actor != "u-0" {
				break
			}
		}
	}
	// What comes after a correction is not touched by it.
	late := Events(2, 40)
	for _, e := range late {
		e.MessageID = "late-" + e.MessageID
	}
	b.Send(late)
	return func(e *event.EnrichedEvent) {
		if strings.HasPrefix(e.MessageID, "late-") {
			return
		}
		if e.ActorID == "u-0" && e.ActorKind == event.ActorAnonymous {
			e.ActorID, e.ActorKind, e.AccountID = "u-5", event.ActorUser, "acct-9"
		}
		if e.FeatureID == "f-1" {
			if e.AccountID == "acct-1" {
				e.ModuleID = "m-first"
			} else {
				e.ModuleID, e.ProductID = "m-new", "p-new"
			}
		}
	}
}

// CheckRollups compares without waiting for the group.
func (b *Bench) CheckRollups() {
	b.T.Helper()
	for table := range rollups {
		b.CheckRollup(table)
	}
}

// Exec runs a statement.
func (b *Bench) Exec(statement string) {
	b.T.Helper()
	if err := b.SQL.Exec(context.Background(), statement); err != nil {
		b.T.Fatalf("%v in %s", err, statement)
	}
}

// Audited reports whether the audit says equal, and what it found.
func (b *Bench) Audited() (equal bool, findings string) {
	b.T.Helper()
	cfg := audit.DefaultConfig()
	cfg.Settle = 0
	r, err := audit.Run(context.Background(), b.SQL, b.Schema, cfg)
	if err != nil {
		b.T.Fatal(err)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		b.T.Fatal(err)
	}
	return r.Equal, text.String()
}
