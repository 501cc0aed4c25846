package erase

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// The state of alerts loses what is about the person, and nothing else: not that of an
// account of the same name, of another user or of another app; and it learns, by a hash,
// of whom nothing is to be said.
func TestStateOfAlerts(t *testing.T) {
	ctx := context.Background()
	log, err := locallog.Start(locallog.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(log.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	names := topic.Unprefixed
	e := &eraser{Dependencies: Dependencies{Kafka: client, Names: names}, cfg: Config{App: "shop"}, admin: kadm.NewClient(client), key: bytes.Repeat([]byte{3}, event.EraseKeyBytes)}
	e.list.users = map[string]bool{"jane": true, "jane\x00doe": true}
	steps := func() {
		t.Helper()
		for _, step := range []func(context.Context) error{e.silence, e.forgetSignals} {
			if err := step(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	steps() // there is no such topic
	e.silenced = nil
	if err := names.Ensure(ctx, e.admin, topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}
	put := func(key string, value any) {
		t.Helper()
		text, err := json.Marshal(value)
		if err == nil {
			err = client.ProduceSync(ctx, &kgo.Record{Topic: names.AlertState, Key: []byte(key), Value: text}).FirstErr()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rules := func(use, id, level string) insight.Rule {
		text, err := json.Marshal(map[string]string{"id": id, "level": level})
		if err != nil {
			t.Fatal(err)
		}
		return insight.Rule{Use: use, Key: id, Value: string(text)}
	}
	put(signal.Key(signal.KeyVersions, "shop"), []map[string]any{
		{"rules": []insight.Rule{rules("alert", "gone", "user")}}, // not in force any more
		{"rules": []insight.Rule{rules("alert", "silent", "user"), rules("segment", "regular", "user"), rules("alert", "accounts", "account")}},
	})
	key := func(app, use, id, subject string) string { return signal.Key(signal.KeySubject, app, use, id, subject) }
	theirs := []string{key("shop", "alert", "gone", "jane"), key("shop", "alert", "silent", "jane"), key("shop", "segment", "regular", "jane\x00doe")}
	others := []string{key("shop", "alert", "accounts", "jane"), key("shop", "alert", "silent", "janet"), key("office", "alert", "silent", "jane"), signal.Key(signal.KeyDelivery, "msg_1", "cs")}
	for _, k := range slices.Concat(theirs, others) {
		put(k, map[string]int{"on": 1})
	}
	states, err := e.signalStates(ctx)
	if got := slices.Sorted(maps.Keys(states)); err != nil || !slices.Equal(got, theirs) {
		t.Errorf("about the person: got %q, %v", got, err)
	}
	steps()
	var erased signal.ErasedUsers
	left, err := reader.On(client).Newest(ctx, names.AlertState, 0, func([]byte) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for k, rec := range left {
		if ours, err := erased.Take(k, rec.Value); err != nil {
			t.Error(err)
		} else if ours {
			delete(left, k)
		}
	}
	delete(left, signal.Key(signal.KeyVersions, "shop"))
	if got := slices.Sorted(maps.Keys(left)); !slices.Equal(got, slices.Sorted(slices.Values(others))) {
		t.Errorf("left: got %q, want %q", got, others)
	}
	for user, want := range map[string]bool{"jane": true, "jane\x00doe": true, "janet": false} {
		if got := erased.Has("shop", user); got != want {
			t.Errorf("nothing is said of %q: got %v", user, got)
		}
	}
	end := func() int64 {
		t.Helper()
		ends, err := e.admin.ListEndOffsets(ctx, names.AlertState)
		if err != nil {
			t.Fatal(err)
		}
		o, _ := ends.Lookup(names.AlertState, 0)
		return o.Offset
	}
	before := end()
	steps()
	if after := end(); after != before {
		t.Errorf("another time: %d more records", after-before)
	}
}
