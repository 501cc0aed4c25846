package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

// What is acked is in the log, keyed and stamped as the contract says; what is
// bad is in rejected, byte for byte, and fails nobody else.
func TestAckIsDurable(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", nil)
	g.awaitReady()
	var events []string
	for i := range 10 {
		e := track(fmt.Sprintf("m%d", i), fmt.Sprintf("u%d", i))
		if i%4 == 1 {
			e = strings.Replace(e, `"event":"Item Scanned",`, "", 1)
		}
		events = append(events, e)
	}
	res := g.post("/v1/batch", batchOf(events...))
	v := res.verdict(t)
	if res.status != 200 || v.Accepted != 7 || len(v.Rejected) != 3 || v.Rejected[0].Code != "missing_field" || v.Rejected[0].Field != "event" {
		t.Fatalf("got %d %s", res.status, res.body)
	}
	log := readLog(t, cluster.ListenAddrs())
	if len(log.events) != 7 || len(log.rejected) != 3 {
		t.Fatalf("log holds %d events and %d rejected, want 7 and 3", len(log.events), len(log.rejected))
	}
	originals := map[string]bool{}
	for _, r := range log.rejected {
		originals[string(r.Original)] = true
		if r.AppID != "dev" || r.Code != "missing_field" || r.Stage != event.StageGateway || r.SourcePartition != -1 {
			t.Errorf("got %+v", r)
		}
	}
	for _, i := range []int{1, 5, 9} {
		if !originals[events[i]] {
			t.Errorf("original bytes of event %d are not in rejected", i)
		}
	}
	for _, rec := range log.records {
		if rec.Topic != topic.Unprefixed.Raw {
			continue
		}
		var e event.RawEvent
		if err := event.NewCodec().DecodeRaw(rec.Value, &e); err != nil {
			t.Fatal(err)
		}
		if key := string(topic.RawKey(nil, "dev", e.UserID, "", "")); string(rec.Key) != key || rec.Partition != topic.Partition([]byte(key), partsCount) {
			t.Errorf("%s has key %q in partition %d", e.MessageID, rec.Key, rec.Partition)
		}
		if rec.Timestamp.UnixMilli() != e.ReceivedAt/1000 {
			t.Errorf("%s was received at %d and is stamped %d", e.MessageID, e.ReceivedAt, rec.Timestamp.UnixMicro())
		}
	}
	g.idle()
	for _, m := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"uptake_gateway_events_total", []string{"app", "dev", "outcome", "accepted"}, 7},
		{"uptake_gateway_events_total", []string{"app", "dev", "outcome", "rejected"}, 3},
		{"uptake_gateway_rejected_total", []string{"app", "dev", "code", "missing_field"}, 3},
		{"uptake_gateway_requests_total", []string{"protocol", "segment", "status", "200"}, 1},
		{"uptake_gateway_records_total", []string{"topic", "raw", "result", "acked"}, 7},
		{"uptake_gateway_records_total", []string{"topic", "rejected", "result", "acked"}, 3},
		{"uptake_gateway_request_seconds", []string{"protocol", "segment"}, 1},
		{"uptake_gateway_ack_seconds", nil, 1},
		{"uptake_gateway_kafka_ready", nil, 1},
	} {
		if got := g.metric(m.name, m.labels...); got != m.want {
			t.Errorf("%s%v: got %v, want %v", m.name, m.labels, got, m.want)
		}
	}
}

// freeAddr is an address where nobody listens.
func freeAddr(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// A gateway that finds no Kafka serves, refuses, says why, and works as soon as
// there is one.
func TestStartsWithoutKafka(t *testing.T) {
	addr := freeAddr(t)
	g := startGateway(t, []string{addr}, "", nil)
	await(t, "readiness names kafka", func() bool { return strings.Contains(g.health.Ready()["kafka"], "list topics") })
	res := g.post("/v1/track", track("m1", "u1"))
	if res.status != 503 || res.header.Get("Retry-After") != "5" || res.verdict(t).Error.Code != "unavailable" {
		t.Errorf("got %d %s %s", res.status, res.header, res.body)
	}
	port := netip.MustParseAddrPort(addr).Port()
	cluster := newCluster(t, kfake.Ports(int(port)))
	g.awaitReady()
	if res := g.post("/v1/track", track("m2", "u1")); res.status != 200 {
		t.Errorf("got %d %s", res.status, res.body)
	}
	if got := readLog(t, cluster.ListenAddrs()).ids(); len(got) != 1 || got["m2"] != 1 {
		t.Errorf("log holds %v", got)
	}
}

// Topics that are not as they must be keep the gateway from taking events.
func TestWrongTopicsAreNotUsed(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topic.Unprefixed.Raw))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	g := startGateway(t, cluster.ListenAddrs(), "", nil)
	await(t, "readiness names the topic", func() bool { return strings.Contains(g.health.Ready()["kafka"], topic.Unprefixed.Rejected) })
	if res := g.post("/v1/track", track("m1", "u1")); res.status != 503 {
		t.Errorf("got %d %s", res.status, res.body)
	}
}

// Kafka goes away: 503 within the deadline, and nothing is acked.
func TestKafkaGoesAway(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", func(c *Config, _ *Dependencies) { c.AckTimeout = time.Second })
	g.awaitReady()
	if res := g.post("/v1/track", track("m1", "u1")); res.status != 200 {
		t.Fatalf("got %d %s", res.status, res.body)
	}
	cluster.Close()
	res := g.post("/v1/batch", batchOf(track("m2", "u1"), track("m3", "u2"), `{"type":"fly","messageId":"m4"}`))
	v := res.verdict(t)
	if res.status != 503 || res.header.Get("Retry-After") == "" || v.Success || v.Error.Code != "unavailable" || v.Accepted+len(v.Rejected) != 0 {
		t.Errorf("got %d %v %s", res.status, res.header, res.body)
	}
	await(t, "readiness says so", func() bool { return g.health.Ready()["kafka"] != "" })
	if got := g.metric("uptake_gateway_events_total", "app", "dev", "outcome", "unstored"); got != 3 {
		t.Errorf("%v events are counted as unstored, want 3", got)
	}
}

// Kafka comes back, with what it had: the gateway goes on by itself, and what it
// acked before and after is there.
func TestKafkaComesBack(t *testing.T) {
	port := int(netip.MustParseAddrPort(freeAddr(t)).Port())
	opts := []kfake.Opt{kfake.Ports(port), kfake.DataDir(t.TempDir()), kfake.SyncWrites()}
	cluster := newCluster(t, opts...)
	g := startGateway(t, cluster.ListenAddrs(), "", func(c *Config, _ *Dependencies) { c.AckTimeout = time.Second })
	g.awaitReady()
	acked := map[string]bool{}
	send := func(id string) bool {
		ok := g.post("/v1/track", track(id, id)).status == 200
		acked[id] = acked[id] || ok
		return ok
	}
	for i := range 10 {
		if !send(fmt.Sprintf("before%d", i)) {
			t.Error("refused while Kafka is there")
		}
	}
	cluster.Close()
	if send("while") {
		t.Error("acked while Kafka is away")
	}
	cluster = newCluster(t, opts...)
	await(t, "a client that tries again is acked", func() bool { return send("while") })
	g.awaitReady()
	if !send("after") {
		t.Error("refused after Kafka came back")
	}
	ids := readLog(t, cluster.ListenAddrs()).ids()
	for id, ok := range acked {
		if ok && ids[id] == 0 {
			t.Errorf("%s was acked and is not in the log", id)
		}
	}
	g.idle()
}

// usersOn returns a user whose events go to each partition.
func usersOn(n int32) map[int32]string {
	users := map[int32]string{}
	for i := 0; len(users) < int(n); i++ {
		u := fmt.Sprintf("user%d", i)
		users[topic.Partition(topic.RawKey(nil, "dev", u, "", ""), n)] = u
	}
	return users
}

// When some partitions take a request's records and others do not, the client is
// told which event is which.
func TestPartialFailure(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", nil)
	g.awaitReady()
	users := usersOn(partsCount)
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Unprefixed.Raw, Partitions: []int32{2}, Err: kerr.PolicyViolation, Count: -1})
	batch := batchOf(track("m0", users[0]), track("m1", users[1]), track("m2", users[2]), `{"type":"fly","messageId":"m3"}`, track("m4", users[2]))
	res := g.post("/v1/batch", batch)
	v := res.verdict(t)
	if res.status != 503 || v.Success || v.Accepted != 2 || len(v.Rejected) != 1 || len(v.Unstored) != 2 ||
		v.Unstored[0].Index != 2 || v.Unstored[1].MessageID != "m4" || !strings.Contains(v.Error.Detail, "2 of 5 records were refused: POLICY_VIOLATION") {
		t.Errorf("got %d %s", res.status, res.body)
	}
	got := readLog(t, cluster.ListenAddrs()).ids()
	if len(got) != 2 || got["m0"] != 1 || got["m1"] != 1 {
		t.Errorf("log holds %v", got)
	}
	if fault.Hits() == 0 {
		t.Error("the fault was never hit")
	}
	fault.Remove()
	if res := g.post("/v1/batch", batch); res.status != 200 {
		t.Errorf("again: got %d %s", res.status, res.body)
	}
	g.awaitReady()
	g.idle()
}

// stall makes produce requests wait until the returned function is called.
func stall(cluster *kfake.Cluster) (release func()) {
	var once sync.Once
	gate := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		cluster.SleepControl(func() { <-gate })
		return nil, nil, false
	})
	return func() { once.Do(func() { close(gate) }) }
}

// The client hangs, and the cluster answers others: the gateway is not ready, goes on
// with another client, and what was in flight no longer counts against its bounds.
func TestStalledClientIsReplaced(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // for the stacks
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", func(c *Config, _ *Dependencies) {
		c.AckTimeout = time.Second
		c.StallTimeout = 3 * time.Second
	})
	g.awaitReady()
	first := g.producer.client.Load()
	release := stall(cluster)
	defer release()
	if res := g.post("/v1/batch", batchOf(track("m0", "u"))); res.status != 503 {
		t.Fatalf("got %d %s", res.status, res.body)
	}
	await(t, "another client", func() bool { return g.producer.client.Load() != first })
	if got := g.metric("uptake_gateway_stalls_total"); got != 1 {
		t.Errorf("%v stalls, want 1", got)
	}
	release()
	await(t, "an ack", func() bool { return g.post("/v1/batch", batchOf(track("m1", "u"))).status == 200 })
	g.awaitReady()
	g.idle()
	if log := readLog(t, cluster.ListenAddrs()).ids(); log["m1"] == 0 {
		t.Errorf("log holds %v", log)
	}
}

// A topic that was lost is made again, under the same name and another id: the gateway
// refuses meanwhile, and goes on by itself.
func TestTopicsMadeAgain(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", func(c *Config, _ *Dependencies) { c.AckTimeout = time.Second })
	g.awaitReady()
	if res := g.post("/v1/batch", batchOf(track("m0", "u"))); res.status != 200 {
		t.Fatalf("got %d %s", res.status, res.body)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm, layout := kadm.NewClient(cl), topic.SingleLayout()
	layout.Partitions = partsCount
	if _, err := adm.DeleteTopic(t.Context(), topic.Unprefixed.Raw); err != nil {
		t.Fatal(err)
	}
	if res := g.post("/v1/batch", batchOf(track("m1", "u"))); res.status != 503 {
		t.Errorf("without the topic: got %d %s", res.status, res.body)
	}
	await(t, "the topic to be made again", func() bool { return topic.Unprefixed.Ensure(t.Context(), adm, layout) == nil })
	await(t, "an ack", func() bool { return g.post("/v1/batch", batchOf(track("m2", "u"))).status == 200 })
	g.awaitReady()
	g.idle()
	if log := readLog(t, cluster.ListenAddrs()).ids(); log["m2"] != 1 || log["m0"] != 0 {
		t.Errorf("log holds %v", log)
	}
}

// Brokers that are slow past the deadline: 503, and what is in flight counts
// against the bounds until its result is known, which is counted as late.
func TestSlowBrokersAndOverload(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", func(c *Config, _ *Dependencies) {
		c.AckTimeout = time.Second
		c.Limits.MaxBatchEvents = 4
		c.MaxInflightEvents = 8
	})
	g.awaitReady()
	release := stall(cluster)
	defer release()
	four := func(n int) string {
		var events []string
		for i := range 4 {
			events = append(events, track(fmt.Sprintf("r%d-%d", n, i), fmt.Sprintf("u%d", i)))
		}
		return batchOf(events...)
	}
	var replies [2]reply
	var wg sync.WaitGroup
	for i := range replies {
		wg.Add(1)
		go func() { defer wg.Done(); replies[i] = g.post("/v1/batch", four(i)) }()
	}
	await(t, "both are in flight", func() bool { return g.producer.inflight.used.Load() == 8 })
	res := g.post("/v1/batch", four(2))
	if v := res.verdict(t); res.status != 503 || v.Error.Setting != "max-inflight-events" || res.header.Get("Retry-After") != "1" {
		t.Errorf("over the bound: got %d %s", res.status, res.body)
	}
	wg.Wait()
	for i, res := range replies {
		if v := res.verdict(t); res.status != 503 || v.Error.Setting != "ack-timeout" || v.Accepted != 0 {
			t.Errorf("request %d: got %d %s", i, res.status, res.body)
		}
	}
	if got := g.producer.inflight.used.Load(); got != 8 {
		t.Errorf("%d records are in flight, want 8: their result is not known", got)
	}
	release()
	g.idle()
	if got := g.metric("uptake_gateway_late_records_total", "result", "acked"); got == 0 {
		t.Error("no late ack was counted")
	}
	// The clients send again: the ids are there at most twice, and none is lost.
	for i := range replies {
		if res := g.post("/v1/batch", four(i)); res.status != 200 {
			t.Errorf("again: got %d %s", res.status, res.body)
		}
	}
	ids := readLog(t, cluster.ListenAddrs()).ids()
	if len(ids) != 8 {
		t.Errorf("log holds %v", ids)
	}
	if got := g.metric("uptake_gateway_limited_total", "setting", "max-inflight-events"); got != 1 {
		t.Errorf("limited_total of max-inflight-events is %v", got)
	}
}

// Stopping under load loses nothing that was acked, and answers or refuses
// everything else.
func TestStopUnderLoadLosesNothing(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", nil)
	g.awaitReady()
	var mu sync.Mutex // covers acked
	acked := map[string]bool{}
	var ended atomic.Bool
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() { // ends when the gateway refuses or is gone
			defer wg.Done()
			for i := 0; !ended.Load(); i++ {
				var events, ids []string
				for k := range 5 {
					id := fmt.Sprintf("w%d-%d-%d", w, i, k)
					ids = append(ids, id)
					events = append(events, track(id, fmt.Sprintf("u%d", k)))
				}
				res := g.post("/v1/batch", batchOf(events...))
				if res.err != nil {
					return
				}
				if res.status == 200 {
					mu.Lock()
					for _, id := range ids {
						acked[id] = true
					}
					mu.Unlock()
				}
			}
		}()
	}
	await(t, "some are acked", func() bool { mu.Lock(); defer mu.Unlock(); return len(acked) > 500 })
	if err := g.stopped(); err != nil {
		t.Errorf("Run: %v", err)
	}
	ended.Store(true)
	wg.Wait()
	ids := readLog(t, cluster.ListenAddrs()).ids()
	for id := range acked {
		if ids[id] != 1 {
			t.Errorf("%s was acked and is %d times in the log", id, ids[id])
		}
	}
	t.Logf("%d acked, %d stored", len(acked), len(ids))
	if !strings.Contains(g.logs.String(), "msg=stopped") || !strings.Contains(g.logs.String(), "records_not_acked=0") {
		t.Error("the log does not say what was flushed")
	}
	if got := g.metric("uptake_gateway_events_total", "outcome", "accepted"); got < float64(len(acked)) {
		t.Errorf("%v events are counted as accepted, %d were acked", got, len(acked))
	}
}

// With brokers that hang, stopping waits no longer than stop-timeout and
// ack-timeout; a second signal ends it at once, and nobody is told success.
func TestSecondSignalCutsShort(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", func(c *Config, _ *Dependencies) {
		c.AckTimeout, c.StopTimeout = 5*time.Minute, 5*time.Minute
	})
	g.awaitReady()
	release := stall(cluster)
	defer release()
	answered := make(chan reply, 1)
	go func() { answered <- g.post("/v1/track", track("m1", "u1")) }()
	await(t, "it is in flight", func() bool { return g.producer.inflight.used.Load() == 1 })
	g.stop()
	await(t, "it is not ready", func() bool { return g.health.Ready()["intake"] == "stopping" })
	g.kill(process.ErrCutShort)
	if res := <-answered; res.err == nil && res.status != 503 {
		t.Errorf("got %d %s", res.status, res.body)
	}
	if err := g.stopped(); !errors.Is(err, process.ErrCutShort) {
		t.Errorf("Run: got %v, want %v", err, process.ErrCutShort)
	}
	if !strings.Contains(g.logs.String(), "records_not_acked=1") {
		t.Error("the log does not name the record that was given up")
	}
}

// One event of a request may be several records; they stand or fall together.
func TestItemsOfSeveralRecords(t *testing.T) {
	cluster := newCluster(t)
	users := usersOn(partsCount)
	g := startGateway(t, cluster.ListenAddrs(), "", func(_ *Config, d *Dependencies) {
		d.Protocols = []ingest.Protocol{twice{users[0], users[1]}}
	})
	g.awaitReady()
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Unprefixed.Raw, Partitions: []int32{1}, Err: kerr.PolicyViolation, Count: 1})
	if res := g.post("/twice", "x"); res.status != 503 || res.body != "unstored 1" {
		t.Errorf("got %d %s", res.status, res.body)
	}
	if res := g.post("/twice", "x"); res.status != 200 || res.body != "unstored 0" {
		t.Errorf("got %d %s", res.status, res.body)
	}
}

// twice is a protocol that makes two events of one item, for two users.
type twice [2]string

func (twice) Name() string          { return "twice" }
func (twice) Fields() ingest.Fields { return ingest.Fields{} }
func (p twice) Routes() []ingest.Route {
	return []ingest.Route{{
		Method: "POST", Path: "/twice",
		Decode: func(r *ingest.Request, b *ingest.Batch) error {
			if err := b.Authenticate(r.BasicUser()); err != nil {
				return err
			}
			if string(r.Body) == "panic" {
				panic("as asked")
			}
			ev := b.Item(r.Body)
			for _, u := range p {
				ev.Kind, ev.Event, ev.UserID = event.KindTrack, "e", u
				b.Add()
			}
			return nil
		},
		Answer: func(_ *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
			if fault != nil {
				w.Status = fault.Kind.Status()
			}
			w.WriteString(fmt.Sprintf("unstored %d", b.Count(ingest.Unstored)))
		},
	}}
}

// A protocol that panics fails one request and not the gateway.
func TestPanicFailsOneRequest(t *testing.T) {
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), "", func(_ *Config, d *Dependencies) {
		d.Protocols = []ingest.Protocol{twice{"a", "b"}}
	})
	g.awaitReady()
	for range 3 {
		if res := g.post("/twice", "panic"); res.status != 500 || res.verdict(t).Error.Code != "broken" {
			t.Errorf("got %d %s", res.status, res.body)
		}
		if res := g.post("/twice", "x"); res.status != 200 {
			t.Errorf("got %d %s", res.status, res.body)
		}
	}
	g.idle()
	if !strings.Contains(g.logs.String(), "as asked") {
		t.Error("the panic is not in the log")
	}
}
