package contract

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/container"
	"github.com/uptakehq/uptake/test/harness/kafka"
)

// suite is one form of the log under test.
type suite struct {
	log kafka.Log
}

var logCases = []struct {
	name string
	run  func(*testing.T, suite)
}{
	{"append time", testAppendTime},
	{"idempotent produce", testIdempotentProduce},
	{"record too large", testRecordTooLarge},
	{"transactions", testTransactions},
	{"transaction of a dead producer ends", testTransactionTimeout},
	{"offsets in a transaction", testOffsetsInTransaction},
	{"old producer is fenced", testFencedProducer},
	{"old generation is fenced", testFencedGeneration},
	{"commit with metadata", testCommitMetadata},
	{"group that never was", testUnknownGroup},
	{"co-partitioned assignment", testCoPartitionedAssignment},
	{"compacted topic", testCompactedTopic},
	{"fetch below log start", testBelowLogStart},
	{"topic id", testTopicID},
	{"topic settings", testTopicSettings},
	{"layout of uptake", testLayout},
}

func TestLog(t *testing.T) {
	forms := []struct {
		name string
		open func(*testing.T) kafka.Log
	}{
		{"kfake", func(t *testing.T) kafka.Log { return kafka.FakeForTest(t) }},
		{"kafka", func(t *testing.T) kafka.Log { return kafka.ForTest(t, kafka.Config{Brokers: 1}) }},
		{"container", func(t *testing.T) kafka.Log { return container.KafkaForTest(t) }},
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			s := suite{log: form.open(t)}
			for _, c := range logCases {
				t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) { c.run(t, s) })
			}
		})
	}
}

// within bounds one case; a wait that goes on that long is a failure.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (s suite) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.log.Addrs()...), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func (s suite) admin(t *testing.T) *kadm.Client { return kadm.NewClient(s.client(t)) }

var names atomic.Int64

// name is unique in this run; the process id keeps runs against one log apart.
func name(kind string) string { return fmt.Sprintf("%s-%d-%d", kind, os.Getpid(), names.Add(1)) }

// create makes a topic; configs are key, value, key, value.
func (s suite) create(t *testing.T, partitions int32, configs ...string) string {
	t.Helper()
	m := map[string]*string{}
	for i := 0; i < len(configs); i += 2 {
		m[configs[i]] = &configs[i+1]
	}
	n := name("t")
	if _, err := s.admin(t).CreateTopic(within(t), partitions, 1, m, n); err != nil {
		t.Fatal(err)
	}
	return n
}

func produce(t *testing.T, cl *kgo.Client, topic string, values ...string) {
	t.Helper()
	for _, v := range values {
		if err := cl.ProduceSync(within(t), &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatalf("produce %s: %v", v, err)
		}
	}
}

// read returns the values of n records of partition 0 from its start.
func (s suite) read(t *testing.T, topic string, n int, opts ...kgo.Opt) []string {
	t.Helper()
	ctx := within(t)
	cl := s.client(t, append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
	}, opts...)...)
	var got []string
	for len(got) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("read %s: %v (got %v)", topic, err, got)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func (s suite) offset(t *testing.T, list func(context.Context, ...string) (kadm.ListedOffsets, error), topic string) int64 {
	t.Helper()
	offsets, err := list(within(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	o, ok := offsets.Lookup(topic, 0)
	if !ok || o.Err != nil {
		t.Fatalf("offset of %s: %v, %v", topic, ok, o.Err)
	}
	return o.Offset
}

// eventually polls until f is nil. It is for what a broker does in its own
// time, where no request waits for it.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("in a minute: %v", err)
		case <-tick.C:
		}
	}
}

// Blocks are cut by the broker's clock (rollup-writer), which must not run
// backwards within a partition, whatever clients claim.
func testAppendTime(t *testing.T, s suite) {
	topic := s.create(t, 1, "message.timestamp.type", "LogAppendTime")
	cl := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	before := time.Now().Add(-time.Second)
	const n = 50
	for i := range n {
		claimed := time.Unix(int64(1_000_000_000-i), 0)
		if i%2 == 1 {
			claimed = time.Now().Add(24 * time.Hour)
		}
		res := cl.ProduceSync(within(t), &kgo.Record{Topic: topic, Timestamp: claimed})
		if err := res.FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var stamps []time.Time
	for len(stamps) < n {
		fs := cl.PollFetches(within(t))
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) { stamps = append(stamps, r.Timestamp) })
	}
	if !slices.IsSortedFunc(stamps, time.Time.Compare) {
		t.Errorf("append times run backwards: %v", stamps)
	}
	if after := time.Now().Add(time.Second); stamps[0].Before(before) || stamps[n-1].After(after) {
		t.Errorf("append times from %v to %v, want them between %v and %v", stamps[0], stamps[n-1], before, after)
	}
}

// recordBatch is one record in the format of the log, as an idempotent producer
// writes it.
func recordBatch(producerID int64, epoch int16, sequence int32, value string) []byte {
	record := kmsg.Record{Value: []byte(value)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // without the length itself, one byte here
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1,
		Magic:                2,
		FirstTimestamp:       time.Now().UnixMilli(),
		MaxTimestamp:         time.Now().UnixMilli(),
		ProducerID:           producerID,
		ProducerEpoch:        epoch,
		FirstSequence:        sequence,
		NumRecords:           1,
		Records:              record.AppendTo(nil),
	}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	raw := batch.AppendTo(nil)
	batch.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return batch.AppendTo(nil)
}

// A batch that is sent again, because its ack was lost, is acked and not
// written again; a gap in the sequence is refused.
func testIdempotentProduce(t *testing.T, s suite) {
	topicName := s.create(t, 1)
	cl := s.client(t)
	ctx := within(t)
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionTimeoutMillis = 60_000
	id, err := init.RequestWith(ctx, cl)
	if err != nil || id.ErrorCode != 0 {
		t.Fatalf("init producer id: %v, %v", err, kerr.ErrorForCode(id.ErrorCode))
	}
	meta, err := kadm.NewClient(cl).ListTopics(ctx, topicName)
	if err != nil {
		t.Fatal(err)
	}
	send := func(sequence int32, value string) (int64, error) {
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 10_000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = topicName, meta[topicName].ID
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Records = recordBatch(id.ProducerID, id.ProducerEpoch, sequence, value)
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		res, err := cl.Broker(int(meta[topicName].Partitions[0].Leader)).Request(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		p := res.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
	}
	for i, v := range []string{"a", "b", "c"} {
		if offset, err := send(int32(i), v); err != nil || offset != int64(i) {
			t.Fatalf("send %s: got offset %d, %v; want %d", v, offset, err, i)
		}
	}
	for i, v := range []string{"a", "b", "c"} {
		if offset, err := send(int32(i), v); err != nil || offset != int64(i) {
			t.Errorf("send %s again: got offset %d, %v; want offset %d of the first time", v, offset, err, i)
		}
	}
	if _, err := send(4, "e"); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		t.Errorf("send with a gap: got %v, want %v", err, kerr.OutOfOrderSequenceNumber)
	}
	if got, want := s.read(t, topicName, 3), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("log: got %v, want %v", got, want)
	}
	if got := s.offset(t, s.admin(t).ListEndOffsets, topicName); got != 3 {
		t.Errorf("end offset: got %d, want 3", got)
	}
}

// A record that the topic does not take fails alone.
func testRecordTooLarge(t *testing.T, s suite) {
	topic := s.create(t, 1, "max.message.bytes", "10000")
	cl := s.client(t, kgo.ProducerBatchCompression(kgo.NoCompression()))
	produce(t, cl, topic, "before")
	err := cl.ProduceSync(within(t), &kgo.Record{Topic: topic, Value: make([]byte, 20_000)}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("got %v, want %v", err, kerr.MessageTooLarge)
	}
	produce(t, cl, topic, "after")
	if got, want := s.read(t, topic, 2), []string{"before", "after"}; !slices.Equal(got, want) {
		t.Errorf("log: got %v, want %v", got, want)
	}
}

// Who reads committed sees nothing of an open or aborted transaction, and
// nothing behind an open one; who reads everything sees it all.
func testTransactions(t *testing.T, s suite) {
	topic := s.create(t, 1)
	adm := s.admin(t)
	txn := s.client(t, kgo.TransactionalID(name("txn")))
	plain := s.client(t)
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := txn.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		produce(t, txn, topic, map[kgo.TransactionEndTry]string{kgo.TryCommit: "committed", kgo.TryAbort: "aborted"}[end])
		if err := txn.EndTransaction(within(t), end); err != nil {
			t.Fatal(err)
		}
	}
	// Offsets: committed 0, marker 1, aborted 2, marker 3.
	if err := txn.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, txn, topic, "open")     // 4
	produce(t, plain, topic, "behind") // 5
	if lso, hw := s.offset(t, adm.ListCommittedOffsets, topic), s.offset(t, adm.ListEndOffsets, topic); lso != 4 || hw != 6 {
		t.Errorf("with an open transaction: got last stable offset %d and high watermark %d, want 4 and 6", lso, hw)
	}
	if got, want := s.read(t, topic, 4), []string{"committed", "aborted", "open", "behind"}; !slices.Equal(got, want) {
		t.Errorf("read uncommitted: got %v, want %v", got, want)
	}

	// A reader that is at the open transaction gets nothing until it ends, and
	// then everything, in order.
	committed := s.client(t, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	poll := func(ctx context.Context) (values []string) {
		committed.PollFetches(ctx).EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
		return values
	}
	if got := poll(within(t)); !slices.Equal(got, []string{"committed"}) {
		t.Errorf("read committed, first poll: got %v", got)
	}
	short, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	if got := poll(short); len(got) != 0 {
		t.Errorf("read committed behind an open transaction: got %v", got)
	}
	cancel()
	if err := txn.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 2 {
		got = append(got, poll(within(t))...)
	}
	if want := []string{"open", "behind"}; !slices.Equal(got, want) {
		t.Errorf("read committed after the commit: got %v, want %v", got, want)
	}
	eventually(t, func() error { // the marker follows the answer to the commit
		if lso := s.offset(t, adm.ListCommittedOffsets, topic); lso != 7 {
			return fmt.Errorf("last stable offset: got %d, want 7", lso)
		}
		return nil
	})
}

// An enricher that dies in a transaction holds readers back no longer than its
// transaction timeout.
func testTransactionTimeout(t *testing.T, s suite) {
	topic := s.create(t, 1)
	txn := s.client(t, kgo.TransactionalID(name("txn")), kgo.TransactionTimeout(time.Second))
	if err := txn.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, txn, topic, "of the dead")
	txn.Close() // no abort: as if it were killed
	produce(t, s.client(t), topic, "of the living")
	if got, want := s.read(t, topic, 1, kgo.FetchIsolationLevel(kgo.ReadCommitted())), []string{"of the living"}; !slices.Equal(got, want) {
		t.Errorf("read committed: got %v, want %v", got, want)
	}
}

// Offsets that are committed in a transaction hold exactly if it does.
func testOffsetsInTransaction(t *testing.T, s suite) {
	in, out, group := s.create(t, 1), s.create(t, 1), name("g")
	adm := s.admin(t)
	produce(t, s.client(t), in, "1", "2", "3")
	for i, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(s.log.Addrs()...), kgo.TransactionalID(name("txn")),
			kgo.ConsumerGroup(group), kgo.ConsumeTopics(in), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := session.Begin(); err != nil {
			t.Fatal(err)
		}
		for len(got) < 3 {
			fs := session.PollFetches(within(t))
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
		}
		// Also after an abort the group starts from the start.
		if want := []string{"1", "2", "3"}; !slices.Equal(got, want) {
			t.Errorf("consumed, round %d: got %v, want %v", i, got, want)
		}
		produce(t, session.Client(), out, fmt.Sprint("from round ", i))
		committed, err := session.End(within(t), end)
		if err != nil || committed != bool(end) {
			t.Fatalf("end: got committed %v, %v; want %v", committed, err, end)
		}
		session.Close()
		offsets, err := adm.FetchOffsets(within(t), group)
		if err != nil {
			t.Fatal(err)
		}
		o, ok := offsets.Lookup(in, 0)
		if want := end == kgo.TryCommit; ok != want || (ok && o.At != 3) {
			t.Errorf("committed offset after %v: got %v, %+v", end, ok, o.Offset)
		}
	}
	if got, want := s.read(t, out, 1, kgo.FetchIsolationLevel(kgo.ReadCommitted())), []string{"from round 1"}; !slices.Equal(got, want) {
		t.Errorf("output: got %v, want %v", got, want)
	}
}

// Of two producers with one transactional id the older can commit nothing more.
func testFencedProducer(t *testing.T, s suite) {
	topic, id := s.create(t, 1), name("txn")
	zombie := s.client(t, kgo.TransactionalID(id))
	if err := zombie.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, zombie, topic, "of the zombie")
	successor := s.client(t, kgo.TransactionalID(id))
	if err := successor.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, successor, topic, "of the successor")
	err := zombie.EndTransaction(within(t), kgo.TryCommit)
	if !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.ProducerFenced) {
		t.Errorf("commit of the zombie: got %v, want it fenced", err)
	}
	if err := successor.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if got, want := s.read(t, topic, 1, kgo.FetchIsolationLevel(kgo.ReadCommitted())), []string{"of the successor"}; !slices.Equal(got, want) {
		t.Errorf("read committed: got %v, want %v", got, want)
	}
}

// A member that a rebalance has passed over can commit no offsets in a
// transaction of its own, although its producer is not fenced.
func testFencedGeneration(t *testing.T, s suite) {
	in, group, id := s.create(t, 1), name("g"), name("txn")
	cl := s.client(t, kgo.ConsumerGroup(group), kgo.ConsumeTopics(in), kgo.TransactionalID(id), kgo.DisableAutoCommit())
	produceTo := s.create(t, 1)
	produce(t, s.client(t), in, "1")
	if fs := cl.PollFetches(within(t)); fs.Err() != nil {
		t.Fatal(fs.Err())
	}
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, cl, produceTo, "x")
	member, generation := cl.GroupMetadata()
	producerID, epoch, err := cl.ProducerID(within(t))
	if err != nil {
		t.Fatal(err)
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, producerID, epoch, group
	added, err := add.RequestWith(within(t), cl)
	if err != nil || added.ErrorCode != 0 {
		t.Fatalf("add offsets to transaction: %v, %v", err, kerr.ErrorForCode(added.ErrorCode))
	}
	topics, err := s.admin(t).ListTopics(within(t), in)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(member string, generation int32) error {
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = id, group, producerID, epoch
		req.MemberID, req.Generation = member, generation
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = in, topics[in].ID
		rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		rp.Offset = 1
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		res, err := req.RequestWith(within(t), cl)
		if err != nil {
			t.Fatal(err)
		}
		return kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode)
	}
	if err := commit(member, generation-1); !errors.Is(err, kerr.IllegalGeneration) {
		t.Errorf("commit with the generation before: got %v, want %v", err, kerr.IllegalGeneration)
	}
	if err := commit("nobody", generation); !errors.Is(err, kerr.UnknownMemberID) {
		t.Errorf("commit of an unknown member: got %v, want %v", err, kerr.UnknownMemberID)
	}
	if err := commit(member, generation); err != nil {
		t.Errorf("commit with the right generation: %v", err)
	}
	if err := cl.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

// rollup-writer keeps what a block boundary was cut with beside the offset.
func testCommitMetadata(t *testing.T, s suite) {
	topic, group := s.create(t, 2), name("g")
	adm := s.admin(t)
	want := map[int32]string{0: "v1 n=50000 t=1s", 1: strings.Repeat("ä", 500)}
	offsets := kadm.Offsets{}
	for p, meta := range want {
		offsets.Add(kadm.Offset{Topic: topic, Partition: p, At: int64(7 + p), LeaderEpoch: -1, Metadata: meta})
	}
	if err := adm.CommitAllOffsets(within(t), group, offsets); err != nil {
		t.Fatal(err)
	}
	got, err := adm.FetchOffsets(within(t), group)
	if err != nil {
		t.Fatal(err)
	}
	for p, meta := range want {
		if o, ok := got.Lookup(topic, p); !ok || o.At != int64(7+p) || o.Metadata != meta {
			t.Errorf("partition %d: got %v, %+v; want offset %d and metadata %q", p, ok, o.Offset, 7+p, meta)
		}
	}
}

// A new installation asks for the commits of a group that nobody has joined or
// committed for: it has none. Whether that is said with an error or with
// nothing is left to the broker, and to whoever asks.
func testUnknownGroup(t *testing.T, s suite) {
	adm, group := s.admin(t), name("g")
	eventually(t, func() error { // a broker that is new makes the coordinators' topic first, and says so
		offsets, err := adm.FetchOffsets(t.Context(), group)
		if kerr.IsRetriable(err) {
			return err
		}
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			t.Errorf("got %v, want no error, or %v", err, kerr.GroupIDNotFound)
		}
		if len(offsets) != 0 {
			t.Errorf("got commits %v", offsets)
		}
		t.Logf("answer: %v", err)
		return nil
	})
}

// Partition p of raw and of links belong to the same enricher, also while
// members come and go.
func testCoPartitionedAssignment(t *testing.T, s suite) {
	a, b, group := s.create(t, 5), s.create(t, 5), name("g")
	adm := s.admin(t)
	join := func() *kgo.Client {
		cl := s.client(t, kgo.ConsumerGroup(group), kgo.ConsumeTopics(a, b), kgo.Balancers(kgo.RangeBalancer()),
			kgo.HeartbeatInterval(200*time.Millisecond), kgo.SessionTimeout(10*time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { // polls, so that the member takes part in rebalances; ends with the test
			defer close(done)
			for ctx.Err() == nil {
				cl.PollFetches(ctx)
			}
		}()
		t.Cleanup(func() { cancel(); <-done })
		return cl
	}
	check := func(members int) {
		eventually(t, func() error {
			described, err := adm.DescribeGroups(t.Context(), group)
			if err != nil {
				return err
			}
			g := described[group]
			if g.State != "Stable" || len(g.Members) != members {
				return fmt.Errorf("group is %s with %d members, want %d", g.State, len(g.Members), members)
			}
			seen := map[int32]bool{}
			for _, m := range g.Members {
				assigned, ok := m.Assigned.AsConsumer()
				if !ok {
					return errors.New("no consumer assignment")
				}
				parts := map[string][]int32{}
				for _, tp := range assigned.Topics {
					slices.Sort(tp.Partitions)
					parts[tp.Topic] = tp.Partitions
				}
				if !slices.Equal(parts[a], parts[b]) {
					return fmt.Errorf("member %s has %v of one topic and %v of the other", m.MemberID, parts[a], parts[b])
				}
				for _, p := range parts[a] {
					if seen[p] {
						return fmt.Errorf("partition %d is assigned twice", p)
					}
					seen[p] = true
				}
			}
			if len(seen) != 5 {
				return fmt.Errorf("%d of 5 partitions are assigned", len(seen))
			}
			return nil
		})
	}
	join()
	check(1)
	second := join()
	check(2)
	join()
	check(3)
	if err := second.LeaveGroupContext(within(t)); err != nil {
		t.Fatal(err)
	}
	check(2)
}

// The last value of each key of a compacted topic stays readable, and so does
// the end of the topic: state is restored by reading up to it.
func testCompactedTopic(t *testing.T, s suite) {
	topic := s.create(t, 1, "cleanup.policy", "compact", "segment.ms", "200", "min.cleanable.dirty.ratio", "0.01", "max.compaction.lag.ms", "300")
	cl := s.client(t)
	want := map[string]string{}
	write := func(key, value string) {
		t.Helper()
		r := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value)}
		if value == "" {
			r.Value = nil
			delete(want, key)
		} else {
			want[key] = value
		}
		if err := cl.ProduceSync(within(t), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 20 {
		for k := range 5 {
			write(fmt.Sprint("k", k), fmt.Sprint("v", round))
		}
	}
	write("k3", "")
	write("last", "x")
	if fake, ok := s.log.(*kafka.Fake); ok {
		fake.Compact() // the others do it when they see fit
	}
	end := s.offset(t, s.admin(t).ListEndOffsets, topic)
	if end != 102 {
		t.Errorf("end offset: got %d, want 102", end)
	}
	reader := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	got, next := map[string]string{}, int64(0)
	for next < end {
		fs := reader.PollFetches(within(t))
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			got[string(r.Key)] = string(r.Value)
			if r.Value == nil {
				delete(got, string(r.Key))
			}
		})
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A reader whose position has been deleted is told so.
func testBelowLogStart(t *testing.T, s suite) {
	topic := s.create(t, 1)
	produce(t, s.client(t), topic, "0", "1", "2", "3", "4")
	adm := s.admin(t)
	var del kadm.Offsets
	del.Add(kadm.Offset{Topic: topic, At: 3})
	if _, err := adm.DeleteRecords(within(t), del); err != nil {
		t.Fatal(err)
	}
	if got := s.offset(t, adm.ListStartOffsets, topic); got != 3 {
		t.Errorf("start offset: got %d, want 3", got)
	}
	cl := s.client(t, kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(1)}}))
	if err := cl.PollFetches(within(t)).Err(); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Errorf("fetch below the start: got %v, want %v", err, kerr.OffsetOutOfRange)
	}
	at := s.client(t, kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(3)}}))
	fs := at.PollFetches(within(t))
	if err := fs.Err(); err != nil || fs.NumRecords() == 0 || fs.Records()[0].Offset != 3 {
		t.Errorf("fetch at the start: got %d records, %v; want offset 3", fs.NumRecords(), err)
	}
}

// Tokens name the topic by its id: it stays while the topic lives, and another
// topic of the same name has another.
func testTopicID(t *testing.T, s suite) {
	topic := s.create(t, 1)
	id := func() kadm.TopicID {
		details, err := s.admin(t).ListTopics(within(t), topic)
		if err != nil {
			t.Fatal(err)
		}
		return details[topic].ID
	}
	first := id()
	if first == (kadm.TopicID{}) {
		t.Fatal("the topic has no id")
	}
	produce(t, s.client(t), topic, "x")
	if got := id(); got != first {
		t.Errorf("id: got %v, then %v", first, got)
	}
	adm := s.admin(t)
	if _, err := adm.DeleteTopic(within(t), topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := adm.CreateTopic(t.Context(), 1, 1, nil, topic)
		return err
	})
	eventually(t, func() error {
		if got := id(); got == first || got == (kadm.TopicID{}) {
			return fmt.Errorf("id of the new topic: got %v, the old one is %v", got, first)
		}
		return nil
	})
}

// Services check at start that topics are what they rely on.
func testTopicSettings(t *testing.T, s suite) {
	topic := s.create(t, 3, "cleanup.policy", "compact", "message.timestamp.type", "LogAppendTime", "min.insync.replicas", "1", "retention.ms", "12345")
	adm := s.admin(t)
	describe := func(topic string) map[string]string {
		t.Helper()
		got := map[string]string{}
		eventually(t, func() error { // brokers learn of new topics one after the other
			configs, err := adm.DescribeTopicConfigs(t.Context(), topic)
			if err != nil {
				return err
			}
			for _, kv := range configs[0].Configs {
				got[kv.Key] = kv.MaybeValue()
			}
			return configs[0].Err
		})
		return got
	}
	got := describe(topic)
	for key, want := range map[string]string{
		"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1", "retention.ms": "12345",
	} {
		if got[key] != want {
			t.Errorf("%s: got %q, want %q", key, got[key], want)
		}
	}
	got = describe(s.create(t, 1))
	for key, want := range map[string]string{"cleanup.policy": "delete", "message.timestamp.type": "CreateTime", "min.insync.replicas": "1"} {
		if got[key] != want {
			t.Errorf("%s when nothing was said: got %q, want %q", key, got[key], want)
		}
	}
	if _, err := adm.CreateTopic(within(t), 3, 1, nil, topic); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("create it again: got %v, want %v", err, kerr.TopicAlreadyExists)
	}
}

// The topics as Uptake makes them are the topics that it asks for.
func testLayout(t *testing.T, s suite) {
	adm := s.admin(t)
	layout := topic.SingleLayout()
	for range 2 {
		if err := topic.Unprefixed.Ensure(within(t), adm, layout); err != nil {
			t.Fatal(err)
		}
	}
	var all []string
	for _, spec := range topic.Unprefixed.Specs(layout) {
		all = append(all, spec.Name)
	}
	var infos map[string]topic.Info
	eventually(t, func() (err error) { // brokers learn of new topics one after the other
		infos, err = topic.Unprefixed.Check(t.Context(), adm, all...)
		return err
	})
	if got := infos[topic.Unprefixed.Raw].Partitions; got != layout.Partitions {
		t.Errorf("partitions of %s: got %d, want %d", topic.Unprefixed.Raw, got, layout.Partitions)
	}
}
