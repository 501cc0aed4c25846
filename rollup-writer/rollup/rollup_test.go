package rollup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// What is sent is in events and in every rollup, once, also over a restart.
func TestWritesWhatIsSent(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	b.Send(events(1, 500))
	b.Check()
	if got, want := w.Metric("uptake_writer_rows_written_total"), float64(len(b.Sent)); got != want {
		t.Errorf("rows written: got %v, want %v", got, want)
	}
	w.End()
	b.Send(events(2, 300))
	b.Produce(topic.Unprefixed.Rejected, 0, b.Codec.AppendRejected(nil, &event.Rejected{
		AppID: "dev", Stage: event.StageGateway, Code: "missing_event", Original: []byte(`{"type":"track"}`), SourcePartition: -1, SourceOffset: -1,
	}))
	w = b.start()
	b.Check()
	if got := b.Number("SELECT count() FROM rejected_events WHERE original = '{\"type\":\"track\"}'"); got != 1 {
		t.Errorf("rejected_events has it %d times", got)
	}
	b.Await("readiness", func() bool { return len(w.Health.Ready()) == 0 })
	read, written, released, pending := w.Metric("uptake_writer_rows_read_total"), w.Metric("uptake_writer_rows_written_total"),
		w.Metric("uptake_writer_rows_released_total"), w.Metric("uptake_writer_rows_pending")
	if read != written+released+pending || written != 301 {
		t.Errorf("read %v, written %v, released %v, pending %v", read, written, released, pending)
	}
	w.End()
	if !strings.Contains(b.Lines.String(), "msg=stopped rows_written=301") {
		t.Error("the end does not say what was written")
	}
}

// A writer says in its commits whether something may have been sent from the
// boundary on: whoever repairs tables has to know.
func TestCommitsSayWhetherAnythingIsOpen(t *testing.T) {
	b := newBench(t)
	b.init()
	states := func() (open, clean int) {
		st, err := boundary.Read(context.Background(), b.Admin, topic.Unprefixed, boundary.Topics(topic.Unprefixed))
		if err != nil {
			t.Fatal(err)
		}
		st.Commits.Each(func(o kadm.OffsetResponse) {
			c, err := block.ParseCommit(o.Metadata)
			if err != nil {
				t.Fatal(err)
			}
			if c.Clean {
				clean++
			} else {
				open++
			}
		})
		return open, clean
	}
	for round := range 2 {
		if open, clean := states(); open != 0 || clean != partitions+1 {
			t.Fatalf("before round %d: %d partitions open, %d clean", round, open, clean)
		}
		w := b.start()
		b.Send(events(uint64(round), 100))
		b.Check()
		if open, clean := states(); open != partitions || clean != 1 {
			t.Errorf("in round %d: %d partitions open, %d clean; want those that rows were sent of open", round, open, clean)
		}
		w.End()
	}
	if open, clean := states(); open != 0 || clean != partitions+1 {
		t.Errorf("at the end: %d partitions open, %d clean", open, clean)
	}
}

// Every block of the log again, corrections too: nothing changes.
func TestRepeatedBlocksCountOnce(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	for i := range 5 {
		b.Send(events(uint64(i), 60))
	}
	b.Move("u-1", event.Move{Match: event.Attribution{ActorID: writertest.Ptr("u-1")}, Set: event.Attribution{AccountID: writertest.Ptr("acct-moved")}})
	b.Check(moveAccount("u-1", "acct-moved"))
	w.End()
	for range 2 {
		b.Rewind()
		w := b.start()
		b.Check(moveAccount("u-1", "acct-moved"))
		if got := w.Metric("uptake_writer_rows_written_total"); got != float64(len(b.Sent)) {
			t.Errorf("the repeat wrote %v rows, want all %d again", got, len(b.Sent))
		}
		w.End()
	}
}

func moveAccount(actor, account string) func(*event.EnrichedEvent) {
	return func(e *event.EnrichedEvent) {
		if e.ActorID == actor {
			e.AccountID = account
		}
	}
}

// Writers come, go, and die at random while events, aborted transactions and
// corrections are written.
func TestWritersComeAndGo(t *testing.T) {
	b := newBench(t)
	b.init()
	r := rand.New(rand.NewPCG(3, 4))
	producer, err := kgo.NewClient(kgo.SeedBrokers(b.Kafka.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("enricher"))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	transaction := func(list []*event.EnrichedEvent, end kgo.TransactionEndTry) {
		t.Helper()
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			producer.Produce(context.Background(), &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: partitionOf(e), Value: b.Codec.AppendEnriched(nil, e)}, nil)
		}
		if err := producer.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := producer.EndTransaction(context.Background(), end); err != nil {
			t.Fatal(err)
		}
	}
	live := []*writer{b.start(), b.start()}
	for step := range 14 {
		list := events(uint64(100+step), 1+r.IntN(60))
		transaction(list, kgo.TryCommit)
		b.Sent = append(b.Sent, list...)
		transaction(events(uint64(900+step), 5), kgo.TryAbort)
		if step == 5 {
			b.Move("u-2", event.Move{Match: event.Attribution{ActorID: writertest.Ptr("u-2"), Event: writertest.Ptr("none of these")}, Set: event.Attribution{AccountID: writertest.Ptr("x")}})
		}
		victim := r.IntN(len(live))
		switch r.IntN(3) {
		case 0:
			live[victim].Kill()
			<-live[victim].Done
		case 1:
			live[victim].End()
		default:
			continue
		}
		live[victim] = b.start()
	}
	b.Check()
	for _, w := range live {
		w.End()
	}
}

// A rebalance that brings a partition while the writer stops begins nothing: what
// it began would never end, and the stop would wait for it.
func TestNothingIsBegunWhileStopping(t *testing.T) {
	s, err := New(DefaultConfig(), Dependencies{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if s.client, err = kgo.NewClient(); err != nil {
		t.Fatal(err)
	}
	defer s.client.Close()
	s.removeAll()
	s.assigned(context.Background(), s.client, map[string][]int32{topic.Unprefixed.Enriched: {0}})
	if p := s.partition(topic.Unprefixed.Enriched, 0); p != nil {
		p.revoke()
		t.Error("a partition was begun")
	}
	s.wg.Wait()
}

// Poll finds a queue full, and build drains it before poll has had fetching
// paused: the partition is not paused forever.
func TestALatePauseDoesNotStay(t *testing.T) {
	s, err := New(DefaultConfig(), Dependencies{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if s.client, err = kgo.NewClient(); err != nil {
		t.Fatal(err)
	}
	defer s.client.Close()
	p := s.newPartition(topic.Unprefixed.Enriched, 0)
	defer p.revoke()
	s.partitions[topic.Unprefixed.Enriched] = map[int32]*partition{0: p}
	full := []*kgo.Record{{Value: make([]byte, s.cfg.QueueBytes)}}
	paused := func() int { return len(s.client.PauseFetchPartitions(nil)[topic.Unprefixed.Enriched]) }

	if !p.queue.put(full) {
		t.Fatal("a full queue does not ask for a pause")
	}
	p.queue.take()
	if !p.queue.drained() {
		t.Fatal("a drained queue does not ask to go on")
	}
	s.throttle(p) // build's
	s.throttle(p) // poll's
	if n := paused(); n != 0 {
		t.Errorf("%d partitions are paused with an empty queue", n)
	}
	p.queue.put(full)
	s.throttle(p)
	if n := paused(); n != 1 {
		t.Errorf("%d partitions are paused with a full queue", n)
	}
}

// The last view of the chain fails for a while: the table and the first rollup
// have the block already, and the repeats fill in what is missing.
func TestAViewThatFailsIsHealed(t *testing.T) {
	b := newBench(t)
	b.init()
	ctx := context.Background()
	exec := func(q string) {
		t.Helper()
		if err := b.SQL.Exec(ctx, q); err != nil {
			t.Fatalf("%v in %s", err, q)
		}
	}
	var query string
	if err := b.SQL.QueryRow(ctx, "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = 'user_feature_daily_view'").Scan(&query); err != nil {
		t.Fatal(err)
	}
	exec("ALTER TABLE user_feature_daily_view MODIFY QUERY " + query + " WHERE throwIf(event != '', 'fuse') = 0")
	w := b.start()
	b.Send(events(1, 200))
	b.Await("failed attempts", func() bool { return w.Metric("uptake_writer_retries_total", "server") >= 3 })
	if why := w.Health.Ready()["rollup-writer"]; !strings.Contains(why, "fuse") {
		t.Errorf("health does not name the reason: %q", why)
	}
	if got := b.Number("SELECT count() FROM events"); got == 0 || got > int64(len(b.Sent)) {
		t.Errorf("events has %d rows while the view fails, want some and no more than %d", got, len(b.Sent))
	}
	exec("ALTER TABLE user_feature_daily_view MODIFY QUERY " + query)
	b.Check()
	b.Await("readiness", func() bool { return len(w.Health.Ready()) == 0 })
}

// Connections are cut at INSERT statements: before, within and after the block.
func TestConnectionsAreCut(t *testing.T) {
	b := newBench(t)
	b.init()
	r := rand.New(rand.NewPCG(5, 6))
	p := newProxy(t, b.cfg.ClickHouse.Addr, func(int) fault { return fault(r.IntN(4)) })
	w := b.start(func(c *Config) { c.ClickHouse.Addr = p.addr() })
	correct := b.Corrections()
	for i := range 6 {
		late := events(uint64(i+10), 80)
		for _, e := range late {
			e.MessageID = "late-" + e.MessageID
		}
		b.Send(late)
	}
	b.Check(correct)
	if got := w.Metric("uptake_writer_retries_total", "lost"); got < 3 {
		t.Errorf("%v attempts were lost: the proxy cut next to nothing", got)
	}
}

// A server that says nothing is given up after the time that is set, without
// being told to cancel.
func TestASilentServerIsGivenUp(t *testing.T) {
	b := newBench(t)
	b.init()
	p := newProxy(t, b.cfg.ClickHouse.Addr, func(n int) fault {
		if n <= 2 {
			return cutLast
		}
		return pass
	})
	w := b.start(func(c *Config) { c.ClickHouse.Addr, c.ClickHouse.Silence = p.addr(), time.Second })
	b.Send(events(1, 50))
	b.Check()
	if got := w.Metric("uptake_writer_retries_total", "lost"); got < 1 {
		t.Errorf("%v attempts were lost, want some", got)
	}
}

func TestCorrections(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	correct := b.Corrections()
	b.Check(correct)
	if got := w.Metric("uptake_writer_corrections_total"); got != 3 {
		t.Errorf("%v corrections, want 3", got)
	}
	signed := b.Number("SELECT sum(abs(events)) FROM corrections")
	if sum := b.Number("SELECT sum(events) FROM corrections"); signed == 0 || sum != 0 {
		t.Errorf("corrections sum to %d of %d", sum, signed)
	}
}

// From and To narrow a move to hours; a move that changes nothing moves nothing.
func TestCorrectionsOfHours(t *testing.T) {
	b := newBench(t)
	b.init()
	b.start()
	b.Send(events(1, 300))
	from := time.Date(2026, 11, 20, 12, 0, 0, 1000, time.UTC) // hours from 13:00
	to := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)       // hours before 06:00
	b.Move("u-3",
		event.Move{Match: event.Attribution{ActorID: writertest.Ptr("u-3")}, From: event.FromTime(from), To: event.FromTime(to), Set: event.Attribution{Role: writertest.Ptr("it's \\ a role")}},
		event.Move{Match: event.Attribution{ActorID: writertest.Ptr("u-3")}, Set: event.Attribution{Role: writertest.Ptr("cashier")}})
	b.Check(func(e *event.EnrichedEvent) {
		hour := event.ToTime(e.EventTime).Truncate(time.Hour)
		if e.ActorID == "u-3" && !hour.Before(from) && hour.Before(to) {
			e.Role = "it's \\ a role"
		}
	})
	if got := b.Number("SELECT countIf(role = 'cashier' AND events > 0) FROM corrections"); got != 0 {
		t.Errorf("%d rows were moved to where they were", got)
	}
}

// A correction of more rows than a block takes is carried out in chunks.
func TestLargeCorrections(t *testing.T) {
	b := newBench(t)
	b.init()
	const rows = chunkRows + 20_000 // signed rows are twice as many
	err := b.SQL.Exec(context.Background(), fmt.Sprintf(`INSERT INTO usage_hourly (app_id, actor_id, actor_kind, feature_id, hour, source_partition, events, quantity)
		SELECT 'dev', concat('u-', toString(number)), 'user', 'f-x', toDateTime('2026-01-01 00:00:00', 'UTC') + 3600 * (number %% 5000), %d, 1, 2 FROM numbers(%d)`,
		partitionOf(&event.EnrichedEvent{ActorID: "u-0"}), rows))
	if err != nil {
		t.Fatal(err)
	}
	w := b.start()
	b.Move("u-0", event.Move{Match: event.Attribution{FeatureID: writertest.Ptr("f-x")}, Set: event.Attribution{FeatureID: writertest.Ptr("f-y")}})
	b.Await("the correction", func() bool { return w.Metric("uptake_writer_corrections_total") == 1 })
	b.AwaitSettled()
	for feature, want := range map[string]int64{"f-x": 0, "f-y": rows} {
		for _, table := range []string{"usage_hourly", "user_feature_daily"} {
			if got := b.Number("SELECT sum(events) FROM "+table+" WHERE feature_id = ?", feature); got != want {
				t.Errorf("%s of %s: got %d, want %d", table, feature, got, want)
			}
		}
	}
	if got, want := b.Number("SELECT uniqExact(_part) FROM corrections"), int64(3); got != want {
		t.Errorf("corrections were inserted in %d parts, want %d", got, want)
	}
}

// ClickHouse goes away under load and comes back: the lag grows, readiness says
// why, and the writer catches up by itself.
func TestClickHouseGoesAndComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	ctx := context.Background()
	cfg := embedded.Config{DataDir: t.TempDir()}
	server, err := embedded.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.NativeAddr, cfg.HTTPAddr = server.NativeAddr(), server.HTTPAddr()
	b := newBenchAt(t, server.NativeAddr(), "uptake", func(c *Config) { c.QueueBytes = 1 << 16 })
	b.init()
	w := b.start()
	b.Send(events(1, 100))
	b.Check()
	for round := range 2 {
		if round == 0 {
			err = server.Stop(ctx)
		} else {
			server.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
		sends := 0
		b.Await("fetching to pause", func() bool {
			if w.Metric("uptake_writer_paused_partitions") > 0 {
				return true
			}
			sends++
			b.Send(events(uint64(100_000*round+sends+10), 100))
			return false
		})
		b.Await("readiness to say why", func() bool { return strings.Contains(w.Health.Ready()["rollup-writer"], "connect to ClickHouse") })
		b.Await("the lag to grow", func() bool { return w.Metric("uptake_writer_lag_records") > 500 })
		if server, err = embedded.Start(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		b.Check()
		b.Await("readiness", func() bool { return len(w.Health.Ready()) == 0 })
		b.Await("no lag", func() bool {
			return w.Metric("uptake_writer_lag_records") == 0 && w.Metric("uptake_writer_paused_partitions") == 0
		})
	}
	w.End()
	if err := server.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// A writer that starts while ClickHouse is away waits for it.
func TestStartsWithoutClickHouse(t *testing.T) {
	b := newBench(t)
	b.init()
	b.Send(events(1, 20))
	refused := newProxy(t, "127.0.0.1:1", func(int) fault { return pass })
	w := b.start(func(c *Config) { c.ClickHouse.Addr = refused.addr() })
	b.Await("readiness to say why", func() bool {
		return strings.Contains(w.Health.Ready()["rollup-writer"], "clickhouse: ask clickhouse: look for database")
	})
	w.End()
}

// A rebalance calls the question where to begin off: that is no reason to refuse a
// partition, which would stand still until it is somebody else's.
func TestWhereToBeginIsCalledOff(t *testing.T) {
	b := newBench(t)
	b.init()
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	b.Kafka.ControlKey(kmsg.DescribeConfigs.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel()
		<-returned // the answer comes too late
		return nil, nil, false
	})
	s := &Service{cfg: b.cfg, names: topic.Unprefixed, admin: b.Admin}
	starts, err := s.starts(ctx, map[string]map[int32]kgo.Offset{topic.Unprefixed.Enriched: {0: kgo.NewOffset()}})
	close(returned)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, refused: %v; want that it was called off", err, starts[topic.Unprefixed.Enriched][0].Refused)
	}
}

// What must not be begun is refused, with what to do.
func TestRefusals(t *testing.T) {
	commit := func(b *bench, at int64, metadata string) {
		b.T.Helper()
		var offsets kadm.Offsets
		for p := range int32(partitions) {
			offsets.Add(kadm.Offset{Topic: topic.Unprefixed.Enriched, Partition: p, At: at, LeaderEpoch: -1, Metadata: metadata})
		}
		if _, err := b.Admin.CommitOffsets(context.Background(), topic.Unprefixed.GroupRollupWriter, offsets); err != nil {
			b.T.Fatal(err)
		}
	}
	alter := func(b *bench, name, key, value string) {
		b.T.Helper()
		_, err := b.Admin.AlterTopicConfigs(context.Background(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, name)
		if err != nil {
			b.T.Fatal(err)
		}
	}
	addr, db := sqltest.Database(t)
	for _, tc := range []struct {
		name    string
		prepare func(*bench)
		change  func(*Config)
		halted  []string // in the health of partitions
		fails   []string // in the error of Run
		alters  bool     // tables, so that it has its own
	}{
		{name: "no commit", prepare: func(*bench) {}, halted: []string{"has no commit", "rollup-writer init"}},
		{name: "foreign commit", prepare: func(b *bench) { b.init(); commit(b, 0, "") }, halted: []string{"was not made by rollup-writer"}},
		{
			name: "other N", prepare: func(b *bench) { b.init() }, change: func(c *Config) { c.BlockRecords = 10 },
			halted: []string{"block-records|block-interval 50000|50, and this writer has 10|50"},
		},
		{
			name: "other T", prepare: func(b *bench) { b.init() }, change: func(c *Config) { c.BlockInterval = time.Minute },
			halted: []string{"50000|50, and this writer has 50000|60000"},
		},
		{
			name: "rebuild under way", prepare: func(b *bench) {
				b.init()
				st, err := boundary.Read(context.Background(), b.Admin, topic.Unprefixed, boundary.Topics(topic.Unprefixed))
				if err != nil {
					b.T.Fatal(err)
				}
				commit(b, 0, block.Commit{Shape: b.cfg.Shape(), TopicID: st.Topics[topic.Unprefixed.Enriched].ID.String(), Rebuild: true}.Metadata())
			},
			halted: []string{"a rebuild was cut short: run `rollup-writer rebuild` to its end"},
		},
		{
			name: "commit of the rule before", prepare: func(b *bench) {
				b.init()
				commit(b, 0, "v1|50000|50|AAAA|0|0|clean")
			},
			halted: []string{"by another rule (v1)", "stop them with SIGTERM", "rollup-writer init"},
		},
		{
			name: "topic made again", prepare: func(b *bench) {
				b.init()
				commit(b, 0, block.Commit{Shape: b.cfg.Shape(), TopicID: "another"}.Metadata())
			},
			halted: []string{"deleted and created again"},
		},
		{
			name: "below the log's start", prepare: func(b *bench) {
				b.init()
				b.Send(events(1, 100))
				var offsets kadm.Offsets
				for p := range int32(partitions) {
					offsets.Add(kadm.Offset{Topic: topic.Unprefixed.Enriched, Partition: p, At: 5})
				}
				if _, err := b.Admin.DeleteRecords(context.Background(), offsets); err != nil {
					b.T.Fatal(err)
				}
			},
			halted: []string{"written up to 0, and the log begins at 5", "retention"},
		},
		{
			name: "beyond the log's end", prepare: func(b *bench) {
				b.init()
				st, err := boundary.Read(context.Background(), b.Admin, topic.Unprefixed, boundary.Topics(topic.Unprefixed))
				if err != nil {
					b.T.Fatal(err)
				}
				commit(b, 9, block.Commit{Shape: b.cfg.Shape(), TopicID: st.Topics[topic.Unprefixed.Enriched].ID.String()}.Metadata())
			},
			halted: []string{"written up to 9, and the log ends at 0"},
		},
		{
			name: "unknown control kind", prepare: func(b *bench) {
				b.init()
				b.Produce(topic.Unprefixed.Enriched, 0, b.Codec.AppendControl(nil, &event.Control{Kind: "swap"}))
				b.Produce(topic.Unprefixed.Enriched, 1, b.Codec.AppendControl(nil, &event.Control{Kind: "swap"}))
			},
			halted: []string{`control record of unknown kind "swap"`, "release of rollup-writer that knows it"},
		},
		{
			name: "record of a newer version", prepare: func(b *bench) {
				b.init()
				b.Produce(topic.Unprefixed.Enriched, 0, newer)
				b.Produce(topic.Unprefixed.Enriched, 1, newer)
			},
			halted: []string{"add uptake.enriched.v1/0@0 to -skip-records"},
		},
		{
			name: "unreadable moves", prepare: func(b *bench) {
				b.init()
				for p := range int32(partitions) {
					b.Produce(topic.Unprefixed.Enriched, p, b.Codec.AppendControl(nil, &event.Control{Kind: event.ControlMove, Payload: []byte(`{"moves":[]}`)}))
				}
			},
			halted: []string{"moves must hold 1 to 64"},
		},
		{
			name: "timestamps of producers", prepare: func(b *bench) { b.init(); alter(b, topic.Unprefixed.Enriched, "message.timestamp.type", "CreateTime") },
			fails: []string{`uptake.enriched.v1 has message.timestamp.type="CreateTime"`},
		},
		{
			name: "no dedup window", prepare: func(b *bench) {
				b.init()
				if err := b.SQL.Exec(context.Background(), "ALTER TABLE account_module_daily RESET SETTING non_replicated_deduplication_window"); err != nil {
					b.T.Fatal(err)
				}
			},
			fails: []string{"account_module_daily` has no dedup window", "ALTER TABLE"}, alters: true,
		},
		{
			name: "unknown schema", prepare: func(b *bench) {
				b.init()
				if err := b.SQL.Exec(context.Background(), "INSERT INTO schema_migrations VALUES (9001, '9001_later', 'y', 'single', now())"); err != nil {
					b.T.Fatal(err)
				}
			},
			fails: []string{"9001_later, which this binary does not know"}, alters: true,
		},
		{
			name: "no database", prepare: func(b *bench) { b.init() }, change: func(c *Config) { c.ClickHouse.Database = "nowhere" },
			fails: []string{"rollup-writer migrate"},
		},
		{
			name: "cluster form on a server with the bug", prepare: func(b *bench) { b.init() }, change: func(c *Config) { c.ClickHouse.Cluster = "main" },
			fails: []string{"112649", "26.8.36.3"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr, db := addr, db
			if tc.alters {
				addr, db = sqltest.Database(t)
			}
			b := newBenchAt(t, addr, db)
			tc.prepare(b)
			if tc.change == nil {
				tc.change = func(*Config) {}
			}
			w := b.start(tc.change)
			if tc.fails != nil {
				<-w.Done
				for _, want := range tc.fails {
					if w.Err == nil || !strings.Contains(w.Err.Error(), want) {
						t.Errorf("Run: got %v, want %q in it", w.Err, want)
					}
				}
				return
			}
			b.Await("every partition to halt", func() bool {
				return w.Metric("uptake_writer_halted_partitions", topic.Unprefixed.Enriched) == partitions
			})
			why := w.Health.Ready()["rollup-writer"]
			for _, want := range tc.halted {
				if !strings.Contains(why, want) {
					t.Errorf("health: got %q, want %q in it", why, want)
				}
			}
			w.End()
			if got := b.Number("SELECT count() FROM events"); got != 0 {
				t.Errorf("%d rows were written", got)
			}
		})
	}
}

// newer begins like a record whose schema only a newer release has.
var newer = []byte{0xC3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9}

// What no release can have written is kept with its bytes, counted, and holds
// nothing up, however often the block that it stands in is repeated.
func TestPoisonIsSetAside(t *testing.T) {
	b := newBench(t)
	b.init()
	good := b.Codec.AppendEnriched(nil, events(2, 1)[0])
	want := map[string]int{}
	poison := func(name string, partition int32, value []byte) {
		b.Produce(name, partition, value)
		want[name+string(value)]++
	}
	for p := range int32(partitions) {
		poison(topic.Unprefixed.Enriched, p, []byte("garbage"))
		poison(topic.Unprefixed.Enriched, p, nil)
	}
	b.Send(events(1, 50))
	poison(topic.Unprefixed.Enriched, 0, good[:20])
	poison(topic.Unprefixed.Enriched, 0, append(slices.Clone(good), 0))
	poison(topic.Unprefixed.Enriched, 1, b.Codec.AppendRejected(nil, &event.Rejected{}))
	poison(topic.Unprefixed.Rejected, 0, []byte("{}"))
	poison(topic.Unprefixed.Rejected, 0, good)
	b.Send(events(3, 50))
	w := b.start()
	b.Check()
	check := func() {
		t.Helper()
		rows, err := b.SQL.Query(context.Background(), "SELECT source_topic_id, original FROM rejected_events WHERE stage = 'writer' AND code = 'undecodable'")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		topics, err := b.Admin.ListTopics(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for rows.Next() {
			var id, original string
			if err := rows.Scan(&id, &original); err != nil {
				t.Fatal(err)
			}
			for _, d := range topics {
				if d.ID.String() == id {
					got[d.Topic+original]++
				}
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("set aside: %v, want %v", got, want)
		}
	}
	b.Await("what is set aside", func() bool {
		return b.Number("SELECT count() FROM rejected_events") == 9
	})
	check()
	if got := w.Metric("uptake_writer_set_aside_records_total"); got != 9 {
		t.Errorf("%v records are counted as set aside, want 9", got)
	}
	if got := w.Metric("uptake_writer_halted_partitions"); got != 0 {
		t.Errorf("%v partitions are halted", got)
	}
	w.End()
	c, err := audit.Conserve(context.Background(), b.SQL, b.Schema, audit.DefaultConfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if err := c.WriteText(&said, 10); err != nil || !strings.Contains(said.String(), "9 records that no release can have written") {
		t.Errorf("the audit does not say it: %v\n%s", err, &said)
	}
	b.Rewind()
	b.start()
	b.Check()
	check()
}

// A record that this release cannot read is left out where the setting says so.
func TestSkippedRecords(t *testing.T) {
	b := newBench(t)
	b.init()
	b.Produce(topic.Unprefixed.Enriched, 0, newer)
	b.Send(events(1, 100))
	w := b.start(func(c *Config) { c.SkipRecords = []string{topic.Unprefixed.Enriched + "/0@0"} })
	b.Check()
	if got := w.Metric("uptake_writer_halted_partitions"); got != 0 {
		t.Errorf("%v partitions are halted", got)
	}
}

// Properties that are JSON to their producer and not to ClickHouse are kept.
func TestTextsThatClickHouseDoesNotRead(t *testing.T) {
	b := newBench(t)
	b.init()
	list := events(1, 30)
	odd := `{"order":123456789012345678901234567890,"name":"\ud800"}`
	list[3].Properties = []byte(odd)
	w := b.start()
	b.Send(list)
	b.Check()
	var kept string
	if err := b.SQL.QueryRow(context.Background(), "SELECT properties._unread::String FROM events WHERE message_id = ?", list[3].MessageID).Scan(&kept); err != nil || kept != odd {
		t.Errorf("kept %q: %v", kept, err)
	}
	if got := b.Number("SELECT countIf(properties.sku::String = 'x') FROM events"); got != int64(len(list)-1) {
		t.Errorf("%d rows have their property, want %d", got, len(list)-1)
	}
	if got := w.Metric("uptake_writer_repaired_texts_total"); got != 1 {
		t.Errorf("%v texts repaired, want 1", got)
	}
}

// An error that someone has to repair halts the partition and nothing else, and is
// over when it is repaired.
func TestPermanentErrorsHaltThePartition(t *testing.T) {
	b := newBench(t)
	b.init()
	ctx := context.Background()
	if err := b.SQL.Exec(ctx, "RENAME TABLE rejected_events TO hidden"); err != nil {
		t.Fatal(err)
	}
	if err := b.SQL.Exec(ctx, "CREATE TABLE rejected_events (app_id String, source_topic_id String, source_partition Int32, source_offset Int64) ENGINE = MergeTree ORDER BY app_id SETTINGS non_replicated_deduplication_window = 1000"); err != nil {
		t.Fatal(err)
	}
	w := b.start()
	b.Produce(topic.Unprefixed.Rejected, 0, b.Codec.AppendRejected(nil, &event.Rejected{AppID: "dev", Original: []byte("x")}))
	b.Send(events(1, 50))
	b.Await("the partition to halt", func() bool { return w.Metric("uptake_writer_halted_partitions", topic.Unprefixed.Rejected) == 1 })
	if why := w.Health.Ready()["rollup-writer"]; !strings.Contains(why, "uptake.rejected.v1/0: halted until the cause is fixed") {
		t.Errorf("health: %q", why)
	}
	b.Await("the other partitions", func() bool { return b.Number("SELECT count() FROM events") == 50 })
	if err := b.SQL.Exec(ctx, "DROP TABLE rejected_events SYNC"); err != nil {
		t.Fatal(err)
	}
	if err := b.SQL.Exec(ctx, "RENAME TABLE hidden TO rejected_events"); err != nil {
		t.Fatal(err)
	}
	b.Await("the rejected event", func() bool { return b.Number("SELECT count() FROM rejected_events") == 1 })
	b.Await("readiness", func() bool { return len(w.Health.Ready()) == 0 })
	b.Check()
}

// Init is for new installations only, and may be run again.
func TestInit(t *testing.T) {
	b := newBench(t)
	b.init()
	b.init()
	w := b.start()
	b.Send(events(1, 40))
	b.Check()
	if err := repair.Init(context.Background(), b.cfg.Config, false, b.Log); err != nil {
		t.Errorf("init beside a running writer that has its commits: %v", err)
	}
	w.End()
	if _, err := b.Admin.DeleteGroup(context.Background(), topic.Unprefixed.GroupRollupWriter); err != nil {
		t.Fatal(err)
	}
	err := repair.Init(context.Background(), b.cfg.Config, false, b.Log)
	if err == nil || !strings.Contains(err.Error(), "events holds rows of it up to offset") {
		t.Errorf("init over rows: got %v", err)
	}
	if err := repair.Reset(context.Background(), b.cfg.Config, false, b.Log); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.Send(events(2, 40))
	b.Check()
}

// Commits of the rule before are taken over where no block is open, and refused
// where one may be.
func TestInitTakesOverCommitsOfTheRuleBefore(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	b.Send(events(1, 60))
	b.Check()
	w.End()
	old := func(state string) {
		t.Helper()
		st, err := boundary.Read(context.Background(), b.Admin, topic.Unprefixed, boundary.Topics(topic.Unprefixed))
		if err != nil {
			t.Fatal(err)
		}
		var offsets kadm.Offsets
		st.Commits.Each(func(o kadm.OffsetResponse) {
			f := strings.Split(o.Metadata, "|")
			f[0], f[len(f)-1] = "v1", state
			offsets.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.At, LeaderEpoch: -1, Metadata: strings.Join(f, "|")})
		})
		if _, err := b.Admin.CommitOffsets(context.Background(), topic.Unprefixed.GroupRollupWriter, offsets); err != nil {
			t.Fatal(err)
		}
	}
	old("open")
	if err := repair.Init(context.Background(), b.cfg.Config, false, b.Log); !errors.Is(err, block.ErrVersion1) {
		t.Errorf("a block may be open: got %v, want %v", err, block.ErrVersion1)
	}
	old("clean")
	b.init()
	b.start()
	b.Send(events(2, 60))
	b.Check()
}

// A partition whose first block was perhaps sent long ago does not repeat it
// once the windows may have forgotten it.
func TestBlocksThatLeftTheWindowHalt(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ClickHouse.WindowEntries = 1000 })
	b.init()
	b.Send(events(1, 40))
	w := b.start()
	b.Check()
	w.End()
	b.Rewind()
	// Others write 600 blocks.
	b.Exec("INSERT INTO corrections (app_id, source_offset) SETTINGS async_insert = 0, max_block_size = 1, min_insert_block_size_rows = 1, min_insert_block_size_bytes = 0 " +
		"SELECT 'other', number FROM numbers(600)")
	w = b.start()
	b.Await("the partitions to halt", func() bool { return w.Metric("uptake_writer_halted_partitions") == partitions })
	if why := w.Health.Ready()["rollup-writer"]; !strings.Contains(why, "may have left the dedup windows") || !strings.Contains(why, "rollup-writer rebuild") {
		t.Errorf("health: %q", why)
	}
	w.End()
	b.CheckRollups()
}

// A block that is not done holds the others back at a quarter of the window, and
// is not repeated past half of it.
func TestWindowAdmits(t *testing.T) {
	ctx := context.Background()
	w := &window{entries: 1000, open: map[*partition]uint64{}, changed: make(chan struct{}), known: true, latest: 5000}
	slow, fast := &partition{}, &partition{}
	w.begin(slow, 4900, true)
	if err := w.admit(ctx, slow); err != nil {
		t.Errorf("100 parts old: %v", err)
	}
	w.latest = 5400
	if err := w.admit(ctx, slow); err != nil {
		t.Errorf("500 parts old: %v", err)
	}
	w.begin(fast, 0, false)
	waiting, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := w.admit(waiting, fast); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another partition's block is 500 parts old: got %v, want to wait", err)
	}
	w.latest = 5401
	if err := w.admit(ctx, slow); !errors.Is(err, errWindow) {
		t.Errorf("501 parts old: got %v, want %v", err, errWindow)
	}
	if got, want := w.used(), 0.501; got != want {
		t.Errorf("used: got %v, want %v", got, want)
	}
	w.end(slow)
	if err := w.admit(ctx, fast); err != nil {
		t.Errorf("after the other is done: %v", err)
	}
	w.begin(slow, 9000, true) // the mark is from tables that were made anew
	if err := w.admit(ctx, slow); err != nil {
		t.Errorf("a mark from the future: %v", err)
	}
}

func TestConfigNamesEverySetting(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Fatalf("the default: %v", err)
	}
	c.BlockRecords, c.SessionTimeout, c.RebalanceTimeout, c.QueueBytes, c.MaxInserts, c.RetryMax, c.HaltRetry, c.RevokeWait, c.StopTimeout, c.StallTimeout = 0, 0, -1, 0, 0, 0, 0, -1, 0, 0
	c.SkipRecords = []string{"x"}
	c.ClickHouse.Addr, c.ClickHouse.Database, c.ClickHouse.Compression, c.ClickHouse.DialTimeout, c.ClickHouse.Silence = "x,y", "", "zip", 0, 0
	err := c.Validate()
	for _, want := range []string{
		"block-records", "session-timeout", "rebalance-timeout", "queue-bytes", "max-inserts", "retry-max", "halt-retry", "revoke-wait", "stop-timeout", "stall-timeout", "skip-records",
		"clickhouse-addr must be host:port", "clickhouse-addr may name several", "clickhouse-database", "clickhouse-compression", "clickhouse-dial-timeout", "clickhouse-silence",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s: %v", want, err)
		}
	}
	c = DefaultConfig()
	if got := c.ClickHouse.Shards(); len(got) != 1 || !slices.Equal(got[0], []string{"127.0.0.1:9000"}) {
		t.Errorf("shards of the default: %v", got)
	}
}
