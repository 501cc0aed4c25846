package enrich

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Whatever a broker answers to a step of a transaction, each id is in enriched
// once.
func TestEveryErrorOfATransaction(t *testing.T) {
	general := []*kerr.Error{
		kerr.UnknownServerError, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress,
		kerr.RequestTimedOut, kerr.NetworkException,
	}
	txn := append([]*kerr.Error{
		kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping,
		kerr.ConcurrentTransactions, kerr.TransactionAbortable, kerr.TransactionalIDAuthorizationFailed,
	}, general...)
	group := append([]*kerr.Error{
		kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.GroupAuthorizationFailed,
	}, general...)
	offsets := append([]*kerr.Error{
		kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.TransactionAbortable, kerr.UnstableOffsetCommit,
	}, group...)
	// DUPLICATE_SEQUENCE_NUMBER is not among them: it says that the records are
	// stored, and to say so falsely is to lose them.
	produce := []*kerr.Error{
		kerr.UnknownServerError, kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.RequestTimedOut, kerr.NotEnoughReplicas,
		kerr.NotEnoughReplicasAfterAppend, kerr.InvalidProducerEpoch, kerr.InvalidTxnState, kerr.OutOfOrderSequenceNumber,
		kerr.UnknownProducerID, kerr.KafkaStorageError, kerr.MessageTooLarge, kerr.InvalidProducerIDMapping,
		kerr.UnknownTopicOrPartition, kerr.TransactionAbortable, kerr.TopicAuthorizationFailed, kerr.CorruptMessage,
	}
	read := []*kerr.Error{
		kerr.UnknownServerError, kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.KafkaStorageError,
		kerr.OffsetNotAvailable, kerr.FencedLeaderEpoch,
	}
	fetchOffsets := []*kerr.Error{kerr.UnstableOffsetCommit, kerr.NotCoordinator, kerr.UnknownServerError}

	for _, step := range []struct {
		key    kmsg.Key
		topic  string
		errors []*kerr.Error
		// join says that the request belongs to the start of a session, so that
		// one must be made to end.
		join bool
		// old runs it against brokers before version 2 of the transaction
		// protocol, where partitions and offsets are added by requests of their own.
		old bool
	}{
		{key: kmsg.EndTxn, errors: txn},
		{key: kmsg.EndTxn, errors: txn, old: true},
		{key: kmsg.TxnOffsetCommit, errors: offsets},
		{key: kmsg.TxnOffsetCommit, errors: offsets, old: true},
		{key: kmsg.AddOffsetsToTxn, errors: txn, old: true},
		{key: kmsg.AddPartitionsToTxn, errors: txn, old: true},
		{key: kmsg.Produce, topic: topic.Unprefixed.Enriched, errors: produce},
		{key: kmsg.Produce, topic: topic.Unprefixed.Enriched, errors: produce, old: true},
		{key: kmsg.Fetch, topic: topic.Unprefixed.Raw, errors: read},
		{key: kmsg.Fetch, topic: topic.Unprefixed.Enriched, errors: read, join: true},
		{key: kmsg.InitProducerID, errors: txn, join: true},
		{key: kmsg.OffsetFetch, errors: fetchOffsets, join: true},
		{key: kmsg.Heartbeat, errors: group},
		{key: kmsg.JoinGroup, errors: group, join: true},
		{key: kmsg.SyncGroup, errors: group, join: true},
		{key: kmsg.ListOffsets, errors: read, join: true},
	} {
		name := step.key.Name()
		if step.old {
			name += "Old"
		}
		t.Run(name+step.topic, func(t *testing.T) {
			parallel(t)
			var opts []kfake.Opt
			if step.old {
				opts = append(opts, kfake.MaxVersions(kversion.V3_6_0()))
			}
			c := newCluster(t, opts...)
			if c.fake == nil {
				t.Skip("needs kfake to inject errors")
			}
			i := c.start(filepath.Join(t.TempDir(), "a"))
			counts := []int{2} // one retry inside the client, where it has one, is not enough
			if longtest.Enabled() && step.key == kmsg.EndTxn {
				counts = []int{1, 3}
			}
			n, hits := 0, 0
			batch := func() {
				var records []*kgo.Record
				for range 40 {
					records = append(records, c.raw(track("dev", n)))
					if n%5 == 0 {
						records = append(records, c.raw(track("dev", n/2)))
					}
					n++
				}
				c.send(records...)
			}
			batch()
			c.drained()
			for k, e := range step.errors {
				if testing.Short() && k%2 == 1 {
					continue
				}
				for _, count := range counts {
					h := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{step.key}, Topic: step.topic, Err: e, Count: count, When: fromInstance})
					if step.join {
						c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidTxnState})
					}
					batch()
					c.drained()
					if step.key == kmsg.Heartbeat {
						_ = h.Wait(c.ctx(2*time.Second), 1) // it comes by time
					}
					hits += h.Hits()
					h.Remove()
				}
			}
			c.drained()
			c.check()
			i.stopped()
			if hits < len(step.errors) && !testing.Short() {
				t.Errorf("only %d faults of %d kinds arrived", hits, len(step.errors))
			}
		})
	}
}

// fromInstance keeps faults away from the test's own requests.
func fromInstance(req kmsg.Request) bool {
	switch r := req.(type) {
	case *kmsg.ProduceRequest:
		return r.TransactionID != nil
	case *kmsg.InitProducerIDRequest:
		return r.TransactionalID != nil
	}
	return true
}

// The answer to any request gets lost, and the request was carried out.
func TestAnswersGetLost(t *testing.T) {
	c := newCluster(t)
	if c.fake == nil {
		t.Skip("needs kfake to see requests")
	}
	i := c.start(filepath.Join(t.TempDir(), "a"))
	n := 0
	for _, key := range []kmsg.Key{kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.Produce, kmsg.Fetch, kmsg.Heartbeat, kmsg.InitProducerID, kmsg.JoinGroup} {
		for range 3 {
			var once sync.Once
			c.fake.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
				if fromInstance(req) {
					once.Do(i.wire.reset)
				}
				return nil, nil, false
			})
			var records []*kgo.Record
			for range 200 {
				records = append(records, c.raw(track("dev", n)))
				n++
			}
			c.send(records...)
			c.drained()
		}
	}
	c.check()
	i.stopped()
}

// A broker commits and answers with an error. The library takes some of them
// for "not committed", without an error of its own: whoever believes that does
// everything again.
func TestCommittedButAnsweredWithAnError(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.UnknownServerError, kerr.RequestTimedOut, kerr.NetworkException, kerr.InvalidTxnState} {
		t.Run(e.Message, func(t *testing.T) {
			c := newCluster(t)
			if c.fake == nil {
				t.Skip("needs kfake to answer for the broker")
			}
			i := c.start(filepath.Join(t.TempDir(), "a"))
			c.send(c.raw(track("dev", 0)))
			c.drained()
			var applied atomic.Int32
			for n := 1; n < 400; n += 40 {
				var own atomic.Bool
				c.fake.ControlKey(kmsg.EndTxn.Int16(), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
					req := kreq.(*kmsg.EndTxnRequest)
					if !req.Commit || own.Load() {
						return nil, nil, false
					}
					c.fake.DropControl()
					again := *req
					c.fake.SleepControl(func() {
						own.Store(true)
						resp, err := again.RequestWith(c.ctx(10*time.Second), c.cl)
						if err == nil && resp.ErrorCode == 0 {
							applied.Add(1)
						}
					})
					resp := req.ResponseKind().(*kmsg.EndTxnResponse)
					resp.ErrorCode = e.Code
					return resp, nil, true
				})
				for k := range 40 {
					c.send(c.raw(track("dev", n+k)))
				}
				c.drained()
			}
			c.check()
			i.stopped()
			if applied.Load() < 5 {
				t.Errorf("only %d commits were carried out and answered with %s", applied.Load(), e.Message)
			}
		})
	}
}

// seed is that of the random tests: UPTAKE_TEST_SEED, or of the moment.
func seed(t *testing.T) *rand.Rand {
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("UPTAKE_TEST_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("UPTAKE_TEST_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 1))
}

// Instances come, go, crash, hang and lose their disks under load.
func TestChaos(t *testing.T) {
	c := newCluster(t)
	r := seed(t)
	dir := t.TempDir()
	steps := 12
	switch {
	case longtest.Enabled():
		steps = 25
	case testing.Short():
		steps = 8
	}
	var live []*instance
	names := map[*instance]string{}
	made := 0
	start := func(data string) {
		if data == "" {
			made++
			data = filepath.Join(dir, fmt.Sprintf("i%d", made))
		}
		i := c.start(data)
		names[i] = data
		live = append(live, i)
	}
	remove := func(k int) *instance {
		i := live[k]
		live = append(live[:k], live[k+1:]...)
		return i
	}
	start("")
	// kfake never expires a member whose connection broke before its answer to a
	// join was written. The next rebalance removes it.
	kick := func() {
		t.Log("nothing moves: one more instance, for a rebalance")
		start("")
	}
	n := 0
	load := func() {
		var records []*kgo.Record
		for range 300 {
			k := n
			n++
			if r.IntN(4) == 0 {
				k = r.IntN(n)
			}
			records = append(records, c.raw(track("dev", k)))
		}
		c.send(records...)
	}
	for step := range steps {
		load()
		var what string
		switch k := r.IntN(8); {
		case len(live) < 2 || k == 0 && len(live) < 3:
			what = "start another"
			start("")
		case k <= 1:
			what = "stop one"
			remove(r.IntN(len(live))).stopped()
		case k <= 3:
			what = "crash one and start it again"
			i := remove(r.IntN(len(live)))
			i.crash()
			start(names[i])
		case k == 4:
			what = "crash one and lose its disk"
			i := remove(r.IntN(len(live)))
			i.crash()
			if err := os.RemoveAll(names[i]); err != nil {
				t.Fatal(err)
			}
			start(names[i])
		case k == 5:
			what = "crash one for good"
			remove(r.IntN(len(live))).crash()
			start("")
		case k == 6:
			what = "hang one past its transaction and its session"
			i := live[r.IntN(len(live))]
			i.wire.stall()
			time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond) //nolint:forbidigo // the fault is the time
			load()
			i.wire.release()
		default:
			what = "cut the connections of one"
			live[r.IntN(len(live))].wire.reset()
		}
		t.Logf("step %d: %s, %d live, %d sent", step, what, len(live), n)
		if r.IntN(3) == 0 {
			c.drained(kick)
		}
	}
	load()
	c.drained(kick)
	c.check()
	for _, i := range live {
		i.stopped()
	}
}
