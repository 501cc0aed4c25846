package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// envBrokers names a real cluster to run these tests against in place of kfake.
// Its topics are deleted before each test.
const envBrokers = "UPTAKE_TEST_KAFKA_BROKERS"

const partitions = 4

// cluster is what a test runs against.
type cluster struct {
	t       testing.TB
	brokers []string
	fake    *kfake.Cluster // nil: a real one
	cl      *kgo.Client
	codec   *event.Codec
}

// parallel lets the test run beside others, unless they would share a cluster.
func parallel(t *testing.T) {
	if os.Getenv(envBrokers) == "" {
		t.Parallel()
	}
}

func newCluster(t testing.TB, opts ...kfake.Opt) *cluster {
	t.Helper()
	c := &cluster{t: t, codec: event.NewCodec()}
	if real := os.Getenv(envBrokers); real != "" {
		c.brokers = strings.Split(real, ",")
	} else {
		fake, err := kfake.NewCluster(append([]kfake.Opt{
			kfake.NumBrokers(3),
			kfake.GroupMinSessionTimeout(100 * time.Millisecond),
			kfake.BrokerConfigs(map[string]string{"message.max.bytes": "8388608"}),
		}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(fake.Close)
		locallog.ListAborted(fake)
		c.fake, c.brokers = fake, fake.ListenAddrs()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	c.cl = cl
	adm := kadm.NewClient(cl)
	ctx := c.ctx(time.Minute)
	layout := topic.SingleLayout()
	layout.Partitions = partitions
	if c.fake == nil {
		for _, s := range topic.Unprefixed.Specs(layout) {
			_, _ = adm.DeleteTopic(ctx, s.Name) // it may not be there
		}
		c.wait("topics and group to go", func() bool {
			topics, err := adm.ListTopics(ctx)
			if err != nil || topics.Has(topic.Unprefixed.Raw) {
				return false
			}
			_, err = adm.DeleteGroup(ctx, topic.Unprefixed.GroupEnricher)
			return err == nil || errors.Is(err, kerr.GroupIDNotFound)
		})
	}
	if err := topic.Unprefixed.Ensure(ctx, adm, layout); err != nil {
		t.Fatal(err)
	}
	c.wait("topics to be served", func() bool {
		for _, s := range topic.Unprefixed.Specs(layout) {
			if offsets, err := adm.ListEndOffsets(ctx, s.Name); err != nil || offsets.Error() != nil {
				return false
			}
		}
		return true
	})
	return c
}

// ctx ends with the test, or after d.
func (c *cluster) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	c.t.Cleanup(cancel)
	return ctx
}

// wait waits until ok says so.
func (c *cluster) wait(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// send produces records and waits for their acks.
func (c *cluster) send(records ...*kgo.Record) {
	c.t.Helper()
	if err := c.cl.ProduceSync(c.ctx(30*time.Second), records...).FirstErr(); err != nil {
		c.t.Fatal(err)
	}
}

// raw returns the raw record of an event.
func (c *cluster) raw(e event.RawEvent) *kgo.Record {
	key := topic.RawKey(nil, e.AppID, e.UserID, e.AnonymousID, e.AccountID)
	return &kgo.Record{Topic: topic.Unprefixed.Raw, Partition: topic.Partition(key, partitions), Key: key, Value: c.codec.AppendRaw(nil, &e)}
}

// track returns an event of one of a few users; its id is the app's n-th.
func track(app string, n int) event.RawEvent {
	return event.RawEvent{
		AppID:      app,
		Kind:       event.KindTrack,
		Event:      "Item Scanned",
		MessageID:  fmt.Sprintf("m-%d", n),
		UserID:     fmt.Sprintf("u-%d", n%97),
		AccountID:  fmt.Sprintf("c-%d", n%7),
		Timestamp:  event.FromTime(time.Now().Add(-time.Minute)),
		ReceivedAt: event.FromTime(time.Now()),
		Quantity:   1,
		Properties: []byte(`{"sku":"4711","price":12.5,"currency":"EUR"}`),
		Protocol:   "segment",
	}
}

// committed returns the committed records of a topic's partition in order.
func (c *cluster) committed(name string, partition int32) []*kgo.Record {
	c.t.Helper()
	r, err := reader.New(kgo.SeedBrokers(c.brokers...))
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Close()
	ctx := c.ctx(60 * time.Second)
	b, err := r.Bounds(ctx, name, partition)
	if err != nil {
		c.t.Fatal(err)
	}
	var records []*kgo.Record
	if _, err := r.Read(ctx, name, partition, b.Start, b.End, func(r *kgo.Record) error {
		records = append(records, r)
		return nil
	}, nil); err != nil {
		c.t.Fatal(err)
	}
	return records
}

// enriched returns the events of enriched by partition, in order.
func (c *cluster) enriched() [partitions][]event.EnrichedEvent {
	c.t.Helper()
	var all [partitions][]event.EnrichedEvent
	for p := range int32(partitions) {
		for _, r := range c.committed(topic.Unprefixed.Enriched, p) {
			typ, err := c.codec.Type(r.Value)
			if err != nil {
				c.t.Fatal(err)
			}
			if typ != event.TypeEnriched {
				continue
			}
			var e event.EnrichedEvent
			if err := c.codec.DecodeEnriched(r.Value, &e); err != nil {
				c.t.Fatal(err)
			}
			all[p] = append(all[p], e)
		}
	}
	return all
}

// rejects returns what is in rejected.
func (c *cluster) rejects() []event.Rejected {
	c.t.Helper()
	var all []event.Rejected
	for p := range topic.SingleLayout().RejectedPartitions {
		for _, r := range c.committed(topic.Unprefixed.Rejected, p) {
			var e event.Rejected
			if err := c.codec.DecodeRejected(r.Value, &e); err != nil {
				c.t.Fatal(err)
			}
			all = append(all, e)
		}
	}
	return all
}

// count returns how many events are in enriched.
func (c *cluster) count() int {
	n := 0
	for _, events := range c.enriched() {
		n += len(events)
	}
	return n
}

// checkCounts holds the counts of a partition against what is in its raw and in
// its enriched: they cover raw without gap or overlap, and count each record of
// it once.
func (c *cluster) checkCounts(p int32, enriched []event.EnrichedEvent) {
	c.t.Helper()
	type key struct {
		app  string
		hour int64
	}
	want, got := map[key]event.Cell{}, map[key]event.Cell{}
	add := func(m map[key]event.Cell, o event.Cell) {
		k := key{o.AppID, o.Hour}
		cell := m[k]
		cell.AppID, cell.Hour = o.AppID, o.Hour
		cell.Add(&o)
		m[k] = cell
	}
	raw := c.committed(topic.Unprefixed.Raw, p)
	for _, r := range raw {
		var e event.RawEvent
		if err := c.codec.DecodeRaw(r.Value, &e); err != nil {
			c.t.Fatal(err)
		}
		add(want, event.Cell{AppID: e.AppID, Hour: event.HourOf(e.ReceivedAt), Accepted: 1, Duplicates: 1})
	}
	for _, e := range enriched {
		add(want, event.Cell{AppID: e.AppID, Hour: event.HourOf(e.ReceivedAt), Stored: 1, Duplicates: -1})
	}
	next := int64(0)
	for _, ctl := range c.controls()[p] {
		if ctl.Kind != event.ControlCounts {
			continue
		}
		counts, err := event.ParseCounts(ctl.Payload)
		if err != nil {
			c.t.Fatal(err)
		}
		if counts.First != next {
			c.t.Errorf("partition %d: %s begins at raw offset %d, want %d", p, ctl.ControlID, counts.First, next)
		}
		next = counts.Next
		for _, cell := range counts.Cells {
			add(got, cell)
		}
	}
	if next != int64(len(raw)) || !maps.Equal(got, want) {
		c.t.Errorf("partition %d: counts up to raw offset %d of %d: got %+v, want %+v", p, next, len(raw), got, want)
	}
}

// check holds enriched against the raw topic: each app and message id of raw
// exactly once, in the order of its first record in its partition, in the
// partition of the same number.
func (c *cluster) check() {
	c.t.Helper()
	got := c.enriched()
	for p := range int32(partitions) {
		c.checkCounts(p, got[p])
		var want []string
		seen := map[string]bool{}
		for _, r := range c.committed(topic.Unprefixed.Raw, p) {
			var e event.RawEvent
			if c.codec.DecodeRaw(r.Value, &e) != nil {
				continue
			}
			id := e.AppID + "/" + e.MessageID
			if !seen[id] {
				seen[id] = true
				want = append(want, id)
			}
		}
		lost, doubled := 0, 0
		have := map[string]int{}
		for _, e := range got[p] {
			have[e.AppID+"/"+e.MessageID]++
		}
		for _, id := range want {
			if have[id] == 0 {
				lost++
			}
			if have[id] > 1 {
				doubled++
			}
		}
		if lost > 0 || doubled > 0 || len(got[p]) != len(want) {
			c.t.Errorf("partition %d: %d events in raw, %d in enriched, %d lost, %d doubled", p, len(want), len(got[p]), lost, doubled)
			continue
		}
		for i, e := range got[p] {
			if id := e.AppID + "/" + e.MessageID; id != want[i] {
				c.t.Errorf("partition %d: event %d is %s, want %s: order is lost", p, i, id, want[i])
				break
			}
		}
	}
}

// drained waits until the group committed everything in raw. stuck, if given, is
// called when nothing has moved for long.
func (c *cluster) drained(stuck ...func()) {
	c.t.Helper()
	adm := kadm.NewClient(c.cl)
	ctx := c.ctx(3 * time.Minute)
	moved, last := time.Now(), int64(-1)
	for {
		behind, err := c.behind(ctx, adm)
		if err == nil && behind == 0 {
			return
		}
		if behind != last {
			moved, last = time.Now(), behind
		}
		if len(stuck) > 0 && time.Since(moved) > 10*time.Second {
			stuck[0]()
			moved = time.Now()
		}
		if ctx.Err() != nil {
			c.t.Fatalf("waited too long for the group: %d records behind, %v", behind, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// behind returns how many raw records the group has not committed.
func (c *cluster) behind(ctx context.Context, adm *kadm.Client) (int64, error) {
	ends, err := adm.ListEndOffsets(ctx, topic.Unprefixed.Raw)
	if err != nil {
		return -1, err
	}
	offsets, err := adm.FetchOffsets(ctx, topic.Unprefixed.GroupEnricher)
	if err != nil {
		return -1, err
	}
	behind := int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		at, _ := offsets.Lookup(o.Topic, o.Partition)
		behind += o.Offset - max(at.At, 0)
	})
	return behind, nil
}

// instance is one running enricher.
type instance struct {
	t      testing.TB
	svc    *Service
	reg    *prometheus.Registry
	health *ops.Health
	stop   context.CancelFunc
	kill   context.CancelCauseFunc
	done   chan error
	wire   *wire
}

// testConfig is for instances that notice things quickly.
func (c *cluster) testConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.Kafka.Brokers = c.brokers
	cfg.DataDir = dir
	cfg.CommitInterval = 20 * time.Millisecond
	cfg.TransactionTimeout = 3 * time.Second
	cfg.SessionTimeout = time.Second
	cfg.RebalanceTimeout = 5 * time.Second
	if c.fake == nil {
		cfg.SessionTimeout = 6 * time.Second
		cfg.RebalanceTimeout = 10 * time.Second
	}
	return cfg
}

// start runs an instance with its data in dir.
func (c *cluster) start(dir string, change ...func(*Config)) *instance {
	c.t.Helper()
	cfg := c.testConfig(dir)
	w := newWire()
	cfg.extra = []kgo.Opt{kgo.Dialer(w.dial)}
	for _, f := range change {
		f(&cfg)
	}
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	logger := slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: level})).With("instance", filepath.Base(dir))
	i := &instance{t: c.t, reg: prometheus.NewRegistry(), health: &ops.Health{}, done: make(chan error, 1), wire: w}
	var err error
	if i.svc, err = New(cfg, Dependencies{Logger: logger, Metrics: i.reg, Health: i.health}); err != nil {
		c.t.Fatal(err)
	}
	killCtx, kill := context.WithCancelCause(context.Background())
	stopCtx, stop := context.WithCancel(killCtx)
	i.stop, i.kill = stop, kill
	go func() { i.done <- i.svc.Run(process.Signals{Stop: stopCtx, Kill: killCtx}) }() // ends with stop or kill
	c.t.Cleanup(func() {
		kill(errors.New("test ends"))
		i.ended() //nolint:errcheck // the test is over
	})
	return i
}

// ended waits for the instance's end.
func (i *instance) ended() error {
	i.t.Helper()
	select {
	case err := <-i.done:
		i.done <- err
		return err
	case <-time.After(60 * time.Second):
		i.t.Fatal("instance does not end")
		return nil
	}
}

// stopped stops the instance in order.
func (i *instance) stopped() {
	i.t.Helper()
	i.stop()
	if err := i.ended(); err != nil {
		i.t.Errorf("instance ended with %v", err)
	}
}

// crash cuts the instance off the cluster, as if its machine had died: no
// transaction is ended, no group is left.
func (i *instance) crash() {
	i.t.Helper()
	i.wire.cut()
	i.kill(errors.New("crashed"))
	_ = i.ended() // whatever it says, it is dead
}

// metric returns the sum of a counter or gauge over all label values that hold
// those given.
func (i *instance) metric(name string, labels ...string) float64 {
	i.t.Helper()
	families, err := i.reg.Gather()
	if err != nil {
		i.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			all := strings.Join(have, ",")
			match := true
			for _, l := range labels {
				match = match && strings.Contains(all, l)
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
