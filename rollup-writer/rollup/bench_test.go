package rollup

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
)

// The whole writer over a log that is there already: fetch, decode, build,
// insert into ClickHouse on the same machine, commit.
func BenchmarkWriter(b *testing.B) {
	const rows = 100_000
	bn := newBench(b, func(c *Config) { c.BlockInterval = 10 * time.Second })
	bn.init()
	list := events(1, rows)
	records := make([]*kgo.Record, rows)
	bytes := 0
	for i, e := range list {
		e.MessageID = e.MessageID + "-0123456789abcdef"
		e.Properties = []byte(`{"sku":"4006381333931","price":12.5,"currency":"EUR","store":"store-7","lane":3,"payment":{"method":"card","brand":"visa"},"offline":false}`)
		e.Context = []byte(`{"library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"de-DE","timezone":"Europe/Berlin"}`)
		records[i] = &kgo.Record{Topic: topic.Enriched, Partition: partitionOf(e), Value: bn.codec.AppendEnriched(nil, e)}
		bytes += len(records[i].Value)
	}
	written := int64(0)
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		if err := bn.client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		w := bn.start()
		bn.await("the rows", func() bool { return w.metric("uptake_writer_rows_written_total") == rows })
		w.end()
		written += rows
	}
	b.ReportMetric(float64(written)/b.Elapsed().Seconds(), "rows/s")
	b.SetBytes(int64(bytes))
}
