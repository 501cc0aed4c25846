package rollup

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/topic"
)

// metrics are the writer's metrics. At any time rows read = rows written + rows
// released + rows pending, for what this process read.
type metrics struct {
	records        *prometheus.CounterVec // topic, kind
	rowsRead       *prometheus.CounterVec // topic
	rowsWritten    *prometheus.CounterVec // topic
	rowsReleased   *prometheus.CounterVec // topic
	rowsPending    *prometheus.GaugeVec   // topic
	blocks         *prometheus.CounterVec // topic
	blockRows      *prometheus.HistogramVec
	insertSeconds  *prometheus.HistogramVec
	visibleSeconds *prometheus.HistogramVec
	newest         *prometheus.GaugeVec   // topic
	newestMu       sync.Mutex             // covers newestAt
	newestAt       map[string]int64       // by topic, microseconds
	retries        *prometheus.CounterVec // class
	commits        *prometheus.CounterVec // outcome
	lagRecords     *prometheus.GaugeVec   // topic, partition
	lagSeconds     *prometheus.GaugeVec   // topic, partition
	partitions     *prometheus.GaugeVec   // topic
	halted         *prometheus.GaugeVec   // topic
	paused         prometheus.Gauge
	waiting        prometheus.Gauge
	stalls         prometheus.Counter
	queueBytes     prometheus.Gauge
	ticks          *prometheus.CounterVec // topic
	corrections    prometheus.Counter
	correctedRows  prometheus.Counter
	correctionRead prometheus.Counter
	statements     prometheus.Counter
	wholeHours     prometheus.Counter
	repaired       prometheus.Counter
	setAside       *prometheus.CounterVec // topic
	verified       *prometheus.CounterVec // outcome
	skipped        *prometheus.CounterVec // topic
	apps           labels
	events         *prometheus.CounterVec // app, counter
	windowUsed     *prometheus.GaugeVec   // topic
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer, names *topic.Names) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		register(reg, c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		register(reg, g)
		return g
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"topic"})
		register(reg, h)
		return h
	}
	m := &metrics{
		newestAt:       map[string]int64{},
		visibleSeconds: histogram("uptake_writer_visible_seconds", "Time from the gateway's receipt of a block's oldest event until ClickHouse had the block.", []float64{.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600}),
		newest:         gauge("uptake_writer_newest_visible_timestamp_seconds", "Unix time at which a gateway received the newest event that this writer inserted; no value before the first.", "topic"),
		records:        counter("uptake_writer_records_total", "Records read, by kind: row, counts, tick, control, marker.", "topic", "kind"),
		rowsRead:       counter("uptake_writer_rows_read_total", "Rows added to blocks.", "topic"),
		rowsWritten:    counter("uptake_writer_rows_written_total", "Rows of blocks that ClickHouse inserted, or had inserted before.", "topic"),
		events:         counter("uptake_writer_events_total", "Events inserted, by app and by outcome in the conservation audit: stored or rejected.", "app", "counter"),
		rowsReleased:   counter("uptake_writer_rows_released_total", "Rows read but not written when their partition was revoked; the successor reads them again from the log.", "topic"),
		rowsPending:    gauge("uptake_writer_rows_pending", "Rows in blocks that are open, waiting or being inserted.", "topic"),
		blocks:         counter("uptake_writer_blocks_total", "Blocks that ClickHouse inserted, or had inserted before.", "topic"),
		blockRows:      histogram("uptake_writer_block_rows", "Rows per block.", prometheus.ExponentialBuckets(1, 4, 9)),
		insertSeconds:  histogram("uptake_writer_insert_seconds", "Duration of insert attempts that ClickHouse answered with OK.", prometheus.ExponentialBuckets(0.002, 2, 14)),
		retries:        counter("uptake_writer_retries_total", "Insert attempts that failed, by class of error.", "class"),
		commits:        counter("uptake_writer_commits_total", "Commits of a boundary, by outcome.", "outcome"),
		lagRecords:     gauge("uptake_writer_lag_records", "Offsets between the committed boundary and the end of the log.", "topic", "partition"),
		lagSeconds:     gauge("uptake_writer_lag_seconds", "Age of the oldest row that was read and is not yet written.", "topic", "partition"),
		partitions:     gauge("uptake_writer_partitions", "Partitions assigned to this writer.", "topic"),
		halted:         gauge("uptake_writer_halted_partitions", "Partitions halted by a permanent error.", "topic"),
		ticks:          counter("uptake_writer_ticks_total", "Ticks produced to close the block of an idle partition.", "topic"),
		windowUsed:     gauge("uptake_writer_window_used_ratio", "Age of the oldest open block as a fraction of the dedup window.", "topic"),
		paused:         prometheus.NewGauge(prometheus.GaugeOpts{Name: "uptake_writer_paused_partitions", Help: "Partitions whose fetching is paused because their queue is full."}),
		waiting:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "uptake_writer_waiting_seconds", Help: "How long records of an assigned partition have waited without a commit and without a known reason; 0 when none waits."}),
		stalls:         prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_stalls_total", Help: "Clients replaced because records waited without progress."}),
		queueBytes:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "uptake_writer_queue_bytes", Help: "Bytes of records that were fetched and are not yet in a block."}),
		setAside:       counter("uptake_writer_set_aside_records_total", "Records that no release can have written, kept in rejected_events with stage writer.", "topic"),
		verified:       counter("uptake_writer_verified_blocks_total", "Blocks compared with the tables after an attempt of unknown outcome: equal, repaired, or unknown.", "outcome"),
		skipped:        counter("uptake_writer_skipped_records_total", "Records of the catalog, of alerts and of notes that could not be read and were not copied.", "topic"),
		corrections:    prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_corrections_total", Help: "Control records whose moves were applied."}),
		correctedRows:  prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_corrected_rows_total", Help: "Signed rows inserted for corrections."}),
		correctionRead: prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_correction_read_rows_total", Help: "Rows of usage_hourly and events that ClickHouse read to plan corrections."}),
		statements:     prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_statements_total", Help: "Statements sent to ClickHouse: inserts of blocks, plans, corrections and counts, and queries for them."}),
		wholeHours:     prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_whole_hours_total", Help: "Rows of hours in which a link of a visitor begins or ends that stayed with the earlier link, since events does not hold all of the hour."}),
		repaired:       prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_repaired_texts_total", Help: "JSON texts that ClickHouse could not parse, which were stored as strings."}),
	}
	for _, c := range []prometheus.Collector{m.paused, m.waiting, m.stalls, m.queueBytes, m.corrections, m.correctedRows, m.correctionRead, m.statements, m.wholeHours, m.repaired} {
		register(reg, c)
	}
	for _, c := range clickhouse.Classes {
		m.retries.WithLabelValues(string(c))
	}
	for _, t := range boundary.Topics(names) {
		m.setAside.WithLabelValues(t)
	}
	for _, t := range []string{names.Catalog, names.Alerts, names.AlertState, names.Notes, names.Looks} {
		m.skipped.WithLabelValues(t)
	}
	for _, o := range []string{verifiedEqual, verifiedRepaired, verifiedUnknown} {
		m.verified.WithLabelValues(o)
	}
	for _, o := range []string{"ok", "failed"} {
		m.commits.WithLabelValues(o)
	}
	return m
}

// stored counts the rows of a block by app.
func (m *metrics) stored(table string, r rows) {
	counter := "stored"
	if table == boundary.RejectedTable {
		counter = "rejected"
	}
	r.EachApp(func(app string, n int) { m.events.WithLabelValues(m.apps.of(app), counter).Add(float64(n)) })
}

// visible notes that a block is in ClickHouse.
func (m *metrics) visible(name string, r rows, now time.Time) {
	oldest, newest := r.Received()
	if newest == 0 {
		return
	}
	m.visibleSeconds.WithLabelValues(name).Observe(max(0, float64(now.UnixMicro()-oldest)/1e6))
	m.newestMu.Lock()
	defer m.newestMu.Unlock()
	if newest > m.newestAt[name] {
		m.newestAt[name] = newest
		m.newest.WithLabelValues(name).Set(float64(newest) / 1e6)
	}
}

// perRow holds the counters that change with every row of a topic. It belongs to one
// partition, which counts for itself and adds its counts to the shared counters from
// time to time: all partitions of a topic share the counters, and cores that update
// them for every row would contend for the same cache lines.
type perRow struct {
	records, read prometheus.Counter
	pending       prometheus.Gauge

	newRecords, newRows int // not yet added to the counters
}

func (m *metrics) perRow(topic string) perRow {
	return perRow{
		records: m.records.WithLabelValues(topic, kindName(block.Content, nil)),
		read:    m.rowsRead.WithLabelValues(topic), pending: m.rowsPending.WithLabelValues(topic),
	}
}

// tell adds the counts to the shared counters: before rows are counted as written or
// released, and before the partition waits for something.
func (c *perRow) tell() {
	c.records.Add(float64(c.newRecords))
	c.read.Add(float64(c.newRows))
	c.pending.Add(float64(c.newRows))
	c.newRecords, c.newRows = 0, 0
}

// maxApps bounds the values of the label app: apps that occur only in broken records
// are counted together.
const maxApps = 1000

// labels are the apps that were counted.
type labels struct {
	mu   sync.Mutex // covers seen
	seen map[string]bool
}

// of returns the label value of an app.
func (l *labels) of(app string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[app] {
		return app
	}
	if len(l.seen) >= maxApps {
		return "other"
	}
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	l.seen[app] = true
	return app
}

func register(reg prometheus.Registerer, c prometheus.Collector) {
	if reg != nil {
		reg.MustRegister(c)
	}
}

// drop removes the gauges of a partition that this writer no longer has.
func (m *metrics) drop(topic string, partition int32) {
	p := strconv.Itoa(int(partition))
	m.lagRecords.DeleteLabelValues(topic, p)
	m.lagSeconds.DeleteLabelValues(topic, p)
}
