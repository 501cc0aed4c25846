package rollup

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// A stream of visitors of whom a share of the calls links one to a user: the
// processor time of ClickHouse and of the writer per event, merges included, with
// 0, 1 and 10 % of links. Half of what a link moves was counted in earlier
// blocks. Only ratios of one run say something on a busy machine.
func BenchmarkLinks(b *testing.B) {
	const (
		rows  = 40_000
		block = 5_000 // offsets
	)
	for _, percent := range []int{0, 1, 10} {
		b.Run(fmt.Sprintf("%d%%", percent), func(b *testing.B) {
			bn := newBench(b, func(c *Config) { c.BlockInterval, c.BlockRecords = 10*time.Second, block })
			bn.init()
			list := fullEvents(rows)
			var records []*kgo.Record
			linked := 0
			for i, e := range list {
				// Each visitor has ten events, spread over two blocks and more.
				id := "visitor-" + strconv.Itoa(i/(10*block)*block+i%(block/5))
				e.UserID, e.AnonymousID, e.ActorID, e.ActorKind, e.AccountID = "", id, id, event.ActorAnonymous, ""
				records = append(records, &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: int32(i % partitions), Value: bn.Codec.AppendEnriched(nil, e)})
				if i%100 >= percent || i < block {
					continue
				}
				linked++
				user, none, anonymous, kind := "user-"+id, "", event.ActorAnonymous, event.ActorUser
				payload, err := event.Moves{Moves: []event.Move{{
					Match: event.Attribution{ActorID: &id, ActorKind: &anonymous, AnonymousID: &id, UserID: &none}, Set: event.Attribution{ActorID: &user, ActorKind: &kind, UserID: &user},
				}}}.Payload()
				if err != nil {
					b.Fatal(err)
				}
				records = append(records, &kgo.Record{
					Topic: topic.Unprefixed.Enriched, Partition: int32(i % partitions),
					Value: bn.Codec.AppendControl(nil, &event.Control{Kind: event.ControlMove, AppID: "dev", ControlID: strconv.Itoa(i), Payload: payload}),
				})
			}
			server := embedded.ForTest(b).Pid()
			clickhouse, own, took := time.Duration(0), time.Duration(0), time.Duration(0)
			var w *writer
			for range b.N {
				bn.put(records)
				c, o, began := cpuTime(b, server), cpuTime(b, os.Getpid()), time.Now()
				w = bn.start()
				bn.Await("the rows", func() bool { return w.Metric("uptake_writer_rows_written_total") == rows })
				bn.AwaitSettled()
				took += time.Since(began)
				bn.Await("the end of merges", func() bool { return bn.Number("SELECT count() FROM system.merges") == 0 })
				clickhouse, own = clickhouse+cpuTime(b, server)-c, own+cpuTime(b, os.Getpid())-o
				w.End()
			}
			n := float64(b.N * rows)
			b.ReportMetric(float64(clickhouse.Microseconds())/n, "clickhouse-µs/row")
			b.ReportMetric(float64(own.Microseconds())/n, "writer-µs/row")
			blocks := w.Metric("uptake_writer_blocks_total", topic.Unprefixed.Enriched)
			b.ReportMetric(rows/blocks, "rows/block")
			b.ReportMetric(float64(linked)*float64(b.N)/took.Seconds(), "links/s")
			b.ReportMetric(float64(bn.Number("SELECT count() FROM corrections"))/n, "corrections/row")
		})
	}
}

// cpuTime is the processor time of a process so far.
func cpuTime(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Skip(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(after)
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		tb.Fatal(err1, err2)
	}
	const tick = 10 * time.Millisecond // USER_HZ of Linux
	return time.Duration(user+system) * tick
}
