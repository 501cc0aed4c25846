package enrich

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/event"
)

// realistic returns an event as an SDK sends it, about 600 bytes.
func realistic(n int) event.RawEvent {
	now := event.FromTime(time.Now())
	return event.RawEvent{
		AppID:       "mypos",
		Kind:        event.KindTrack,
		Event:       "Item Scanned",
		MessageID:   fmt.Sprintf("node-next-%d-%08x-3c5e-4f5a-9b0d-%012x", now/1000, n, n*7919),
		UserID:      fmt.Sprintf("user-%d", n%5000),
		AnonymousID: "",
		AccountID:   fmt.Sprintf("shop-%d", n%300),
		Timestamp:   now - 2_000_000,
		SentAt:      now - 1_000_000,
		ReceivedAt:  now,
		Quantity:    1,
		Properties:  []byte(`{"sku":"4711-0815","name":"Espresso beans 1kg","price":12.5,"currency":"EUR","quantity":2,"till":"front-3","cashier":"c-77","member":true,"tags":["food","coffee"]}`),
		Context:     []byte(`{"library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"de-DE","timezone":"Europe/Berlin","app":{"name":"MyPOS","version":"7.4.1"},"groupId":"shop-17"}`),
		Protocol:    "segment",
		Library:     "@segment/analytics-node/3.1.0",
		IP:          "203.0.113.0",
		UserAgent:   "analytics-node/3.1.0",
	}
}

// cpuTime returns the processor time that the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bench returns a worker whose records go nowhere, and raw records of n events.
func bench(b *testing.B, n int) (*worker, []*kgo.Record) {
	c := newCluster(b)
	c.apply("mypos", 1, catalogOf("billing", "Item Scanned"))
	i := c.start(filepath.Join(b.TempDir(), "a"))
	records := make([]*kgo.Record, n)
	for k := range records {
		records[k] = c.raw(realistic(k))
		records[k].Partition, records[k].Offset = 0, int64(k)
	}
	c.send(c.raw(realistic(n))) // its keys are agreed on
	c.drained()
	w := &worker{
		n:       &session{svc: i.svc},
		part:    &partition{identity: identity.New(i.svc.identityConfig(), 0, i.svc.codec, i.svc.identityMetrics), catalogs: map[string]int64{}},
		swapped: map[string]int64{},
		norm:    metadata.New(i.svc.cfg.Metadata),
		produce: func(context.Context, *kgo.Record, func(*kgo.Record, error)) {},
	}
	w.out.init(i.svc.codec)
	var err error
	if w.part.seen, err = i.svc.store.Set(context.Background(), 99, [16]byte{1}, nil); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := w.part.close(); err != nil {
			b.Error(err)
		}
	})
	return w, records
}

// What an event costs between the client that consumes it and the one that
// produces it, commits included.
func BenchmarkRecord(b *testing.B) {
	const batch = 10_000
	for _, dup := range []bool{false, true} {
		b.Run(fmt.Sprintf("duplicate=%v", dup), func(b *testing.B) {
			w, records := bench(b, batch)
			ids := 0
			offset := int64(0)
			turn := func() {
				t := newTxn(context.Background(), w.n.svc.catalogs.current())
				if err := w.begin(t); err != nil {
					b.Fatal(err)
				}
				if err := w.process(records); err != nil {
					b.Fatal(err)
				}
				if w.out.enriched != nil {
					offset += batch
					w.out.enriched.Offset = offset
				}
				if err := w.merge(); err != nil {
					b.Fatal(err)
				}
			}
			turn()
			b.ReportAllocs()
			b.SetBytes(int64(len(records[0].Value)))
			b.ResetTimer()
			var began, used time.Duration
			for n := 0; n < b.N; n += batch {
				b.StopTimer()
				if !dup {
					// Other ids of the same length, in place.
					for k, r := range records {
						e := realistic(k)
						e.MessageID = fmt.Sprintf("%036d", ids)
						ids++
						r.Value = w.n.svc.codec.AppendRaw(r.Value[:0], &e)
					}
				}
				began = cpuTime(b)
				b.StartTimer()
				turn()
				used += cpuTime(b) - began
			}
			b.StopTimer()
			turns := (b.N + batch - 1) / batch
			b.ReportMetric(float64(used)/float64(turns*batch), "cpu-ns/event")
			b.ReportMetric(0, "ns/op") // of a part of a turn, which says nothing
		})
	}
}

// The whole enricher over kfake, whose work is in the figure too.
func BenchmarkEndToEnd(b *testing.B) {
	c := newCluster(b)
	c.apply("mypos", 1, catalogOf("billing", "Item Scanned"))
	var records []*kgo.Record
	for k := range b.N {
		records = append(records, c.raw(realistic(k)))
		if len(records) == 10_000 || k == b.N-1 {
			c.send(records...)
			records = records[:0]
		}
	}
	b.SetBytes(int64(len(c.raw(realistic(0)).Value)))
	b.ResetTimer()
	began := cpuTime(b)
	i := c.start(filepath.Join(b.TempDir(), "a"), func(cfg *Config) { cfg.CommitInterval = DefaultConfig().CommitInterval })
	c.drained()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/event")
	i.stopped()
	if got := c.count(); got != b.N {
		b.Errorf("%d events of %d", got, b.N)
	}
}

// Nearly no event has a session id; the look for one is made for each.
func BenchmarkSessionID(b *testing.B) {
	e := realistic(1)
	b.ReportAllocs()
	b.SetBytes(int64(len(e.Properties) + len(e.Context)))
	for b.Loop() {
		if v := sessionID(e.Properties, e.Context); v != nil {
			b.Fatalf("found %s", v)
		}
	}
}
