package rollup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic"
)

// TestSignalsAreCopied writes what alerts says, has a writer copy it, then more for a
// second writer, and asks the views.
func TestSignalsAreCopied(t *testing.T) {
	b := newBench(t)
	b.init()
	at := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	n := 0
	say := func(use, name, subject, id, state, feedback string, to *time.Time) {
		t.Helper()
		n++
		r := signal.Record{Message: signal.Message{
			ID: "m" + id + state + feedback, AlertID: id, App: "dev", Signal: name, Version: 2, State: state, Level: "account", Subject: subject, Severity: "critical", Owner: "cs",
			At: at.Add(time.Duration(n) * time.Hour), Reason: state + " because", Title: "t",
		}, Use: use, From: at, To: to, Facts: signal.Facts{Value: 3, Limit: 5}, Written: at, Feedback: feedback}
		if state == signal.Acknowledged {
			r.By = "joan"
		}
		produce(t, b.Client, topic.Unprefixed.Alerts, signal.Key("dev", use, name, subject), r, at.Add(time.Duration(n)*time.Second))
	}
	score := func(account string, h any) {
		t.Helper()
		n++
		produce(t, b.Client, topic.Unprefixed.AlertState, signal.Key(signal.KeyHealth, "dev", "fit", account), h, at.Add(time.Duration(n)*time.Second))
	}
	people := "`" + b.Schema.Database + "`."
	is := func(query string, want ...string) {
		t.Helper()
		b.Await(query, func() bool { return slices.Equal(b.strings(fmt.Sprintf(query, people)), want) })
	}
	say("alert", "silent", "acme", "a1", signal.Firing, "", nil)
	say("alert", "silent", "beta", "a2", signal.Firing, "", nil)
	say("segment", "regular", "acme", "s1", signal.Entered, "", nil)
	say("segment", "regular", "beta", "s2", signal.Entered, "", nil)
	say("segment", "regular", "gone", "s3", signal.Entered, "", nil)
	weight := 500.0
	part := signal.Part{ID: "depth", Kind: "behaviour", Value: 3, Yardstick: 5, Weight: 1, Share: 0.6, Change: -10, Sentence: "three"}
	score("acme", signal.Health{App: "dev", Health: "fit", Account: "acme", Day: at, Score: 60, Band: "fair", Score4: 70, Consequence: &weight, Priority: 200, Parts: []signal.Part{part}})
	score("beta", signal.Health{App: "dev", Health: "fit", Account: "beta", Day: at, Score: 10, Band: "low", Priority: 0.9, Parts: []signal.Part{part}})
	produce(t, b.Client, topic.Unprefixed.AlertState, signal.Key(signal.KeySubject, "dev", "alert", "silent", "acme"), map[string]int{"x": 1}, at)
	w := b.start()
	const (
		alerts  = "SELECT concatWithSeparator(' ', alert_id, subject, toString(state), reason, toString(value), toString(limit_value), acknowledged_by, toString(feedback), ifNull(toString(ended_at), '-')) FROM %salerts ORDER BY alert_id"
		members = "SELECT concatWithSeparator(' ', toString(segment_id), subject_id, toString(version)) FROM %ssegment_members"
		history = "SELECT concatWithSeparator(' ', subject_id, ifNull(toString(left_at), '-')) FROM %ssegment_history"
		health  = "SELECT concatWithSeparator(' ', account_id, toString(score), toString(band), toString(score_4w), ifNull(toString(consequence), '-'), toString(priority)) FROM %saccount_health"
		parts   = "SELECT concatWithSeparator(' ', account_id, part, toString(kind), toString(share), toString(change_4w), sentence) FROM %saccount_health_parts"
	)
	is(alerts, "a1 acme firing firing because 3 5   -", "a2 beta firing firing because 3 5   -")
	is(members, "regular acme 2", "regular beta 2", "regular gone 2")
	is(health, "acme 60 fair 70 500 200", "beta 10 low 0 - 0.9")
	is(parts, "acme depth behaviour 0.6 -10 three", "beta depth behaviour 0.6 -10 three")
	w.End()

	ended := at.Add(48 * time.Hour)
	b.start()
	say("alert", "silent", "acme", "a1", signal.Acknowledged, "useful", nil)
	say("alert", "silent", "acme", "a1", signal.Resolved, "", &ended)
	say("alert", "silent", "beta", "a2", signal.Retracted, "", nil)
	say("segment", "regular", "beta", "s2", signal.Left, "", &ended)
	say("segment", "regular", "gone", "s3", signal.Retracted, "", nil)
	score("acme", signal.Health{App: "dev", Health: "fit", Account: "acme", Day: at, Score: 90, Band: "good", Priority: 0.1})
	score("beta", nil)
	is(alerts, "a1 acme resolved resolved because 3 5 joan useful 2026-11-22 00:00:00.000", "a2 beta retracted retracted because 3 5   -")
	is(members, "regular acme 2")
	is(history, "acme -", "beta 2026-11-22 00:00:00.000")
	is(health, "acme 90 good 0 - 0.1")
	is(parts)
	is("SELECT concatWithSeparator(' ', toString(signal), owner, toString(alerts), toString(retracted), toString(useful), toString(precision)) FROM %salert_precision", "silent cs 2 1 1 1")
	is("SELECT toString(count()) FROM %salert_history", "10")
	if n := b.Number("SELECT count() FROM signal_log"); n != 10 {
		t.Errorf("%d rows, want 10: the second writer wrote what the first one had", n)
	}
}

func produce(t *testing.T, cl *kgo.Client, name, key string, value any, at time.Time) {
	t.Helper()
	r := &kgo.Record{Topic: name, Key: []byte(key), Timestamp: at}
	if value != nil {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		r.Value = text
	}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// What was said of a user who was erased since is not copied again: not by a writer that
// starts with an empty table, and not while it runs. Others are, and so is an account of
// the same name.
func TestSignalsOfErasedUsersAreNotCopied(t *testing.T) {
	b := newBench(t)
	b.init()
	at := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	say := func(level, subject string) {
		t.Helper()
		r := signal.Record{Message: signal.Message{
			ID: "m" + level + subject, AlertID: "a" + level + subject, App: "dev", Signal: "silent", State: signal.Firing, Level: level, Subject: subject, At: at,
		}, Use: "alert", From: at, Written: at}
		produce(t, b.Client, topic.Unprefixed.Alerts, signal.Key("dev", "alert", "silent", subject), r, at)
	}
	erase := func(user string) {
		t.Helper()
		key, value := signal.ErasedUser("dev", bytes.Repeat([]byte{1}, event.EraseKeyBytes), user)
		produce(t, b.Client, topic.Unprefixed.AlertState, key, json.RawMessage(value), at)
	}
	copied := func(want ...string) {
		t.Helper()
		b.Await("what is copied", func() bool {
			return slices.Equal(b.strings("SELECT concatWithSeparator(' ', toString(level), subject) FROM signal_log ORDER BY level, subject"), want)
		})
	}
	for _, subject := range []string{"jane", "janet"} {
		say("account", subject)
		say("user", subject)
	}
	erase("jane")
	w := b.start()
	copied("account jane", "account janet", "user janet")
	erase("jim")
	time.Sleep(3 * copyPause) // an erasure takes longer until nothing is said any more
	say("user", "jim")
	say("user", "joan")
	copied("account jane", "account janet", "user janet", "user joan")
	w.End()
	if err := b.SQL.Exec(t.Context(), "TRUNCATE TABLE signal_log"); err != nil {
		t.Fatal(err)
	}
	b.start()
	copied("account jane", "account janet", "user janet", "user joan")
}
