package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
)

func TestMain(m *testing.M) {
	embedded.ChildMain()
	FloorMain()
	code := m.Run()
	if err := stack.Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// At three times the gateway's capacity it sheds what it cannot carry and keeps
// its memory, the consumers fall behind and catch up, and every event that was
// acked is a row. The capacity is set by a bound on what is in flight and by how
// long the log takes to ack it, so that the test does not hang on the machine's
// speed.
func TestOverload(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the whole path for half a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if _, err := embedded.Library(ctx, os.Stderr); err != nil {
		t.Skipf("no embedded ClickHouse here: %v", err)
	}
	const (
		inflightEvents = 3000
		inflightBytes  = 32 << 20
		ackAfter       = 20 * time.Millisecond // one request after the other
		memoryBound    = 192 << 20             // of the gateway: twice 32 MiB for what is in flight, the rest for the runtime and 256 connections
	)
	cfg := DefaultConfig()
	cfg.Dir, cfg.Progress = t.TempDir(), t.Output()
	r := &runner{cfg: cfg}
	var c closers
	defer func() {
		if err := c.close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	w, err := c.whole(ctx, r, "overload", pathInterval, "-max-inflight-events", strconv.Itoa(inflightEvents), "-max-inflight-bytes", strconv.Itoa(inflightBytes),
		"-max-import-bytes", strconv.Itoa(inflightBytes/4), "-max-address-share", "1", // the load is one address
		"-max-batch-events", "1000", "-max-body-bytes", "4194304")
	if err != nil {
		t.Fatal(err)
	}
	w.log.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.log.KeepControl()
		if req.(*kmsg.ProduceRequest).TransactionID == nil { // of the gateway, not of the enricher
			w.log.SleepControl(func() { time.Sleep(ackAfter) })
		}
		return nil, nil, false
	})

	acked := &ledger{ids: map[string]bool{}}
	d := driver{url: w.url, authorization: authorization(benchApp), events: 100, connections: inflightEvents / 100, accepted: acked.add(100)}
	began := time.Now()
	if _, err := d.run(ctx, 600); err != nil {
		t.Fatal(err)
	}
	capacity := float64(acked.count()) / time.Since(began).Seconds()

	// Peak lag of the consumers, looked at all along.
	watching, stop := context.WithCancel(ctx)
	var lag atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() { // ends with watching
		for backoff.Sleep(watching, 200*time.Millisecond) == nil {
			if n, err := w.lag(watching); err == nil {
				lag.Store(max(lag.Load(), n))
			}
		}
	})
	var shed atomic.Int64
	over := d
	over.connections, over.rate = 256, 3*capacity
	over.shed = func(status int, retryAfter []byte) error {
		if status != 503 && status != 429 {
			return fmt.Errorf("overload was answered with %d", status)
		}
		if n, err := strconv.Atoi(string(retryAfter)); err != nil || n < 1 {
			return fmt.Errorf("a %d came with Retry-After %q", status, retryAfter)
		}
		shed.Add(1)
		return nil
	}
	before := acked.count()
	requests := int(3 * capacity * 5 / 100) // five seconds of it
	began = time.Now()
	latencies, err := over.run(ctx, requests)
	took := time.Since(began)
	if err != nil {
		t.Error(err)
	}
	accepted := acked.count() - before
	if shed.Load() == 0 || accepted == 0 {
		t.Errorf("of %d requests at three times the capacity %d were shed and %d events acked", requests, shed.Load(), accepted)
	}
	if peak := peakOf(w.gateway.cmd.Process.Pid); peak > memoryBound {
		t.Errorf("the gateway took %d MiB, more than %d", peak>>20, memoryBound>>20)
	}

	// What was acked comes through, whatever the lag was.
	err = w.writer.await(ctx, "the rows", func() (bool, error) {
		n, err := count(ctx, w.server, "uptake.events")
		return n >= acked.count(), errors.Join(err, w.enricher.alive(), w.gateway.alive())
	})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	wg.Wait()
	text, err := w.server.Query(ctx, "SELECT message_id FROM uptake.events")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, id := range strings.Fields(text) {
		if rows[id] {
			t.Errorf("%s is there twice", id)
		}
		rows[id] = true
	}
	if lost := acked.missing(rows); len(lost) > 0 {
		t.Errorf("%d acked events are not there, such as %s", len(lost), lost[0])
	}
	for _, p := range []*process{w.gateway, w.enricher, w.writer} {
		if err := p.alive(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("capacity %.0f events/s; at 3x for %.1f s: %d of %d requests shed, %.0f events/s acked, p50 %s, p99 %s; gateway %d MiB, enricher %d MiB, writer %d MiB, lag up to %d records, caught up",
		capacity, took.Seconds(), shed.Load(), requests, float64(accepted)/took.Seconds(),
		Percentile(latencies, 0.5).Round(time.Millisecond), Percentile(latencies, 0.99).Round(time.Millisecond),
		peakOf(w.gateway.cmd.Process.Pid)>>20, peakOf(w.enricher.cmd.Process.Pid)>>20, peakOf(w.writer.cmd.Process.Pid)>>20, lag.Load())
}

// lag is how many records raw and enriched hold beyond what the groups committed.
func (w *whole) lag(ctx context.Context) (behind int64, err error) {
	for name, group := range map[string]string{topic.Unprefixed.Raw: topic.Unprefixed.GroupEnricher, topic.Unprefixed.Enriched: topic.Unprefixed.GroupRollupWriter} {
		end, err := w.log.committed(ctx, name)
		if err != nil {
			return 0, err
		}
		commits, err := w.log.admin.FetchOffsets(ctx, group)
		if err != nil {
			return 0, err
		}
		for _, o := range commits.Offsets()[name] {
			end -= max(o.At, 0)
		}
		behind += end
	}
	return behind, nil
}

// ledger is the message ids that were acked.
type ledger struct {
	mu  sync.Mutex // covers ids
	ids map[string]bool
}

func (l *ledger) add(events int64) func(first int64) {
	return func(first int64) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range events {
			l.ids[fmt.Sprintf("bench-%0*d", digits, first+i)] = true
		}
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ids)
}

func (l *ledger) missing(rows map[string]bool) (lost []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.ids {
		if !rows[id] {
			lost = append(lost, id)
		}
	}
	return lost
}
