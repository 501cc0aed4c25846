package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	insightdefinitions "github.com/uptakehq/uptake/rollup-writer/definitions"
	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// changing are definitions that use everything that evaluation reads. %d is a version,
// %d a threshold that changes with it.
const changing = `
insight: shop
exclude: {mail_domains: [staff.example]}
segments:
  - {id: regular, version: %[1]d, description: d, owner: cs, where: [{measure: {count: days, window: 28d}, at_least: %[2]d}, {trait: plan, in: [pro, team]}]}
  - {id: broad, description: d, owner: cs, where: [{measure: {count: features, window: 14d}, at_least: 2}, {segment: regular, not: true}]}
  - {id: cashiers, description: d, owner: cs, level: user, where: [{role: cashier}, {measure: {count: events, window: 7d}, at_least: 2}, {segment: broad}]}
alerts:
  - {id: silent, version: %[1]d, description: d, owner: cs, segment: regular, measure: {count: events, window: 3d}, fires: {below: %[2]d}, severity: critical}
  - {id: less, description: d, owner: cs, measure: {count: quantity, window: 2d}, fires: {below: 60%%, of_previous: 3, baseline_at_least: 2}, for: 1d, cooldown: 2d, severity: info}
  - {id: burst, description: d, owner: cs, every: 1h, measure: {count: events, of: "event:Scan", window: 3h}, fires: {at_least: 3}, clears: {below: 2}, severity: info}
  - {id: few, description: d, owner: cs, measure: {count: users, of: "module:sales", window: 7d}, fires: {below: 2}, severity: info}
  - {id: keen, description: d, owner: cs, level: user, measure: {count: days, window: 7d}, fires: {at_least: 3}, severity: info}
  - {id: all, description: d, owner: cs, level: app, measure: {count: users, window: 1d}, fires: {at_least: 4}, severity: info}
health:
  - id: fit
    description: d
    owner: cs
    consequence: seats
    parts:
      - {id: breadth, measure: {count: features, window: 14d}, yardstick: 3, weight: 2}
      - {id: depth, measure: {count: events, window: 7d}, yardstick: 10}
    bands: [{id: low, from: 0}, {id: high, from: 50}]
`

// world is a random history that the log, the tables and the writers' positions tell.
type world struct {
	*bench
	r       *rand.Rand
	now     time.Time
	next    [writertest.Partitions]int64
	counted [writertest.Partitions][]writertest.Entry // events, as they count now
	commit  block.Commit
	n       int
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{bench: newBench(t), r: rand.New(rand.NewPCG(seed, 1)), now: now}
	w.commit = block.Commit{Shape: block.Shape{Records: 1000, Interval: time.Second}, TopicID: "enriched", Generation: 1}
	return w
}

func (w *world) pick(prefix string, n int) string { return fmt.Sprint(prefix, w.r.IntN(n)) }

// event is one of somebody, mostly of today.
func (w *world) event() *event.EnrichedEvent {
	w.n++
	f := w.r.IntN(3)
	at := w.now.Add(-time.Duration(w.r.IntN(5 * int(time.Hour))))
	if w.r.IntN(2) == 0 {
		at = at.AddDate(0, 0, -w.r.IntN(20))
	}
	e := &event.EnrichedEvent{
		AppID: "dev", Kind: event.KindTrack, Event: []string{"Scan", "Sell", "Count"}[f], FeatureID: fmt.Sprint("f", f), ModuleID: []string{"sales", "sales", "stock"}[f], ProductID: "p",
		MessageID: fmt.Sprint("m", w.n), AccountSource: event.AccountNone, EventTime: event.FromTime(at), ReceivedAt: event.FromTime(w.now), Quantity: int64(1 + w.r.IntN(3)),
	}
	if w.r.IntN(4) == 0 {
		e.AnonymousID = w.pick("v", 4)
		e.ActorID, e.ActorKind = e.AnonymousID, event.ActorAnonymous
	} else {
		e.UserID = w.pick("u", 8)
		e.ActorID, e.ActorKind = e.UserID, event.ActorUser
	}
	if w.r.IntN(3) > 0 {
		e.AccountID, e.AccountSource = w.pick("a", 6), event.AccountFromEvent
	}
	switch e.Role = "cashier"; w.r.IntN(6) {
	case 0:
		if e.UserID != "" {
			e.Kind = event.KindIdentify
			e.Traits = fmt.Appendf(nil, `{"email":"x@%s.example"}`, []string{"shop", "shop", "staff"}[w.r.IntN(3)])
		}
	case 1:
		if e.AccountID != "" && e.UserID != "" {
			e.Kind, e.Role = event.KindGroup, []string{"cashier", "owner"}[w.r.IntN(2)]
			e.Traits = fmt.Appendf(nil, `{"plan":%q,"seats":%d,"owner":%q}`, []string{"free", "pro", "team"}[w.r.IntN(3)], w.r.IntN(9), w.pick("o", 2))
		}
	}
	return e
}

// partition is where records of an id are.
func (w *world) partition(id string) int32 { return topic.Partition([]byte(id), writertest.Partitions) }

// happen writes events into the log and into the tables.
func (w *world) happen(list ...*event.EnrichedEvent) {
	w.t.Helper()
	var rows []string
	for _, e := range list {
		p := w.partition(e.ActorID)
		traits := string(e.Traits)
		if traits == "" {
			traits = "{}"
		}
		rows = append(rows, fmt.Sprintf("('dev', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', %d, '%s', '%s', '%s', 't', %d, %d)",
			e.MessageID, e.Kind, e.Event, e.UserID, e.AnonymousID, e.ActorID, e.ActorKind, e.AccountID, e.AccountSource, e.Role, e.FeatureID, e.ModuleID, e.ProductID, e.Quantity,
			event.ToTime(e.ReceivedAt).Format("2006-01-02 15:04:05.000000"), event.ToTime(e.EventTime).Format("2006-01-02 15:04:05.000000"), traits, p, w.next[p]))
		w.Produce(topic.Unprefixed.Enriched, p, w.Codec.AppendEnriched(nil, e))
		w.next[p]++
		if e.Kind == event.KindTrack {
			w.counted[p] = append(w.counted[p], writertest.Entry{Event: e, Now: writertest.StampedOf(e)})
		}
	}
	w.insert("events (app_id, message_id, kind, event, user_id, anonymous_id, actor_id, actor_kind, account_id, account_source, role, feature_id, module_id, product_id, quantity, received_at, event_time, traits, source_topic_id, source_partition, source_offset)", rows)
}

func (w *world) insert(into string, rows []string) {
	w.t.Helper()
	if len(rows) == 0 {
		return
	}
	if err := w.SQL.Exec(context.Background(), "INSERT INTO "+into+" VALUES "+strings.Join(rows, ", ")); err != nil {
		w.t.Fatal(err)
	}
}

// move orders a correction in a partition, and carries it out.
func (w *world) move(p int32, m event.Move) {
	w.t.Helper()
	payload, err := event.Moves{Moves: []event.Move{m}}.Payload()
	if err != nil {
		w.t.Fatal(err)
	}
	w.Produce(topic.Unprefixed.Enriched, p, w.Codec.AppendControl(nil, &event.Control{Kind: event.ControlMove, AppID: "dev", ControlID: "c", CreatedAt: 1, Payload: payload}))
	offset := w.next[p]
	w.next[p]++
	var rows []string
	for i := range w.counted[p] {
		c := &w.counted[p][i]
		before := c.Now
		c.Carry([]event.Move{m})
		if before == c.Now {
			continue
		}
		for sign, a := range map[int]any{-1: before, 1: c.Now} {
			v := reflect.ValueOf(a)
			of := func(name string) string { return v.FieldByName(name).String() }
			rows = append(rows, fmt.Sprintf("('dev', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', '%s', %d, %d, %d, 't', %d)",
				of("AccountID"), of("AccountSource"), of("ActorID"), of("ActorKind"), of("UserID"), of("AnonymousID"), of("FeatureID"), of("ModuleID"), of("ProductID"), of("Role"), of("Event"),
				event.ToTime(c.Event.EventTime).Truncate(time.Hour).Format(time.DateTime), p, sign, int64(sign)*c.Event.Quantity, offset))
		}
	}
	w.insert("corrections (app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition, events, quantity, source_topic_id, source_offset)", rows)
}

// correct orders something that changes history.
func (w *world) correct() {
	p := writertest.Ptr
	switch w.r.IntN(5) {
	case 0: // a visitor turns out to be a user
		v, u := w.pick("v", 4), w.pick("u", 8)
		w.move(w.partition(v), event.Move{
			Match: event.Attribution{ActorID: p(v), ActorKind: p(event.ActorAnonymous), AnonymousID: p(v)},
			Set:   event.Attribution{ActorID: p(u), ActorKind: p(event.ActorUser), UserID: p(u), AccountID: p(w.pick("a", 6)), AccountSource: p(event.AccountFromMembership)},
		})
	case 1: // what a user did was for another account
		u := w.pick("u", 8)
		w.move(w.partition(u), event.Move{Match: event.Attribution{ActorID: p(u), ActorKind: p(event.ActorUser)}, Set: event.Attribution{AccountID: p(w.pick("a", 6))}})
	case 2: // a user is another one
		u := w.pick("u", 8)
		w.move(w.partition(u), event.Move{Match: event.Attribution{ActorID: p(u), ActorKind: p(event.ActorUser)}, Set: event.Attribution{ActorID: p(w.pick("u", 8))}})
	case 3: // a feature goes to another module
		w.move(int32(w.r.IntN(writertest.Partitions)), event.Move{Match: event.Attribution{FeatureID: p(w.pick("f", 3))}, Set: event.Attribution{ModuleID: p([]string{"sales", "stock"}[w.r.IntN(2)])}})
	default: // a person is erased
		u := w.pick("u", 8)
		w.move(w.partition(u), event.Move{
			Match: event.Attribution{ActorID: p(u), ActorKind: p(event.ActorUser)},
			Set:   event.Attribution{ActorID: p(""), ActorKind: p(event.ActorErased), UserID: p(""), AnonymousID: p("")},
		})
	}
}

// arrive commits what the writers have written.
func (w *world) arrive() {
	w.t.Helper()
	var offsets kadm.Offsets
	for p, next := range w.next {
		offsets.Add(kadm.Offset{Topic: topic.Unprefixed.Enriched, Partition: int32(p), At: next, LeaderEpoch: -1, Metadata: w.commit.Metadata()})
	}
	if _, err := w.Admin.CommitOffsets(context.Background(), topic.Unprefixed.GroupRollupWriter, offsets); err != nil {
		w.t.Fatal(err)
	}
}

// evaluator is a process without its loop.
func (w *world) evaluator() *Service {
	w.t.Helper()
	s, err := New(w.cfg, Dependencies{Logger: w.Log, Metrics: prometheus.NewRegistry(), Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := clickhouse.OpenViews(&w.cfg.ClickHouse)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	r, err := reader.New(s.kafka...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.Close)
	s.store, s.memory, s.producer, s.codec = store{conn}, newMemory(r, topic.Unprefixed, nil), w.Client, w.Codec
	return s
}

func (w *world) define(version int) *insight.Definitions {
	w.t.Helper()
	d, err := insight.Parse(fmt.Appendf(nil, changing, version, 1+version%3))
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// scratch evaluates everything, on the memory of its own.
func (w *world) scratch(s *Service) []*kgo.Record {
	w.t.Helper()
	history, changed := s.defined("dev", w.now)
	var records []*kgo.Record
	if changed {
		records = append(records, stateRecord(topic.Unprefixed, signal.Key(signal.KeyVersions, "dev"), history))
	}
	list := signals(history)
	parts, _, err := s.read(context.Background(), "dev", list, s.nowTick(w.now), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	records = append(records, s.decide("dev", list, parts[0].facts, s.nowTick(w.now), false)...)
	for _, rec := range records {
		if rec.Topic == topic.Unprefixed.AlertState {
			if err := s.memory.takeState(rec); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	return records
}

// outcomes are the alerts among records, without what differs between processes.
func outcomes(t *testing.T, values [][]byte) []string {
	t.Helper()
	var list []string
	for _, value := range values {
		var r signal.Record
		if err := json.Unmarshal(value, &r); err != nil {
			t.Fatal(err)
		}
		r.ID, r.Written = "", time.Time{}
		list = append(list, string(encode(r)))
	}
	slices.Sort(list)
	return list
}

// TestChangedSubjectsAreEnough has evaluators in turns evaluate what has changed, over
// random histories, and compares outcomes and state with those of one that evaluates
// everything in every round.
func TestChangedSubjectsAreEnough(t *testing.T) {
	seeds, rounds := uint64(1), 9
	if longtest.Enabled() {
		seeds, rounds = 8, 40
	}
	changed, said := 0, 0
	for seed := range seeds {
		w := newWorld(t, seed)
		if _, err := insightdefinitions.ApplyFirst(t.Context(), &w.cfg.ClickHouse, "dev", "joan", fmt.Appendf(nil, changing, 1, 2)); err != nil {
			t.Fatal(err)
		}
		turns := []*Service{w.evaluator(), w.evaluator()}
		// It evaluates everything in each round; that evaluation itself is held against
		// oracles of their own in health_test.go and in package evaluate.
		whole := w.evaluator()
		whole.memory.read = nil
		version := 1
		var before []string
		for i := range rounds {
			what := "events"
			events := 1 + w.r.IntN(3)
			if i == 0 {
				events = 60
			}
			var list []*event.EnrichedEvent
			for range events {
				list = append(list, w.event())
			}
			w.happen(list...)
			switch w.r.IntN(24) {
			case 0, 1, 2, 3, 8, 9, 10, 11:
				what = "correction"
				w.correct()
			case 4:
				version++
				what = "definitions"
			case 5:
				w.now = w.now.Add(time.Hour)
				what = "an hour"
			case 6:
				w.now = w.now.Add(26 * time.Hour)
				what = "a day"
			case 7: // a repair of the tables
				what = "rebuild"
				w.commit.Generation++
				w.insert("user_feature_daily (app_id, account_id, actor_id, actor_kind, feature_id, module_id, product_id, day, events, quantity)",
					[]string{fmt.Sprintf("('dev', '%s', 'u1', 'user', 'f1', 'sales', 'p', '%s', 3, 3)", w.pick("a", 6), w.now.AddDate(0, 0, -2).Format(time.DateOnly))})
			}
			w.arrive()
			s := turns[0]
			if w.r.IntN(6) == 0 {
				s = turns[1]
			}
			d, begun := w.define(version), time.Now()
			s.definitions = map[string]*insight.Definitions{"dev": d}
			whole.definitions = s.definitions
			was := partial(t, s)
			for err := s.round(t.Context(), w.now); err != nil; err = s.round(t.Context(), w.now) {
				if !errors.Is(err, errOvertaken) { // by the other one, which has changed the state
					t.Fatal(err)
				}
				what += ", overtaken"
			}
			if partial(t, s) > was {
				changed++
				what += ", changed"
			}
			if err := s.memory.catchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Log(what, time.Since(begun))
			var want [][]byte
			for _, rec := range w.scratch(whole) {
				if rec.Topic == topic.Unprefixed.Alerts {
					want = append(want, rec.Value)
				}
			}
			after := w.values()
			got := outcomes(t, after[len(before):])
			for _, v := range after[len(before):] {
				before = append(before, string(v))
			}
			if expected := outcomes(t, want); !slices.Equal(got, expected) {
				t.Fatalf("seed %d, round %d (%s):\ngot  %s\nwant %s", seed, i, what, strings.Join(got, "\n"), strings.Join(expected, "\n"))
			}
			said += len(got)
			if !reflect.DeepEqual(s.memory.subjects, whole.memory.subjects) {
				for k := range maps.Keys(whole.memory.subjects) {
					if !reflect.DeepEqual(s.memory.subjects[k], whole.memory.subjects[k]) {
						t.Errorf("%q: got %+v, want %+v", k, s.memory.subjects[k], whole.memory.subjects[k])
					}
				}
				t.Fatalf("seed %d, round %d (%s): %d subjects, want %d", seed, i, what, len(s.memory.subjects), len(whole.memory.subjects))
			}
			if !maps.Equal(s.memory.health, whole.memory.health) {
				t.Fatalf("seed %d, round %d (%s): the scores differ", seed, i, what)
			}
		}
	}
	t.Logf("%d rounds of changed subjects, %d outcomes", changed, said)
	if changed < rounds/4 || said < rounds {
		t.Errorf("%d rounds of changed subjects, %d outcomes: the test shows nothing", changed, said)
	}
}

// partial is how many rounds of s evaluated changed subjects alone.
func partial(t *testing.T, s *Service) float64 {
	t.Helper()
	var m dto.Metric
	if err := s.metrics.evaluated.WithLabelValues("changed", "").Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// values are those of the alerts log.
func (w *world) values() (values [][]byte) {
	w.t.Helper()
	opts, err := w.cfg.Kafka.Options(w.Log, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := reader.New(opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	if err := r.All(w.t.Context(), topic.Unprefixed.Alerts, 0, func(rec *kgo.Record) error {
		values = append(values, rec.Value)
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return values
}

// An evaluator that is overtaken between reading ClickHouse and deciding reads anew: on
// what it has read, the other one would have spoken of an account that does not exist, and
// this one would withdraw that, and the next round say it again.
func TestOvertakenRoundReadsAnew(t *testing.T) {
	w := newWorld(t, 1)
	slow, quick := w.evaluator(), w.evaluator()
	for _, s := range []*Service{slow, quick} {
		var err error
		if s.definitions, err = w.cfg.files(); err != nil {
			t.Fatal(err)
		}
	}
	w.use("acme", days(20, 9)...)
	overtaken := false
	slow.hit = func(step string) error {
		if step != "alerts.before-decide" || overtaken {
			return nil
		}
		overtaken = true
		w.use("beta", days(20, 9)...)
		return quick.round(t.Context(), w.now)
	}
	if err := slow.round(t.Context(), w.now); !errors.Is(err, errOvertaken) {
		t.Errorf("the round that was overtaken: got %v, want %v", err, errOvertaken)
	}
	if err := slow.round(t.Context(), w.now); err != nil {
		t.Errorf("the round after it: %v", err)
	}
	var got []string
	for _, r := range w.log() {
		got = append(got, fmt.Sprintf("%s %s %s", r.Signal, r.Subject, r.State))
	}
	slices.Sort(got)
	if want := []string{"regular acme entered", "regular beta entered", "silent acme firing", "silent beta firing"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
