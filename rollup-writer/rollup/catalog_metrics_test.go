package rollup

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// declare writes a version of an app's catalog that has these metrics.
func (b *bench) declare(number int64, metrics ...catalog.Metric) {
	b.T.Helper()
	v := &catalog.Version{
		App: "dev", Number: number, Author: "a", Reason: "r", AppliedAt: time.Date(2026, 11, 21, 12, 0, int(number), 0, time.UTC),
		Catalog: &catalog.Catalog{Name: "c", Products: []catalog.Product{{
			ID: "p", Name: "P", Status: catalog.StatusActive,
			Modules: []catalog.Module{{ID: "m", Name: "M", Status: catalog.StatusActive, Features: []catalog.Feature{
				{ID: "f", Name: "F", Kind: catalog.KindCore, Status: catalog.StatusActive, Names: []string{"E"}},
			}}},
		}}, Metrics: metrics},
	}
	value, err := v.Encode()
	if err != nil {
		b.T.Fatal(err)
	}
	if err := b.Client.ProduceSync(context.Background(), &kgo.Record{Topic: topic.Unprefixed.Catalog, Key: v.Key(), Value: value}).FirstErr(); err != nil {
		b.T.Fatal(err)
	}
}

// Reports that say a period again, come late, come twice or are written twice
// leave in each period what was said of it last, whatever the order; sums are of
// that, by the meaning that the newest catalog gives the metric.
func TestMetricReports(t *testing.T) {
	b := newBench(t)
	b.init()
	b.declare(1, catalog.Metric{ID: "orders", Name: "Orders", Names: []string{"Orders"}, Semantics: catalog.SemanticsGauge, Unit: "orders"})
	rnd := rand.New(rand.NewPCG(9, 9))
	day := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	const accounts, periods = 5, 6
	type cell struct{ account, period int }
	type word struct {
		said  event.Micros
		value int
	}
	last := map[cell]word{}
	var list []*event.EnrichedEvent
	for i := range 600 {
		c := cell{rnd.IntN(accounts), rnd.IntN(periods)}
		// No two say the same period at the same moment: who would be right?
		w := word{event.FromTime(day.AddDate(0, 0, 40)) + int64(rnd.IntN(1_000_000)*1000+i), rnd.IntN(1000)}
		if w.said > last[c].said {
			last[c] = w
		}
		start := day.AddDate(0, 0, c.period)
		account := fmt.Sprintf("acct-%d", c.account)
		e := &event.EnrichedEvent{
			AppID: "dev", Kind: event.KindMetric, Event: "Orders", MessageID: fmt.Sprintf("m-%d", i), ActorKind: event.ActorAccount,
			AccountID: account, AccountSource: event.AccountFromEvent, EventTime: w.said, ReceivedAt: w.said, Quantity: 1,
			Metric: fmt.Appendf(nil, `{"numbers":{"":%d,"twice":%d},"dimensions":"{}","period":[%d,%d]}`, w.value, 2*w.value, event.FromTime(start), event.FromTime(start.AddDate(0, 0, 1))),
		}
		list = append(list, e)
		if rnd.IntN(4) == 0 {
			list = append(list, e) // again, after its id was forgotten
		}
	}
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	values := func(list []*event.EnrichedEvent) {
		for _, e := range list {
			b.Produce(topic.Unprefixed.Enriched, topic.Partition([]byte(e.AccountID), partitions), b.Codec.AppendEnriched(nil, e))
		}
	}
	w := b.start()
	values(list[:len(list)/2])
	b.Await("the first half", func() bool { return b.Number("SELECT count() FROM events") == int64(len(list)/2) })
	w.End()
	b.Rewind() // the successor writes all of it again
	w = b.start()
	values(list[len(list)/2:])
	b.Await("all", func() bool { return b.Number("SELECT count() FROM events") == int64(len(list)) })
	b.AwaitSettled() // events is the first table of a block: metric_points comes after

	var want []string
	for c, w := range last {
		want = append(want, fmt.Sprintf("acct-%d %d %d %d", c.account, c.period+1, w.value, 2*w.value))
	}
	slices.Sort(want)
	points := b.strings(`SELECT concatWithSeparator(' ', account_id, toString(toDayOfMonth(period_start)), toString(sumIf(value, number = '')), toString(sumIf(value, number = 'twice')))
		FROM metric_points GROUP BY account_id, period_start ORDER BY 1`)
	slices.Sort(points)
	if !slices.Equal(points, want) {
		t.Errorf("points:\ngot  %q\nwant %q", points, want)
	}
	newest, total := map[int]cell{}, 0
	for c, w := range last {
		total += w.value
		if n, ok := newest[c.account]; !ok || c.period > n.period {
			newest[c.account] = c
		}
	}
	want = nil
	for _, a := range slices.Sorted(maps.Keys(newest)) {
		want = append(want, fmt.Sprintf("acct-%d gauge %d", a, last[newest[a]].value))
	}
	latest := func() []string {
		return b.strings("SELECT concatWithSeparator(' ', account_id, semantics, toString(value)) FROM account_metrics WHERE metric_id = 'orders' AND number = '' ORDER BY account_id")
	}
	b.Await("the catalog", func() bool { return slices.Equal(latest(), want) })
	month := func() []string {
		return b.strings("SELECT concatWithSeparator(' ', semantics, toString(sum(value))) FROM metric_monthly WHERE number = '' GROUP BY semantics")
	}
	gauges := 0
	for _, c := range newest {
		gauges += last[c].value
	}
	if got, want := month(), []string{fmt.Sprintf("gauge %d", gauges)}; !slices.Equal(got, want) {
		t.Errorf("as gauges: got %q, want %q", got, want)
	}
	// Somebody finds that they are deltas: all that was reported is.
	b.declare(2, catalog.Metric{ID: "orders", Name: "Orders", Names: []string{"Orders"}, Semantics: catalog.SemanticsDelta})
	b.Await("the new meaning", func() bool { return slices.Equal(month(), []string{fmt.Sprintf("delta %d", total)}) })
	w.End()
	w = b.start() // writes no version twice
	b.declare(3)
	b.Await("its removal", func() bool { return len(b.strings("SELECT 'x' FROM metric_points WHERE semantics != ''")) == 0 })
	w.End()
	if n := b.Number("SELECT count() FROM usage_hourly"); n != 0 {
		t.Errorf("%d rows of usage: what is reported is not usage", n)
	}
}
