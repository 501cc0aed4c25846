package enrich

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/event"
)

// A transaction that takes longer than its timeout is taken apart until it goes
// through, and none of its records is rejected for the time that it took.
func TestSlowTransactionsAreTakenApart(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	var records []*kgo.Record
	for n := range 200 {
		e := track("dev", n)
		e.Properties = []byte(fmt.Sprintf(`{"text":%q}`, strings.Repeat("x", 500)))
		records = append(records, c.raw(e))
	}
	c.send(records...)
	i := c.start(t.TempDir(), func(cfg *Config) {
		cfg.TransactionTimeout = time.Second
		cfg.CommitInterval = 100 * time.Millisecond
		cfg.Compression = "none"
	})
	i.wire.slow(20 << 10) // all of them take some seconds
	c.drained()
	c.check()
	if n := len(c.rejects()); n > 0 {
		t.Errorf("%d records were rejected", n)
	}
	if i.metric("uptake_enricher_session_failures_total") == 0 {
		t.Error("no transaction timed out")
	}
	if got := i.metric("uptake_enricher_transaction_max_records"); got >= 200 {
		t.Errorf("a transaction may have %v records, want fewer than 200", got)
	}
	i.wire.slow(0)
	n := 0
	c.wait("quick transactions to be allowed as many records as before", func() bool {
		c.send(c.raw(track("dev", 1000+n)))
		n++
		c.drained()
		return i.metric("uptake_enricher_transaction_max_records") == 20_000
	})
}

// Users who are aliased in a chain, each in as many accounts as are kept, make a
// record ask for more than one record may. That one alone is rejected.
func TestRecordThatAsksForTooMuch(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	i := c.start(t.TempDir(), func(cfg *Config) { cfg.Identity.MaxRecordSteps = 1 << 16 })
	n := 0
	send := func(e event.RawEvent) {
		n++
		e.AppID, e.MessageID, e.ReceivedAt, e.Timestamp = "dev", fmt.Sprint("m", n), event.Micros(n)*3_600_000_000, event.Micros(n)*3_600_000_000
		c.send(c.raw(e))
	}
	for u := range 4 {
		for a := range 64 {
			send(event.RawEvent{Kind: event.KindGroup, UserID: fmt.Sprint("u", u), AccountID: fmt.Sprintf("c%d-%d", u, a), Traits: []byte(fmt.Sprintf(`{"role":"r%d"}`, a))})
		}
		if u > 0 {
			send(event.RawEvent{Kind: event.KindAlias, PreviousID: fmt.Sprint("u", u-1), UserID: fmt.Sprint("u", u)})
		}
		c.drained()
	}
	send(event.RawEvent{Kind: event.KindGroup, UserID: "u0", AccountID: "one-more"})
	c.drained()
	send(event.RawEvent{Kind: event.KindTrack, Event: "e", UserID: "somebody else"})
	c.drained()
	rejects := c.rejects()
	if len(rejects) == 0 {
		t.Fatal("no record was rejected")
	}
	for _, r := range rejects {
		if r.Code != codeTooMuchWork || !strings.Contains(r.Detail, "identity-max-record-steps") {
			t.Errorf("rejected with %s, %q", r.Code, r.Detail)
		}
	}
	if i.metric("uptake_enricher_session_failures_total") > 0 {
		t.Error("a session ended")
	}
	events := 0
	for _, list := range c.enriched() {
		events += len(list)
	}
	if raws := n - events; raws > len(rejects) {
		t.Errorf("of %d events %d are enriched and %d rejected", n, events, len(rejects))
	}
}

// Records wait and nothing moves: the service is not ready and says which, writes
// down what it knows, and a new client goes on.
func TestStalledClientIsReplaced(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	i := c.start(dir, func(cfg *Config) {
		cfg.watchPause = 50 * time.Millisecond
		cfg.TransactionTimeout = time.Second
		cfg.StallTimeout = 3 * time.Second
	})
	c.send(c.raw(track("dev", 0)))
	c.drained()
	i.svc.watch.mu.Lock()
	session := i.svc.watch.session
	i.svc.watch.mu.Unlock()
	for id := range int32(partitions) {
		session.cl.PauseFetchPartitions(session.both(id)) // and nobody resumes them
	}
	time.Sleep(2 * idleWait) // a fetch under way ends
	for n := range 50 {
		c.send(c.raw(track("dev", 1+n)))
	}
	c.wait("the replacement of the client", func() bool { return i.metric("uptake_enricher_stalls_total") > 0 })
	c.drained()
	c.check()
	if got := i.metric("uptake_enricher_session_failures_total", "reason=stalled"); got != 1 {
		t.Errorf("%v sessions ended for a stall, want 1", got)
	}
	c.wait("readiness", func() bool { return len(i.health.Ready()) == 0 })
}

// Transactions that fail again and again once left the service ready: each new
// client restored its partitions, and that was all that was asked.
func TestNotReadyWithoutCommits(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	if c.fake == nil {
		t.Skip("needs kfake to answer in its place")
	}
	i := c.start(t.TempDir(), func(cfg *Config) {
		cfg.watchPause = 50 * time.Millisecond
		cfg.TransactionTimeout = time.Second
		cfg.StallTimeout = 3 * time.Second
	})
	c.wait("readiness", func() bool { return len(i.health.Ready()) == 0 })
	var repaired atomic.Bool
	c.fake.ControlKey(kmsg.TxnOffsetCommit.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if repaired.Load() {
			return nil, nil, false
		}
		c.fake.KeepControl()
		r := req.(*kmsg.TxnOffsetCommitRequest)
		resp := r.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		for _, rt := range r.Topics {
			out := kmsg.NewTxnOffsetCommitResponseTopic()
			out.Topic, out.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, kerr.UnknownServerError.Code
				out.Partitions = append(out.Partitions, p)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp, nil, true
	})
	c.send(c.raw(track("dev", 0)))
	c.wait("a reason not to be ready that outlives sessions", func() bool { return i.svc.watch.check() != nil })
	if text := i.svc.watch.check(); text != nil && !strings.Contains(text.Error(), "nothing was committed") {
		t.Errorf("the reason is %v", text)
	}
	if len(i.health.Ready()) == 0 {
		t.Error("the service is ready")
	}
	c.wait("two seconds of waiting by the metric", func() bool { return i.metric("uptake_enricher_waiting_seconds") >= 2 })
	repaired.Store(true)
	c.drained()
	c.check()
	c.wait("readiness", func() bool { return len(i.health.Ready()) == 0 })
}
