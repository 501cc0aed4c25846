package rollup

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Records wait and nothing moves: the writer is not ready, logs what it knows, and goes
// on with a new client.
func TestStalledClientIsReplaced(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // for the stacks
	b := newBench(t)
	b.init()
	w := b.start(func(c *Config) {
		c.watchPause = 50 * time.Millisecond
		c.StallTimeout = 5 * time.Second
	})
	b.Send(events(1, 50))
	b.AwaitSettled()
	for n := range int32(writertest.Partitions) {
		w.service.client.PauseFetchPartitions(map[string][]int32{topic.Unprefixed.Enriched: {n}}) // and nobody resumes them
	}
	time.Sleep(6 * time.Second) // a fetch in progress ends
	b.Send(events(2, 200))
	b.Await("the replacement of the client", func() bool { return w.Metric("uptake_writer_stalls_total") > 0 })
	b.AwaitSettled()
	b.Check()
	b.Await("readiness", func() bool { return w.service.health.check() == nil })
	w.End()
}

// A topic that is lost under a running writer, and made again, is not taken for one
// without records: its partitions halt and say what to do.
func TestTopicsMadeAgain(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start(func(c *Config) { c.watchPause = 50 * time.Millisecond })
	b.Send(events(1, 50))
	b.AwaitSettled()
	if _, err := b.Admin.DeleteTopic(t.Context(), topic.Unprefixed.Enriched); err != nil {
		t.Fatal(err)
	}
	layout := topic.SingleLayout()
	layout.Partitions, layout.RejectedPartitions = writertest.Partitions, 1
	b.Await("the topic to be made again", func() bool { return topic.Unprefixed.Ensure(t.Context(), b.Admin, layout) == nil })
	b.Await("the writer to say it", func() bool {
		err := w.service.health.check()
		return err != nil && strings.Contains(err.Error(), topic.Unprefixed.Enriched+"/0") && strings.Contains(err.Error(), "init -reset")
	})
	w.End()
}

// Whatever has a reason of its own is expected to wait; the rest is not.
func TestWhatIsAStall(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // for the stacks
	s, err := New(DefaultConfig(), Dependencies{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if s.client, err = kgo.NewClient(); err != nil {
		t.Fatal(err)
	}
	defer s.client.Close()
	s.health.clear("start")
	stalled := false
	s.stall = func(error) { stalled = true }
	p, other := s.newPartition(topic.Unprefixed.Enriched, 0), s.newPartition(topic.Unprefixed.Enriched, 1)
	s.partitions[topic.Unprefixed.Enriched] = map[int32]*partition{0: p, 1: other}
	moved, now := map[*partition]movement{}, time.Unix(1_800_000_000, 0)
	ends := func(at int64) kadm.ListedOffsets {
		return kadm.ListedOffsets{topic.Unprefixed.Enriched: {0: {Topic: topic.Unprefixed.Enriched, Offset: at}, 1: {Topic: topic.Unprefixed.Enriched, Partition: 1, Offset: 0}}}
	}
	look := func(after time.Duration, end int64) { now = now.Add(after); s.judge(moved, ends(end), now) }
	ready := func(want bool, what string) {
		t.Helper()
		if err := s.health.check(); (err == nil) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	look(0, 0)
	look(time.Hour, 0)
	ready(true, "nothing waits")
	look(time.Second, 5)
	look(waitingTime, 5)
	if err := s.health.check(); err == nil || !strings.Contains(err.Error(), p.name) {
		t.Errorf("records wait: %v", err)
	}
	p.committed.Store(3)
	look(time.Second, 5)
	ready(true, "a commit")
	s.health.set(p.name, "insert failed")
	look(time.Hour, 5)
	s.health.clear(p.name)
	look(time.Second, 5)
	ready(true, "a partition with a reason")
	p.inHand.Store(1)
	s.health.set(other.name, "insert failed")
	look(time.Hour, 5)
	s.health.clear(other.name)
	look(time.Second, 5)
	ready(true, "a block that waits for another partition's")
	look(s.cfg.StallTimeout-2*time.Second, 5)
	if stalled {
		t.Error("stalled before the timeout")
	}
	look(time.Second, 5)
	if !stalled {
		t.Error("not stalled after the timeout")
	}
}
