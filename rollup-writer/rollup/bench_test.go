package rollup

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
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

// logOf is the log of a list; with counts, as the enrichers put them in, one for
// each transaction of 5,000 events.
func (b *bench) logOf(list []*event.EnrichedEvent, counted bool) (records []*kgo.Record, bytes int) {
	b.t.Helper()
	var in [partitions]int64
	for _, e := range list {
		p := partitionOf(e)
		records = append(records, &kgo.Record{Topic: topic.Enriched, Partition: p, Value: b.codec.AppendEnriched(nil, e)})
		bytes += len(records[len(records)-1].Value)
		if in[p]++; counted && in[p]%5000 == 0 {
			c := event.Counts{RawTopicID: "raw", First: in[p] - 5000, Next: in[p], Cells: []event.Cell{{AppID: e.AppID, Hour: event.HourOf(e.ReceivedAt), Accepted: 5000, Stored: 5000}}}
			payload, err := c.Payload()
			if err != nil {
				b.t.Fatal(err)
			}
			records = append(records, &kgo.Record{Topic: topic.Enriched, Partition: p, Value: b.codec.AppendControl(nil, &event.Control{Kind: event.ControlCounts, Payload: payload})})
		}
	}
	return records, bytes
}

// put writes a log.
func (b *bench) put(records []*kgo.Record) {
	b.t.Helper()
	if err := b.client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// write times a writer over rows that are in the log.
func (b *bench) write(rows int) time.Duration {
	b.t.Helper()
	began := time.Now()
	w := b.start()
	b.await("the rows", func() bool { return w.metric("uptake_writer_rows_written_total") == float64(rows) })
	took := time.Since(began)
	w.end()
	return took
}

// The whole writer over a log that is there already: fetch, decode, build,
// insert into ClickHouse on the same machine, commit.
func BenchmarkWriter(b *testing.B) {
	bn := newBench(b, func(c *Config) { c.BlockInterval = 10 * time.Second })
	bn.init()
	records, bytes := bn.logOf(fullEvents(benchRows), false)
	took := time.Duration(0)
	for range b.N {
		bn.put(records)
		took += bn.write(benchRows)
	}
	b.ReportMetric(float64(b.N*benchRows)/took.Seconds(), "rows/s")
	b.ReportMetric(float64(bytes)/benchRows, "bytes/row")
}

// What the protocol costs: the same writer over the same events with tokens,
// windows and the counts of the conservation audit, and without any of it. Each
// iteration is a pair, in turns one and the other first; figures are medians. cpu is that of ClickHouse, merges included, and of this process, which
// holds the log as well. audit is ClickHouse's and ours for one audit of all that
// was written, per event.
func BenchmarkProtocol(b *testing.B) {
	pid := embedded.ForTest(b).Pid()
	with := newBench(b, func(c *Config) { c.BlockInterval = time.Second })
	without := newBench(b, func(c *Config) { c.BlockInterval, c.unguarded = time.Second, true })
	with.init()
	without.init()
	list := fullEvents(benchRows)
	guarded, _ := with.logOf(list, true)
	bare, _ := without.logOf(list, false)
	var cpu, wall [2][]time.Duration
	run := func(i int) {
		bn, log := with, guarded
		if i == 1 {
			bn, log = without, bare
		}
		bn.put(log)
		before := cpuOf(b, pid)
		wall[i] = append(wall[i], bn.write(benchRows))
		cpu[i] = append(cpu[i], cpuOf(b, pid)-before)
	}
	run(0) // of no pair: both databases are cold
	run(1)
	clear(cpu[:])
	clear(wall[:])
	for n := range b.N {
		run(n % 2)
		run(1 - n%2)
	}
	median := func(list []time.Duration) float64 {
		slices.Sort(list)
		return float64(list[len(list)/2]+list[(len(list)-1)/2]) / 2
	}
	for i, name := range []string{"with", "without"} {
		b.ReportMetric(median(cpu[i])/1000/benchRows, name+"-cpu-µs/event")
		b.ReportMetric(benchRows/median(wall[i])*1e9, name+"-events/s")
	}
	b.ReportMetric(median(cpu[0])/median(cpu[1]), "cpu-ratio")
	b.ReportMetric(median(wall[0])/median(wall[1]), "time-ratio")
	once := audit.DefaultConfig()
	once.Settle = 0
	before := cpuOf(b, pid)
	if _, err := audit.Run(context.Background(), with.sql, once); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpuOf(b, pid)-before).Microseconds())/float64((b.N+1)*benchRows), "audit-cpu-µs/event")
}

// cpuOf is the processor time of this process and of another one.
func cpuOf(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Skip(err) // not Linux
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ticks := 0
	for _, s := range f[11:13] { // utime and stime, in ticks of 10 ms
		n, err := strconv.Atoi(s)
		if err != nil {
			tb.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks)*10*time.Millisecond + time.Duration(u.Utime.Nano()+u.Stime.Nano())
}
