package enrich

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/topic"
)

// What is in raw is in enriched once, in order, whatever was sent twice.
func TestEveryIDOnceInOrder(t *testing.T) {
	c := newCluster(t)
	i := c.start(filepath.Join(t.TempDir(), "a"))
	const n = 5000
	var records []*kgo.Record
	for k := range n {
		records = append(records, c.raw(track("dev", k)))
		if k%3 == 0 {
			records = append(records, c.raw(track("dev", k)), c.raw(track("prod", k)))
		}
	}
	c.send(records...)
	c.drained()
	c.send(records[:100]...)
	c.drained()
	c.check()
	i.stopped()
	consumed := i.metric("uptake_enricher_records_total", "fate=accepted")
	if want := float64(len(records) + 100); consumed != want {
		t.Errorf("consumed: got %v, want %v", consumed, want)
	}
	rest := i.metric("uptake_enricher_records_total", "fate=stored") + i.metric("uptake_enricher_records_total", "fate=duplicates")
	if rest != consumed {
		t.Errorf("emitted and duplicates: got %v, want %v", rest, consumed)
	}
}

// What is wrong with the topics ends the start with what to do; what passes by
// itself is waited for.
func TestTopicsAreChecked(t *testing.T) {
	c := newCluster(t)
	if c.fake != nil {
		c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.RequestTimedOut, Count: 2})
	}
	i := c.start(filepath.Join(t.TempDir(), "a"))
	c.wait("the instance to be ready", func() bool { return len(i.health.Ready()) == 0 })
	i.stopped()
	if _, err := kadm.NewClient(c.cl).DeleteTopic(c.ctx(time.Minute), topic.Unprefixed.Links); err != nil {
		t.Fatal(err)
	}
	i = c.start(filepath.Join(t.TempDir(), "b"))
	if err := i.ended(); !errors.Is(err, topic.ErrMissing) {
		t.Errorf("without the links topic: got %v", err)
	}
}

// Members of other versions, or with another balancer, cannot split raw from
// links: whoever sees it stops and says so.
func TestRawAndLinksBelongTogether(t *testing.T) {
	c := newCluster(t)
	other, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.ConsumerGroup(topic.Unprefixed.GroupEnricher), kgo.ConsumeTopics(topic.Unprefixed.Raw), kgo.Balancers(kgo.RangeBalancer()))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	c.wait("the other member to have partitions", func() bool {
		_, generation := other.GroupMetadata()
		return generation >= 0
	})
	i := c.start(filepath.Join(t.TempDir(), "a"))
	if err := i.ended(); !errors.Is(err, errPermanent) || !strings.Contains(err.Error(), "range balancer") {
		t.Errorf("got %v", err)
	}
}

// A group commit that retention has overtaken is told and counted.
func TestRetentionOvertakes(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	i := c.start(filepath.Join(dir, "a"))
	for n := range 100 {
		c.send(c.raw(track("dev", n)))
	}
	c.drained()
	i.stopped()
	for n := range 100 {
		c.send(c.raw(track("dev", 100+n)))
	}
	adm := kadm.NewClient(c.cl)
	ctx := c.ctx(time.Minute)
	ends, err := adm.ListEndOffsets(ctx, topic.Unprefixed.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := adm.DeleteRecords(ctx, ends.Offsets()); err != nil {
		t.Fatal(err)
	}
	i = c.start(filepath.Join(dir, "a"))
	c.send(c.raw(track("dev", 200)))
	c.wait("the new event", func() bool { return c.count() == 101 })
	if got := i.metric("uptake_enricher_lost_records_total", "topic="+topic.Unprefixed.Raw); got != 100 {
		t.Errorf("lost: got %v, want 100", got)
	}
	i.stopped()
}

// A disk that is older than the log, or another cluster's, is brought up to date.
func TestStaleDisk(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	data, old := filepath.Join(dir, "a"), filepath.Join(dir, "old")
	n := 0
	round := func(data string) {
		i := c.start(data)
		for range 200 {
			c.send(c.raw(track("dev", n)), c.raw(track("dev", n/2)))
			n++
		}
		c.drained()
		i.stopped()
	}
	round(data)
	if err := os.CopyFS(old, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	round(data)
	round(old)
	c.check()

	other := newCluster(t)
	i := other.start(data)
	for n := range 100 {
		other.send(other.raw(track("dev", n)))
	}
	other.drained()
	other.check()
	i.stopped()
}

// A disk that breaks costs time and nothing else.
func TestBrokenDisk(t *testing.T) {
	c := newCluster(t)
	data := filepath.Join(t.TempDir(), "a")
	small := func(cfg *Config) { cfg.DedupRecentBytes, cfg.DedupCacheBytes = 1<<10, 1<<20 }
	scramble := func() {
		files, err := filepath.Glob(filepath.Join(data, "dedup", "*.sst"))
		if err != nil || len(files) == 0 {
			t.Fatal("no files to break", err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // it was merged away
			}
			for k := range b[:len(b)*3/4] {
				b[k] ^= 0x5a
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	load := func() {
		for range 300 {
			c.send(c.raw(track("dev", n)), c.raw(track("dev", n/2)))
			n++
		}
	}
	i := c.start(data, small)
	load()
	c.drained()
	i.stopped()
	scramble()
	i = c.start(data, small)
	load()
	c.drained()
	c.check()
	i.stopped()
}

// A disk that is lost is made again from the log, after a stop and after a crash,
// and what was seen before is still seen.
func TestLostDisk(t *testing.T) {
	c := newCluster(t)
	data := filepath.Join(t.TempDir(), "a")
	n := 0
	for _, end := range []func(*instance){(*instance).stopped, (*instance).crash, (*instance).stopped} {
		i := c.start(data)
		c.wait("the instance to be ready", func() bool { return len(i.health.Ready()) == 0 })
		if got := i.metric("uptake_enricher_restore_records"); n > 0 && got == 0 {
			t.Error("no record was read in the restore")
		}
		for range 200 {
			c.send(c.raw(track("dev", n)), c.raw(track("dev", n/2)))
			n++
		}
		c.drained()
		end(i)
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
	}
	c.check()
}

// Two processes with one name fence each other; one of them gives up and says
// why, and the other goes on.
func TestTwoInstancesWithOneName(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	same := func(cfg *Config) { cfg.InstanceID = "same" }
	a, b := c.start(filepath.Join(dir, "a"), same), c.start(filepath.Join(dir, "b"), same)
	var err error
	for n := 0; err == nil; n++ {
		c.send(c.raw(track("dev", n)), c.raw(track("dev", n/2)))
		select {
		case err = <-a.done:
			a.done <- err
		case err = <-b.done:
			b.done <- err
		case <-c.ctx(2 * time.Minute).Done():
			t.Fatal("both go on")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if !errors.Is(err, ErrFenced) {
		t.Errorf("got %v", err)
	}
	c.drained()
	c.check()
}
