package repair_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// totals are the sums of each account and feature by day, and the roles' of each actor that
// is not erased.
func (b *bench) totals() []string {
	b.T.Helper()
	var list []string
	for _, q := range []string{
		"SELECT concat(account_id, '|', feature_id, '|', toString(day), '|', toString(sum(events)), '|', toString(sum(quantity))) FROM account_feature_daily GROUP BY account_id, feature_id, day HAVING sum(events) != 0",
		"SELECT concat(actor_kind, '|', actor_id, '|', account_id, '|', toString(sum(events))) FROM user_feature_daily GROUP BY actor_kind, actor_id, account_id HAVING sum(events) != 0",
	} {
		rows, err := b.SQL.Query(context.Background(), q)
		if err != nil {
			b.T.Fatal(err)
		}
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				b.T.Fatal(err)
			}
			list = append(list, s)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			b.T.Fatal(err)
		}
	}
	slices.Sort(list)
	return list
}

// naming are the rows of the tables that have a text anywhere in them, by table.
func (b *bench) naming(text string) map[string]int64 {
	b.T.Helper()
	found := map[string]int64{}
	for _, name := range append(blockTables(), "signal_log") {
		if n := b.Number("SELECT count() FROM " + b.Schema.Local(name) + " AS x WHERE position(toString(tuple(x.*)), '" + text + "') > 0"); n > 0 {
			found[name] = n
		}
	}
	return found
}

const person = "u-7"

// others are events of everybody but the person.
func others(list []*event.EnrichedEvent) []*event.EnrichedEvent {
	return slices.DeleteFunc(list, func(e *event.EnrichedEvent) bool { return e.UserID == person })
}

// order has something of the person moved, in a control record that does not name them
// otherwise.
func (b *bench) order(move event.Move) {
	b.T.Helper()
	payload, err := event.Moves{Moves: []event.Move{move}}.Payload()
	if err != nil {
		b.T.Fatal(err)
	}
	c := &event.Control{Kind: event.ControlMove, AppID: "dev", ControlID: "order", CreatedAt: 1, Payload: payload}
	b.Produce(topic.Unprefixed.Enriched, writertest.PartitionOf(&event.EnrichedEvent{ActorID: person}), b.Codec.AppendControl(nil, c))
}

// erasePerson leaves in the log what enrichers leave there when they carry out an order to
// erase.
func (b *bench) erasePerson() {
	b.T.Helper()
	key := []byte(strings.Repeat("k", event.EraseKeyBytes))
	h := event.NewEraseHasher(key).Hash(topic.KeyUser, person)
	body, err := json.Marshal(event.ErasedIDs{Key: key, Hashes: [][]byte{h[:]}})
	if err != nil {
		b.T.Fatal(err)
	}
	b.Produce(topic.Unprefixed.EnricherState, 0, b.Codec.AppendIdentityState(nil, &event.IdentityState{Kind: event.StateErased, AppID: "dev", RawPartition: -1, RawOffset: -1, Body: body}))
	b.order(event.Move{
		Match: event.Attribution{ActorID: writertest.Ptr(person), ActorKind: writertest.Ptr(event.ActorUser)},
		Set:   event.Attribution{ActorID: writertest.Ptr(""), ActorKind: writertest.Ptr(event.ActorErased), UserID: writertest.Ptr(""), AnonymousID: writertest.Ptr(""), Role: writertest.Ptr("")},
	})
}

// file is the path of a backup.
func (b *bench) file(name string) string {
	b.T.Helper()
	var path string
	if err := b.SQL.QueryRow(context.Background(), "SELECT path FROM system.disks WHERE name = 'default'").Scan(&path); err != nil {
		b.T.Fatal(err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSuffix(path, "/")), "backups", name)
}

// A backup is taken under load; what came after it is read from the log again. Somebody
// who was erased in between is in no table at any moment after the restore, and every
// total is what it was.
func TestRestoreAppliesErasures(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	b.init()
	e := &writertest.Enricher{B: b.Bench}
	w := b.start()
	e.Transaction(events(90, 60), 2, 2)
	b.AwaitSettled()
	name := b.Schema.Database + "-personal-data.tar.gz"
	made := make(chan error, 1)
	var backup *repair.Backup
	go func() { // ends with the backup, which the test waits for
		var err error
		backup, err = repair.MakeBackup(ctx, b.cfg.Config, name, time.Minute, b.Log)
		made <- err
	}()
	for i := range 6 {
		e.Transaction(events(uint64(91+i), 20), 1, 1)
		time.Sleep(20 * time.Millisecond)
	}
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, writers paused for %s, manifest %+v", backup.Bytes, backup.Paused, backup.Manifest)
	if info, err := os.Stat(b.file(name)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup: %v, %v", info, err)
	}
	// After the backup: the person's usage moves to another account, and the person is
	// erased.
	e.Transaction(events(97, 30), 0, 0)
	b.order(event.Move{Match: event.Attribution{ActorID: writertest.Ptr(person), ActorKind: writertest.Ptr(event.ActorUser)}, Set: event.Attribution{AccountID: writertest.Ptr("moved")}})
	b.erasePerson()
	e.Transaction(others(events(98, 30)), 0, 0)
	e.Commit()
	b.AwaitSettled()
	w.End()
	want := b.totals()
	if !slices.ContainsFunc(want, func(s string) bool { return strings.HasPrefix(s, event.ActorErased+"||moved|") }) {
		t.Fatalf("nothing was erased: %q", want)
	}
	if len(b.naming(person)) == 0 {
		t.Fatal("nothing names the person before the tables are rewritten")
	}

	if _, err := repair.RestoreBackup(ctx, b.cfg.Config, repair.RestoreConfig{From: name}, b.Log); err == nil || !strings.Contains(err.Error(), "into empty tables only") {
		t.Fatalf("restored over rows: %v", err)
	}
	b.empty(blockTables()...)
	report, err := repair.RestoreBackup(ctx, b.cfg.Config, repair.RestoreConfig{From: name}, b.Log)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil || !report.Complete() || report.Rows == 0 {
		t.Errorf("report %+v, %v", report, err)
	}
	t.Log(text.String())
	nobody := func(when string) {
		t.Helper()
		if found := b.naming(person); len(found) > 0 {
			t.Errorf("%s, these name the person: %v", when, found)
		}
	}
	nobody("restored")
	if equal, found := b.Audited(); !equal {
		t.Errorf("restored:\n%s", found)
	}
	w = b.start()
	b.AwaitSettled()
	nobody("written from the log")
	w.End()
	if got := b.totals(); !slices.Equal(got, want) {
		t.Errorf("totals are\n%q\nwant\n%q", got, want)
	}
	e.Conserved()
	if balanced, text := said(b); !balanced {
		t.Errorf("written from the log:\n%s", text)
	}
	if equal, found := b.Audited(); !equal {
		t.Errorf("written from the log:\n%s", found)
	}
}

// Without the list of the erased nothing is restored or rebuilt: neither where the topic
// was made anew, nor, whatever the operator says, where it is empty.
func TestErasuresMustBeKnown(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	filled(b)
	name := b.Schema.Database + "-dir"
	if _, err := repair.MakeBackup(ctx, b.cfg.Config, name, time.Minute, b.Log); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(b.file(name)); err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		t.Errorf("backup: %v, %v", info, err)
	}
	want := b.totals()
	if _, err := b.Admin.DeleteTopic(ctx, topic.Unprefixed.EnricherState); err != nil {
		t.Fatal(err)
	}
	layout := topic.SingleLayout()
	layout.Partitions, layout.RejectedPartitions = partitions, 1
	if err := topic.Unprefixed.Ensure(ctx, b.Admin, layout); err != nil {
		t.Fatal(err)
	}
	rebuild := repair.DefaultRebuildConfig()
	rebuild.App, rebuild.FromLog = "dev", true
	if _, err := repair.Rebuild(ctx, b.cfg.Config, rebuild, b.Log); !errors.Is(err, erase.ErrUnknown) {
		t.Errorf("rebuild from the log: %v", err)
	}
	b.empty(blockTables()...)
	from := func(erasures bool) error {
		_, err := repair.RestoreBackup(ctx, b.cfg.Config, repair.RestoreConfig{From: name, Erasures: erasures}, b.Log)
		return err
	}
	if err := from(false); err == nil || !strings.Contains(err.Error(), "who was erased since the backup") || !strings.Contains(err.Error(), "-erasures-are-known") {
		t.Errorf("of another topic: %v", err)
	}
	if err := from(true); !errors.Is(err, erase.ErrUnknown) {
		t.Errorf("of an empty topic: %v", err)
	}
	if n := b.Number("SELECT count() FROM events"); n != 0 {
		t.Errorf("%d events are readable", n)
	}
	b.MarkState()
	if err := from(true); err != nil { // goes on from where it was refused
		t.Fatal(err)
	}
	if got := b.totals(); !slices.Equal(got, want) {
		t.Errorf("totals are\n%q\nwant\n%q", got, want)
	}
	if n := b.Number("SELECT count() FROM system.databases WHERE startsWith(name, '" + b.Schema.Database + "_restoring')"); n != 0 {
		t.Errorf("%d databases of the restore are left", n)
	}
}

// A Kafka that was made anew beside a ClickHouse that knows identities is not begun with
// silently: events would count for others than before.
func TestNewKafkaBesideIdentities(t *testing.T) {
	ctx := context.Background()
	addr, db := sqltest.Database(t)
	filled(newBenchAt(t, addr, db))
	anew := newBenchAt(t, addr, db)
	for what, begin := range map[string]func(bool) error{
		"init":        func(without bool) error { return repair.Init(ctx, anew.cfg.Config, without, anew.Log) },
		"init -reset": func(without bool) error { return repair.Reset(ctx, anew.cfg.Config, without, anew.Log) },
	} {
		if err := begin(false); err == nil || !strings.Contains(err.Error(), "ClickHouse knows identities") || !strings.Contains(err.Error(), "enricher state import") {
			t.Errorf("%s: %v", what, err)
		}
	}
	anew.Produce(topic.Unprefixed.EnricherState, 0, nil) // a record without a key says nothing
	if err := repair.Init(ctx, anew.cfg.Config, true, anew.Log); err != nil {
		t.Errorf("init -without-identities: %v", err)
	}
	if err := repair.Reset(ctx, anew.cfg.Config, false, anew.Log); err != nil {
		t.Errorf("after the group has begun: %v", err)
	}
	third := newBenchAt(t, addr, db)
	r := &kgo.Record{Topic: topic.Unprefixed.EnricherState, Partition: 1, Key: topic.Key(nil, "dev", topic.KeyUser, "u-1"), Value: []byte("any")}
	if err := third.Client.ProduceSync(ctx, r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := repair.Init(ctx, third.cfg.Config, false, third.Log); err != nil {
		t.Errorf("with identities: %v", err)
	}
}

// Both are lost, with a backup of ClickHouse and a copy of identity state: everything is as
// it was at the backup, but for the person who was erased since. New topics begin at 0.
func TestBothLost(t *testing.T) {
	ctx := context.Background()
	addr, db := sqltest.Database(t)
	old := newBenchAt(t, addr, db)
	filled(old)
	name := db + "-both"
	if _, err := repair.MakeBackup(ctx, old.cfg.Config, name, time.Minute, old.Log); err != nil {
		t.Fatal(err)
	}
	var want []string
	erased := map[string]int64{}
	for _, cell := range old.totals() { // as they are when the person has no name
		f := strings.Split(cell, "|")
		if f[0] == event.ActorUser && f[1] == person {
			n, err := strconv.ParseInt(f[3], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			erased[f[2]] += n
			continue
		}
		want = append(want, cell)
	}
	for account, n := range erased {
		want = append(want, fmt.Sprintf("%s||%s|%d", event.ActorErased, account, n))
	}
	slices.Sort(want)
	if len(erased) == 0 {
		t.Fatal("the person did nothing")
	}
	old.empty(blockTables()...)

	b := newBenchAt(t, addr, db)
	b.erasePerson() // the order is in no log that the backup knows; its control record moves nothing
	if _, err := repair.RestoreBackup(ctx, b.cfg.Config, repair.RestoreConfig{From: name}, b.Log); err == nil || !strings.Contains(err.Error(), "-erasures-are-known") {
		t.Fatalf("without a word about erasures: %v", err)
	}
	report, err := repair.RestoreBackup(ctx, b.cfg.Config, repair.RestoreConfig{From: name, Erasures: true}, b.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range report.Starts {
		if st.Offset != 0 || st.Lost != 0 {
			t.Errorf("starts at %+v", st)
		}
	}
	if got := b.totals(); !slices.Equal(got, want) {
		t.Errorf("totals are\n%q\nwant\n%q", got, want)
	}
	if found := b.naming(person); len(found) > 0 {
		t.Errorf("these name the person: %v", found)
	}
	w := b.start()
	late := others(events(88, 20))
	e := &writertest.Enricher{B: b.Bench}
	e.Transaction(late, 0, 0)
	b.AwaitSettled()
	w.End()
	if n := b.Number("SELECT count() FROM events WHERE startsWith(message_id, 'm-88-')"); n != int64(len(late)) {
		t.Errorf("%d of %d events of the new topics are stored", n, len(late))
	}
	if equal, found := b.Audited(); !equal {
		t.Errorf("audit:\n%s", found)
	}
}
