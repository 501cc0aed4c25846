package enrich

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// controls returns the control records of enriched by partition.
func (c *cluster) controls() [partitions][]event.Control {
	c.t.Helper()
	var all [partitions][]event.Control
	for p := range int32(partitions) {
		for _, r := range c.committed(topic.Unprefixed.Enriched, p) {
			if typ, err := c.codec.Type(r.Value); err != nil || typ != event.TypeControl {
				continue
			}
			var e event.Control
			if err := c.codec.DecodeControl(r.Value, &e); err != nil {
				c.t.Fatal(err)
			}
			all[p] = append(all[p], e)
		}
	}
	return all
}

// find returns the events that a test asks for, by message id.
func (c *cluster) find() map[string]event.EnrichedEvent {
	c.t.Helper()
	all := map[string]event.EnrichedEvent{}
	for _, events := range c.enriched() {
		for _, e := range events {
			all[e.MessageID] = e
		}
	}
	return all
}

// What one partition learns reaches another, and stays over restarts with and
// without a disk.
func TestIdentityReachesOtherPartitions(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	i := c.start(filepath.Join(dir, "a"))
	at := event.FromTime(time.Now().Add(-time.Hour))
	// Ids whose homes differ.
	anon, user := "a-1", ""
	home := func(kind byte, id string) int32 {
		return topic.Partition(topic.Key(nil, "dev", kind, id), partitions)
	}
	for _, u := range []string{"u-1", "u-2", "u-3", "u-4", "u-5", "u-6"} {
		if home(topic.KeyUser, u) != home(topic.KeyAnonymous, anon) {
			user = u
		}
	}
	send := func(kind, message, userID, anonymousID, accountID string, after int64) {
		at += after
		c.send(c.raw(event.RawEvent{
			AppID: "dev", Kind: kind, Event: "Item Scanned", MessageID: message, UserID: userID, AnonymousID: anonymousID,
			AccountID: accountID, Timestamp: at, ReceivedAt: at + 1, Quantity: 1,
		}))
	}
	send(event.KindTrack, "before", "", anon, "", 1)
	c.drained()
	send(event.KindIdentify, "identify", user, anon, "", 1)
	send(event.KindGroup, "group", user, "", "acme", 1)
	c.drained()
	c.wait("the link to arrive", func() bool {
		return i.metric("uptake_enricher_links_total", "fate=taken") >= 2
	})
	send(event.KindTrack, "after", "", anon, "", 1)
	c.drained()
	i.stopped()
	i = c.start(filepath.Join(dir, "b"))
	send(event.KindTrack, "after restart", "", anon, "", 1)
	c.drained()
	i.stopped()

	type whose struct{ actor, kind, account, source, linked string }
	got := c.find()
	for id, want := range map[string]whose{
		"before":        {anon, event.ActorAnonymous, "", event.AccountNone, ""},
		"after":         {user, event.ActorUser, "acme", event.AccountFromMembership, user},
		"after restart": {user, event.ActorUser, "acme", event.AccountFromMembership, user},
	} {
		e := got[id]
		if have := (whose{e.ActorID, e.ActorKind, e.AccountID, e.AccountSource, e.LinkedUserID}); have != want {
			t.Errorf("%s: got %+v, want %+v", id, have, want)
		}
	}
	moves := 0
	for _, ctl := range c.controls()[home(topic.KeyAnonymous, anon)] {
		if ctl.Kind == event.ControlMove && strings.Contains(string(ctl.Payload), user) {
			moves++
		}
	}
	if moves == 0 {
		t.Error("what was counted for the anonymous id is not moved")
	}
}

// apply writes a version of the catalog of an app.
func (c *cluster) apply(app string, number int64, text string, moves ...event.Move) {
	c.t.Helper()
	parsed, err := catalog.Parse([]byte(text + "\n...\n"))
	if err != nil {
		c.t.Fatal(err)
	}
	v := catalog.Version{App: app, Number: number, Author: "test", Reason: "test", AppliedAt: time.Now().UTC(), Catalog: parsed, HistoryMoves: moves}
	value, err := v.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(&kgo.Record{Topic: topic.Unprefixed.Catalog, Key: v.Key(), Value: value})
}

func catalogOf(module, names string) string {
	return `catalog: test
products:
  - id: pos
    name: POS
    modules:
      - id: ` + module + `
        name: Module
        features:
          - id: scan
            name: Scan
            events: [` + names + `]
`
}

// Each version's moves are in each partition once, in order, at the point from
// which the version maps events; also for versions that came while nobody
// served, and in partitions without events.
func TestCatalogSwap(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	text := func(s string) *string { return &s }
	move := func(from, to string) event.Move {
		return event.Move{Match: event.Attribution{ModuleID: text(from)}, Set: event.Attribution{ModuleID: text(to)}}
	}
	c.apply("dev", 1, catalogOf("billing", "Item Scanned"))
	i := c.start(filepath.Join(dir, "a"))
	n := 0
	send := func() {
		for range 50 {
			c.send(c.raw(track("dev", n)))
			n++
		}
		c.drained()
	}
	send()
	c.apply("dev", 2, catalogOf("checkout", `Item Scanned, "scan"`), move("billing", "checkout"))
	c.wait("version 2 in every partition", func() bool { return c.moved(2) })
	send()
	i.stopped()
	c.apply("dev", 3, catalogOf("sales", "Item Scanned"), move("checkout", "sales"))
	c.apply("dev", 4, catalogOf("sales", `Item Scanned, "scan"`))
	c.apply("dev", 5, catalogOf("till", "Item Scanned"), move("sales", "till"))
	i = c.start(filepath.Join(dir, "a"))
	c.wait("versions 3 to 5 in every partition", func() bool { return c.moved(5) })
	send()
	i.crash()
	i = c.start(filepath.Join(dir, "b"))
	send()
	i.stopped()

	for p := range int32(partitions) {
		var ids []string
		module := map[int64]string{1: "billing", 2: "checkout", 5: "till"}
		version := int64(0)
		for _, r := range c.committed(topic.Unprefixed.Enriched, p) {
			var e event.EnrichedEvent
			var ctl event.Control
			switch typ, _ := c.codec.Type(r.Value); typ {
			case event.TypeControl:
				if err := c.codec.DecodeControl(r.Value, &ctl); err != nil {
					t.Fatal(err)
				}
				if ctl.Kind == event.ControlCounts {
					continue
				}
				ids = append(ids, ctl.ControlID)
				if version == 5 {
					t.Errorf("partition %d: %s comes after version 5 mapped events", p, ctl.ControlID)
				}
			case event.TypeEnriched:
				if err := c.codec.DecodeEnriched(r.Value, &e); err != nil {
					t.Fatal(err)
				}
				if e.CatalogVersion < version || e.ModuleID != module[e.CatalogVersion] {
					t.Errorf("partition %d, offset %d: version %d after %d, module %q", p, r.Offset, e.CatalogVersion, version, e.ModuleID)
				}
				version = e.CatalogVersion
				if version >= 2 && len(ids) == 0 || version == 5 && len(ids) != 3 {
					t.Errorf("partition %d, offset %d: version %d maps before its moves", p, r.Offset, version)
				}
			}
		}
		if got, want := strings.Join(ids, " "), "catalog-dev-2-0 catalog-dev-3-0 catalog-dev-5-0"; got != want {
			t.Errorf("partition %d: control records %q, want %q", p, got, want)
		}
	}
}

// Rules see what was sent: the type that the first value gave a key, which may
// send later ones to conflicts, does not decide what an event is usage of.
func TestRulesSeeWhatWasSent(t *testing.T) {
	c := newCluster(t)
	c.apply("dev", 1, `catalog: test
products:
  - name: P
    modules:
      - name: M
        features:
          - {name: Discount, events: [], rules: [{event: Clicked, where: [{property: button_id, equals: discount}]}]}
          - {name: Twelve, events: [], rules: [{event: Clicked, where: [{property: button_id, equals: 12}]}]}
          - {name: Anonymous Click, events: [], rules: [{event: Clicked, where: [{property: button_id, exists: false}]}]}
          - {name: Crash, events: [], rules: [{event: Crashed, where: [{property: stack_trace, contains: "main\n"}]}]}
`)
	i := c.start(filepath.Join(t.TempDir(), "a"))
	long := strings.Repeat("x", 70_000) // above metadata-value-bytes
	want := map[string]string{}
	for n, tc := range []struct{ event, properties, feature string }{
		{"Clicked", `{"button_id":7}`, ""},
		{"Clicked", `{"button_id":"discount"}`, "discount"},
		{"Clicked", `{"button_id":12.0}`, "twelve"},
		{"Clicked", `{"button_id":"12"}`, "twelve"},
		{"Clicked", `{"button_id":1.2e1}`, "twelve"},
		{"Clicked", `{"button_id":{"a":1}}`, ""},
		{"Clicked", `{"button_id":{}}`, "anonymous_click"},
		{"Clicked", `{"button.id":"discount"}`, "discount"},
		{"Clicked", `{"button.id":"other","button_id":"discount"}`, "discount"},
		{"Crashed", `{"stack.trace":"` + long + `main\n"}`, "crash"},
	} {
		e := track("dev", 0)
		e.MessageID, e.Event, e.Properties = string(rune('a'+n)), tc.event, []byte(tc.properties)
		want[e.MessageID] = tc.feature
		c.send(c.raw(e))
		if n == 0 {
			c.drained() // the integer comes first
		}
	}
	c.drained()
	i.stopped()
	got := map[string]string{}
	for id, e := range c.find() {
		got[id] = e.FeatureID
	}
	if !maps.Equal(got, want) {
		t.Errorf("features: got %v, want %v", got, want)
	}
}

// An anonymous id that a library made up for one message is no part of the event.
func TestInventedAnonymousIDIsLeftOut(t *testing.T) {
	c := newCluster(t)
	i := c.start(filepath.Join(t.TempDir(), "a"))
	for n, id := range []string{"0000000a-1111-4abc-8def-0123456789ab", "0000000b-1111-4abc-8def-0123456789ab", "0000000b-1111-4abc-8def-0123456789ab"} {
		e := track("dev", n)
		e.UserID, e.AnonymousID, e.Library = "maria", id, "analytics-go/4.2.0"
		c.send(c.raw(e))
	}
	c.drained()
	i.stopped()
	got := c.find()
	for id, want := range map[string][2]string{
		"m-0": {"", "anonymous_id_invented"}, "m-1": {"", "anonymous_id_invented"}, "m-2": {"0000000b-1111-4abc-8def-0123456789ab", ""},
	} {
		e := got[id]
		if have := [2]string{e.AnonymousID, e.Flags}; have != want || e.ActorID != "maria" {
			t.Errorf("%s: got %q of %s, want %q of maria", id, have, e.ActorID, want)
		}
	}
}

// A sender that floods an app with keys gets some, and later ones of another sender
// still have columns.
func TestKeyFloodLeavesRoom(t *testing.T) {
	c := newCluster(t)
	i := c.start(filepath.Join(t.TempDir(), "a"), func(cfg *Config) {
		cfg.Metadata.AppKeys, cfg.Metadata.SourceKeys = 200, 40
	})
	send := func(id, ip, prefix string) {
		e := track("dev", 0)
		var doc strings.Builder
		for k := range 50 {
			fmt.Fprintf(&doc, ",%q:1", fmt.Sprintf("%s%d", prefix, k))
		}
		e.MessageID, e.IP, e.Properties = id, ip, []byte("{"+doc.String()[1:]+"}")
		c.send(c.raw(e))
	}
	for n := range 8 {
		send(fmt.Sprintf("flood%d", n), "203.0.113.7", fmt.Sprintf("f%d_", n))
	}
	c.drained()
	send("honest", "198.51.100.7", "h")
	c.drained()
	i.stopped()
	got := i.metric("uptake_enricher_metadata_no_room_total", "bound=source")
	if want := 8*50 - 40 + 10.0; got != want {
		t.Errorf("values without room: got %v, want %v", got, want)
	}
	columns := 0
	for id, e := range c.find() {
		switch n := strings.Count(string(e.Properties), ":"); {
		case id == "honest" && n != 40:
			t.Errorf("the honest event has %d columns, want 40", n)
		case id != "honest":
			columns += n
		}
	}
	if columns != 40 {
		t.Errorf("the flood has %d columns, want 40", columns)
	}
}

// moved reports whether every partition has the moves of the version.
func (c *cluster) moved(number int64) bool {
	c.t.Helper()
	n := 0
	for _, controls := range c.controls() {
		for _, ctl := range controls {
			if strings.HasPrefix(ctl.ControlID, "catalog-dev-") && strings.Contains(ctl.ControlID, "-"+string(rune('0'+number))+"-") {
				n++
			}
		}
	}
	return n == partitions
}

// What cannot be used is in rejected with its reason and its bytes, and holds up
// nothing.
func TestPoison(t *testing.T) {
	c := newCluster(t)
	i := c.start(filepath.Join(t.TempDir(), "a"), func(cfg *Config) {
		cfg.RecordBytes = 4 << 10
		cfg.OutputBytes = 16 << 10
	})
	good := func(n int) *kgo.Record { return c.raw(track("dev", n)) }
	change := func(f func(*event.RawEvent)) *kgo.Record {
		e := track("dev", 1)
		e.MessageID = "poison"
		f(&e)
		r := c.raw(e)
		r.Partition = 1
		return r
	}
	long := strings.Repeat("x", 2000)
	type reason struct{ code, field string }
	for k, tc := range []struct {
		record *kgo.Record
		want   reason
	}{
		{&kgo.Record{Value: nil}, reason{codeUndecodable, ""}},
		{&kgo.Record{Value: []byte("{}")}, reason{codeUndecodable, ""}},
		{&kgo.Record{Value: []byte{0xC3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9}}, reason{codeUndecodable, ""}},
		{&kgo.Record{Value: good(0).Value[:40]}, reason{codeUndecodable, ""}},
		{&kgo.Record{Value: append(good(0).Value, 0)}, reason{codeUndecodable, ""}},
		{&kgo.Record{Value: c.codec.AppendControl(nil, &event.Control{Kind: event.ControlTick})}, reason{codeUndecodable, ""}},
		{&kgo.Record{Value: []byte(strings.Repeat("x", 64<<10))}, reason{codeUndecodable, ""}},
		{change(func(e *event.RawEvent) { e.Properties = []byte(`{"x":"` + long + long + long + `"}`) }), reason{codeTooLarge, ""}},
		{change(func(e *event.RawEvent) { e.AppID = "" }), reason{codeMissingField, "app_id"}},
		{change(func(e *event.RawEvent) { e.MessageID = "" }), reason{codeMissingField, "message_id"}},
		{change(func(e *event.RawEvent) { e.AppID = long }), reason{codeTooLong, "app_id"}},
		{change(func(e *event.RawEvent) { e.MessageID = long }), reason{codeTooLong, "message_id"}},
		{change(func(e *event.RawEvent) { e.ReceivedAt = 0 }), reason{codeBadTimestamp, "received_at"}},
		{change(func(e *event.RawEvent) { e.ReceivedAt = event.MaxReceived }), reason{codeBadTimestamp, "received_at"}},
		{change(func(e *event.RawEvent) { e.AppID = "d\xff" }), reason{codeBadEvent, "app_id"}},
		{change(func(e *event.RawEvent) { e.Quantity = -1 }), reason{codeBadQuantity, "quantity"}},
		{change(func(e *event.RawEvent) { e.Kind = "dance" }), reason{codeUnknownKind, "type"}},
	} {
		tc.record.Topic = topic.Unprefixed.Raw
		before := len(c.rejects())
		c.send(good(2*k), tc.record, good(2*k+1))
		c.drained()
		all := c.rejects()
		if len(all) != before+1 {
			t.Fatalf("case %d: %d records were rejected, want 1", k, len(all)-before)
		}
		got := all[len(all)-1]
		for _, r := range all {
			if r.RejectedAt > got.RejectedAt {
				got = r
			}
		}
		if have := (reason{got.Code, got.Field}); have != tc.want {
			t.Errorf("case %d: got %+v (%s), want %+v", k, have, got.Detail, tc.want)
		}
		original := string(tc.record.Value)
		if len(original) > 16<<10-rejectedOverhead {
			original = original[:16<<10-rejectedOverhead]
			if !strings.Contains(got.Detail, "only the first") {
				t.Errorf("case %d: the detail does not say that bytes are cut: %s", k, got.Detail)
			}
		}
		if string(got.Original) != original || got.Stage != event.StageEnricher || got.SourcePartition != int64(tc.record.Partition) || got.SourceOffset != tc.record.Offset {
			t.Errorf("case %d: got %d bytes from %d/%d", k, len(got.Original), got.SourcePartition, got.SourceOffset)
		}
	}
	c.send(&kgo.Record{Topic: topic.Unprefixed.Links, Value: []byte("poison")})
	c.wait("the link to be rejected", func() bool { return i.metric("uptake_enricher_links_total", "fate=rejected") == 1 })
	// A rejected id was not processed: repaired and sent again, it is taken.
	c.send(change(func(*event.RawEvent) {}))
	c.drained()
	if _, ok := c.find()["poison"]; !ok {
		t.Error("a repaired event was taken for a duplicate")
	}
	i.stopped()
	if got, want := i.metric("uptake_enricher_records_total", "fate=accepted"), i.metric("uptake_enricher_records_total", "fate=stored")+i.metric("uptake_enricher_records_total", "fate=rejected"); got != want {
		t.Errorf("accepted %v, stored and rejected %v", got, want)
	}
	// What is rejected is counted under the app and the hour that it is rejected
	// under, whatever it says.
	type key struct {
		app  string
		hour int64
	}
	left := map[key]int64{}
	for _, r := range c.rejects() {
		if r.Field != "links" {
			left[key{r.AppID, event.HourOf(r.ReceivedAt)}]++
		}
	}
	for _, list := range c.controls() {
		for _, ctl := range list {
			counts, err := event.ParseCounts(ctl.Payload)
			if ctl.Kind != event.ControlCounts || err != nil {
				continue
			}
			for _, cell := range counts.Cells {
				left[key{cell.AppID, cell.Hour}] -= cell.Rejected
			}
		}
	}
	for k, n := range left {
		if n != 0 {
			t.Errorf("app %.10q, hour %d: %d are rejected and not counted", k.app, k.hour, n)
		}
	}
}

// A predecessor that dies with a transaction open, and whose name nobody takes
// up, holds back its successor until the brokers abort the transaction, and the
// successor says so.
func TestHangingTransactionOfAnother(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	i := c.start(filepath.Join(dir, "a"))
	for n := range 100 {
		c.send(c.raw(track("dev", n)))
	}
	c.drained()
	i.stopped()

	cl, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.TransactionalID("dead"), kgo.TransactionTimeout(3*time.Second), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	e := event.EnrichedEvent{AppID: "dev", MessageID: "never", Kind: event.KindTrack, ReceivedAt: 1}
	if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: 2, Value: c.codec.AppendEnriched(nil, &e)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	i = c.start(filepath.Join(dir, "b"))
	c.wait("the reason to be told", func() bool {
		return strings.Contains(i.health.Ready()["enricher"], "waiting for a transaction")
	})
	c.wait("the brokers to abort it", func() bool { return len(i.health.Ready()) == 0 })
	e2 := track("dev", 1)
	e2.MessageID = "never"
	c.send(c.raw(e2), c.raw(track("dev", 5)))
	c.drained()
	c.check()
	if _, ok := c.find()["never"]; !ok {
		t.Error("an id of an aborted transaction was taken for processed")
	}
	i.stopped()
}

func TestNamesSession(t *testing.T) {
	alphabet := "sesion\"_x"
	rng := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 20_000 {
		doc := make([]byte, rng.IntN(30))
		for i := range doc {
			doc[i] = alphabet[rng.IntN(len(alphabet))]
		}
		if rng.IntN(3) == 0 && len(doc) > 7 {
			copy(doc[rng.IntN(len(doc)-6):], sessionWord)
		}
		want := bytes.Contains(doc, []byte(sessionWord))
		if got := namesSession(doc); got != want {
			t.Fatalf("%s: got %v, want %v", doc, got, want)
		}
		if want {
			found++
		}
	}
	if found < 1000 {
		t.Errorf("the word was in %d documents only", found)
	}
	for _, key := range sessionKeys {
		if !namesSession([]byte(key)) {
			t.Errorf("a document with %s is not looked into", key)
		}
	}
}
