package rollup

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

const benchRows = 100_000

// fullEvents are of the size that products send.
func fullEvents(n int) []*event.EnrichedEvent {
	list := events(1, n)
	for _, e := range list {
		e.MessageID = e.MessageID + "-0123456789abcdef"
		e.Properties = []byte(`{"sku":"4006381333931","price":12.5,"currency":"EUR","store":"store-7","lane":3,"payment":{"method":"card","brand":"visa"},"offline":false}`)
		e.Context = []byte(`{"library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"de-DE","timezone":"Europe/Berlin"}`)
	}
	return list
}

// logOf is the log of a list.
func (b *bench) logOf(list []*event.EnrichedEvent) (records []*kgo.Record, bytes int) {
	b.T.Helper()
	for _, e := range list {
		records = append(records, &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: partitionOf(e), Value: b.Codec.AppendEnriched(nil, e)})
		bytes += len(records[len(records)-1].Value)
	}
	return records, bytes
}

// put writes a log.
func (b *bench) put(records []*kgo.Record) {
	b.T.Helper()
	if err := b.Client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		b.T.Fatal(err)
	}
}

// write times a writer over rows that are in the log.
func (b *bench) write(rows int) time.Duration {
	b.T.Helper()
	began := time.Now()
	w := b.start()
	b.Await("the rows", func() bool { return w.Metric("uptake_writer_rows_written_total") == float64(rows) })
	took := time.Since(began)
	w.End()
	return took
}

// The whole writer over a log that is there already: fetch, decode, build,
// insert into ClickHouse on the same machine, commit.
func BenchmarkWriter(b *testing.B) {
	bn := newBench(b, func(c *Config) { c.BlockInterval = 10 * time.Second })
	bn.init()
	records, bytes := bn.logOf(fullEvents(benchRows))
	took := time.Duration(0)
	b.ReportAllocs()
	b.SetBytes(int64(bytes))
	for range b.N {
		bn.put(records)
		took += bn.write(benchRows)
	}
	b.ReportMetric(float64(b.N*benchRows)/took.Seconds(), "rows/s")
	b.ReportMetric(float64(bytes)/benchRows, "bytes/row")
}
