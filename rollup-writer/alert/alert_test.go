package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/deliver"
	insightdefinitions "github.com/uptakehq/uptake/rollup-writer/definitions"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

const definitions = `
insight: shop
segments:
  - id: regular
    description: Used on 3 of 28 days.
    owner: cs
    where: [{measure: {count: days, window: 28d}, at_least: 3}]
alerts:
  - id: silent
    description: Gone silent
    owner: cs
    segment: regular
    measure: {count: events, window: 7d}
    fires: {below: 1}
    severity: critical
    playbook: Call.
`

// now is noon of a day; the last day that is over is the one before.
var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// clock runs from now on.
func clock() func() time.Time {
	begun := time.Now()
	return func() time.Time { return now.Add(time.Since(begun)) }
}

// bench is a log, a database and a receiver.
type bench struct {
	*writertest.Bench
	t        *testing.T
	cfg      Config
	position int64
	dir      string
	receiver string // its URL
	user     string // whom use is by

	mu       sync.Mutex // covers what follows
	answer   func(n int) int
	received []deliver.Webhook
	ids      []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Bench: writertest.New(t), t: t, cfg: DefaultConfig(), user: "u"}
	addr, db := sqltest.Database(t)
	cfg := b.Config(addr, db)
	b.Migrate(cfg)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var got deliver.Webhook
		err := json.Unmarshal(body, &got)
		b.mu.Lock()
		defer b.mu.Unlock()
		if err != nil || got.Data.ID != r.Header.Get("webhook-id") {
			t.Errorf("received %s, %v, with id %q", body, err, r.Header.Get("webhook-id"))
		}
		b.received, b.ids = append(b.received, got), append(b.ids, got.Data.ID)
		if b.answer != nil {
			w.WriteHeader(b.answer(len(b.ids)))
		}
	}))
	t.Cleanup(receiver.Close)
	b.dir, b.receiver = t.TempDir(), receiver.URL
	b.cfg.Kafka, b.cfg.ClickHouse = cfg.Kafka, cfg.ClickHouse
	b.cfg.Definitions = []string{"dev=" + b.file("insight.yaml", definitions)}
	b.target("timeout: 10s")
	b.cfg.Interval, b.cfg.SessionTimeout = time.Second, 6*time.Second
	return b
}

func (b *bench) file(name, text string) string {
	b.t.Helper()
	p := filepath.Join(b.dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return p
}

// target has the receiver told, with a setting.
func (b *bench) target(setting string) {
	b.t.Helper()
	b.cfg.Targets = b.file("targets.yaml", fmt.Sprintf("allow: [127.0.0.1]\ntargets: [{name: cs, kind: webhook, url: %q, segments: [regular], %s}]", b.receiver, setting))
}

// use has an account use the product on days before the day of now, and has the
// writers have come further.
func (b *bench) use(account string, days ...int) {
	b.t.Helper()
	// All days at once: a round sees all of them, or none.
	var values []string
	for _, d := range days {
		at := now.AddDate(0, 0, -d).Format(time.DateTime)
		values = append(values, fmt.Sprintf("('dev', '%s-%d-%d', 'track', 'x', '%s', '%s', 'user', '%s', 'scan', 1, '%s', '%s')", account, d, b.position, b.user, b.user, account, at, at))
	}
	if err := b.SQL.Exec(context.Background(), "INSERT INTO events (app_id, message_id, kind, event, user_id, actor_id, actor_kind, account_id, feature_id, quantity, received_at, event_time) VALUES "+strings.Join(values, ", ")); err != nil {
		b.t.Fatal(err)
	}
	b.position++
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic.Unprefixed.Enriched, Partition: 0, At: b.position, LeaderEpoch: -1})
	if _, err := b.Admin.CommitOffsets(context.Background(), topic.Unprefixed.GroupRollupWriter, offsets); err != nil {
		b.t.Fatal(err)
	}
}

func days(from, to int) []int {
	var list []int
	for d := from; d >= to; d-- {
		list = append(list, d)
	}
	return list
}

// start runs a process until stop is called, or the test ends.
func (b *bench) start(hit func(string) error) (stop func()) {
	b.t.Helper()
	s, err := New(b.cfg, Dependencies{Logger: b.Log, Metrics: prometheus.NewRegistry(), Now: clock()})
	if err != nil {
		b.t.Fatal(err)
	}
	if hit != nil {
		s.hit = hit
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(process.Signals{Stop: ctx, Kill: ctx}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("run: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// lines are the messages received so far, each once, in order of their first arrival.
func (b *bench) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, r := range b.received {
		line := fmt.Sprintf("%s %s %s: %s", r.Data.Signal, r.Data.Subject, r.Data.State, r.Data.Reason)
		if !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	return list
}

func (b *bench) await(want ...string) {
	b.t.Helper()
	slices.Sort(want)
	deadline := time.Now().Add(3 * time.Minute)
	for {
		got := b.lines()
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("got  %q\nwant %q", got, want)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// log reads the alerts log.
func (b *bench) log() []signal.Record {
	b.t.Helper()
	opts, err := b.cfg.Kafka.Options(b.Log, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	all, err := ReadLog(b.t.Context(), opts, topic.Unprefixed)
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// An account that goes silent is said once, with why; the next process goes on from
// the log; and a correction that makes it untrue withdraws it.
func TestSilentAccountIsSaidAndWithdrawn(t *testing.T) {
	b := newBench(t)
	b.use("acme", days(20, 9)...)
	b.use("beta", days(20, 1)...)
	stop := b.start(nil)
	first := []string{
		"regular acme entered: segment regular", "regular beta entered: segment regular",
		"silent acme firing: 0 events in 7d, below 1",
	}
	b.await(first...)
	stop()

	b.start(nil)
	b.start(nil)                  // one of them waits
	b.use("gamma", days(5, 3)...) // a segment to be entered: the next process evaluates
	b.await(append(first, "regular gamma entered: segment regular")...)

	// What acme did was counted for somebody else until now.
	b.use("acme", days(8, 1)...)
	b.await(append(first, "regular gamma entered: segment regular", "silent acme retracted: withdrawn: history was corrected; as now known, 7 events in 7d, the limit is 1")...)
	var got []string
	for _, r := range b.log() {
		if r.Use == "alert" {
			got = append(got, r.State+" "+r.Subject+" "+r.From.Format(time.DateOnly))
		}
	}
	if want := []string{"firing acme 2026-11-19", "retracted acme 2026-11-19"}; !slices.Equal(got, want) {
		t.Errorf("log: got %q, want %q", got, want)
	}
}

// TestFaultsAtEveryStep has two processes fail at random steps, as if they were
// killed there: what they had in memory is gone. The receiver fails, too.
func TestFaultsAtEveryStep(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex // covers r, faults and calm
	r := rand.New(rand.NewPCG(3, 4))
	faults, calm := map[string]int{}, false
	hit := func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		// The first of each step, however quick the machine is, and some more.
		if faults[step] == 0 || (!calm && r.IntN(3) == 0) {
			faults[step]++
			return errors.New("killed at " + step)
		}
		return nil
	}
	b.answer = func(int) int {
		mu.Lock()
		defer mu.Unlock()
		if !calm && r.IntN(3) == 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	}
	const accounts = 8
	b.start(hit)
	b.start(hit)
	var want []string
	for i := range accounts {
		id := fmt.Sprint("a", i)
		b.use(id, days(20, 9)...)
		want = append(want, fmt.Sprintf("regular %s entered: segment regular", id), fmt.Sprintf("silent %s firing: 0 events in 7d, below 1", id))
		time.Sleep(300 * time.Millisecond)
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	b.await(want...)
	said := map[string]string{}
	for _, rec := range b.log() {
		if before, ok := said[rec.AlertID+rec.State]; ok {
			t.Errorf("%s of %s was said twice, as %s and %s", rec.State, rec.Subject, before, rec.ID)
		}
		said[rec.AlertID+rec.State] = rec.ID
	}
	if len(said) != 2*accounts {
		t.Errorf("got %d alerts in the log, want %d", len(said), 2*accounts)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range said {
		if !slices.Contains(b.ids, id) {
			t.Errorf("%s was not received", id)
		}
	}
	if len(faults) < 3 {
		t.Errorf("faults: %v", faults)
	}
	t.Logf("faults: %v, %d requests for %d messages", faults, len(b.ids), len(said))
}

// Without a file, what `insight apply` put in force is evaluated, and the next apply
// without a restart.
func TestAppliedDefinitionsAreEvaluated(t *testing.T) {
	b := newBench(t)
	b.cfg.Definitions = nil
	b.use("acme", days(20, 9)...)
	b.start(nil)
	if applied, err := insightdefinitions.ApplyFirst(t.Context(), &b.cfg.ClickHouse, "dev", "joan", []byte(definitions)); err != nil || !applied {
		t.Fatal(applied, err)
	}
	b.await("regular acme entered: segment regular", "silent acme firing: 0 events in 7d, below 1")
}

// Of a user who was erased nothing is said any more: not that what was said before is not
// true, which is how evaluation sees it that their events have lost their name, and nothing
// that was not delivered yet.
func TestNothingIsSaidOfErasedUsers(t *testing.T) {
	b := newBench(t)
	text := strings.ReplaceAll(definitions, "    owner: cs\n", "    owner: cs\n    level: user\n")
	b.cfg.Definitions = []string{"dev=" + b.file("users.yaml", text)}
	for _, b.user = range []string{"jane", "jim"} {
		b.use("acme", days(20, 9)...)
	}
	b.start(nil)
	said := func(user string) []string {
		return []string{fmt.Sprintf("regular %s entered: segment regular", user), fmt.Sprintf("silent %s firing: 0 events in 7d, below 1", user)}
	}
	b.await(slices.Concat(said("jane"), said("jim"))...)

	erase := func(user string) {
		t.Helper()
		key, value := signal.ErasedUser("dev", bytes.Repeat([]byte{1}, event.EraseKeyBytes), user)
		if err := b.Client.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Unprefixed.AlertState, Key: []byte(key), Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	erase("jane")
	for _, table := range []string{"usage_hourly", "user_feature_daily"} {
		if err := b.SQL.Exec(t.Context(), b.Schema.Alter(table)+" DELETE WHERE actor_id IN ('jane', 'jim') SETTINGS mutations_sync = 2"); err != nil {
			t.Fatal(err)
		}
	}
	b.user = "joan"
	b.use("beta", days(5, 3)...)
	b.awaitStates("joan entered", "jim retracted")
	for _, r := range b.log() {
		if r.Subject == "jane" && r.State != signal.Entered && r.State != signal.Firing {
			t.Errorf("said of a user who was erased: %s %s: %s", r.Signal, r.State, r.Reason)
		}
	}

	// What the receiver does not take is not sent any more.
	b.mu.Lock()
	b.answer = func(int) int { return http.StatusServiceUnavailable }
	b.mu.Unlock()
	b.user = "josh"
	b.use("gamma", days(5, 3)...)
	b.awaitStates("josh entered")
	erase("josh")
	opts, err := b.cfg.Kafka.Options(b.Log, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range b.log() {
		switch err := Redeliver(t.Context(), opts, topic.Unprefixed, r.ID, "cs", now); {
		case (r.Subject == "josh" || r.Subject == "jane") && (err == nil || !strings.Contains(err.Error(), "a user who was erased")):
			t.Errorf("%s of %s can be delivered again: %v", r.State, r.Subject, err)
		case r.Subject == "jim" && err != nil:
			t.Error(err)
		}
	}
	b.Await("what is not about josh to be sent again", func() bool { return b.attempts("jim") > 2 })
	before := b.attempts("josh")
	b.mu.Lock()
	b.answer = nil
	b.mu.Unlock()
	b.Await("it to be taken", func() bool { return b.attempts("jim") > 6 })
	time.Sleep(minRetry)
	if n := b.attempts("josh"); n != before {
		t.Errorf("%d more attempts to deliver what is about a user who was erased", n-before)
	}
}

// minRetry is longer than the pause before a second attempt.
const minRetry = 6 * time.Second

// attempts counts the requests about a subject.
func (b *bench) attempts(subject string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.received {
		if r.Data.Subject == subject {
			n++
		}
	}
	return n
}

// awaitStates waits until subjects were said to be in a state.
func (b *bench) awaitStates(want ...string) {
	b.t.Helper()
	b.Await(fmt.Sprint(want), func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, w := range want {
			if !slices.ContainsFunc(b.received, func(r deliver.Webhook) bool { return r.Data.Subject+" "+r.Data.State == w }) {
				return false
			}
		}
		return true
	})
}

// Nothing is evaluated while the writers lag more than the window.
func TestLagHoldsEvaluation(t *testing.T) {
	b := newBench(t)
	b.use("acme", days(20, 9)...)
	rec := &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: 1, Value: []byte("an event"), Timestamp: now}
	if err := b.Client.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s, err := New(b.cfg, Dependencies{Logger: b.Log, Metrics: prometheus.NewRegistry(), Now: clock()})
	if err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return time.Now().Add(8 * day) } // the log's clock is the brokers'
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(process.Signals{Stop: ctx, Kill: ctx}) }()
	b.Await("the signal to be held", func() bool { return strings.Contains(b.Lines.String(), "the writers lag more than its window") })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := b.log(); slices.ContainsFunc(got, func(r signal.Record) bool { return r.Use == "alert" }) {
		t.Errorf("got %+v", got)
	}
}

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// A message's link names its alert and the target, and is the same at every attempt.
func TestMessagesLinkToFeedback(t *testing.T) {
	const secret = "a secret of sixteen bytes"
	s := &Service{cfg: Config{ConsoleURL: "https://c.example/", FeedbackSecret: secret}}
	r := &signal.Record{Message: signal.Message{App: "dev", AlertID: "al_1", State: signal.Firing}, Use: "alert", Written: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)}
	m := s.message(r, "cs")
	token, ok := strings.CutPrefix(m.FeedbackURL, "https://c.example/feedback?link=")
	link, err := signal.OpenLink(secret, token, r.Written)
	if !ok || err != nil || link.AlertID != "al_1" || link.Recipient != "cs" || link.App != "dev" || s.message(r, "cs") != m {
		t.Errorf("got %q: %+v, %v", m.FeedbackURL, link, err)
	}
	if r.State = signal.Retracted; s.message(r, "cs").FeedbackURL != "" {
		t.Error("a withdrawn alert asks for feedback")
	}
	if r.Use, r.State = "segment", signal.Firing; s.message(r, "cs").FeedbackURL != "" {
		t.Error("a change of a segment asks for feedback")
	}
	cfg := DefaultConfig()
	cfg.ConsoleURL, cfg.FeedbackSecret = "c.example", "short"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "alerts-console-url") || !strings.Contains(err.Error(), "alerts-feedback-secret") {
		t.Errorf("got %v", err)
	}
}
