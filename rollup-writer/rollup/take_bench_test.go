package rollup

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// What a row costs between the client that fetches it and the insert: header,
// cut, decode, columns. Blocks go nowhere.
func BenchmarkTake(b *testing.B) {
	const rows = 10_000
	s := &Service{cfg: DefaultConfig(), names: topic.Unprefixed, metrics: newMetrics(prometheus.NewRegistry(), topic.Unprefixed), log: slog.New(slog.DiscardHandler), codec: event.NewCodec(), now: time.Now}
	p := s.newPartition(topic.Unprefixed.Enriched, 0)
	defer p.closeIntake()
	p.cutter = block.NewCutter(s.cfg.Shape(), 0)
	p.src.TopicID = "00112233445566778899aabbccddeeff"
	go func() { // ends with the intake
		for {
			select {
			case it := <-p.items:
				if it.rows != nil {
					it.rows.Reset()
				}
				p.spare <- it.rows
			case <-p.intake.Done():
				return
			}
		}
	}()
	records := make([]*kgo.Record, rows)
	bytes := 0
	now := time.UnixMilli(1_795_000_000_000)
	for i := range records {
		e := event.EnrichedEvent{
			AppID: "dev", Kind: event.KindTrack, Event: fmt.Sprintf("Thing %d Done", i%50), MessageID: fmt.Sprintf("node-next-%030d", i), UserID: fmt.Sprintf("user-%d", i%500),
			ActorID: fmt.Sprintf("user-%d", i%500), ActorKind: event.ActorUser, AccountID: fmt.Sprintf("account-%d", i%60), AccountSource: event.AccountFromEvent,
			FeatureID: fmt.Sprintf("feature_%d", i%50), ModuleID: fmt.Sprintf("module_%d", i%10), ProductID: "product", CatalogVersion: 3,
			EventTime: now.UnixMicro(), Timestamp: now.UnixMicro(), SentAt: now.UnixMicro(), ReceivedAt: now.UnixMicro(), Quantity: 1,
			Properties: []byte(`{"sku":"4006381333931","price":12.5,"currency":"EUR","store":"store-7","lane":3,"payment":{"method":"card","brand":"visa"},"offline":false}`),
			Context:    []byte(`{"library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"de-DE","timezone":"Europe/Berlin"}`),
			Protocol:   "segment", Library: "@segment/analytics-node/3.1.0", IP: "203.0.113.0", UserAgent: "analytics-node/3.1.0", RawOffset: int64(i),
		}
		records[i] = &kgo.Record{Topic: topic.Unprefixed.Enriched, Timestamp: now, Value: s.codec.AppendEnriched(nil, &e)}
		bytes += len(records[i].Value)
	}
	b.ReportAllocs()
	b.SetBytes(int64(bytes / rows))
	offset := int64(0)
	for b.Loop() {
		r := records[offset%rows]
		r.Offset = offset
		if err := p.take(r); err != nil {
			b.Fatal(err)
		}
		offset++
	}
}
